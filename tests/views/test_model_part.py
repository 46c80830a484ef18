"""Parts of a model are what a model of the part alone is, written by hand."""

import copy
import gc
import importlib
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pylinregion as plr
from cases.small_models import Do, warmed_up

capture_module = importlib.import_module("pylinregion.capturing.capture")
pytestmark = pytest.mark.usefixtures("doubles")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.conv2, self.norm2 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2))
        self.layers = nn.Sequential(Block(), Block())
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.pool(self.layers(self.stem(x))).flatten(1))


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.local = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))
        self.head = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x):
        return self.head(self.local(x).amax(dim=1))


class Attention(nn.Module):
    """One block of a transformer, whose positions are made of the input's shape."""

    def __init__(self):
        super().__init__()
        self.embed, self.positions = nn.Linear(2, 4), nn.Parameter(torch.randn(5, 4))
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))

    def forward(self, x):
        batch, length, _ = x.shape
        h = self.embed(x) + self.positions[:length].expand(batch, -1, -1)
        h = h + self.attend(h, h, h, need_weights=False)[0]
        return self.head(h + self.mlp(self.norm(h)))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.act(self.b(self.act(self.a(x))))


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(2, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x, y, *, scale=1.0):
        return self.head((self.a(x) + scale * self.b(y)).relu())


def resnet():
    return warmed_up(ResNet(), 1, 8, 8).eval(), torch.randn(3, 1, 8, 8)


def counted(part, alone, points):
    """What is counted of a part is what is of the model that it is alone."""
    for method in ("vertices", "slice"):
        one, other = (plr.count_regions(model, points, 1.0, method=method) for model in (part, alone))
        assert torch.equal(one.changes, other.changes) and one.total.sum() > 0
        assert torch.equal(one.regions, other.regions)
    return one


# Parts, their points, the same written by hand, and the names of their layers.


def behind_a_stem():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    part, x = plr.at(model, "1"), torch.randn(3, 1, 4, 4)
    assert torch.equal(part.points(x), model[0](x)) and not part.points(x).requires_grad
    return part, part.points(x), nn.Sequential(*model[1:]), ("2",)


def a_residual_stage():
    model, x = resnet()
    part = plr.at(model, "layers.1")
    assert torch.equal(part.points(x), model.layers[0](model.stem(x)))
    alone = nn.Sequential(model.layers[1], model.pool, nn.Flatten(), model.head)
    return part, part.points(x), alone, ("layers.1.relu#1", "layers.1.relu#2")


def in_front_of_a_maximum():
    model, x = PointNet(), torch.randn(3, 6, 3)
    part = plr.at(model, "local.2")
    alone = Do(lambda s, h: s.head(s.last(h).amax(dim=1)), last=model.local[2], head=model.head)
    return part, part.points(x), alone, ("amax", "head.1")


def up_to_a_norm():
    model, x = resnet()
    block = model.layers[0]
    return plr.to(model, "layers.0.norm1"), x, nn.Sequential(model.stem, block.conv1, block.norm1), ("stem.2", "stem.3")


def between_two_stages():
    model, x = resnet()
    part = plr.to(plr.at(model, "layers.0"), "layers.1")
    return part, model.stem(x).detach(), model.layers, tuple(f"layers.{n}.relu#{k}" for n in (0, 1) for k in (1, 2))


def between_the_other_way_round():
    model, x = resnet()
    part = plr.at(plr.to(model, "layers.0"), "layers.0.conv1", like=x[:1])
    around = model.stem(x[:1]).detach()
    block = model.layers[0]
    alone = Do(
        lambda s, h: (s.rest(s.norm1(s.conv1(h)).relu()) + s.around).relu(),
        rest=nn.Sequential(block.conv2, block.norm2),
        norm1=block.norm1,
        conv1=block.conv1,
        around=around,
    )
    return part, part.points(x), alone, ("layers.0.relu#1", "layers.0.relu#2")


def a_module_alone():
    model = Attention()  # to which no way is known
    part = plr.to(plr.at(model, "mlp"), "mlp")
    assert torch.equal(plr.to(plr.at(model, "mlp"), "mlp.0")(h := torch.randn(2, 5, 4)), model.mlp[0](h))
    return part, torch.randn(3, 5, 4), model.mlp, ("mlp.1",)


