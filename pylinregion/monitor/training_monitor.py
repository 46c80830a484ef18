"""``Monitor``: measures of a network, taken while it trains."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from pylinregion._util import checks
from pylinregion._util.errors import PylinregionError
from pylinregion.caller.isolation import isolated
from pylinregion.caller.plain_torch import plain_torch
from pylinregion.caller.processes import ALONE, Ranks, checksum
from pylinregion.caller.wrappers import replicated, unwrap
from pylinregion.geometry.slice import Slice
from pylinregion.graph.digest import digest_of
from pylinregion.monitor.metrics import Measure, Settings, chosen_measures, local_complexity
from pylinregion.monitor.probe_points import Probe, check_probes, module_device
from pylinregion.monitor.schedule import Stopwatch, check_budget, schedule
from pylinregion.monitor.sinks import Record, Sink, check_sinks
from pylinregion.regions.enumeration import partition

_STATE = frozenset({"step", "training", "measuring", "last_cost"})


class Monitor:
    """Local complexity and other measures of a model while it trains.

    Call :meth:`step` after each step of the optimiser. It measures at the steps of a schedule that the budget affords,
    gives the record to the sinks and returns it. The model is captured once, here; records are those of the weights of
    their step. Training is not disturbed: modes, buffers, gradients, random states, autocast and compiled code are what
    they were. The monitor's state has a fixed size.

    A model in ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` may be given as it is. Where
    ``torch.distributed`` is initialised, rank 0 alone has records and writes them. The points of a model in
    ``DistributedDataParallel`` are shared out over the ranks, with the records of one process: all ranks make the
    monitor with the same arguments, and call :meth:`step` and :meth:`measure` alike. Other models are measured by rank
    0 alone, without any communication; the other ranks only count steps (and wait at their next collective operation).

    Keys of records: ``docs/monitor.md``.

    Args:
        model: The module that is trained.
        probes: By name, points ``[B, *input_shape]`` of the model's dtype, or pairs ``(x, y)`` of points and labels.
            They are moved to the model's device, and not copied if they are there.
        radius: Of the neighbourhoods; not needed without ``"local_complexity"``.
        measures: Names (``"local_complexity"``, ``"accuracy"``, ``"loss"``, ``"weight_norm"``), functions
            ``f(model, x, y) -> float | dict[str, float]``, also in ``functools.partial``, and :class:`Measure`. None:
            local complexity, and the accuracy of probes with labels.
        every: Measure at each ``every``-th step, at the steps of a collection, or ``"log"``: each step below 30, each
            10th below 150, each 100th below 1000, each 1000th below 100 000, each 10 000th below 10^6 and so on.
        budget: The share of the training time that measuring may take: a step of the schedule is left out while one
            more measurement would exceed it. None: no step is left out.
        sink: A function of a record, or a list of them; :mod:`pylinregion.sinks` has some.
        n_directions, method, seed: Of :func:`pylinregion.count_regions`; measures that draw random numbers also start
            from ``seed``, each time.
        loss: Of the measure ``"loss"``: ``f(outputs, y)``, a number.
        slices: By name, slices whose partitions to write.
        slice_every: At which steps, as ``every``, whatever the budget; their time counts neither as training nor as
            measuring.
        slice_folder: Where to: ``NAME/STEP.npz``, which :func:`pylinregion.load` reads.
        shared: Whether the ranks of ``torch.distributed`` share the points, for local complexity and accuracy, and for
            each :class:`Measure` that says so. Their parameters must be the same. None: if the model is in
            ``DistributedDataParallel``, with all ranks in its process group.
        clock: Seconds; for tests.

    Raises:
        ValueError: An argument has a wrong value, or the parameters are NaN or infinite.
        TypeError: An argument has a wrong type or dtype.
        UnsupportedModelError: The model cannot be counted without guessing; the message says why.
        PylinregionError: Points are shared, and the ranks have other arguments, or one of them ended. (:meth:`step` and
            :meth:`measure`: or they are at other steps, or their parameters differ.)

    >>> import torch, pylinregion as plr
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> monitor = plr.Monitor(model, {"random": torch.zeros(3, 4)}, 0.1, n_directions=4, every=2)
    >>> monitor.step(), list(monitor.step())
    (None, ['step', 'seconds', 'random/lc', 'random/lc/low', 'random/lc/high', 'random/lc/layer/1'])
    """

    @plain_torch()
    def __init__(
        self,
        model: nn.Module,
        probes: Mapping[str, Tensor | tuple[Tensor, Tensor]],
        radius: float | None = None,
        *,
        measures: Iterable[str | Measure | Callable[..., Any]] | None = None,
        every: int | str | Collection[int] = "log",
        budget: float | None = 0.05,
        sink: Callable[[Record], Any] | Iterable[Callable[[Record], Any]] | None = None,
        n_directions: int | None = None,
        method: str = "vertices",
        seed: int = 0,
        loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
        slices: Mapping[str, Slice] | None = None,
        slice_every: int | str | Collection[int] | None = None,
        slice_folder: str | os.PathLike[str] | None = None,
        shared: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._module = unwrap(model)
        self._probes = check_probes(probes, self._module)
        self._due = schedule("every", every)
        self._sinks = check_sinks(sink)
        self._slices = _Slices(slices, slice_every, slice_folder)
        self._stopwatch = Stopwatch(clock, check_budget(budget))
        self._seed = checks.integer("seed", seed)
        labelled = any(probe.y is not None for probe in self._probes.values())
        if measures is None:
            measures = ["local_complexity", "accuracy"] if labelled else ["local_complexity"]
        counting: dict[str, Any] = {"radius": radius, "n_directions": n_directions, "method": method, "seed": seed}
        measures = list(measures) if isinstance(measures, Iterable) and not isinstance(measures, str) else measures
        checks.optional_switch("shared", shared)
        self._ranks = Ranks.beside_training() if (replicated(model) if shared is None else shared) else ALONE
        self._measures = chosen_measures(measures, Settings(counting, loss, self._ranks))
        if needy := [measure.name for measure in self._measures if measure.of == "labels" and not labelled]:
            raise ValueError(f"the measure {needy[0]!r} needs probes (x, y) with labels, got none")
        self._steps = 0
        if "local_complexity" in measures:
            if radius is None:
                raise ValueError("radius must be a number for the measure 'local_complexity', got None")
            for probe in self._probes.values():  # captured now: that takes a second, and is no part of a measurement
                local_complexity(self._module, probe.x[:1], None, **counting)
        names = [(measure.name, measure.of, measure.shared) for measure in self._measures]
        at = every if isinstance(every, str) or not isinstance(every, Collection) else sorted(every)
        _check_same_arguments(self._ranks, self._probes, counting=counting, measures=names, every=at, budget=budget)

    def __deepcopy__(self, memo: dict[int, Any]) -> Monitor:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Monitor watches a live model: pickle its state_dict(), and make a monitor for it anew")

    @property
    def steps(self) -> int:
        """Steps of the optimiser so far."""
        return self._steps

    @property
    def share(self) -> float:
        """The time spent measuring over the time spent training, so far; 0 before the first step."""
        training = self._stopwatch.training
        return self._stopwatch.measuring / training if training > 0 else 0.0

    def step(self) -> dict[str, float] | None:
        """Count a step of the optimiser, and measure if it is time to.

        Returns:
            The record, or None if nothing was measured.
        """
        self._steps += 1
        self._stopwatch.start()
        if self._slices.due(self._steps) and _is_first():
            self._wait()
            with plain_torch(), self._stopwatch.left_out(), isolated(self._module, seed=self._seed):
                self._slices.write(self._module, self._steps)
        if not self._measures_here() or not self._due(self._steps) or not self._affords():
            return None
        return self.measure()

    @plain_torch()
    def measure(self) -> dict[str, float] | None:
        """Measure now, whatever schedule and budget say: before the first step, say, or after the last.

        Returns:
            The record, which the sinks have been given too; None on other ranks than 0.
        """
        if not self._measures_here():
            return None
        self._wait()
        seconds = self._stopwatch.training
        with self._stopwatch.measured():
            with isolated(self._module, seed=self._seed):
                self._meet()
                values = self._values()
            if not _is_first():
                return None
            record = {"step": self._steps, "seconds": seconds, **values}
            for sink in self._sinks:
                sink(record)
        return record

    def state_dict(self) -> dict[str, float]:
        """The steps and seconds so far, plain numbers, for a checkpoint of the training."""
        return {"step": self._steps, **self._stopwatch.state_dict()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint: the sinks forget the records past it, and the budget goes on from its seconds.

        Raises:
            ValueError: It is no state of a monitor.
        """
        if not isinstance(state, Mapping) or set(state) != _STATE:
            found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must be a monitor's, with {sorted(_STATE)}, got {found}")
        self._steps = int(state["step"])
        self._stopwatch.load_state_dict(state)
        self._stopwatch.start()
        if _is_first():
            for sink in self._sinks:
                if isinstance(sink, Sink):
                    sink.rewind(self._steps)

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            if isinstance(sink, Sink):
                sink.close()

    def _measures_here(self) -> bool:
        """Whether this process has a part in measuring."""
        return self._ranks.world > 1 or _is_first()

    def _affords(self) -> bool:
        """Whether the budget allows to measure, by the clock of the first rank."""
        affords = self._stopwatch.affords()
        return affords if self._stopwatch.budget is None else bool(self._ranks.agreed(affords))

    def _meet(self) -> None:
        """See to it that all ranks that share points look at one model: buffers are those of the first meanwhile.

        ``DistributedDataParallel`` keeps parameters equal, but each rank has batch statistics of its own after a step.
        """
        if self._ranks.world == 1:
            return
        buffers = [buffer for buffer in self._module.buffers() if not buffer.is_inference()]
        fixed = [buffer for buffer in self._module.buffers() if buffer.is_inference()]
        found = self._ranks.gathered(self._steps, checksum([*self._module.parameters(), *fixed]))
        for rank, (steps, weights) in enumerate(found):
            if steps != found[0][0]:
                raise PylinregionError(
                    f"the ranks must be at one step to share points, got {found[0][0]} on rank 0 and {steps} on {rank}"
                )
            if weights != found[0][1]:
                raise PylinregionError(
                    f"the ranks must have the same parameters to share points, but those of rank {rank} differ from "
                    f"those of rank 0 at step {steps}: shared=False measures on rank 0 alone"
                )
        self._ranks.take_from_first(buffers)

    def _wait(self) -> None:
        """Let a GPU finish what training has given it: that is not measuring."""
        if (device := module_device(self._module)).type == "cuda":
            torch.cuda.synchronize(device)

    def _values(self) -> dict[str, float]:
        """The record's values, in the order of probes and measures.

        What rank 0 does alone comes last: an error of it leaves no other rank in the middle of an exchange.
        """
        jobs = [("", measure) for measure in self._measures if measure.of == "model"]
        for name, probe in self._probes.items():
            kinds = ("points",) if probe.y is None else ("points", "labels")
            jobs += [(name, measure) for measure in self._measures if measure.of in kinds]
        found: dict[int, dict[str, float]] = {}
        for shared in (True, False) if _is_first() else (True,):
            for place, (name, measure) in enumerate(jobs):
                if measure.shared == shared:
                    found[place] = self._value(measure, name)
        return {key: value for place in sorted(found) for key, value in found[place].items()}

    def _value(self, measure: Measure, name: str) -> dict[str, float]:
        """The values of a measure of the model, or of a probe."""
        if measure.of == "model":
            return measure.values(self._module)
        probe = self._probes[name]
        x, y = probe.on(module_device(self._module))
        before = probe.versions
        values = measure.values(self._module, x, y)
        if probe.versions != before:
            raise ValueError(f"the measure {measure.name!r} changed the points of probe {name!r} in place")
        return {f"{name}/{key}": value for key, value in values.items()}


class _Slices:
    """Partitions of chosen slices at chosen steps, in a folder."""

    def __init__(self, slices: Any, every: Any, folder: Any) -> None:
        given = [value is not None for value in (slices, every, folder)]
        if any(given) and not all(given):
            raise ValueError("slices, slice_every and slice_folder must be given together")
        self._slices: dict[str, Slice] = dict(slices or {})
        for name, slice_ in self._slices.items():
            if not isinstance(name, str) or not name or Path(name).name != name:
                raise ValueError(f"slices must have names that can be a folder's, got {name!r}")
            if not isinstance(slice_, Slice):
                raise TypeError(f"slices[{name!r}] must be a pylinregion.Slice, got {type(slice_).__name__}")
        self.due = schedule("slice_every", every) if self._slices else lambda step: False
        self._folder = Path(folder or ".")

    def write(self, module: nn.Module, step: int) -> None:
        """Write the partitions of a step; a file is there as a whole or not at all."""
        for name, slice_ in self._slices.items():
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True)
            partition(module, slice_).save(folder / f"{step:09d}.npz")


def _is_first() -> bool:
    """Whether this process is the only one, or rank 0."""
    return Ranks.current().rank == 0


def _check_same_arguments(ranks: Ranks, probes: Mapping[str, Probe], **settings: Any) -> None:
    """Compare what decides a record, and at which steps ranks meet; it must be the same on all of them."""
    if ranks.world == 1:
        return
    tensors = [part for name, probe in probes.items() for part in (name, probe.x, probe.y) if part is not None]
    digests = {"probes": digest_of(*tensors)} | {name: digest_of(repr(value)) for name, value in settings.items()}
    found = ranks.gathered(*(int(digest[:15], 16) for digest in digests.values()))
    for rank, numbers in enumerate(found):
        differing = [name for name, one, own in zip(digests, found[0], numbers, strict=True) if one != own]
        if differing:
            raise PylinregionError(
                f"all ranks must make the monitor with the same arguments to share points, but {', '.join(differing)} "
                f"of rank {rank} differ from those of rank 0"
            )
