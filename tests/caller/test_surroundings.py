"""What a caller has switched on in torch changes no result of a public function."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import pylinregion as plr
from cases.counting import points
from cases.parts import some
from pylinregion import measures


class SeesOperators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"a mode of the caller saw {func}")


class SeesFunctions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"a mode of the caller saw {func}")


@contextlib.contextmanager
def switched(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


def default_dtype(dtype):
    return lambda: switched(torch.set_default_dtype, dtype, torch.float32)


MODES = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default float64": default_dtype(torch.float64),
    "default float16": default_dtype(torch.float16),
    "default bfloat16": default_dtype(torch.bfloat16),
    "meta device": lambda: torch.device("meta"),
    "default meta device": lambda: switched(torch.set_default_device, "meta", None),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "anomalies": torch.autograd.detect_anomaly,
    "dual_level": forward_ad.dual_level,
    "dispatch mode": SeesOperators,
    "function mode": SeesFunctions,
}
TRANSFORMS = {
    "vmap": lambda f: torch.func.vmap(lambda x: (f(), x)[1])(torch.zeros(2)),
    "grad": lambda f: torch.func.grad(lambda x: (f(), x)[1])(torch.zeros(())),
    "jvp": lambda f: torch.func.jvp(lambda x: (f(), x)[1], (torch.zeros(2),), (torch.zeros(2),)),
    "functionalize": lambda f: torch.func.functionalize(lambda x: (f(), x)[1])(torch.zeros(2)),
}


class Case:
    """Models and points, the same each time that one is made."""

    def __init__(self):
        torch.manual_seed(0)
        self.mlp = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3))
        self.conv = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
        ).eval()
        self.x, self.images = points(12, 5, dtype=torch.float32), points(6, 1, 6, 6, dtype=torch.float32)
        self.y = torch.arange(12) % 3
        self.few, self.one, self.other = self.x[:3], self.images[0], self.images[1] + 1
        self.slice = plr.Slice([0.5, 0.0, 0.25, 0.0, 0.0], np.eye(5)[0], np.eye(5)[1])
        self.plane = plr.Slice(np.zeros((1, 6, 6)), np.eye(36)[7].reshape(1, 6, 6), np.eye(36)[15].reshape(1, 6, 6))
        self.at = [[0.3, 0.4], [0.9, 0.1]]
        self.spare = [copy.deepcopy(self.mlp) for _ in range(30)]

    def fresh(self):
        """A model that has not been captured."""
        return self.spare.pop()


def count(model, x, *arguments, **options):
    return plr.count_regions(model, x, 0.3, *arguments, **options)


def about(part, at):
    """What is known of a partition."""
    return [
        part.patterns,
        part.affine_maps(),
        part.jacobian(0),
        part.slope_norms("jacobian"),
        part.linear_regions(),
        part.decision_boundary().segments,
        part.class_of(at),
        part.locate(at),
        part.locate_inputs(part.slice.points(at)),
        part.points(),
        part.statistics(),
    ]


def saved(part, tmp):
    part.save(tmp / "part.npz")
    return plr.load(tmp / "part.npz").affine_maps()


def record(case):
    wanted = ["local_complexity", "accuracy", "loss", "weight_norm"]
    found = plr.Monitor(case.mlp, {"a": (case.x, case.y)}, 0.3, measures=wanted).measure()
    return {key: value for key, value in found.items() if key != "seconds"}


CALLS = {
    "count": lambda c, tmp: count(c.mlp, c.x),
    "displacements": lambda c, tmp: count(c.mlp, c.x, displacement=True),
    "vertices": lambda c, tmp: count(c.mlp, c.x, displacement=False, estimate_ambiguous=True, include_output=True),
    "batches": lambda c, tmp: count(c.mlp, c.x, batch_size=2, dtype=torch.float64),
    "images": lambda c, tmp: count(c.conv, c.images),
    "patterns": lambda c, tmp: plr.patterns(c.mlp, c.x).words,
    "axes": lambda c, tmp: count(c.conv, c.images, "axes", n_directions=3),
    "slice": lambda c, tmp: count(c.mlp, c.few, "slice"),
    "partition": lambda c, tmp: about(plr.partition(c.mlp, c.slice), c.at),
    "partition of images": lambda c, tmp: about(plr.partition(c.conv, c.plane), c.at),
    "verify": lambda c, tmp: plr.partition(c.mlp, c.slice).verify(c.mlp, samples=50),
    "save, load": lambda c, tmp: saved(plr.partition(c.mlp, c.slice), tmp),
    "trace": lambda c, tmp: plr.trace(c.conv, c.one, c.other).maps,
    "first capture": lambda c, tmp: count(c.fresh(), c.x),
    "explain": lambda c, tmp: str(plr.explain(c.conv, c.images)),
    "capture": lambda c, tmp: plr.capture(c.mlp, c.x).layer_names,
    "random_frame": lambda c, tmp: plr.random_frame((3, 4), 5, seed=7),
    "around": lambda c, tmp: plr.Slice.around(c.one, 0.5).plane,
    "through": lambda c, tmp: plr.Slice.through(c.one, c.other, np.ones((1, 6, 6))).plane,
    "box": lambda c, tmp: plr.Slice.box(-1, 1).points(c.at),
    "Slice": lambda c, tmp: [*c.plane.coordinates(c.one), c.plane.contains(c.at)],
    "Monitor": lambda c, tmp: record(c),
    "count_in_shards": lambda c, tmp: plr.count_in_shards(c.mlp, c.x, 0.3, tmp / "c", shard_size=5).load(),
    "partition_in_shards": lambda c, tmp: plr.partition_in_shards(c.mlp, c.slice, tmp / "p", parts=3).patterns,
    "feature_ranks": lambda c, tmp: measures.feature_ranks(c.mlp, c.x),
    "local_rank": lambda c, tmp: measures.local_rank(c.mlp, c.x),
    "total_variation": lambda c, tmp: measures.total_variation(c.mlp, c.x),
    "density": lambda c, tmp: measures.density_local_complexity(c.mlp, c.x),
    "information": lambda c, tmp: measures.perturbed_information(c.mlp, c.x, 0.1),
    "perturbation": lambda c, tmp: measures.perturbation_error(c.mlp, c.x, 0.1),
    "last_layer_norm": lambda c, tmp: measures.last_layer_norm(c.mlp, c.x),
    "weight_norm": lambda c, tmp: measures.weight_norm(c.mlp),
    "sharpness": lambda c, tmp: measures.sharpness(c.conv, c.images),
    "eigenvalue": lambda c, tmp: measures.largest_eigenvalue(c.mlp, c.x, c.y, loss="cross_entropy"),
    "robust_accuracy": lambda c, tmp: (
        measures.robust_accuracy(c.mlp, c.x, c.y, [0.1], low=-9, high=9, alpha=0.05).accuracy
    ),
    "linear_probes": lambda c, tmp: measures.linear_probes(c.mlp, c.x, c.y, c.x, c.y),
    "entropy": lambda c, tmp: measures.matrix_entropy(c.x),
    "mutual_information": lambda c, tmp: measures.matrix_mutual_information(c.x, c.x),
    "neighbours": lambda c, tmp: measures.neighbour_function(c.x, c.x, [0.1, 3.0]),
}


def bits(value):
    """A result, to be compared with equality."""
    if isinstance(value, torch.Tensor):
        assert not value.is_inference() and not value.requires_grad
        return value.dtype, value.device, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, plr.RegionCounts):
        return [bits(part) for part in (value.changes, value.regions, value.ambiguous, value.layers)]
    if isinstance(value, dict):
        return {key: bits(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [bits(part) for part in value]
    return repr(value)


def results(case, tmp_path, names=tuple(CALLS)):
    """Those of the calls of these names."""
    found = {}
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        found[name] = CALLS[name](case, tmp_path / name)
    return found


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def plain(case, tmp_path_factory):
    """The results where nothing is switched on."""
    return {name: bits(value) for name, value in results(case, tmp_path_factory.mktemp("plain")).items()}


def assert_same(plain, found):
    for name, value in found.items():
        assert bits(value) == plain[name], name


@pytest.mark.part(2)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("mode", MODES)
def test_modes(mode, case, plain, tmp_path):
    with MODES[mode]():
        found = results(case, tmp_path, some(list(CALLS), 4, mode))
    assert_same(plain, found)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_inside_transforms(transform, case, plain, tmp_path):
    found = {}
    names = some(list(CALLS), 4, transform)
    TRANSFORMS[transform](lambda: found.update(results(case, tmp_path, names)))
    assert list(found) == names
    assert_same(plain, found)


def test_models_and_points_made_in_inference_mode(plain, tmp_path):
    with torch.inference_mode():
        case = Case()
        assert case.x.is_inference() and case.mlp[0].weight.is_inference()
        inside = results(case, tmp_path / "inside", some(list(CALLS), 3, "inside"))
    assert_same(plain, inside)
    assert_same(plain, results(case, tmp_path / "outside", some(list(CALLS), 3, "outside")))