def the_first_use():
    model, x = Shared(), torch.randn(3, 3)
    part = plr.at(model, "act:0")
    return part, part.points(x), nn.Sequential(nn.ReLU(), model.b, nn.ReLU()), ("act#1", "act#2")


def the_second_use():
    model, x = Shared(), torch.randn(3, 3)
    assert torch.equal(plr.to(model, "act:0")(x), model.a(x).relu())
    assert torch.equal(plr.to(model, "act:1")(x), model(x))
    part = plr.to(plr.at(model, "b"), "act:1")
    return part, plr.at(model, "b").points(x), nn.Sequential(model.b, nn.ReLU()), ("act",)


def beside_an_example():
    model, x = resnet()
    part = plr.at(model, "layers.1.conv2", like=x[:1])
    block, around = model.layers[1], model.layers[0](model.stem(x[:1])).detach()
    alone = Do(
        lambda s, h: s.head(s.pool((s.norm(s.conv(h)) + s.around).relu()).flatten(1)),
        conv=block.conv2,
        norm=block.norm2,
        around=around,
        pool=model.pool,
        head=model.head,
    )
    assert torch.allclose(part(part.points(x[:1])), model(x[:1]), rtol=1e-13)
    return part, part.points(x), alone, ("layers.1.relu",)


def beside_an_example_of_several_inputs():
    model, x, y = Sum(), torch.randn(3, 2), torch.randn(1, 3)
    alone = Do(lambda s, z: s.head((s.a(z) + s.y).relu()), a=model.a, head=model.head, y=2 * model.b(y).detach())
    assert torch.allclose(plr.at(model, "a", like=(x[:1], y))(x), model(x, y.expand(3, -1)))
    return plr.at(model, "a", like={"x": x[:1], "y": y, "scale": 2.0}), x, alone, ("relu",)


def of_a_transformer():
    model, x = Attention().eval(), torch.randn(3, 5, 2)
    begin = plr.at(model, "mlp.0", like=x[:1])
    h = model.embed(x[:1]) + model.positions
    h = (h + model.attend(h, h, h, need_weights=False)[0]).detach()
    return begin, begin.points(x), Do(lambda s, z: s.head(s.h + s.mlp(z)), h=h, mlp=model.mlp, head=model.head), None


CASES = (
    behind_a_stem,
    a_residual_stage,
    in_front_of_a_maximum,
    up_to_a_norm,
    between_two_stages,
    between_the_other_way_round,
    a_module_alone,
    the_first_use,
    the_second_use,
    beside_an_example,
    beside_an_example_of_several_inputs,
    of_a_transformer,
)


@pytest.mark.part(12)
@pytest.mark.parametrize("case", CASES)
def test_a_part_is_what_it_is_alone(case):
    part, points, alone, layers = case()
    assert torch.allclose(part(points), alone(points), rtol=1e-13, atol=1e-15)
    found = counted(part, alone, points)
    assert layers is None or found.layers == layers
    assert torch.equal(plr.patterns(part, points).to_bits(), plr.patterns(alone, points).to_bits())
    slice_ = plr.Slice.through(*points, margin=1.0)
    one, other = plr.partition(part, slice_), plr.partition(alone, slice_)
    assert one.n_regions == other.n_regions > 1
    assert np.array_equal(one.patterns, other.patterns) and np.array_equal(one.edges, other.edges)
    assert np.allclose(one.affine_maps(), other.affine_maps(), rtol=1e-12, atol=1e-14)
    one.verify(part, samples=50)
    one, other = plr.trace(part, points[:2], points[1:]), plr.trace(alone, points[:2], points[1:])
    assert np.array_equal(one.neurons, other.neurons) and np.allclose(one.t, other.t, rtol=1e-12, atol=1e-14)


def test_hooks_of_the_module_are_part_of_it():
    model, x = Shared(), torch.randn(4, 3)
    model.b.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    model.b.register_forward_hook(lambda module, args, output: output - 1)
    part = plr.at(model, "b")
    points = part.points(x)
    assert torch.equal(points, model.a(x).relu())
    b = F.linear(2 * points, model.b.weight, model.b.bias) - 1
    assert torch.equal(part(points), b.relu())
    assert torch.equal(plr.to(model, "b")(x), b)


def test_an_argument_that_is_the_same_tensor_is_the_input_too():
    model, x = Attention().eval(), torch.randn(1, 5, 2)
    part = plr.at(model, "attend", like=x)  # queries, keys and values
    moved = torch.randn(1, 5, 4)
    h = model.embed(x) + model.positions + model.attend(moved, moved, moved, need_weights=False)[0]
    assert torch.allclose(part(moved), model.head(h + model.mlp(model.norm(h))))


