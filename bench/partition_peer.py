"""A checkout of edge subdivision (Berzins, ICML 2023), run as it is, beside ours: ``bench/partitions.py --peer PATH``.

https://github.com/arturs-berzins/relu_edge_subdivision, without a licence: it is run from your checkout, nothing of
it is here. It takes networks of Linear and ReLU on a square, in float32.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pylinregion.lowering.stages import Stages

FILES = ("edge_subdivision.py", "NN.py", "utils.py")


def edge_subdivision(folder: Path, stages: Stages, plane: np.ndarray, corners: np.ndarray) -> dict[str, Any]:
    """Count the regions of a chain of hidden layers.

    Args:
        folder: The checkout.
        stages: The network; its output is left out, for the peer would cut along its zeros, too.
        plane: ``[inputs, 3]``: u, v and the origin.
        corners: ``[4, 2]``: a square with the same range on both axes.

    Returns:
        ``regions`` and ``seconds`` (CPU time); or ``error``: networks with ties are more than it is made for.
    """
    sys.path.insert(0, str(folder))
    try:
        peer, networks = (_module(folder, name) for name in ("edge_subdivision", "NN"))
    finally:
        sys.path.remove(str(folder))
    hidden = stages.stages[:-1]
    net = networks.Net([2, *(stage.rows for stage in hidden)])
    with torch.no_grad():
        for number, (layer, stage) in enumerate(zip(net.fcs, hidden, strict=True)):
            ((_, weight),) = stage.matrices.items()
            bias = stage.bias
            if number == 0:
                weight, bias = weight @ plane[:, :2], weight @ plane[:, 2] + bias
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))
    box = float(corners.min()), float(corners.max())
    start = time.process_time()
    try:
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # it warns of ties for each neuron
            vertices, edges, _ = peer.skeletal_subdivision(net, bbox=box, device=torch.device("cpu"), verbose=False)
    except Exception as error:  # whatever it raises goes into the table
        return failure(error)
    seconds = time.process_time() - start
    return {"regions": 1 + len(edges) - len(vertices), "seconds": seconds}  # Euler: V - E + F = 1


def failure(error: Exception) -> dict[str, Any]:
    """What the table says instead of a time: the kind of error, and the last line of what it says."""
    lines = str(error).strip().splitlines()
    return {"error": ": ".join([type(error).__name__, *lines[-1:]])}


def _module(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
