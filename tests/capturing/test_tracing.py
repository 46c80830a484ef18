"""From modules and exported programs to graphs: every mechanism, and nothing is left behind."""

import copy

import pytest
import torch
from torch import nn

import pylinregion as plr
from cases.small_models import Do, branches, mlp, pair, relu_on_a_slice
from cases.witness import check
from pylinregion.capturing import tracing

pytestmark = pytest.mark.usefixtures("doubles")


@pytest.mark.turns(2)
@pytest.mark.parametrize("mechanism", ["torch.export", "make_fx", "torch.export, strict"])
def test_every_mechanism_names_paths_and_lines(mechanism, monkeypatch):
    """The fallbacks are tried where the mechanisms before them fail."""

    def fails(*args):
        raise RuntimeError("not today")

    export = tracing._export
    if mechanism != "torch.export":
        monkeypatch.setattr(tracing, "_export", lambda *args, strict: (export if strict else fails)(*args, strict))
    if mechanism == "torch.export, strict":
        monkeypatch.setattr(tracing, "_make_fx", fails)
    parts = {"first": nn.Linear(6, 6), "act": nn.ReLU(), "block": pair(relu_on_a_slice)}
    model = Do(lambda s, x: s.block(s.act(s.first(s.act(x)))).relu(), **parts)
    check(model, torch.randn(3, 6), names=["act#1", "act#2", "block#1", "block#2", "relu"])
    network = plr.capture(model, torch.randn(3, 6))
    assert network.method == mechanism
    assert all(layer.line.startswith(("test_tracing.py:", "small_models.py:")) for layer in network.layers)
    with torch.no_grad():
        model.first.weight.neg_()
    check(model, torch.randn(3, 6))


@pytest.fixture
def precisions():
    """Reads torch's settings of float32 precision; they are put back afterwards."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has only the older switches")
    operators = [("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn"), ("mkldnn", "matmul"), ("mkldnn", "conv")]
    keys = [("generic", "all"), ("cuda", "all"), ("mkldnn", "all"), *operators]

    def read():
        try:
            older = torch.backends.cudnn.allow_tf32
        except RuntimeError:
            older = "differs from the others"
        return [torch._C._get_fp32_precision_getter(*key) for key in keys], older

    yield read
    for key in keys:
        torch._C._set_fp32_precision_setter(*key, "none")
    torch.backends.cudnn.allow_tf32 = True  # the default, and the newer settings of cuDNN with it


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize(
    ("owner", "value"),
    [
        (torch.backends, "ieee"),
        (getattr(torch.backends.cudnn, "conv", None), "ieee"),
        (getattr(torch.backends.cudnn, "rnn", None), "ieee"),
        (getattr(torch.backends.mkldnn, "conv", None), "bf16"),
    ],
    ids=["all", "cudnn.conv", "cudnn.rnn", "mkldnn.conv"],
)
def test_settings_of_precision_do_not_change_the_capture(owner, value, precisions):
    """torch.export raises where cuDNN's newer settings differ from the older switch, and leaves oneDNN off then."""
    model, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(3, 5, 8)  # make_fx cannot take it
    before = precisions()
    expected = plr.capture(copy.deepcopy(model), x)
    assert precisions() == before
    if owner is torch.backends:  # in a fresh process cuDNN's settings follow this one, until torch.export sets them
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "none"
    owner.fp32_precision = value
    before = precisions()
    network = plr.capture(model, x)
    with pytest.raises(plr.UnsupportedModelError, match="control flow depends on the data in module '1' at"):
        plr.capture(mlp(Do(branches)), torch.randn(2, 6))
    assert network.method == expected.method == "torch.export"
    assert network.layer_names == expected.layer_names == ("relu",)
    assert precisions() == before and torch.backends.mkldnn.enabled


# Wrappers and exported programs.


