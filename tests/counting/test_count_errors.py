"""``count_regions``: bad input, running out of memory, and being stopped."""

import math
import textwrap
import warnings

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases import processes
from cases.counting import NETS, mlp, points
from pylinregion.caller import workers
from pylinregion.counting.every_vertex import EveryVertex

# --- bad input ---


def bad(message, *, error=ValueError, x=None, radius=0.1, net=None, **arguments):
    model = mlp(4, 6, 2, dtype=torch.float32) if net is None else net
    with pytest.raises(error, match=message):
        plr.count_regions(model, torch.randn(3, 4) if x is None else x, radius, **{"n_directions": 2, **arguments})


def test_bad_x_is_named():
    bad(r"x must be points the model takes, got \[B, 5\] torch.float32, and the model raised", x=torch.randn(3, 5))
    bad("x must be a torch.Tensor, got list", error=TypeError, x=[[1.0, 2.0, 3.0, 4.0]])
    bad("x must be float32, float64, bfloat16 or float16, got torch.int64", error=TypeError, x=torch.ones(3, 4).long())
    bad("x must have the model's dtype torch.float32, got torch.float64", error=TypeError, x=torch.ones(3, 4).double())
    bad("x must be a tensor with data, got one on the meta device", error=TypeError, x=torch.ones(3, 4, device="meta"))
    bad(r"x must have points of at least one number, got \[3, 0\]", x=torch.ones(3, 0))
    bad(
        r"x must be finite, got nan at \[1, 2\]",
        x=torch.ones(3, 4).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(math.nan)),
    )
    bad(r"x must be finite, got -inf at \[0, 0\]", x=torch.full((3, 4), -math.inf))
    bad("x must be .B, .input_shape., got a tensor without dimensions", x=torch.tensor(1.0))


def test_bad_radius_is_named():
    for radius in (0, -1.0, math.nan, math.inf):
        bad(f"radius must be finite and above 0, got {radius}", radius=radius)
    bad(r"radius must be a number or have shape \[3\], one per point, got \[2\]", radius=torch.ones(2))
    bad("radius must be finite and above 0, got -1.0 for point 2", radius=torch.tensor([1.0, 1.0, -1.0]))
    bad("radius must be a number or a tensor, got str", error=TypeError, radius="1")
    bad(
        "radius must be a number or a tensor of real numbers, got torch.bool", error=TypeError, radius=torch.ones(3) > 0
    )


def test_bad_frames_are_named():
    skew = torch.tensor([[1.0, 0, 0, 0], [0.6, 0.8, 0, 0]])
    bad("frame must be orthonormal, but the product of directions 0 and 1 is 0.6", frame=skew)
    bad("frame must be orthonormal, but the product of directions 0 and 0 is 4", frame=2 * torch.eye(4)[:2])
    bad(r"frame must be \[P, 4\] or \[3, P, 4\], got \[2, 5\]", frame=torch.eye(5)[:2])
    bad(r"frame must be \[P, 4\] or \[3, P, 4\], got \[2, 2, 4\]", frame=torch.eye(4)[:2].expand(2, 2, 4))
    bad(r"frame must be finite, got nan at \[0, 0\]", frame=torch.full((2, 4), math.nan))
    bad("frame must have at most as many directions as the 4 input dimensions, got 5", frame=torch.zeros(5, 4))
    bad("frame must be a torch.Tensor, got list", error=TypeError, frame=[[1.0]])
    bad("n_directions must be at most the 4 input dimensions, got 25", n_directions=25)


def test_other_bad_arguments_are_named():
    bad("method must be one of 'vertices', 'axes', 'slice', got 'exactly'", method="exactly")
    bad("batch_size must be at least 1, got 0", batch_size=0)
    bad("memory_budget must be an integer, got float", error=TypeError, memory_budget=1e9)
    bad("dtype must be float32, float64, bfloat16 or float16, got torch.int32", error=TypeError, dtype=torch.int32)
    bad("model must be an nn.Module, a pylinregion.Network or an ExportedProgram, got str", error=TypeError, net="net")
    bad(
        "model must return a tensor, got int without one",
        error=TypeError,
        net=type("M", (nn.Module,), {"forward": lambda self, x: 3})(),
    )
    network = plr.capture(mlp(4, 6, 2, dtype=torch.float32), torch.randn(2, 4))
    bad(r"x must be \[B, 4\], as the network was captured, got \[3, 5\]", net=network, x=torch.randn(3, 5))
    bad(
        "x must be torch.float32, as the network was captured, got torch.float64",
        error=TypeError,
        net=network,
        x=torch.randn(3, 4).double(),
    )
    two = type("Two", (nn.Module,), {"forward": lambda self, x: (x.relu(), x)})()
    bad("include_output needs a model with one output tensor, this one has 2: plr.select", net=two, include_output=True)


