"""Walks of warps on threads: what the CPU's engine does not have, such as too little memory. Run by .ci/warps.

Each count is compared with the CPU's by the plugin on_warps.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import numpy as np
import on_warps
import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.networks import NETWORK_KINDS, random_network
from pylinregion.counting import exact_count
from pylinregion.exact.device_check import problem_of
from pylinregion.exact.many_slices import ManySlices
from pylinregion.exact.slice_engine import engine_of
from pylinregion.exact.slice_systems import Slices
from pylinregion.exact.slice_walks import How, SliceWalks
from pylinregion.exact.walk_device import WalkDevice
from pylinregion.exact.walks_on_threads import SharedReport
from pylinregion.lowering.lower import stages_of
from pylinregion.regions import enumeration, many_partitions, trace

BOX = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def model_of(weights, biases):
    layers = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0]).double()
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight)), linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers)


def of_counts(slices):
    return {"counts, slices": slices, "counts, calls": 1}


def counted(model, inputs, slices=12, radius=1.0, seed=0, **how):
    """Squares around random inputs; what was counted, and what warps did of it."""
    rng = np.random.default_rng(seed)
    network = ManySlices(stages_of(plr.capture(model, torch.zeros(1, inputs, dtype=torch.float64))))
    u, v = rng.standard_normal((2, slices, inputs))
    where = Slices(u, v, rng.standard_normal((slices, inputs)), np.repeat(radius * BOX[None], slices, axis=0))
    before = on_warps.COUNTED.copy()
    found = network.count(where, **how)
    return found, on_warps.COUNTED - before


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_every_kind_of_network(kind):
    shape = (3, 9, 8, 7, 2)
    found, by_warps = counted(model_of(*random_network(kind, shape, 0)), 3, seed=1)
    assert by_warps == of_counts(12)
    assert found.regions[:, -1].max() > 1 or kind == "dead"


def test_nothing_is_left_to_the_cpu_of_a_generic_network():
    found, by_warps = counted(model_of(*random_network("generic", (4, 60, 60, 60, 3), 1)), 4, slices=4, radius=0.3)
    assert by_warps == of_counts(4)
    assert found.decisions[:, 3].sum() > 0  # folds


def test_walks_that_need_more_memory_get_it(monkeypatch):
    """The first warps have little: fewer have more."""
    model = model_of(*random_network("generic", (4, 30, 30, 30, 3), 2))
    monkeypatch.setenv("DEVICE_MEMORY_ON_THREADS", str(600 << 10))  # 37 KB for each of 8 warps
    _, by_warps = counted(model, 4, slices=16, radius=0.1)
    assert by_warps == of_counts(16)


def test_walks_that_no_warp_has_memory_for_are_left_to_the_cpu(monkeypatch):
    model = model_of(*random_network("generic", (2, 60, 60, 3), 3))
    monkeypatch.setenv("DEVICE_MEMORY_ON_THREADS", str(150 << 10))
    _, by_warps = counted(model, 2, slices=2, radius=0.2)
    assert by_warps["counts, slices"] == 2
    assert by_warps["counts, left"] > 0


def test_a_device_without_memory_says_so(monkeypatch):
    monkeypatch.setenv("DEVICE_MEMORY_ON_THREADS", "1000")
    with pytest.raises(RuntimeError, match="cudaMalloc"):
        counted(model_of(*random_network("generic", (2, 5, 2), 4)), 2, radius=0.1)


def test_cells_wait_for_integers_and_others_go_on():
    """Tied and other slices: all decisions are those of the CPU, and nothing is left to it."""
    weights, biases = random_network("small_int", (2, 6, 6, 2), 7)
    network = ManySlices(stages_of(plr.capture(model_of(weights, biases), torch.zeros(1, 2, dtype=torch.float64))))
    rng = np.random.default_rng(0)
    tied, others = np.zeros((20, 2)), rng.standard_normal((20, 2))
    plane = np.repeat(np.eye(2)[:, None], 40, axis=1)
    before = on_warps.COUNTED.copy()
    found = network.count(Slices(*plane, np.concatenate([tied, others]), np.repeat(BOX[None], 40, axis=0)))
    assert on_warps.COUNTED - before == of_counts(40)
    assert found.decisions[:, 2].sum() > 100  # zeros


def test_bounds_by_norms_of_deep_networks():
    """As the CPU's: a slice of its own, along whose borders pieces are counted, too."""
    weights, biases = random_network("generic", (3, *[12] * 24, 2), 8)
    walks = SliceWalks(stages_of(plr.capture(model_of(weights, biases), torch.zeros(1, 3, dtype=torch.float64))))
    rng = np.random.default_rng(0)
    where = Slices(*rng.standard_normal((2, 1, 3)), rng.standard_normal((1, 3)), BOX[None])
    how = How(1, False, -1, None, SharedReport(None))
    before = on_warps.COUNTED.copy()
    found = walks.count(walks.folder.fold(where), where, how, pieces=True)
    assert found["regions"][0, -1] > 1
    assert on_warps.COUNTED - before == of_counts(1)


def test_slices_with_too_many_regions_stop_the_count():
    found, _ = counted(model_of(*random_network("generic", (2, 12, 12, 2), 5)), 2, max_regions=30)
    assert found.stopped_at >= 0