def test_compiled_models_are_unwrapped_and_not_run():
    def backend(graph, example):
        raise AssertionError("compiled")

    model = mlp()
    counts = check(model)
    inside = mlp()
    inside[1] = torch.compile(inside[1], backend=backend)
    own = mlp()
    own.compile(backend=backend)
    torch.manual_seed(0)
    model, x = mlp(), torch.randn(3, 6)
    assert plr.capture(torch.compile(model, backend=backend), x) is plr.capture(model, x)
    assert plr.capture(inside, x).layer_names == plr.capture(own, x).layer_names == counts.layers == ("1",)


def test_data_parallel_is_unwrapped():
    model, x = mlp(), torch.randn(3, 6)
    assert plr.capture(nn.DataParallel(model), x) is plr.capture(model, x)


def test_exported_programs_are_read_and_left_as_they_are():
    model, x = mlp(nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ReLU()).eval(), torch.randn(3, 6)
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},), strict=False)
    before = str(program.graph)
    counts = plr.count_regions(program, x, 0.5, n_directions=4)
    assert torch.equal(counts.changes, plr.count_regions(model, x, 0.5, n_directions=4).changes)
    assert counts.layers == ("1", "3") and str(program.graph) == before
    static = torch.export.export(model, (x,), strict=False)
    with pytest.raises(plr.UnsupportedModelError, match="fixes its batch size to 3"):
        plr.capture(static, x)
    with pytest.raises(ValueError, match=r"x must be \[B, 6\], as the program was exported, got \[B, 5\]"):
        plr.count_regions(program, x[:, :5], 0.5, n_directions=4)
    with pytest.raises(TypeError, match=r"x must be torch\.float64, as the program was exported, got torch\.float32"):
        plr.explain(program, x.float())


# Capturing leaves no trace of its own.


def test_the_model_and_torch_are_left_as_they_were(capfd):
    def forward(self, x):
        self.hidden, self.log[:] = self.linear(x), [1]
        self.calls += 1
        return self.norm(self.hidden).relu() * self.scale

    model = Do(forward, linear=nn.Linear(6, 8), norm=nn.BatchNorm1d(8), scale=torch.ones(8))
    model.hidden, model.log, model.calls = None, [], 0
    model.train()
    model.norm.eval()
    random, before = torch.get_rng_state(), dict(vars(model))
    state = {
        name: (tensor, tensor.clone(), tensor._version) for name, tensor in model.state_dict(keep_vars=True).items()
    }
    x = torch.randn(2, 6, requires_grad=True)
    random = torch.get_rng_state()
    counts = plr.count_regions(model, x, 0.5, n_directions=3)
    assert not counts.changes.requires_grad
    assert torch.equal(random, torch.get_rng_state())
    assert [part.training for part in model.modules()] == [True, True, False]
    assert vars(model) == before and model.hidden is None and model.log == [] and model.calls == 0
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is state[name][0] and torch.equal(tensor, state[name][1]) and tensor._version == state[name][2]
    assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()
    assert capfd.readouterr() == ("", "")


def test_a_refusal_leaves_everything_too(capfd):
    model = Do(lambda s, x: s.steps.add_(1) * x.relu(), steps=torch.zeros(()))
    with pytest.raises(plr.UnsupportedModelError, match="the forward pass changes 'steps' of the model"):
        plr.capture(model, torch.randn(2, 6))
    with pytest.raises(plr.UnsupportedModelError, match="control flow depends on the data"):
        plr.capture(mlp(Do(branches)), torch.randn(2, 6))
    assert model.steps == 0 and model.training and torch.backends.mha.get_fastpath_enabled()
    assert capfd.readouterr() == ("", "")


def test_points_are_not_overwritten_by_models_that_work_in_place():
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 8)), torch.randn(4, 6)
    before = x.clone()
    plr.count_regions(model, x, 0.5, n_directions=3)
    assert torch.equal(x, before)


def test_capture_under_inference_mode():
    model, x = mlp(), torch.randn(3, 6)
    with torch.inference_mode():
        network = plr.capture(model, 2 * x)
    assert torch.equal(
        plr.count_regions(network, x, 0.5, n_directions=4).changes,
        plr.count_regions(model, x, 0.5, n_directions=4).changes,
    )