def test_overflow_around_a_point_is_an_error_that_names_layer_and_point():
    net = mlp(4, 6, 2, dtype=torch.float32)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    x = torch.ones(3, 4)
    x[1] = 3e38
    bad(
        "the pre-activations of layer '1' are NaN or infinite around point 1 of x: torch.float32 overflows",
        net=net,
        x=x,
    )
    x[1] = 1e30
    assert len(plr.count_regions(net, x, 0.1, n_directions=2).total) == 3


def test_bad_parameters_are_named():
    for value in (math.nan, math.inf):
        net = mlp(4, 6, 2, dtype=torch.float32)
        plr.count_regions(net, torch.ones(3, 4), 0.1, n_directions=2)
        with torch.no_grad():
            net[2].weight[0, 0] = value
        bad("the model's 2.weight has NaN or infinite entries", error=plr.UnsupportedModelError, net=net)


@pytest.mark.parametrize("name", ["include_output", "estimate_ambiguous", "progress", "displacement"])
@pytest.mark.parametrize("value", [3, "no", 1.0, torch.tensor(True)])
def test_switches_that_are_none_are_named(name, value):
    words = "True, False or None" if name == "displacement" else "True or False"
    bad(f"{name} must be {words}, got {type(value).__name__}", error=TypeError, **{name: value})


# --- running out, and being stopped ---


def test_out_of_memory_halves_the_batch_and_says_so_once(monkeypatch, threads):
    threads(1)
    net, shape = NETS["mlp"]
    x = points(40, *shape)
    want = plr.count_regions(net, x, 0.2, n_directions=5)
    sizes = []
    count = EveryVertex.count

    def limited(self, rows, *rest):
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return count(self, rows, *rest)

    monkeypatch.setattr(EveryVertex, "count", limited)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = plr.count_regions(net, x, 0.2, n_directions=5, batch_size=16, displacement=False)
    assert torch.equal(got.changes, want.changes) and torch.equal(got.regions, want.regions)
    assert sizes[:3] == [16, 8, 4] and max(sizes[3:]) == 4
    assert len(caught) == 1 and "out of memory with 16 points in a batch: going on with half" in str(caught[0].message)
    assert caught[0].filename == __file__

    def never(self, *arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(EveryVertex, "count", never)
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(ResourceWarning):
        plr.count_regions(net, x, 0.2, n_directions=5, batch_size=16, displacement=False)


def test_an_interrupt_stops_the_count_between_batches(tmp_path):
    """A real SIGINT, to a process that would count for long; it must leave most batches undone and end."""
    script = """
        import os, signal, threading, torch, pylinregion as plr
        from pylinregion.caller import workers
        from pylinregion.counting.displacements import Displacements
        from pylinregion.counting.every_vertex import EveryVertex
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
        net = torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU())
        x = torch.randn(20000, 64)
        plr.count_regions(net, x[:10], 0.1)
        def watched(way):
            original = way.count
            def counted(self, rows, *rest):
                if len(done) >= 5 and once.acquire(blocking=False):
                    os.kill(os.getpid(), signal.SIGINT)
                found = original(self, rows, *rest)
                done.append(rows.stop - rows.start)
                return found
            way.count = counted
        watched(EveryVertex), watched(Displacements)
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            done, once = [], threading.Semaphore(1)
            try:
                plr.count_regions(net, x, 0.1, batch_size=4)
            except KeyboardInterrupt:
                inside = any(crew._inside for crew in workers._crews)
                print("interrupted", sum(done) < 2000, inside, torch.get_num_threads())
    """
    ran = processes.run(textwrap.dedent(script), cwd=tmp_path)
    assert ran.stdout.splitlines() == [f"interrupted True False {n_threads}" for n_threads in (1, 2)], ran.stderr


def test_an_error_in_one_batch_ends_the_count(monkeypatch, threads):
    """Many times: once, an error that came while the workers were still starting left one of them waiting for ever."""
    threads(2)
    net, shape = NETS["mlp"]

    def broken(self, *arguments):
        raise RuntimeError("broken batch")

    monkeypatch.setattr(EveryVertex, "count", broken)
    for _ in range(100):
        with pytest.raises(RuntimeError, match="broken batch"):
            plr.count_regions(net, points(40, *shape), 0.2, n_directions=5, batch_size=2)
    assert torch.get_num_threads() == 2
    assert not any(crew._inside for crew in workers._crews)


def test_progress_shows_a_bar_and_silence_is_the_default(capsys):
    net, shape = NETS["mlp"]
    plr.count_regions(net, points(4, *shape), 0.2, n_directions=5)
    assert capsys.readouterr() == ("", "")
    plr.count_regions(net, points(4, *shape), 0.2, n_directions=5, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "4/4" in err
