"""The monitor beside counts made by hand, and training with it beside training without it."""

import copy
import functools
import gc
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import pylinregion as plr
from cases.monitor import RADIUS, Clock, Run, data, network, probes, values
from cases.small_models import Do
from pylinregion.monitor.metrics import accuracy, local_complexity

ALL = ["local_complexity", "accuracy", "loss", "weight_norm"]


def monitored(run, **settings):
    settings = {"n_directions": 4, "every": 1, "budget": None, **settings}
    return plr.Monitor(run.called, probes(), RADIUS, **settings)


def restless(model, x, y):
    """Does all that a measure should not."""
    torch.rand(3), np.random.rand(), random.random()
    model.train()
    model.extra = "left behind"
    functional.cross_entropy(model(x), x[:, 0].clamp(0, 2).long()).backward()
    return float(torch.rand(()))


def by_hand(model, step):
    """A record of :data:`ALL`, written down again."""
    model = copy.deepcopy(model).eval()
    squares = sum(float((p.detach().double() ** 2).sum()) for p in model.parameters())
    record = {"step": step, "weight_norm": pytest.approx(squares**0.5, rel=1e-14)}
    for name, probe in probes().items():
        x, y = probe if isinstance(probe, tuple) else (probe, None)
        counts = plr.count_regions(model, x, RADIUS, n_directions=4)
        total = counts.changes.sum(dim=1).double().numpy()
        reach = 2.5758293035489004 * total.std(ddof=1) / len(total) ** 0.5
        record[f"{name}/lc"] = total.mean()
        record[f"{name}/lc/low"] = pytest.approx(total.mean() - reach, rel=1e-12)
        record[f"{name}/lc/high"] = pytest.approx(total.mean() + reach, rel=1e-12)
        for layer, changes in zip(counts.layers, counts.changes.T, strict=True):
            record[f"{name}/lc/layer/{layer}"] = changes.double().mean().item()
        if y is not None:
            logits = model(x).detach().double().numpy()
            logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            record[f"{name}/accuracy"] = (logits.argmax(axis=1) == y.numpy()).mean()
            record[f"{name}/loss"] = pytest.approx(-logarithms[np.arange(len(y)), y].mean(), rel=1e-5)
    return record


def test_records_are_those_of_counts_made_by_hand():
    run, seen = Run(), []
    monitor = monitored(run, measures=ALL, every=3, sink=seen.append)
    found = [monitor.measure()]
    assert values(found[0]) == by_hand(run.model, 0)
    for step in range(1, 10):
        run.step()
        record = monitor.step()
        assert (record is not None) == (step % 3 == 0)
        if record is not None:
            found.append(record)
            assert values(record) == by_hand(run.model, step)
    assert seen == found and monitor.steps == 9
    assert len({record["train/loss"] for record in found}) == 4  # the weights moved, or nothing was compared
    assert all(isinstance(value, float) for record in found for key, value in record.items() if key != "step")


def test_training_is_the_same_with_and_without():
    plain, watched = Run(), Run()
    random.seed(0), np.random.seed(0)
    monitor = monitored(plain, measures=[*ALL, restless])
    del monitor  # capturing changes nothing, either
    monitor = None
    for run in (plain, watched):
        torch.manual_seed(2), random.seed(3), np.random.seed(3)
        if run is watched:
            watched.model[3].eval()  # flags differ from module to module
            watched.model[0].weight.requires_grad_(False), watched.model[0].weight.requires_grad_(True)
            monitor = monitored(watched, measures=[*ALL, restless])
        else:
            plain.model[3].eval()
        flags = [part.training for part in run.model.modules()]
        for _ in range(6):
            loss = run.step()
            gradients = [p.grad for p in run.model.parameters()]
            hooks = [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in run.model.modules()
            ]
            attributes = [set(vars(part)) for part in run.model.modules()]
            if run is watched:
                assert monitor.step() is not None
            assert all(p.grad is g for p, g in zip(run.model.parameters(), gradients, strict=True))
            assert [part.training for part in run.model.modules()] == flags
            assert hooks == [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in run.model.modules()
            ]
            assert attributes == [set(vars(part)) for part in run.model.modules()]
            assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        run.loss = loss
        run.chance = (random.getstate(), np.random.get_state()[1].tolist())
    for one, other in zip(plain.state(), watched.state(), strict=True):
        for a, b in zip(
            one.values() if isinstance(one, dict) else one,
            other.values() if isinstance(other, dict) else other,
            strict=True,
        ):
            assert torch.equal(a, b)
    assert torch.equal(plain.loss, watched.loss) and plain.chance == watched.chance
    assert int(plain.model[1].num_batches_tracked) == 6