# Values that are not known.


@pytest.mark.parametrize(
    "forward, where",
    [
        (lambda s, x: s.b(s.a(x)) + x, "add"),
        (lambda s, x: torch.cat([x, s.b(s.a(x))], dim=1), "cat"),
        (lambda s, x: s.b(s.a(x)).add_(x), "add"),
        (lambda s, x: s.b(s.a(x)) * x.mean(), "mul"),
        (lambda s, x: F.linear(s.b(s.a(x)), s.a.weight, x[0]) - 1, "linear"),
        (lambda s, x: torch.add(s.b(s.a(x)), 1, out=torch.empty(2, 3)) @ x.T, "matmul"),
        (lambda s, x: s.b(s.a(x))[x.argmax(dim=1)], "getitem"),
        (lambda s, x: s.b(s.a(x)).masked_fill(x > 0, 0.0), "masked_fill"),
    ],
)
def test_another_value_is_named_where_it_goes_in(forward, where):
    model = Do(forward, a=nn.Linear(3, 3), b=nn.Linear(3, 3)).requires_grad_(False)
    part, points = plr.at(model, "b"), torch.randn(2, 3)
    match = (
        f"the part at 'b' is no function of that module's input alone: another value goes into {where} at "
        r"test_model_part.py:\d+: \(lambda s, x.*plr.at\(model, 'b', like=x\) takes what else is needed from an input x"
    )
    with pytest.raises(plr.UnsupportedModelError, match=match):
        plr.count_regions(part, points, 0.5)
    assert "another value goes into" in plr.explain(part, points).coverage["vertices"]


def test_writing_to_a_value_of_the_part_is_refused_where_it_happens():
    def forward(self, x):
        h = self.b(self.a(x))
        view = h.view(-1, 3)
        h[:, 0] = x[:, 0]
        return view

    model = Do(forward, a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    with pytest.raises(plr.UnsupportedModelError, match=r"another value goes into setitem at .*h\[:, 0\] = x\[:, 0\]"):
        plr.at(model, "b")(torch.randn(2, 3))
    with pytest.raises(
        plr.UnsupportedModelError, match=r"another value goes into add in module 'layers.0' at .*out \+= x"
    ):
        plr.at(ResNet().eval(), "layers.0.conv2")(torch.randn(2, 2, 3, 3))


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: s.b(s.a(x) if x.shape[1] == 3 else x),
        lambda s, x: s.b(s.a(x) if x.mean() > 0 else x),
        lambda s, x: s.b(s.a(x + torch.zeros(x.shape[0], 3, device=x.device))),
        lambda s, x: s.b(s.a(x.new_zeros(len(x), 3) + x)),
        lambda s, x: s.b(s.a(torch.stack(list(x)))),
        lambda s, x: s.b(s.a(x).reshape(int(x.size(0)), 3)),
        lambda s, x: s.b(s.a(x * torch.arange(x.size(1), device=x.device))),
    ],
)
def test_a_way_that_the_input_shows_needs_one(forward):
    model, x = Do(forward, a=nn.Linear(3, 3), b=nn.Linear(3, 3)), torch.randn(2, 3).abs()
    why = (
        r"(the shape or the values of another are asked for|another value is needed) at test_model_part.py:\d+: lambda"
    )
    match = f"the way to 'b' is not known without an input of the model: {why}.*like=x"
    with pytest.raises(plr.UnsupportedModelError, match=match):
        plr.at(model, "b")(torch.randn(2, 3))
    part, points = plr.at(model, "b", like=x[:1]), torch.randn(2, 3)
    assert torch.equal(part(points), model.b(points))


def test_torchs_own_modules_may_ask_in_front_of_a_part():
    norms = nn.Sequential(nn.BatchNorm1d(4), nn.Unflatten(1, (1, 4)), nn.BatchNorm1d(1), nn.GroupNorm(1, 1))
    images = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1), nn.ReflectionPad2d(1))
    model = nn.Sequential(nn.Linear(3, 4), norms, images, nn.ConvTranspose2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 2))
    part, x = plr.at(model.eval(), "5"), torch.randn(3, 3)
    assert torch.equal(part(part.points(x)), model(x))


# The live model.