def test_no_slices_and_no_lines():
    model = model_of(*random_network("dead", (2, 3, 2), 6))
    assert len(counted(model, 2, slices=0)[0].regions) == 0
    found, _ = counted(model, 2, radius=1e-9)
    assert (found.regions == 1).all()


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_cells_of_every_kind(kind):
    """Of a system of all lines, and of a fold; and where integers say where corners are."""
    model = model_of(*random_network(kind, (2, 9, 8, 2), 0))
    slice_ = plr.Slice.box(-2, 2)
    before = on_warps.COUNTED.copy()
    dense = plr.partition(model, slice_)
    (folded,) = plr.partitions(model, [slice_])
    assert on_warps.COUNTED - before == {"cells, slices": 2, "cells, calls": 2}
    assert dense.n_regions == folded.n_regions


@pytest.mark.parametrize("kind", NETWORK_KINDS)
def test_segments_of_every_kind(kind):
    model = model_of(*random_network(kind, (3, 9, 8, 2), 0))
    ends = np.random.default_rng(0).standard_normal((2, 6, 3))
    where = Slices(ends[1] - ends[0], np.zeros((6, 3)), ends[0], np.repeat([[[0.0, 0.0], [1.0, 0.0]]], 6, axis=0))
    network = ManySlices(stages_of(plr.capture(model, torch.zeros(1, 3, dtype=torch.float64))))
    before = on_warps.COUNTED.copy()
    for part, systems in network.folded(where, None):
        network.trace(systems, part, threads=1, force_exact=False, report=None)
    counted = on_warps.COUNTED - before
    assert (counted["segments, slices"], counted["segments, calls"]) == (6, 1)


def test_cells_that_do_not_fit_into_what_is_held_at_once_are_walked_again(monkeypatch):
    """They are found by shorter walks, and are the same."""
    monkeypatch.setenv("DEVICE_MEMORY_ON_THREADS", str(1 << 20))
    before = on_warps.COUNTED.copy()
    found = plr.partition(model_of(*random_network("generic", (2, 20, 20, 2), 1)), plr.Slice.box(-2, 2))
    assert found.n_regions > 200
    assert on_warps.COUNTED - before == {"cells, slices": 1, "cells, calls": 1}


def test_cells_that_take_too_much_are_refused_as_by_the_cpu():
    model = model_of(*random_network("generic", (2, 20, 20, 2), 1))
    with pytest.raises(plr.BudgetExceededError):
        plr.partition(model, plr.Slice.box(-2, 2), memory_budget=20_000)


@pytest.mark.parametrize("cells", [False, True])
def test_maxima(cells):
    """Pools, of which some candidates were rectified: by lines that are walked, or are settled."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 1), nn.ReLU()]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4, 3)).double()
    slice_ = plr.Slice.around(torch.rand(1, 10, 10, dtype=torch.float64), 3.0)
    before = on_warps.COUNTED.copy()
    found = plr.partition(model, slice_, cells=cells)
    name = "cells" if cells else "one slice"
    assert found.n_regions > 50
    assert on_warps.COUNTED - before == {f"{name}, slices": 1, f"{name}, calls": 1}


THREADS = WalkDevice("threads", contextlib.nullcontext)


def test_a_device_agrees_with_the_cpu():
    assert problem_of(THREADS) is None


def test_a_device_is_asked_for_counts_cells_and_segments(monkeypatch):
    """By those whom users call; what is found is the CPU's."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(16, 3)).double()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    slice_ = plr.Slice.around(x[0], 1.0)

    def found():
        part = plr.partition(model, slice_)
        count = plr.partition(model, slice_, cells=False)
        return (
            [part.n_regions, part.certificate, part.vertices, part.areas()],
            [count.n_regions, count.certificate],
            list(vars(plr.count_regions(model, x, 0.3, method="slice")).values())[:2],
            [plr.trace(model, x[:1], x[1:2]).t],
        )

    called = Counter()

    def on_threads(device, of_model):
        return THREADS

    by_cpu = found()
    call = WalkDevice.call
    monkeypatch.setattr(
        WalkDevice, "call", lambda self, core, *a, **k: (called.update([core.__name__]), call(self, core, *a, **k))[1]
    )
    for place in (enumeration, many_partitions, trace, exact_count):
        monkeypatch.setattr(place, "walks_on", on_threads)
    for one, other in zip(by_cpu, found(), strict=True):
        for cpu, threads in zip(one, other, strict=True):
            assert np.array_equal(cpu, threads)
    assert set(called) == {"count", "enumerate", "trace"}


def test_an_interrupt_ends_walks():
    """As soon as it is heard: between two launches here, for threads stand for the device."""
    model = model_of(*random_network("generic", (2, 300, 300, 2), 1))

    def stop(regions):
        raise KeyboardInterrupt

    engine = engine_of(
        stages_of(plr.capture(model, torch.zeros(1, 2, dtype=torch.float64))), np.eye(2, 3), BOX, device=THREADS
    )
    with pytest.raises(KeyboardInterrupt):
        engine.enumerate(cells=False, report=stop)


def test_cells_of_walks_that_are_walked_again_are_there_once(monkeypatch):
    """Of many walks, some have written much when there is no more room for what they find."""
    torch.manual_seed(0)
    monkeypatch.setattr(on_warps, "_REGIONS", 4000)
    monkeypatch.setenv("DEVICE_MEMORY_ON_THREADS", str(3 << 20))
    model = nn.Sequential(nn.Linear(2, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)).double()
    before = on_warps.COUNTED.copy()
    assert plr.partition(model, plr.Slice.box(-8, 8)).n_regions == 3035
    assert on_warps.COUNTED - before == {"cells, slices": 1, "cells, calls": 1}