def test_measures_start_from_the_seed_each_time():
    run = Run()
    chance = [monitored(run, measures=[restless], seed=seed).measure()["train/restless"] for seed in (5, 5, 6)]
    assert chance[0] == chance[1] != chance[2]


def captures(monkeypatch):
    """A list that grows with each capture."""
    import importlib

    module, made = importlib.import_module("pylinregion.capturing.capture"), []
    capture = module._from_module
    monkeypatch.setattr(module, "_from_module", lambda *args: made.append(args[0]) or capture(*args))
    return made


def test_captured_once(monkeypatch):
    made, run = captures(monkeypatch), Run()
    monitor = monitored(run)
    assert made == [run.model]  # one shape of points, three probes
    for _ in range(4):
        run.step()
        monitor.step()
    run.model[0].weight = nn.Parameter(torch.zeros(10, 6))  # assigned anew
    assert values(monitor.measure()) == {
        k: v for k, v in by_hand(run.model, 4).items() if "loss" not in k and k != "weight_norm"
    }
    assert [module for module in made if module is run.model] == [run.model]


def test_with_compiled_models(monkeypatch):
    made, graphs = captures(monkeypatch), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    plain, run = Run(), Run(lambda model: torch.compile(model, backend=backend))
    torch.manual_seed(2)
    given = []
    own = plr.Measure("own", lambda model: given.append(model) or 0.0, "model")
    monitor = monitored(run, measures=[*ALL, own])
    for _ in range(4):
        run.step()
        assert values(monitor.step()) == by_hand(run.model, monitor.steps) | {"own": 0.0}
    assert len(given) == 4 and all(model is run.model for model in given)  # not the compiled one
    compiled = len(graphs)
    run.step()
    assert len(graphs) == compiled == 1 and [module for module in made if module is run.model] == [
        run.model
    ]  # nothing made torch compile again
    torch.manual_seed(2)
    for _ in range(5):
        plain.step()
    for a, b in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_module_compiled_in_place_is_measured_as_it_is():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    run = Run(lambda model: Do(lambda self, x: self.net(x), net=model))  # torch does not compile its own Sequential
    run.called.compile(backend=backend)
    monitor = monitored(run, measures=ALL)
    for _ in range(3):
        run.step()
        record = monitor.step()
    assert len(graphs) == 1
    expected = by_hand(run.model, 3)
    assert {key.replace("/layer/net.", "/layer/"): value for key, value in values(record).items()} == expected


def test_with_mixed_precision():
    run = Run()
    monitor, scaler = monitored(run, measures=ALL), torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(1, 4):
        run.step(scaler)
        scale = scaler.state_dict()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # some call it inside
            record = monitor.step()
            assert torch.is_autocast_enabled("cpu")
        assert values(record) == by_hand(run.model, step)
        assert scaler.state_dict() == scale
    with torch.inference_mode():
        record = monitor.measure()
    assert values(record) == by_hand(run.model, 3)


def test_what_is_inside_measures():
    run = Run()

    def slope(model, x, y):
        """The norm of the input gradient of the first output."""
        assert not model.training and (y is None) == (len(x) == 10)
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
        return {"mean": gradient.norm(dim=1).mean(), "max": float(gradient.norm(dim=1).max())}

    labelled = plr.Measure("labelled", lambda model, x, y: len(y), "labels")
    count = plr.Measure("parameters", lambda model: sum(p.numel() for p in model.parameters()), "model")
    wide = plr.Measure("wide", functools.partial(local_complexity, radius=3.0, n_directions=2, include_output=True))
    record = monitored(run, measures=[slope, labelled, count, wide]).step()
    keys = {key for key in record if key not in ("step", "seconds")}
    layers = {f"{p}/wide{k}" for p in probes() for k in ("", "/low", "/high", "/layer/2", "/layer/5", "/layer/output")}
    assert keys - layers == {
        "parameters",
        "train/labelled",
        "test/labelled",
        *(f"{probe}/slope/{kind}" for probe in probes() for kind in ("mean", "max")),
    }
    assert layers <= keys and record["parameters"] == 205 and record["test/labelled"] == 30
    assert 0 < record["train/slope/mean"] < record["train/slope/max"]


