"""The oracle: a forward pass for each vertex alone, and the pieces of the kinks that torch runs."""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pylinregion as plr


def bounds(z, low=None, high=None, **named):
    return [bound for bound in (named.get("min", low), named.get("max", high)) if bound is not None]


# Where the kinks of one number bend, by what they are called with.
BREAKPOINTS = {
    **dict.fromkeys(["relu", "leaky_relu", "_prelu_kernel", "abs", "gelu", "tanh", "sigmoid"], lambda *_: [0.0]),
    "hardtanh": lambda z, low=-1.0, high=1.0: [low, high],
    "hardsigmoid": lambda *_: [-3.0, 3.0],
    "clamp": bounds,
    "clamp_min": bounds,
}
COMPARISONS = {"gt": torch.gt, "lt": torch.lt}


def breakpoints(name, args, kwargs):
    """Where the operator of this name bends; None if it is no kink of one number."""
    bends = BREAKPOINTS.get(name) or BREAKPOINTS.get(name.removesuffix("_"))
    return bends and bends(*args, **kwargs)


class Witness(TorchDispatchMode):
    """Keeps the pieces of every kink that runs."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        if bends := breakpoints(name, args, kwargs or {}):
            self.pieces.append(sum((args[0] > bend).long() for bend in bends).flatten())
        elif name in COMPARISONS:
            self.pieces.append(function(*args).flatten())
        result = function(*args, **(kwargs or {}))
        if name.startswith("max_pool"):
            self.pieces.append(result[1].flatten())
        return result


def vertices(x, radius, frame):
    """``[B, 2P, *shape]``."""
    return torch.stack([x + sign * radius * v.to(x.dtype) for sign in (1, -1) for v in frame], dim=1)


def local_complexity(model, x, radius, frame):
    """Changes ``[B, L]`` and distinct patterns ``[B]``, for a model in eval mode."""
    changes, regions = [], []
    for point in vertices(x, radius, frame):
        patterns = []
        for vertex in point:
            with torch.no_grad(), Witness() as witness:
                model(vertex[None].clone())
            patterns.append(witness.pieces)
        layers = [torch.stack(layer) for layer in zip(*patterns, strict=True)]
        changes.append(torch.stack([(layer != layer[0]).any(0).sum() for layer in layers]))
        regions.append(len(torch.cat(layers, dim=1).long().unique(dim=0)))
    return torch.stack(changes), torch.tensor(regions)


@contextlib.contextmanager
def readable():
    """Eval mode without the fused attention path, which hides a ReLU from the witness."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def check(model, x=None, radius=4.0, names=None, trivial=False):
    """Count, and compare with the oracle."""
    x = torch.randn(3, 6) if x is None else x
    frame = plr.random_frame(x.shape[1:], 6)
    counts = plr.count_regions(model, x, radius, frame=frame)
    flags = [(part, part.training) for part in model.modules()]
    with readable():
        changes, regions = local_complexity(model.eval(), x, radius, frame)
    for part, training in flags:
        part.training = training
    assert torch.equal(counts.changes, changes)
    assert torch.equal(counts.regions, regions)
    assert trivial or (changes.sum(0) > 0).all(), "the case proves little"
    assert names is None or counts.layers == tuple(names)
    return counts
