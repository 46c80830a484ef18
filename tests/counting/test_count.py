"""``count_regions``, method "vertices": against the definition, and what must not change the answer."""

import concurrent.futures
import copy
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import pylinregion as plr
from cases import oracle
from cases.counting import NETS, convnet, mlp, points
from cases.devices import DEVICES
from pylinregion.caller.torch_settings import full_precision
from pylinregion.counting.every_vertex import EveryVertex
from pylinregion.native.simd import use_simd
from pylinregion.runtime.evaluator import Evaluator


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.5, 20.0])
@pytest.mark.parametrize("name", NETS)
def test_counts_are_those_of_the_definition(name, radius, device):
    net, shape = NETS[name]
    x = points(37, *shape)
    frame = plr.random_frame(shape, 9, seed=4)
    changes, regions = oracle.local_complexity(net, x, radius, frame)
    counts = plr.count_regions(net.to(device), x.to(device), radius, n_directions=9, seed=4)
    net.cpu()
    assert counts.changes.dtype == counts.regions.dtype == torch.int64
    assert counts.changes.device.type == device
    assert torch.equal(counts.changes.cpu(), changes)
    assert torch.equal(counts.regions.cpu(), regions)
    assert torch.equal(counts.total.cpu(), changes.sum(1))
    if radius == 0.5:  # neither nothing nor everything
        assert int(changes.sum()) > 0 and bool((changes.sum(0) < 37 * 30).any()) and int(regions.max()) > 1


@pytest.mark.parametrize("n_directions", [1, 2, 20])
def test_any_number_of_directions(n_directions):
    net, shape = NETS["mlp"]
    x = points(11, *shape)
    frame = plr.random_frame(shape, n_directions, seed=0)
    changes, regions = oracle.local_complexity(net, x, 0.3, frame)
    counts = plr.count_regions(net, x, 0.3, n_directions=n_directions)
    assert torch.equal(counts.changes, changes) and torch.equal(counts.regions, regions)
    assert f"{2 * n_directions} vertices" in counts.definition


@pytest.mark.parametrize("name", NETS)
def test_batches_threads_and_memory_do_not_change_the_counts(name, threads):
    net, shape = NETS[name]
    x = points(23, *shape)
    threads(1)
    want = plr.count_regions(net, x, 0.2, n_directions=5)
    assert int(want.total.sum()) > 0
    for number in (1, 2, 3):
        threads(number)
        for arguments in ({}, {"batch_size": 1}, {"batch_size": 7}, {"batch_size": 100}, {"memory_budget": 1}):
            got = plr.count_regions(net, x, 0.2, n_directions=5, **arguments)
            assert torch.equal(got.changes, want.changes) and torch.equal(got.regions, want.regions)
    assert torch.get_num_threads() == 3


def test_one_point_on_several_threads(threads):
    threads(2)
    net, shape = NETS["mlp"]
    x = points(5, *shape)
    together = plr.count_regions(net, x, 0.2, n_directions=5)
    alone = [plr.count_regions(net, x[i : i + 1], 0.2, n_directions=5) for i in range(5)]
    assert torch.equal(together.changes, torch.cat([counts.changes for counts in alone]))


def test_memory_budget_comes_from_the_environment(monkeypatch):
    net, shape = NETS["mlp"]
    sizes = []
    count = EveryVertex.count

    def record(self, rows, *rest):
        sizes.append(rows.stop - rows.start)
        return count(self, rows, *rest)

    monkeypatch.setattr(EveryVertex, "count", record)
    plr.count_regions(net, points(40, *shape), 0.2, n_directions=5)
    assert max(sizes) > 1
    sizes.clear()
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "1000")
    plr.count_regions(net, points(40, *shape), 0.2, n_directions=5)
    assert set(sizes) == {1}
    sizes.clear()
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "")  # as if it were not set
    plr.count_regions(net, points(40, *shape), 0.2, n_directions=5)
    assert max(sizes) > 1
    monkeypatch.setenv("PYLINREGION_MEMORY_BUDGET", "many")
    with pytest.raises(ValueError, match="PYLINREGION_MEMORY_BUDGET must be a number of bytes, at least 1, got 'many'"):
        plr.count_regions(net, points(4, *shape), 0.2, n_directions=5)