def test_default_measures():
    x, y = data()
    with_labels = plr.Monitor(network(), {"a": (x, y), "b": x}, 0.1, n_directions=2, every=1).step()
    assert {key for key in with_labels if "/lc" not in key} == {"step", "seconds", "a/accuracy"}
    without = plr.Monitor(network(), {"b": x}, 0.1, n_directions=2, every=1).step()
    assert {key for key in without if "/lc" not in key} == {"step", "seconds"} and "b/lc" in without


def test_accuracy_of_labels_in_other_forms():
    x, y = data()
    model = network().eval()
    share = accuracy(model, x, y)
    assert share == accuracy(model, x, functional.one_hot(y).double()) and 0 < share < 1
    pixels = nn.Conv2d(1, 3, 1)
    images, classes = torch.randn(5, 1, 4, 4), torch.randint(3, (5, 4, 4))
    said = pixels(images).detach().numpy().argmax(axis=1)
    assert accuracy(pixels, images, classes) == (said == classes.numpy()).mean()
    for wrong in (y[:, None], functional.one_hot(y, 4).float()):
        with pytest.raises(ValueError, match="y must be classes"):
            accuracy(model, x, wrong)
    with pytest.raises(ValueError, match=r"at least 2 classes, got \[60, 1\]"):
        accuracy(nn.Linear(6, 1), x, y)


def test_large_probes_are_evaluated_in_batches():
    seen = []
    model = network().eval()
    model[0].register_forward_hook(lambda module, args, output: seen.append(len(output)))
    x = torch.randn(600, 6)
    y = torch.arange(600) % 3
    right = model(x).argmax(dim=1) == y
    seen.clear()
    assert accuracy(model, x, y) == right.double().mean().item()
    assert seen == [256, 256, 88]


def test_the_budget_decides_which_steps_are_left_out():
    clock, run, found = Clock(), Run(), []

    def slow(model, x, y):
        clock.now += 1.0
        return 0.0

    monitor = monitored(run, measures=[plr.Measure("slow", slow, "labels")], every=2, budget=0.05, clock=clock)
    for step in range(1, 201):
        clock.now += 0.5
        if monitor.step() is not None:
            found.append(step)
        assert monitor.share <= 0.05 or len(found) == 1
    # Each takes 2 seconds. The first is free; the n-th comes at the first even step with 2 n seconds <= 0.05 times
    # those trained, 0.5 a step from the first step on.
    assert found == [2, 162]
    monitor = monitored(run, measures=[plr.Measure("slow", slow, "labels")], every=2, budget=None, clock=clock)
    assert sum(monitor.step() is not None for _ in range(10)) == 5


def records_of(run, monitor, clock, steps):
    found = []
    for _ in range(steps):
        run.step()
        clock.now += 1.0
        found.append(monitor.step())
    return [values(record) for record in found if record is not None]


@pytest.mark.parametrize("budget", [None, 0.25])
def test_resumed_runs_give_the_same_records(budget):
    clock = Clock()

    def slow(model, x, y):
        clock.now += 0.3
        return float(torch.rand(()))

    settings = {
        "measures": ["local_complexity", "loss", slow],
        "every": [1, 2, 3, 5, 8, 9, 13, 15, 19],
        "budget": budget,
        "clock": clock,
    }
    run = Run()
    whole = records_of(run, monitored(run, **settings), clock, 20)
    assert len(whole) == (9 if budget is None else 4)

    clock.now = 0.0
    run = Run()
    monitor = monitored(run, **settings)
    first = records_of(run, monitor, clock, 7)
    checkpoint = copy.deepcopy(
        (run.model.state_dict(), run.optimiser.state_dict(), torch.get_rng_state(), monitor.state_dict())
    )
    records_of(run, monitor, clock, 4)  # lost when the run is killed

    clock.now += 1e6
    run = Run()
    monitor = monitored(run, **settings)
    run.model.load_state_dict(checkpoint[0])
    run.optimiser.load_state_dict(checkpoint[1])
    torch.set_rng_state(checkpoint[2])
    monitor.load_state_dict(checkpoint[3])
    assert monitor.steps == 7
    assert first + records_of(run, monitor, clock, 13) == whole


