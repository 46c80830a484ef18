"""Values at the vertices ``x ± r v_p`` around points: all plus, then all minus for each point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """A value that is affine in the input, at the vertices ``x ± r v_p`` of a shared frame, not formed yet.

    Attributes:
        centre: ``[b, ...]``, the value at the points.
        directions: ``[P, ...]``, its linear part at the frame's directions, in the same memory layout.
        radius: ``[b]`` float64.
    """

    centre: Tensor
    directions: Tensor
    radius: Tensor

    def materialise(self) -> Tensor:
        """The value at the vertices, ``[b * 2P, ...]`` in the layout of ``centre``."""
        points, n_directions = len(self.centre), len(self.directions)
        out = _empty_rows(self.centre, points * 2 * n_directions)
        vertices = out.view(points, 2, n_directions, *out.shape[1:])
        scale = self.radius.to(self.centre.dtype).view(-1, *[1] * self.directions.dim())
        offset = vertices[:, 0]
        torch.mul(self.directions, scale, out=offset)
        torch.sub(self.centre.unsqueeze(1), offset, out=vertices[:, 1])
        offset += self.centre.unsqueeze(1)
        return out


def _empty_rows(like: Tensor, rows: int) -> Tensor:
    """An uninitialised tensor of ``rows`` entries shaped and laid out in memory like those of ``like``."""
    shape = (rows, *like.shape[1:])
    if not like.is_contiguous():
        for layout in (torch.channels_last, torch.channels_last_3d):
            if like.dim() == (4 if layout is torch.channels_last else 5) and like.is_contiguous(memory_format=layout):
                return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def vertices_of_own_frames(x: Tensor, radii: Tensor, frames: Tensor) -> Tensor:
    """``[b, *shape]`` and ``[b, P, *shape]``, a frame for each point, to ``[b * 2P, *shape]``."""
    offset = frames * radii.to(x.dtype).view(-1, 1, *[1] * (x.dim() - 1))
    centre = x.unsqueeze(1)
    return torch.cat([centre + offset, centre - offset], dim=1).flatten(0, 1)