@pytest.mark.parametrize("name", NETS)
def test_a_frame_of_ones_own_and_one_per_point(name):
    net, shape = NETS[name]
    x = points(9, *shape)
    frame = plr.random_frame(shape, 6, seed=11)
    shared = plr.count_regions(net, x, 0.4, frame=frame)
    assert torch.equal(shared.changes, oracle.local_complexity(net, x, 0.4, frame)[0])
    assert torch.equal(shared.changes, plr.count_regions(net, x, 0.4, n_directions=6, seed=11).changes)
    repeated = plr.count_regions(net, x, 0.4, frame=frame.expand(9, *frame.shape))
    assert torch.equal(repeated.changes, shared.changes) and torch.equal(repeated.regions, shared.regions)
    frames = torch.stack([plr.random_frame(shape, 6, seed=seed) for seed in range(9)])
    each = plr.count_regions(net, x, 0.4, frame=frames, batch_size=4)
    for i in range(9):
        assert torch.equal(each.changes[i : i + 1], oracle.local_complexity(net, x[i : i + 1], 0.4, frames[i])[0])


def test_one_radius_per_point():
    net, shape = NETS["mlp"]
    x = points(9, *shape)
    radius = torch.linspace(0.01, 3, 9)
    counts = plr.count_regions(net, x, radius, n_directions=5, batch_size=2)
    for i, r in enumerate(radius.double()):
        one = plr.count_regions(net, x[i : i + 1], float(r), n_directions=5)
        assert torch.equal(counts.changes[i : i + 1], one.changes)
    assert counts.total[0] < counts.total[-1]