def test_state_has_a_fixed_size(monkeypatch):
    x = torch.randn(4, 3)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    monitor = plr.Monitor(
        model, {"a": (x, torch.zeros(4).long())}, 0.1, n_directions=2, every=25, budget=None, measures=ALL
    )

    def size():
        gc.collect()
        return (
            len(gc.get_objects()),
            sum(map(len, (vars(monitor), vars(monitor._stopwatch)))),
            len(pickle.dumps(monitor._probes)),
        )

    measured = sum(monitor.step() is not None for _ in range(250))
    before = size()
    measured += sum(monitor.step() is not None for _ in range(2000))
    after = size()
    assert measured == 90
    assert after[1:] == before[1:]
    assert after[0] <= before[0] + 20  # a leak of one object in each measurement would be 80
    assert set(monitor.state_dict()) == {"step", "training", "measuring", "last_cost"}


@pytest.mark.parametrize(
    ("every", "steps"), [(np.int64(2), [2, 4]), (np.array([3, 1]), [1, 3]), ({4, 1}, [1, 4]), (range(2, 4), [2, 3])]
)
def test_steps_may_be_said_in_many_ways(every, steps):
    monitor = plr.Monitor(network(), {"a": data()[0]}, measures=["weight_norm"], every=every, budget=None)
    assert [step for step in range(1, 5) if monitor.step() is not None] == steps


def test_slices_are_written_at_their_steps(tmp_path):
    clock, run = Clock(), Run()
    slice_ = plr.Slice.around(data()[0][0], 1.0, seed=1)
    monitor = monitored(
        run, every=1000, slices={"digits": slice_}, slice_every=2, slice_folder=tmp_path / "slices", clock=clock
    )
    for step in range(1, 5):
        run.step()
        state = run.state()
        assert monitor.step() is None
        assert all(torch.equal(a, b) for a, b in zip(state[0].values(), run.model.state_dict().values(), strict=True))
        assert torch.equal(state[2], torch.get_rng_state())
        if step == 2:
            now = plr.partition(run.model, slice_)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["slices/digits/000000002.npz", "slices/digits/000000004.npz"]
    part = plr.load(tmp_path / names[0])
    assert part.n_regions == now.n_regions > 1
    assert np.array_equal(part.vertices, now.vertices) and np.array_equal(part.patterns, now.patterns)