@pytest.mark.part(4)
@pytest.mark.parametrize("like", [False, True])
def test_a_part_follows_the_model(monkeypatch, like):
    traces = []
    trace = capture_module._from_module
    monkeypatch.setattr(
        capture_module, "_from_module", lambda *args: traces.append(weakref.ref(args[0])) or trace(*args)
    )
    model, x = Shared(), torch.randn(4, 3)
    part = plr.at(model, "b", like=x[:1] if like else None)
    points = part.points(x)
    network = plr.capture(part, points)
    assert network.state["b.weight"] is model.b.weight and network.layer_names == ("act",)
    alone = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def check(*same):
        alone.load_state_dict({f"0.{name}": value for name, value in model.b.state_dict().items()})
        expected = plr.count_regions(alone, points, 0.5, n_directions=4).changes
        for each in same:
            assert torch.equal(plr.count_regions(each, points, 0.5, n_directions=4).changes, expected)

    check(part, network)
    model(x).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    check(part, network)
    model.b.weight = nn.Parameter(torch.randn(4, 4))
    check(part, network)
    model.load_state_dict({name: torch.randn_like(value) for name, value in model.state_dict().items()}, assign=True)
    check(part, network)
    assert [traced() for traced in traces] == [part, alone]
    model.b = nn.Linear(4, 4)
    with pytest.raises(plr.UnsupportedModelError, match="capture the model again"):
        plr.count_regions(network, points, 0.5)
    network = plr.capture(part, points)
    check(part, network)
    del part  # the network looks at the model, and a part is as good as another
    gc.collect()
    handle = model.b.register_forward_hook(lambda module, args, output: output.abs())
    with pytest.raises(plr.UnsupportedModelError, match="capture the model again"):
        plr.count_regions(network, points, 0.5)
    handle.remove()
    assert plr.count_regions(network, points, 0.5).layers == ("act",)


def test_what_an_example_gives_is_that_of_the_model_now():
    model, x = resnet()
    part = plr.at(model, "layers.1.conv2", like=x[:1])
    points = part.points(x)
    before = part(points)
    with torch.no_grad():
        model.stem[0].weight.mul_(2)  # in front of the part
    network = plr.capture(part, points)
    slice_ = plr.Slice.through(*points, margin=1.0)
    maps = plr.partition(network, slice_).affine_maps()
    with torch.no_grad():
        model.stem[0].weight.mul_(0.5)
    assert torch.equal(part(points), before)
    assert not np.array_equal(plr.partition(network, slice_).affine_maps(), maps)


def test_nobody_keeps_a_model_but_its_parts():
    model, x = Shared(), torch.randn(4, 3)
    part = plr.at(model, "b", like=x[:1])
    network = plr.capture(part, part.points(x))
    gone = weakref.ref(model)
    del model
    assert gone() is not None
    del part
    gc.collect()
    assert gone() is None
    assert plr.count_regions(network, torch.randn(2, 4), 0.5).layers == ("act",)


def test_modes_hooks_and_dtypes_are_the_models():
    model, x = warmed_up(ResNet(), 1, 8, 8), torch.randn(4, 1, 8, 8)
    flags = [module.training for module in model.modules()]
    part = plr.at(model, "layers.1.conv2", like=x[:1])
    points = part.points(x)
    plr.count_regions(part, points, 0.1)
    with pytest.raises(plr.UnsupportedModelError):
        plr.count_regions(plr.at(model, "layers.1.conv2"), points, 0.1)
    assert part.training and [module.training for module in model.modules()] == flags
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    part.float()  # the model, and the example
    assert plr.count_regions(part, points.float(), 0.1).changes.shape == (4, 1)
    part.eval()
    assert not model.training


def test_compiled_models_and_modules_are_run_as_they_were_written():
    model, x = Shared(), torch.randn(4, 3)
    expected = plr.at(model, "b")(points := torch.randn(4, 4))
    assert torch.equal(plr.at(torch.compile(model, backend="eager"), "b")(points), expected)
    model.b = torch.compile(nn.Sequential(model.b), backend="eager")
    for path in ("b", "b.0"):
        assert plr.count_regions(plr.at(model, path), points, 1.0).layers == ("act",)
        assert plr.explain(plr.to(model, path), x).rows[0].layer == "act"


def test_parts_are_copied_and_pickled_with_their_model():
    model, x = Shared(), torch.randn(4, 3)
    part = plr.at(model, "b", like=x[:1])
    points = part.points(x)
    for other in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert torch.equal(other(points), part(points))
        other.model.b.weight.data.zero_()
        assert not torch.equal(other(points), part(points))


