"""What the counting is compared with: the bare forward pass, and a straightforward version with forward hooks.

Both are written as a researcher would write them, in plain PyTorch. The hooks version is also the reference of the
counts: no contender is timed before its counts are compared with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pylinregion.caller.torch_settings import full_precision

# Pre-activations of so many times the rounding unit of the largest one may have either sign, depending on the order
# of the sums in them.
NEAR_ZERO = 256.0

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Reduction = Callable[[Tensor], Tensor]  # [points, vertices, neurons] -> [points]


class WrongCountsError(AssertionError):
    """Two contenders do not count the same."""


def ready_made_vertices(x: Tensor, frame: Tensor, radius: float) -> Tensor:
    """``[B, *shape]`` and ``[P, *shape]`` to the vertices ``x ± r v_p``, ``[B, 2P, *shape]``."""
    offset = radius * frame
    return torch.cat([x.unsqueeze(1) + offset, x.unsqueeze(1) - offset], dim=1)


def laid_out(rows: Tensor, layout: str) -> Tensor:
    """Rows in a memory layout: ``"contiguous"`` or, for images, ``"channels_last"``."""
    return rows.contiguous(memory_format=LAYOUTS[layout])


@full_precision()  # as count_regions computes: without TF32
@torch.no_grad()
def bare_forward(model: nn.Module, rows: Tensor, batch_rows: int) -> None:
    """The forward pass over ready-made vertices ``[B * 2P, *shape]``, ``batch_rows`` of them at a time."""
    for batch in rows.split(batch_rows):
        model(batch)


@contextlib.contextmanager
def stored_preactivations(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A dictionary that each forward pass fills with the inputs of the ReLU modules, in the order they run."""
    stored: dict[str, Tensor] = {}

    def store_as(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def store(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            stored[name] = inputs[0]

        return store

    relus = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_pre_hook(store_as(name)) for name, module in relus]
    try:
        yield stored
    finally:
        for handle in handles:
            handle.remove()


def changed_signs(z: Tensor) -> Tensor:
    """Neurons that are not on the same side of 0 at all vertices."""
    on = z > 0
    return (on != on[:, :1]).any(dim=1).sum(dim=1)


def near_zero(z: Tensor) -> Tensor:
    """Neurons that are within rounding of 0 at some vertex."""
    reach = NEAR_ZERO * torch.finfo(z.dtype).eps * z.abs().amax(dim=(1, 2), keepdim=True)
    return (z.abs() <= reach).any(dim=1).sum(dim=1)


def exact_zeros(z: Tensor) -> Tensor:
    """Neurons that are 0 at some vertex."""
    return (z == 0).any(dim=1).sum(dim=1)


def at_vertices(
    model: nn.Module, stored: dict[str, Tensor], vertices: Tensor, layout: str, reduce: Reduction
) -> Tensor:
    """One forward pass over ``[b, 2P, *shape]``, and what it stored reduced: ``[b, layers]``."""
    stored.clear()
    model(laid_out(vertices.flatten(0, 1), layout))
    layers = [reduce(z.reshape(len(vertices), vertices.shape[1], -1)) for z in stored.values()]
    stored.clear()
    return torch.stack(layers, dim=1)


@full_precision()  # as count_regions computes: without TF32
@torch.no_grad()
def count_with_hooks(
    model: nn.Module,
    x: Tensor,
    frame: Tensor,
    radius: float,
    batch: int,
    layout: str = "contiguous",
    reduce: Reduction = changed_signs,
) -> Tensor:
    """``[B, layers]``: the neurons of each ReLU layer that change their sign among the vertices of each point."""
    with stored_preactivations(model) as stored:
        return torch.cat(
            [
                at_vertices(model, stored, ready_made_vertices(points, frame, radius), layout, reduce)
                for points in x.split(batch)
            ]
        )


@full_precision()  # as count_regions computes: without TF32
@torch.no_grad()
def count_ready_made(
    model: nn.Module, vertices: Tensor, batch: int, layout: str = "contiguous", reduce: Reduction = changed_signs
) -> Tensor:
    """The same for ready-made vertices ``[B, 2P, *shape]``."""
    with stored_preactivations(model) as stored:
        return torch.cat([at_vertices(model, stored, part, layout, reduce) for part in vertices.split(batch)])


def compare_counts(name: str, counts: Tensor, expected: Tensor, allowed: Tensor | None) -> int:
    """Compare counts ``[B, layers]``.

    Args:
        name: Whose counts they are, for the message.
        counts: The counts.
        expected: Those of the hooks version.
        allowed: ``[B, layers]``: by how much they may differ; None: not at all. See :func:`allowed_differences`.

    Returns:
        By how many neurons they differ, summed over points and layers.

    Raises:
        WrongCountsError: They differ by more.
    """
    counts, expected = counts.cpu(), expected.cpu()
    if counts.shape != expected.shape:
        raise WrongCountsError(f"{name} gives counts of shape {list(counts.shape)}, not {list(expected.shape)}")
    difference = (counts - expected).abs()
    wrong = difference > (0 if allowed is None else allowed.cpu())
    if bool(wrong.any()):
        point, layer = wrong.nonzero()[0].tolist()
        raise WrongCountsError(
            f"{name} counts {int(counts[point, layer])} neurons at point {point}, layer {layer}, "
            f"not {int(expected[point, layer])}"
        )
    return int(difference.sum())


def allowed_differences(model: nn.Module, vertices: Tensor, batch: int, layout: str = "contiguous") -> Tensor | None:
    """By how much counts may differ at each point and layer: not at all in float64.

    In float32, the sums in a pre-activation depend on how the work is cut up and on whether the first layer sees the
    vertices or the points and the frame. A count may then differ by as many neurons as are within rounding of 0 at some
    vertex of that point; how many do differ is reported.
    """
    if vertices.dtype == torch.float64:
        return None
    return count_ready_made(model, vertices, batch, layout, near_zero)
