"""The slice engine stops when it is told to, takes little memory, and does not take numbers that it cannot prove."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cases import processes
from cases.engine import IDENTITY_PLANE, Case, box, check_case, generic, perceptron, plane_of, slow, stage
from cases.networks import SLICE_KINDS, random_network, random_slice
from cases.parts import SCALE, some
from pylinregion._util.errors import BudgetExceededError, UnsupportedModelError
from pylinregion.exact import fold_room
from pylinregion.exact.line_system import check_scale
from pylinregion.exact.segment_engine import Tracer
from pylinregion.exact.slice_engine import Engine
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.linear_maps import Dense
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import Units

SLOW_MACHINE = 10 if "libasan" in os.environ.get("LD_PRELOAD", "") else 1  # how much longer things may take

# ---- limits and interruptions


def test_limits_stop_the_engine():
    engine = Engine(generic((2, 40, 40, 40, 1), gain=1.3), IDENTITY_PLANE, box(-2, 2))
    total = engine.enumerate(cells=False).regions[-1]
    assert total > 3000
    for cells in (False, True):
        for threads in (1, 2):
            stopped = engine.enumerate(cells=cells, threads=threads, max_regions=10)
            assert stopped.stopped and 10 < stopped.regions[-1] < total
            exactly = engine.enumerate(cells=cells, threads=threads, max_regions=total)
            assert not exactly.stopped and exactly.regions[-1] == total
            assert engine.enumerate(cells=cells, threads=threads, max_regions=total - 1).stopped
    stopped = engine.enumerate(cells=True, max_bytes=1000)
    assert stopped.stopped and stopped.regions[-1] < total
    assert not engine.enumerate(cells=True, max_bytes=10**8).stopped
    assert not engine.enumerate(cells=False, max_bytes=0).stopped  # nothing is kept


def test_limits_stop_the_engine_within_a_layer():
    engine = Engine(generic((2, 400, 1)), IDENTITY_PLANE, box(-3, 3))
    total = engine.enumerate(cells=False).regions[-1]
    assert engine.enumerate(cells=False, max_regions=1000).regions[-1] < total / 2


def test_progress_is_reported_and_errors_of_it_come_through():
    class Enough(Exception):
        pass

    engine = slow()
    for threads in (1, 2):
        seen = []

        def report(regions, seen=seen):
            seen.append(regions)
            if regions > 0 or len(seen) > 1000:
                raise Enough

        with pytest.raises(Enough):
            engine.enumerate(cells=threads == 1, threads=threads, force_exact=True, report=report)
        assert seen[-1] > 0 and not any(seen[:-1])  # and nothing after the error
    small = Engine(generic((2, 5, 1)), IDENTITY_PLANE, box(-1, 1))
    assert small.enumerate(cells=True, report=lambda regions: None).regions


def run_python(text, tmp_path):
    """In a fresh process, whose memory nobody has used."""
    command = [sys.executable, "-c", textwrap.dedent(text)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


INTERRUPTED = """
    import os, signal, threading, time
    from cases.engine import IDENTITY_PLANE, box, generic, slow
    from pylinregion.exact.slice_engine import Engine
    engine = {engine}
    sent, begun = [], threading.Event()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    def interrupt():
        begun.wait()
        sent.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    def report(regions):
        begun.set()
    try:
        engine.enumerate(cells={cells}, threads={threads}, force_exact={exact}, report=report)
        print("finished")
    except KeyboardInterrupt:
        print((time.process_time() - sent[0]) / {threads})