def test_another_thread_runs_the_model_as_it_is():
    model, x, points = Shared(), torch.randn(4, 3), torch.randn(4, 4)
    expected, found = model(x), []
    part = plr.to(plr.at(model, "b"), "act:1")
    main = threading.current_thread()

    def beside(*_):
        if threading.current_thread() is main:
            thread = threading.Thread(target=lambda: found.append(model(x)))
            thread.start()
            thread.join()

    model.act.register_forward_pre_hook(beside)
    model.b.register_forward_hook(beside)
    assert torch.equal(part(points), F.linear(points, model.b.weight, model.b.bias).relu())
    assert len(found) == 3 and all(torch.equal(each, expected) for each in found)


def test_a_monitor_of_a_part():
    model, x, y = Shared(), torch.randn(6, 3), torch.randint(4, (6,))
    part = plr.at(model, "b")
    points = part.points(x)
    monitor = plr.Monitor(part, {"train": (points, y)}, radius=1.0, every=1)
    record = monitor.step()
    expected = plr.count_regions(nn.Sequential(model.b, nn.ReLU()), points, 1.0).mean().mean
    assert record["train/lc"] == expected
    assert record["train/accuracy"] == (part(points).argmax(dim=1) == y).double().mean()


# What is refused.


def refused(error, match, make):
    with pytest.raises(error, match=match):
        make()


def test_bad_paths_are_named():
    model = ResNet()
    for path, match in (
        ("layers.1.conv3", r"path must name a module of the model, got 'layers.1.conv3' \(near it: 'layers.1.conv"),
        ("stm", r"got 'stm' \(near it: 'stem'\)"),
        ("1.conv1", r"got '1.conv1' \(near it: 'layers.1.conv1'\)"),
        ("other", r"got 'other' \(there are 'stem', 'layers', 'pool', ...\)"),
        (
            "layers.0.other",
            r"got 'layers.0.other' \(there are 'layers.0.conv1', 'layers.0.norm1', 'layers.0.conv2', ...\)",
        ),
        ("", "path must name a module of the model, got ''"),
        ("pool:first", "path must end in ':' and the number of a use, from 0 on, got 'pool:first'"),
        ("pool:-1", "path must end in ':' and the number of a use, from 0 on, got 'pool:-1'"),
    ):
        refused(ValueError, match, lambda path=path: plr.at(model, path))
        refused(ValueError, match, lambda path=path: plr.to(model, path))
    listed = Do(lambda s, x: s.parts[0](x), parts=nn.ModuleList([nn.Linear(2, 2)]))
    match = "path must name a module that is called, got 'parts', a ModuleList: name one of those in it, 'parts.0'"
    refused(ValueError, match, lambda: plr.at(listed, "parts"))
    refused(TypeError, "path must be a string, the path of a module, got int", lambda: plr.at(model, 1))
    network = plr.capture(nn.Linear(2, 2), torch.zeros(1, 2))
    refused(TypeError, "model must be an nn.Module, .* got Network", lambda: plr.at(network, "a"))
    refused(TypeError, "model must be an nn.Module, .* got str", lambda: plr.to("model", "a"))


def test_uses_that_are_not_there_are_named():
    model, x, points = Shared(), torch.randn(2, 3), torch.randn(2, 4)
    model.unused = nn.Linear(4, 4)
    twice = "the model's forward pass calls 'act' 2 times: say which, 'act:0' to 'act:1'"
    refused(plr.UnsupportedModelError, twice, lambda: plr.count_regions(plr.at(model, "act"), points, 0.5))
    refused(plr.UnsupportedModelError, twice, lambda: plr.count_regions(plr.to(model, "act"), x, 0.5))
    refused(plr.UnsupportedModelError, twice, lambda: plr.at(model, "act").points(x))
    assert plr.explain(plr.at(model, "act"), points).coverage["vertices"] == twice
    third = "calls 'act' 2 times: there is no 'act:2'"
    refused(plr.UnsupportedModelError, third, lambda: plr.count_regions(plr.to(model, "act:2"), x, 0.5))
    second = "calls 'b' once: there is no 'b:1'"
    refused(plr.UnsupportedModelError, second, lambda: plr.count_regions(plr.at(model, "b:1"), points, 0.5))
    never = "the model's forward pass does not call 'unused'"
    refused(plr.UnsupportedModelError, never, lambda: plr.count_regions(plr.at(model, "unused"), points, 0.5))
    refused(plr.UnsupportedModelError, never, lambda: plr.count_regions(plr.to(model, "unused"), x, 0.5))
    asking = Do(lambda s, x: s.act(s.act(x)[: len(x)]), act=nn.ReLU())  # between the two
    refused(plr.UnsupportedModelError, "say which", lambda: plr.to(asking, "act")(x))