def test_slices_cost_neither_training_nor_budget(tmp_path, monkeypatch):
    clock, run = Clock(), Run()
    slice_ = plr.Slice.around(data()[0][0], 1.0)
    monitor = monitored(run, every=4, slices={"a": slice_}, slice_every=1, slice_folder=tmp_path, clock=clock)
    write = monitor._slices.write
    monkeypatch.setattr(monitor._slices, "write", lambda *args: write(*args) or setattr(clock, "now", clock.now + 7.0))
    for _ in range(4):
        clock.now += 1.0
        record = monitor.step()
    assert record["seconds"] == 3.0 and monitor.share == 0.0  # from the first step on


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"probes": []}, TypeError, "probes must be a dict of names and points, got list"),
        ({"probes": {}}, ValueError, "probes must hold at least one, got none"),
        (
            {"probes": {"a/b": data()[0]}},
            ValueError,
            "probes must have names without '/' that are not empty, got 'a/b'",
        ),
        (
            {"probes": {"a": [1, 2]}},
            TypeError,
            r"probes\['a'\] must be points x or a pair \(x, y\) of tensors, got list",
        ),
        (
            {"probes": {"a": torch.zeros(0, 6)}},
            ValueError,
            r"must be points \[B, \*input_shape\], at least one, got \[0, 6\]",
        ),
        ({"probes": {"a": torch.zeros(2, 6).double()}}, TypeError, r"probes\['a'\] must have the model's dtype"),
        ({"probes": {"a": torch.full((2, 6), torch.nan)}}, ValueError, r"probes\['a'\] must be finite"),
        ({"probes": {"a": torch.zeros(2, 5)}}, ValueError, r"must be points the model takes, got \[B, 5\]"),
        ({"probes": {"a": (data()[0], data()[1][:3])}}, ValueError, r"one for each of its 60 points, got \[3\]"),
        ({"probes": {"a": (data()[0], [0] * 60)}}, TypeError, r"labels of probes\['a'\] must be a tensor, got list"),
        ({"radius": None}, ValueError, "radius must be a number for the measure 'local_complexity', got None"),
        ({"radius": -1.0}, ValueError, r"radius must be finite and above 0, got -1\.0"),
        ({"measures": "loss"}, TypeError, "measures must be a list of names and functions, got str"),
        ({"measures": []}, ValueError, "measures must hold at least one, got none"),
        ({"measures": ["lc"]}, ValueError, "measures must be among 'local_complexity', 'accuracy', .*got 'lc'"),
        ({"measures": [3]}, TypeError, "measures must hold names and functions, got int"),
        ({"measures": [lambda model, x, y: 0]}, ValueError, "a measure must have a name"),
        ({"measures": [accuracy, "accuracy"]}, ValueError, "measures must have different names, got 'accuracy' twice"),
        ({"measures": ["loss"], "probes": {"a": data()[0]}}, ValueError, r"'loss' needs probes \(x, y\) with labels"),
        ({"every": "often"}, ValueError, "every must be"),
        ({"budget": -1}, ValueError, "budget must be finite and above 0, got -1"),
        ({"sink": "records.jsonl"}, TypeError, "sink must be a function of a record, or a list of them, got str"),
        ({"seed": 1.0}, TypeError, "seed must be an integer, got float"),
        ({"n_directions": 7}, ValueError, "n_directions must be at most the 6 input dimensions, got 7"),
        ({"method": "edges"}, ValueError, "method must be one of"),
        ({"slice_every": 3}, ValueError, "slices, slice_every and slice_folder must be given together"),
        ({"slices": {"../a": 1}, "slice_every": 3, "slice_folder": "."}, ValueError, "can be a folder's, got '../a'"),
        (
            {"slices": {"a": 1}, "slice_every": 3, "slice_folder": "."},
            TypeError,
            r"slices\['a'\] must be a pylinregion",
        ),
        ({"model": "net"}, TypeError, "model must be an nn.Module"),
    ],
)
def test_bad_arguments(change, error, message):
    settings = {"model": network(), "probes": probes(), "radius": RADIUS, "n_directions": 4} | change
    with pytest.raises(error, match=message):
        plr.Monitor(settings.pop("model"), settings.pop("probes"), settings.pop("radius"), **settings)


def test_bad_measures_are_named_when_they_are_taken():
    def text(model, x, y):
        return "much"

    def writes(model, x, y):
        x.add_(1)
        return 0.0

    run = Run()
    with pytest.raises(TypeError, match="the measure 'text' must return a number or a dict of numbers, got str"):
        monitored(run, measures=[text]).step()
    with pytest.raises(ValueError, match="the measure 'writes' changed the points of probe 'train' in place"):
        monitored(run, measures=[writes]).step()
    for bad, error, message in (
        (("", text), ValueError, "name must be a string that is not empty, got ''"),
        (("a", 3), TypeError, "function must be callable, got int"),
        (("a", text, "all"), ValueError, "of must be one of 'points', 'labels', 'model', got 'all'"),
    ):
        with pytest.raises(error, match=message):
            plr.Measure(*bad)
    with pytest.raises(ValueError, match="state must be a monitor's"):
        monitored(run).load_state_dict({"step": 3})


def test_a_model_that_diverged_is_named():
    run = Run()
    monitor = monitored(run)
    flags = [part.training for part in run.model.modules()]
    with torch.no_grad():
        run.model[4].weight.fill_(torch.nan)
    with pytest.raises(plr.UnsupportedModelError, match=r"4\.weight has NaN or infinite entries"):
        monitor.step()
    assert [part.training for part in run.model.modules()] == flags