"""


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize("cells, threads", [(False, 1), (True, 1), (True, 2)])
def test_an_interrupt_is_heard_within_a_second(cells, threads, tmp_path):
    text = textwrap.dedent(INTERRUPTED.format(engine="slow()", cells=cells, threads=threads, exact=True))
    ran = processes.Started(text, cwd=tmp_path).ended(60 * SLOW_MACHINE)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 1.0 * SLOW_MACHINE


@pytest.mark.turns(2)
def test_an_interrupt_is_heard_within_a_second_within_a_wide_layer(tmp_path):
    engine = "Engine(generic((2, 5000, 60, 1)), IDENTITY_PLANE, box(-3, 3))"
    text = textwrap.dedent(INTERRUPTED.format(engine=engine, cells=False, threads=1, exact=False))
    ran = processes.Started(text, cwd=tmp_path).ended(60 * SLOW_MACHINE)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 1.0 * SLOW_MACHINE


PARALLEL = """
    import numpy as np
    from cases.engine import IDENTITY_PLANE, lines
    from pylinregion.exact.slice_engine import Engine
    from cases.memory import peak_megabytes
    count = {count}
    rows = [(1, 0, -(k // {copies} + 0.5)) for k in range(count)]
    corners = np.array([[0.0, 0.0], [count, 0.0], [count, 1.0], [0.0, 1.0]])
    engine = Engine(lines(*rows), IDENTITY_PLANE, corners)
    before = peak_megabytes()
    assert engine.enumerate(cells={cells}).regions == [count // {copies} + 1]
    print(peak_megabytes() - before)
"""


@pytest.mark.turns(2)
@needs_proc
def test_memory_of_thousands_of_parallel_lines(tmp_path):
    """A walk as deep as there are lines, in little memory."""
    for cells in some((False, True), 2, "parallel lines"):
        ran = run_python(PARALLEL.format(count=8_000, copies=1, cells=cells), tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert int(ran.stdout) < 100


ONE_LAYER = """
    from cases.engine import IDENTITY_PLANE, box, generic
    from pylinregion.exact.slice_engine import Engine
    from cases.memory import peak_megabytes
    engine = Engine(generic((2, 700, 1)), IDENTITY_PLANE, box(-3, 3))
    before = peak_megabytes()
    engine.enumerate(cells=False, threads={threads})
    print(peak_megabytes() - before)
"""


@pytest.mark.turns(2)
@needs_proc
def test_threads_take_no_memory_for_a_single_layer(tmp_path):
    ran = run_python(ONE_LAYER.format(threads=2), tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 16


# ---- numbers of extreme scale: exact, or a clear refusal


def scaled_case(rng, mode):
    """A small network with its numbers moved to extreme scales; mode says which."""
    shape = ((2, 4, 1), (2, 3, 3, 1), (2, 3, 2, 3, 2, 1))[rng.integers(3)]
    kind = ("generic", "small_int", "duplicated", "grid")[rng.integers(4)]
    seed = int(rng.integers(1000))
    weights, biases = random_network(kind, shape, seed)
    *slice_, corners = random_slice(SLICE_KINDS[rng.integers(5)], 2, seed)
    plane = plane_of(*slice_)

    def power(least, most, size=None):
        return 2.0 ** rng.integers(least, most, size)

    if mode == "plane":
        plane = plane * power(-1000, 200)
    elif mode == "corners":
        corners = corners * power(-1000, 400)
    elif mode == "opposite":
        factor = power(-300, 300)
        plane, corners = plane * [factor, factor, 1.0], corners / factor
    elif mode == "layers":
        weights, biases = [w * power(-900, 150) for w in weights], [b * power(-900, 150) for b in biases]
    elif mode == "rows":
        factors = [power(-900, 120, len(b)) for b in biases]
        weights = [w * f[:, None] for w, f in zip(weights, factors, strict=True)]
        biases = [b * f for b, f in zip(biases, factors, strict=True)]
    elif mode == "entries":
        weights = [w * power(-300, 70, w.shape) for w in weights]
        biases = [b * power(-300, 70, b.shape) for b in biases]
    elif mode == "subnormal":
        weights[0] = np.ldexp(rng.integers(-9, 10, weights[0].shape).astype(float), -1074)
        biases[0] = np.ldexp(rng.integers(-9, 10, biases[0].shape).astype(float), -1074)
    elif mode == "huge biases":
        biases = [b * power(0, 140) for b in biases]
    activation = ("relu", "relu", "abs", "leaky_relu 0.01", "hardtanh")[rng.integers(5)]
    return Case(perceptron(weights, biases, activation), plane, corners)


@pytest.mark.part(2)
@pytest.mark.parametrize(
    "mode", ["plane", "corners", "opposite", "layers", "rows", "entries", "subnormal", "huge biases"]
)
def test_extreme_scales_are_exact_or_refused(mode):
    rng = np.random.default_rng(7)
    done = 0
    for _ in range(16 * SCALE):
        try:
            check_case(scaled_case(rng, mode), coordinates=False)
            done += 1
        except UnsupportedModelError as error:
            assert "exact methods do not cover weights of this scale" in str(error)
    assert done >= 4


@pytest.mark.parametrize("factor", [1e300, 1e200, 1e140])
def test_weights_beyond_all_bounds_are_refused(factor):
    weights, biases = random_network("generic", (2, 4, 3, 1), 0)
    for network in (
        ([weights[0] * factor, *weights[1:]], biases),
        (weights, [biases[0], biases[1] * factor, biases[2]]),
        ([weights[0], weights[1] * factor, weights[2]], biases),
    ):
        with pytest.raises(UnsupportedModelError, match="weights of this scale"):
            Engine(perceptron(*network), IDENTITY_PLANE, box(-1, 1))
    with pytest.raises(UnsupportedModelError, match="scale"):
        Engine(perceptron(weights, biases), IDENTITY_PLANE * factor, box(-1, 1))


def huge_case(which, amplified, seed):
    """A polygon so large, with the weights up to the last kinks, that it amplifies by 2 to the power ``amplified``."""
    rng = np.random.default_rng(seed)
    weights, biases = random_network("generic", (2, 2, 5, 1), seed)
    activation, half = "relu", 2.0 ** (amplified // 2)
    corners = box(-(2.0**amplified), 2.0**amplified)
    if which == "subnormal plane":  # so are its sides' products, and the biases are of their size
        plane = np.ldexp(rng.integers(-60, 61, (2, 3)) * [1.0, 1.0, 0.0], -1074)
        biases = [bias * 2.0 ** (amplified - 1070) for bias in biases]
    elif which == "subnormal values":
        plane = np.concatenate([rng.standard_normal((2, 2)) * 2.0**-540, np.zeros((2, 1))], axis=1)
        corners, activation = box(-half, half), "leaky_relu 0.25"
        weights = [weights[0] * 2.0**-530, weights[1] * half, weights[2]]
        biases = [
            rng.standard_normal(2) * half * 2.0**-1070,
            rng.standard_normal(5) * half**2 * 2.0**-1070,
            np.zeros(1),
        ]
    else:
        plane = IDENTITY_PLANE * 2.0**-amplified
    return Case(perceptron(weights, biases, activation), plane, corners)


@pytest.mark.parametrize("which", ["subnormal plane", "subnormal values", "products that cancel"])
def test_huge_polygons_are_exact_up_to_the_limit_and_refused_above(which):
    """They bring what underflowed back to sizes that matter: towards the 2^-500 that each bound has for it."""
    regions = []
    for seed in range(8 * SCALE):
        results = check_case(huge_case(which, 430, seed), runs=("plain",), coordinates=False)
        regions.append(len(results[True, "plain"].cells.offsets) - 1)
        case = huge_case(which, 440 + 60 * seed, seed)
        with pytest.raises(UnsupportedModelError, match=r"amplify by 2\^\d+, and 2\^440 is the limit"):
            Engine(case.stages, case.plane, case.corners)
    assert len(regions) == 8 * SCALE and np.mean(regions) > 3, regions


@pytest.mark.parametrize("scale", [1e-200, 1e-250, 1e-300])
def test_polygons_whose_products_underflow(scale):
    """The corners' products are 0 in float64: a border's bound must say what it lost."""
    for seed in range(4):
        weights, biases = random_network("generic", (2, 5, 4, 1), seed)
        weights[0], biases[0] = weights[0] * 1e100, biases[0] * 1e100 * scale
        case = Case(perceptron(weights, biases), IDENTITY_PLANE, box(-scale, scale))
        check_case(case, runs=("plain",), coordinates=False)


def test_networks_of_too_many_kinks_are_refused():
    stages = generic((2, 1 << 14, 1))
    many = Stages(stages.stages * (1 << 17), stages.layers)
    assert check_scale(many, IDENTITY_PLANE, box(-1, 1)) == "it has 2147483648 kinks, and 2147483647 is the limit"


def test_more_lines_than_the_constants_of_rounding_hold_for_are_no_one_system():
    """Of one layer there is no matrix of lines and lines that would be too large."""
    lines = (1 << 21) + 1
    units = Units(np.arange(lines + 1), np.zeros(lines), np.tile([0.0, 1.0], lines), np.zeros(2 * lines))
    stages = Stages([Stage({INPUT: Dense(np.ones((lines, 2)))}, np.ones(lines), units)])
    assert not stages.are_one_system
    for make in (lambda: Engine(stages, IDENTITY_PLANE, box(-1, 1)), lambda: Tracer(stages)):
        with pytest.raises(UnsupportedModelError, match=f"it has {lines} kinks, and {lines - 1} is the limit"):
            make()


def test_a_fold_that_leaves_more_lines_is_refused_whatever_memory_is_there(monkeypatch):
    monkeypatch.setattr(fold_room, "_NO_MATTER", 0)
    monkeypatch.setattr(fold_room, "_MOST_BYTES", fold_room.bytes_of_fold(4, 5))
    folder = SliceFolder(generic((2, 5, 1)))
    slices = Slices(np.eye(2)[:1], np.eye(2)[1:], np.zeros((1, 2)), box(-9, 9)[None])
    with pytest.raises(BudgetExceededError, match="5 or more neurons are on both sides"):
        folder.fold(slices, max_bytes=1 << 60)


def test_amplification_is_that_of_all_paths():
    """Of a network in which every stage reads all before it: the sums over paths, from one matrix of all stages."""
    rng = np.random.default_rng(5)
    sizes, blocks, stages = [3, 4, 2, 5, 3], {}, []
    for number, rows in enumerate(sizes[1:]):
        reads = {source: rng.normal(size=(rows, sizes[source + 1])) for source in range(INPUT, number)}
        stages.append(stage(reads, rng.normal(size=rows), ["relu"] * rows))
        blocks |= {(number + 1, source + 1): matrix for source, matrix in reads.items()}
    names = range(len(sizes))
    direct = np.block([[np.abs(blocks.get((r, c), np.zeros((sizes[r], sizes[c])))) for c in names] for r in names])
    given = np.concatenate([np.ones(3), *(1 + np.abs(each.bias) for each in stages)])
    through = np.linalg.solve(np.eye(sum(sizes)) - direct, given)
    expected = [part.max() for part in np.split(through, np.cumsum(sizes)[:-1])[1:]]
    assert np.allclose(np.exp2(Stages(stages).amplification), expected, rtol=1e-12)


def test_branches_do_not_amplify_together():
    """The largest sums of 100 maps multiply to more than 2^1000, but a number passes only one of them, and the sum."""
    branches = [stage({INPUT: np.full((2, 2), 1000.0)}, np.ones(2), ["relu"] * 2) for _ in range(100)]
    total = stage({number: np.ones((1, 2)) for number in range(100)}, np.zeros(1), ["identity"])
    stages = Stages([*branches, total])
    assert check_scale(stages, IDENTITY_PLANE, box(-1, 1)) is None
    assert stages.amplification[-1] == np.log2(1 + 100 * 2 * (2 * 1000 + 2))


def test_affine_maps_of_too_many_values_are_refused():
    wide = perceptron([np.zeros((1, (1 << 22) + 1)), np.ones((1, 1))], [np.zeros(1), np.zeros(1)])
    reason = check_scale(wide, IDENTITY_PLANE, box(-1, 1))
    assert reason == "an affine map sums 4194305 values, and 4194304 is the limit"


def test_norms_that_rounding_could_change_are_not_used():
    stages = generic((2, 6, 6, 6, 6, 1))
    system = Engine(stages, IDENTITY_PLANE, box(-1, 1)).system
    few, many = system.norms(), replace(system, begins=[*system.begins[:-1], 1 << 46]).norms()
    assert few is not None and many is None
    exact = [np.linalg.norm(stage.matrices[number], 2) for number, stage in enumerate(stages.stages[1:-1])]
    for number, true in enumerate(exact):
        assert true <= few[0, number + 1, number] <= 1.4 * true
    assert few[0, 3, 1] >= exact[1] * exact[2] and few[1, 3, 1] >= few[0, 3, 1]
