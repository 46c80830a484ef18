"""A twin has all that a module's code reaches, and nothing of it is the module's; what has none is shared."""

import collections
import enum
import functools
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from pylinregion.caller.isolation import beside
from pylinregion.caller.twin import Twin


class Kind(enum.Enum):
    ONE = 1


class Mark:
    """Known by what it is."""


MARK = Mark()
OTHER = nn.Linear(1, 1)


class Holder:
    __slots__ = ("part", "unset")

    def __init__(self, part):
        self.part = part


class Listed(list):
    pass


class Strict(nn.Linear):
    """Lets nobody set or get what it does not know, nor copy it."""

    def __setattr__(self, name, value):
        assert name in ("training", "in_features", "out_features", "weight", "bias"), name
        super().__setattr__(name, value)

    def __deepcopy__(self, memo):
        raise AssertionError("copied")

    __copy__ = __reduce_ex__ = __getstate__ = __deepcopy__


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = Strict(3, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.tied = nn.Linear(3, 3, bias=False)
        self.tied.weight = self.a.weight
        self.again = self.b
        self.register_buffer("count", torch.zeros(1))
        self.plain, self.wide, self.array = torch.zeros(2), torch.ones(3, 1).expand(3, 4), np.zeros(2)
        self.by_list, self.by_module, self.pair = [self.a, [self.b]], {self.a: "a"}, (self.b, 1)
        self.up, self.method, self.part = weakref.ref(self), self.helper, functools.partial(Model.helper, self)
        self.parents, self.recent = weakref.WeakKeyDictionary({self.a: self}), collections.deque([self.a], 2)
        self.holder, self.space, self.kinds = Holder(self.a), types.SimpleNamespace(own=self), {Kind.ONE: MARK}
        self.lock, self.listed, self.default = threading.Lock(), Listed([self]), collections.defaultdict(list)
        self.append, self.names = self.listed.append, {"x"}
        self.fixed = functools.partial(MARK.__class__)
        shift = [0.0]

        def add(part, args, output):
            shift[0] += 1.0
            return output + 0 * self.a.weight[0, 0] + 0 * OTHER.weight[0, 0]

        self.shift, self.hook = shift, add
        self.b.register_forward_hook(add)

    def helper(self):
        return self

    def forward(self, x):
        return self.tied(self.b(self.a(x)))


def cell_of(function, name):
    return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents


def test_what_a_module_reaches_has_a_twin():
    model = Model()
    twin = Twin(model, values=True).module
    assert type(twin) is Model and twin is not model and type(twin.a) is Strict
    own, theirs = ({id(part) for part in each.modules()} for each in (twin, model))
    assert own.isdisjoint(theirs) and [n for n, _ in twin.named_modules()] == [n for n, _ in model.named_modules()]
    assert (
        twin.again is twin.b
        and twin.tied.weight is twin.a.weight
        and list(twin.state_dict()) == list(model.state_dict())
    )
    assert twin.by_list == [twin.a, [twin.b]] and twin.by_module == {twin.a: "a"} and twin.pair == (twin.b, 1)
    assert twin.up() is twin and twin.method() is twin and twin.part() is twin
    assert dict(twin.parents) == {twin.a: twin} and list(twin.recent) == [twin.a] and twin.recent.maxlen == 2
    assert twin.holder.part is twin.a and twin.space.own is twin and twin.listed[0] is twin
    assert not hasattr(twin.holder, "unset") and twin.default.default_factory is list
    twin.append(1)
    assert twin.listed[1:] == [1] and len(model.listed) == 1 and type(twin.listed) is Listed
    (hook,) = twin.b._forward_hooks.values()
    assert hook is twin.hook and cell_of(hook, "self") is twin and cell_of(hook, "shift") is twin.shift
    assert hook.__globals__["OTHER"] is not OTHER and hook.__code__ is model.hook.__code__
    assert twin.kinds == model.kinds and twin.kinds[Kind.ONE] is MARK and twin.lock is model.lock


def test_what_is_done_to_a_twin_is_not_done_to_the_module():
    model, x = Model(), torch.randn(2, 3)
    wanted = model(x)
    assert model.shift == [1.0]
    with beside(model, values=True) as twin:
        own = twin.module
        assert torch.equal(own(x), wanted) and own.shift == [2.0] and not any(part.training for part in own.modules())
        own.names.add("y"), own.by_list.clear(), own.default["z"]
        own.array += 1
        with torch.no_grad():
            for tensor in (*own.parameters(), own.count, own.plain):
                tensor.add_(1)
        own.a.weight.grad = torch.ones(3, 3)
        del own.b[1]
    assert model.shift == [1.0] and model.names == {"x"} and len(model.by_list) == 2 and not model.default
    assert not model.array.any() and not model.count.any() and not model.plain.any() and model.a.weight.grad is None
    assert torch.equal(model(x), wanted) and all(part.training for part in model.modules())


@pytest.mark.parametrize("values", [False, True])
def test_tensors_are_copies_or_look_at_the_same_memory(values):
    model = Model()
    model.a.weight.requires_grad_(False)
    model.strided = torch.arange(12.0).reshape(3, 4)[:, ::2]
    twin = Twin(model, values=values)
    for tensor, own in twin.tensors:
        assert own is not tensor and type(own) is type(tensor) and torch.equal(own, tensor)
        assert own.stride() == tensor.stride() and own.requires_grad is tensor.requires_grad
        assert (own.data_ptr() == tensor.data_ptr()) is not values
    assert {id(tensor) for tensor, _ in twin.tensors} >= {*map(id, model.parameters()), id(model.wide), id(model.plain)}
    with torch.no_grad():
        twin.module.a.weight.data = torch.zeros(3, 3)
    assert model.a.weight.any()


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "made",
    [
        lambda: weight_norm(nn.Linear(3, 3)),
        lambda: parametrizations.weight_norm(nn.Linear(3, 3)),
        lambda: parametrizations.spectral_norm(nn.Linear(3, 3)),
        lambda: parametrizations.orthogonal(nn.Linear(3, 3)),
        lambda: torch.nn.utils.spectral_norm(nn.Linear(3, 3)),
        lambda: nn.DataParallel(nn.Linear(3, 3)),
        lambda: torch.compile(nn.Linear(3, 3), backend="eager"),
        lambda: compiled_in_place(nn.Linear(3, 3)),
        lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU())),
        lambda: nn.LSTM(3, 3),
        lambda: nn.MultiheadAttention(3, 1).out_proj,
    ],
)
def test_modules_of_torch(made):
    """They compute what they did, with tensors of their own."""
    model, x = nn.Sequential(made()).eval(), torch.randn(2, 3)
    run = model if not isinstance(model[0], nn.LSTM) else lambda x: model[0](x)[0]
    wanted = run(x).detach()
    twin = Twin(model, values=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    own = twin.module if not isinstance(model[0], nn.LSTM) else lambda x: twin.module[0](x)[0]
    with torch.no_grad():
        assert torch.allclose(own(x), wanted, atol=1e-6)


def compiled_in_place(module):
    module.compile(backend="eager")
    return module
