"""A checkout of SplineCam (Humayun et al., CVPR 2023), run as it is, beside ours: ``bench/partitions.py --peer PATH``.

https://github.com/AhmedImtiazPrio/splinecam (MIT): it is run from your checkout, nothing of it is here. It needs
igraph, networkx and graph-tool. Where graph-tool is not installed, `graph_tool_stand_in.py` takes its place: the time
is then not that of graph-tool's C++. What share of it went into the stand-in is sampled, and stands beside it.

Layer follows layer as in its ``get_partitions_with_db``, but on the CPU and in float64: that function wants CUDA and
keeps the maps of the regions in float32. It is of the time of torch 1.12; newer torch refuses to script four of its
functions, none of them used here, and they stay Python. Its ``__init__.py`` is not run: that imports its models and
pictures, and so torchvision and matplotlib.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any
from unittest import mock

import graph_tool_stand_in
import harness
import numpy as np
import torch
from partition_peer import failure
from torch import nn

from pylinregion.lowering.stages import Stages

FILES = tuple(f"splinecam/{name}.py" for name in ("graph", "utils", "wrappers"))
SECONDS = 120
Layers = list[tuple[np.ndarray, np.ndarray]]


def splinecam(folder: Path, stages: Stages, plane: np.ndarray, corners: np.ndarray) -> dict[str, Any]:
    """Count the regions of a chain of hidden ReLU layers, in a process of its own for at most two minutes of CPU time.

    Args:
        folder: The checkout.
        stages: The network; its output is left out.
        plane: ``[inputs, 3]``: u, v and the origin.
        corners: ``[n, 2]``: a convex polygon.

    Returns:
        ``regions``, ``regions_per_layer``, ``seconds`` (CPU time, without imports) and ``stand_in_share``, the part of
        them that went into the stand-in (None: graph-tool itself ran); or ``error``.
    """
    layers = [(*stage.matrices.values(), stage.bias) for stage in stages.stages[:-1]]
    context = multiprocessing.get_context("spawn")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, SECONDS, folder, layers, plane, corners))
    process.start()
    sender.close()  # so that its end is noticed here
    try:
        found: dict[str, Any] = answers.recv()
    except EOFError:
        process.join()
        late = process.exitcode == -signal.SIGXCPU
        found = {"error": f"more than {SECONDS} s" if late else f"its process died ({process.exitcode})"}
    process.join()
    answers.close()
    return found


def _answer(sender: Connection, seconds: int, *question: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the next limit would leave a file
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    harness.one_thread()
    silence = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            warnings.simplefilter("ignore")
            found = _count(*question)
    except Exception as error:  # whatever it raises goes into the table
        found = failure(error)
    sender.send(found)


def _count(folder: Path, layers: Layers, plane: np.ndarray, corners: np.ndarray) -> dict[str, Any]:
    stand_in = importlib.util.find_spec("graph_tool") is None
    if stand_in:
        sys.modules["graph_tool"] = graph_tool_stand_in
    graph, utils, wrappers = _modules(folder)
    model = nn.Sequential()
    for weight, bias in layers:
        linear = nn.Linear(*weight.shape[::-1], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        model.extend([linear, nn.ReLU()])
    with torch.no_grad(), cpu_time_in(graph_tool_stand_in.__file__) as spent:
        start = time.process_time()
        network = wrappers.model_wrapper(model.eval(), T=torch.from_numpy(plane), device="cpu", dtype=torch.float64)
        cells, maps = [torch.from_numpy(corners)], network.layers[0].get_weights()[None]
        counts = []
        for number in range(1, len(network.layers)):
            layer = network.layers[number]
            cells, parents = graph.to_next_layer_partition(cells, maps, number, network, device="cpu")
            counts.append(len(cells))
            means = utils.get_region_means(cells, dims=2, device="cpu")
            on = layer.get_activation_pattern(network.layers[:number].forward(means))
            maps = utils.get_Abw(on, layer.get_weights(), maps[torch.as_tensor(parents)])
        seconds = time.process_time() - start
    share = spent() / seconds if stand_in else None
    return {"regions": counts[-1], "regions_per_layer": counts, "seconds": seconds, "stand_in_share": share}


def _modules(folder: Path) -> list[ModuleType]:
    """Its modules of ``FILES``, in that order."""
    package = ModuleType("splinecam")
    package.__path__ = [str(folder / "splinecam")]
    sys.modules["splinecam"] = package
    compiled = torch.jit.script

    def script(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return compiled(function)  # type: ignore[no-any-return]
        except RuntimeError:
            return function

    with mock.patch.object(torch.jit, "script", script):
        return [importlib.import_module(file.removesuffix(".py").replace("/", ".")) for file in FILES]


@contextlib.contextmanager
def cpu_time_in(file: str | None) -> Iterator[Callable[[], float]]:
    """Sample each few milliseconds whether a function of a file is running, itself or by what it calls.

    A sample stands for the CPU time since the one before: signals that come during one long call are one sample.
    """
    spent, last = 0.0, time.process_time()

    def sample(_: int, frame: FrameType | None) -> None:
        nonlocal spent, last
        now = time.process_time()
        while frame is not None and frame.f_code.co_filename != file:
            frame = frame.f_back
        if frame is not None:
            spent += now - last
        last = now

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.004, 0.004)
    try:
        yield lambda: spent
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