def test_what_a_module_takes_must_be_points():
    words = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2))
    ids = torch.tensor([[1, 2]])
    integers = "'0' must take floating point numbers for a part to begin there, it takes torch.int64"
    part = plr.at(words, "0", like=ids)
    refused(plr.UnsupportedModelError, integers, lambda: plr.count_regions(part, torch.randn(2, 2), 0.1))
    refused(plr.UnsupportedModelError, integers, lambda: plr.at(words, "0").points(ids))
    part = plr.at(words, "1", like=ids)
    assert torch.equal(part.points(ids), words[0](ids))
    assert plr.count_regions(part, torch.randn(2, 2, 3), 0.1).total.tolist() == [0, 0]
    model = Do(lambda s, x: s.b([s.a(x)]), a=nn.Linear(2, 2), b=Do(lambda s, values: values[0].relu()))
    none = "'b' must take a tensor for a part to begin there, it takes list"
    refused(plr.UnsupportedModelError, none, lambda: plr.count_regions(plr.at(model, "b"), torch.randn(2, 2), 0.1))


def test_examples_must_be_one_input():
    model, x = Attention(), torch.randn(4, 5, 2)
    one = r"like must be one input of the model, \[1, \*input_shape\], got "
    refused(ValueError, one + r"\[4, 5, 2\]", lambda: plr.at(model, "mlp", like=x))
    refused(ValueError, one + r"\[4, 5, 2\], \[3\]", lambda: plr.at(model, "mlp", like=(x, torch.zeros(3))))
    kinds = "like must be a tensor, a tuple of arguments or a dictionary of them, got str"
    refused(TypeError, kinds, lambda: plr.at(model, "mlp", like="x"))
    part = plr.at(model, "mlp", like=x[:1])
    shape = r"'mlp' takes \[3, 5, 4\] for 3 such inputs as like, got \[3, 2, 4\]"
    refused(ValueError, shape, lambda: plr.count_regions(part, torch.randn(2, 2, 4), 0.1))


def test_a_result_that_is_none_of_the_part_is_refused():
    model, x = Do(lambda s, x: (s.b(h := s.a(x)), h), a=nn.Linear(3, 3), b=nn.Linear(3, 3)), torch.randn(2, 3)
    match = r"the model returns something that does not depend on the input of 'b' \(of several .*plr.select"
    refused(plr.UnsupportedModelError, match, lambda: plr.count_regions(plr.at(model, "b"), x, 0.1))
    assert torch.equal(plr.at(plr.select(model, 0), "b")(x), model.b(x))
    match = "'a' returns something that does not depend on the input of 'b'"
    refused(plr.UnsupportedModelError, match, lambda: plr.count_regions(plr.to(plr.at(model, "b"), "a"), x, 0.1))


def test_what_comes_behind_a_part_does_not_write_to_what_it_returns():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)), torch.randn(5, 3)
    assert torch.equal(plr.to(model, "0")(x), model[0](x))
    model = Do(
        lambda s, x: s.b(s.a(x)), a=Do(lambda s, x: (x + 1, [x - 1])), b=Do(lambda s, h: h[0].relu_() + h[1][0].relu_())
    )
    one, (other,) = plr.to(model, "a")(x)
    assert torch.equal(one, x + 1) and torch.equal(other, x - 1)


def test_what_comes_behind_a_part_need_not_be_covered():
    def forward(self, x):
        h = self.head(self.body(x))
        return h.sort(descending=True)[0] if h.sum() > 0 else torch.fft.fft(h).abs()

    model = Do(forward, body=nn.Sequential(nn.Linear(3, 8), nn.ReLU()), head=nn.Linear(8, 2))
    x = torch.randn(4, 3)
    refused(plr.UnsupportedModelError, "control flow depends on the data", lambda: plr.count_regions(model, x, 0.1))
    counted(plr.to(model, "head"), nn.Sequential(model.body, model.head), x)