@pytest.mark.parametrize("name", NETS)
def test_float32_counts_differ_from_float64_only_near_zero(name):
    net, shape = NETS[name]
    x = points(30, *shape)
    double = plr.count_regions(net, x, 0.2, n_directions=8)
    single = plr.count_regions(net, x, 0.2, n_directions=8, dtype=torch.float32)
    assert int((double.changes - single.changes).abs().sum()) <= 2
    net32 = copy.deepcopy(net).float()
    native = plr.count_regions(net32, x.float(), 0.2, n_directions=8)
    assert torch.equal(native.changes, single.changes)
    up = plr.count_regions(net32, x.float(), 0.2, n_directions=8, dtype=torch.float64)
    frame = plr.random_frame(shape, 8)
    assert torch.equal(up.changes, oracle.local_complexity(net32.double(), x.float().double(), 0.2, frame)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_models_are_counted_in_their_own_arithmetic(dtype):
    net = mlp(20, 33, 70, 3, dtype=dtype)
    x = points(12, 20, dtype=dtype)
    frame = plr.random_frame((20,), 5)
    counts = plr.count_regions(net, x, 0.5, n_directions=5)
    want, _ = oracle.local_complexity(net, x, torch.tensor(0.5), frame.to(dtype))
    assert int(want.sum()) > 50 and int((counts.changes - want).abs().sum()) <= 12  # the first layer is split


def test_x_of_any_layout_and_with_gradients():
    net, shape = NETS["conv"]
    x = points(7, *shape)
    want = plr.count_regions(net, x, 0.2, n_directions=5).changes
    strided = torch.stack([x, -x], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    for other in (strided, x.contiguous(memory_format=torch.channels_last), x.clone().requires_grad_()):
        counts = plr.count_regions(net, other, 0.2, n_directions=5)
        assert torch.equal(counts.changes, want) and not counts.changes.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


def test_channels_last_images_count_like_contiguous_ones(monkeypatch):
    """float32 images run channels_last on the CPU; float64 ones do not. Same network, same counts."""
    net = convnet().float()
    x = points(20, 2, 10, 10, dtype=torch.float32)
    plr.capture(net, x)
    evaluators = []
    init = Evaluator.__init__

    def record(self, *args, **kwargs):
        init(self, *args, **kwargs)
        evaluators.append(self)

    monkeypatch.setattr(Evaluator, "__init__", record)
    single = plr.count_regions(net, x, 0.3, n_directions=6)
    double = plr.count_regions(net, x, 0.3, n_directions=6, dtype=torch.float64)
    assert [evaluator.channels_last for evaluator in evaluators] == [True, False]
    assert torch.equal(single.changes, double.changes) and torch.equal(single.regions, double.regions)


def test_layers_choose_columns():
    net, shape = NETS["mlp"]
    x = points(15, *shape)
    every = plr.count_regions(net, x, 0.5, n_directions=6)
    assert every.layers == ("1", "3", "5") and every.changes.shape == (15, 3)
    some = plr.count_regions(net, x, 0.5, n_directions=6, layers=["5", "1"])
    assert some.layers == ("1", "5")
    assert torch.equal(some.changes, every.changes[:, [0, 2]])
    assert bool((some.regions <= every.regions).all()) and not torch.equal(some.regions, every.regions)
    none = plr.count_regions(net, x, 0.5, n_directions=6, layers=[])
    assert none.changes.shape == (15, 0) and none.regions.tolist() == [1] * 15
    with pytest.raises(ValueError, match="layers must be among '1', '3', '5', got '2'"):
        plr.count_regions(net, x, 0.5, layers=["2"])
    with pytest.raises(TypeError, match="layers must be a list of layer names, got str"):
        plr.count_regions(net, x, 0.5, layers="1")
    with pytest.raises(ValueError, match="layers must not repeat a name"):
        plr.count_regions(net, x, 0.5, layers=["1", "1"])


def test_include_output_counts_the_signs_of_the_outputs():
    net, shape = NETS["mlp"]
    x = points(30, *shape)
    frame = plr.random_frame(shape, 6)
    with_relu = nn.Sequential(*net, nn.ReLU())
    want, regions = oracle.local_complexity(with_relu, x, 2.0, frame)
    counts = plr.count_regions(net, x, 2.0, frame=frame, include_output=True)
    assert counts.layers == ("1", "3", "5", "output")
    assert torch.equal(counts.changes, want) and torch.equal(counts.regions, regions)
    assert int(want[:, 3].sum()) > 0


def test_a_layer_that_is_called_output_is_not_the_outputs():
    """By its path it would have their name, and records and ranks by name would lose one of the two."""
    net = nn.Sequential(OrderedDict(hidden=nn.Linear(4, 9), output=nn.ReLU(), head=nn.Linear(9, 3))).double()
    x = points(30, 4)
    counts = plr.count_regions(net, x, 2.0, n_directions=4, include_output=True, seed=0)
    plain = plr.count_regions(nn.Sequential(*net), x, 2.0, n_directions=4, include_output=True, seed=0)
    assert counts.layers == ("output#1", "output") and plain.layers == ("1", "output")
    assert torch.equal(counts.changes, plain.changes)
    ranks = plr.measures.feature_ranks(net, x, include_output=True)
    assert ranks == {"output#1": 4, "output": 3}


def test_a_model_without_kinks_has_one_region():
    counts = plr.count_regions(nn.Linear(4, 2).double(), points(3, 4), 1.0, n_directions=2)
    assert counts.changes.shape == (3, 0) and counts.total.tolist() == [0] * 3 and counts.regions.tolist() == [1] * 3


@pytest.mark.parametrize("name", NETS)
def test_no_points_give_an_empty_result(name):
    net, shape = NETS[name]
    counts = plr.count_regions(net, torch.empty(0, *shape, dtype=torch.float64), 0.1, n_directions=3)
    assert counts.changes.shape == (0, 3) and counts.changes.dtype == torch.int64
    assert counts.regions.shape == (0,) and math.isnan(counts.mean().mean)
    estimated = plr.count_regions(
        net, torch.empty(0, *shape, dtype=torch.float64), 0.1, n_directions=3, estimate_ambiguous=True
    )
    assert estimated.ambiguous.shape == (0,)


def test_relu_at_exactly_zero_is_off():
    """At vertices (1, 0), (-1, 0), (0, 1), (0, -1), neuron y is 0, 0, 1, -1 and neuron -|x| never is above 0."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, -1.0]]))
    frame = torch.eye(2)
    counts = plr.count_regions(net, torch.zeros(1, 2), 1.0, frame=frame)
    assert counts.changes.tolist() == [[2]]  # the neuron that is 0 everywhere does not change
    assert counts.regions.tolist() == [3]
    x_axis = plr.count_regions(net, torch.zeros(1, 2), 1.0, frame=frame[:1])
    assert x_axis.changes.tolist() == [[0]] and x_axis.regions.tolist() == [1]  # exact zeros are no change


# --- facts of the papers (arXiv 2402.15555, appendix A) ---


@pytest.mark.parametrize("radius", [1e-4, 1.0, 10.0])
@pytest.mark.parametrize("n_directions", [2, 25])
def test_paper_zero_bias_linear_stack_finds_every_hyperplane_at_the_origin(radius, n_directions):
    """Width 400, d = 784, no biases: at the origin every hyperplane passes through the centre, and P = 2 finds all."""

    class Stack(nn.Module):
        """Linear layers; their outputs are counted as if a ReLU followed, but the identity goes on."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(
                [nn.Linear(784, 400, bias=False), *[nn.Linear(400, 400, bias=False) for _ in range(9)]]
            )

        def forward(self, x):
            signs = []
            for layer in self.layers:
                x = layer(x)
                signs.append(torch.relu(x))
            return x, signs

    net = Stack().double()
    counts = plr.count_regions(net, torch.zeros(1, 784, dtype=torch.float64), radius, n_directions=n_directions)
    assert counts.changes.tolist() == [[400] * 10]


def leaky_mlp():
    torch.manual_seed(0)
    layers = [nn.Linear(784, 100), nn.LeakyReLU(0.01)]
    for _ in range(17):
        layers += [nn.Linear(100, 100), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers).double()


def test_paper_local_complexity_falls_away_from_the_origin_and_grows_with_the_radius():
    net = leaky_mlp()
    ones = torch.ones(1, 784, dtype=torch.float64)
    by_shift = [int(plr.count_regions(net, s * ones, 5.0, n_directions=20).total) for s in (0.0, 0.3, 1.0, 3.0, 10.0)]
    assert by_shift == sorted(by_shift, reverse=True) and by_shift[0] > 4 * by_shift[-1]
    by_radius = [int(plr.count_regions(net, ones, r, n_directions=20).total) for r in (0.01, 0.1, 1.0, 5.0, 20.0)]
    assert by_radius == sorted(by_radius) and by_radius[-1] > 4 * max(by_radius[0], 1)


def test_paper_local_complexity_saturates_in_the_number_of_directions():
    """Nested frames: more directions never find less, and doubling finds ever fewer new neurons."""
    net = leaky_mlp()
    x = 0.3 * torch.ones(1, 784, dtype=torch.float64)
    frame = plr.random_frame((784,), 200)
    found = [int(plr.count_regions(net, x, 5.0, frame=frame[:p]).total) for p in (2, 10, 25, 50, 100, 200)]
    assert found == sorted(found)
    assert found[5] - found[3] < (found[3] - found[0]) / 4


# --- rounding ---


def test_ambiguous_is_none_unless_asked_for():
    net, shape = NETS["mlp"]
    assert plr.count_regions(net, points(3, *shape), 0.1, n_directions=3).ambiguous is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ambiguous_finds_signs_that_rounding_decides(dtype):
    """Neuron 0 is (0.1 + 0.2 - 0.3) x at the vertices: rounding noise. The others are far from 0."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).to(dtype)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1.0, -1.0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
        net[0].bias.copy_(torch.tensor([0.0, 10.0, 10.0, 10.0]))
    noisy = torch.tensor([[0.1, 0.2, 0.3]], dtype=dtype)
    clear = torch.tensor([[0.1, 0.2, 5.0]], dtype=dtype)
    x = torch.cat([noisy, clear])
    # Directions that keep a + b - c: what is left of neuron 0 is the rounding of the centre.
    frame = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 2.0]], dtype=dtype)
    frame /= frame.norm(dim=1, keepdim=True)
    counts = plr.count_regions(net, x, 0.05, frame=frame, estimate_ambiguous=True, displacement=False)
    assert counts.ambiguous.tolist()[1] == 0
    assert 1 <= counts.ambiguous.tolist()[0] <= 4
    # By displacements the centre is float64: for float32 numbers, whose sum is -7e-9, that is enough.
    counts = plr.count_regions(net, x, 0.05, frame=frame, estimate_ambiguous=True)
    assert counts.ambiguous.tolist() == ([0, 0] if dtype == torch.float32 else [4, 0])


def test_ambiguous_is_rare_on_ordinary_networks():
    net, shape = NETS["conv"]
    counts = plr.count_regions(net, points(20, *shape), 0.05, n_directions=5, estimate_ambiguous=True)
    assert int(counts.ambiguous.sum()) == 0  # float64: nothing within 1e-15 of a kink
    single = plr.count_regions(
        net, points(20, *shape), 0.05, n_directions=5, estimate_ambiguous=True, dtype=torch.float32
    )
    assert int(single.ambiguous.sum()) < 20 * 10 * 800 * 1e-3


def test_precision_switches_are_off_while_counting_and_restored(monkeypatch):
    getter = torch._C._get_fp32_precision_getter
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with full_precision():
            assert {getter(*key) for key in (("mkldnn", "matmul"), ("cuda", "matmul"), ("cuda", "conv"))} == {"ieee"}
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        net, x = mlp(20, 64, 64, 3, dtype=torch.float32), points(20, 20, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = plr.count_regions(net, x, 0.1, n_directions=4)
            assert torch.is_autocast_enabled("cpu")
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    assert torch.equal(inside.changes, plr.count_regions(net, x, 0.1, n_directions=4).changes)


def test_portable_kernels_count_the_same():
    for net, shape in NETS.values():
        x = points(9, *shape)
        best = plr.count_regions(net, x, 0.2, n_directions=5)
        with use_simd("portable"):
            portable = plr.count_regions(net, x, 0.2, n_directions=5)
        assert torch.equal(best.changes, portable.changes) and torch.equal(best.regions, portable.regions)
        assert best.changes.any()


def test_one_network_counted_in_turn_with_every_set_of_arguments_gives_what_a_fresh_capture_gives():
    net, shape = NETS["mlp"]
    x = points(6, *shape)
    frames = torch.stack([plr.random_frame(shape, 3, seed=seed) for seed in range(6)])
    arguments = [
        {},
        {"layers": ["1"]},
        {"dtype": torch.float64},
        {"include_output": True},
        {"frame": frames},
        {"layers": ["1"], "include_output": True},
    ]
    network = plr.capture(net, x)
    for _ in range(2):
        for each in arguments:
            got = plr.count_regions(network, x, 0.4, n_directions=3, **each)
            want = plr.count_regions(plr.capture(copy.deepcopy(net), x), x, 0.4, n_directions=3, **each)
            assert got.layers == want.layers
            assert torch.equal(got.changes, want.changes) and torch.equal(got.regions, want.regions)


def test_captured_models_are_counted_in_several_threads():
    """Also while a caller has a level of forward-mode differentiation open, of which a process has one."""
    cases = [(net, points(20, *shape)) for net, shape in NETS.values()]
    want = [plr.count_regions(net, x, 0.3) for net, x in cases]
    with concurrent.futures.ThreadPoolExecutor(3) as pool, forward_ad.dual_level():
        found = [pool.submit(plr.count_regions, *cases[job % 2], 0.3) for job in range(12)]
        found += [pool.submit(plr.count_regions, *cases[job % 2], 0.3, "axes", n_directions=2) for job in range(4)]
        counts = [each.result() for each in found]
    for job, got in enumerate(counts[:12]):
        assert torch.equal(got.changes, want[job % 2].changes) and torch.equal(got.regions, want[job % 2].regions)
    along = [plr.count_regions(net, x, 0.3, "axes", n_directions=2) for net, x in cases]
    for job, got in enumerate(counts[12:]):
        assert torch.equal(got.changes, along[job % 2].changes) and torch.equal(got.regions, along[job % 2].regions)
    assert all(counts.total.any() for counts in (*want, *along))


@pytest.mark.parametrize("method", ["vertices", "axes", "slice"])
@pytest.mark.parametrize("inputs", [2, 8])
def test_inputs_of_few_dimensions_have_as_many_directions(inputs, method):
    """25 was the default for them too, and an error."""
    net, x = mlp(inputs, 9, 2), points(5, inputs)
    pairs = 2 if method == "slice" else inputs
    counts = plr.count_regions(net, x, 0.5, method)
    assert torch.equal(counts.changes, plr.count_regions(net, x, 0.5, method, n_directions=pairs).changes)
    if method != "slice":
        assert f"{2 * inputs} " in counts.definition
        with pytest.raises(ValueError, match=f"at most the {inputs} input dimensions, got {inputs + 1}"):
            plr.count_regions(net, x, 0.5, method, n_directions=inputs + 1)
