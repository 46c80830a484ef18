"""Local complexity by the definition, in plain torch, for sequential models. Shares no code with the package."""

import torch
from torch import nn


def vertices(x, radius, frame):
    """``[B, 2P, *shape]``: x + r v for each direction, then x - r v."""
    offset = (
        torch.as_tensor(radius, dtype=x.dtype).reshape(-1, *[1] * (frame.dim() - 1 + (frame.dim() == x.dim()))) * frame
    )
    if offset.dim() == x.dim():
        offset = offset.unsqueeze(0)
    return torch.cat([x.unsqueeze(1) + offset, x.unsqueeze(1) - offset], dim=1)


def local_complexity(model, x, radius, frame):
    """Changes ``[B, L]`` and distinct patterns ``[B]`` of a ReLU ``nn.Sequential`` in eval mode."""
    z = vertices(x, radius, frame)
    points, count = z.shape[:2]
    z = z.flatten(0, 1)
    changes, patterns = [], []
    for part in model:
        if isinstance(part, nn.ReLU):
            on = (z > 0).reshape(points, count, -1)
            changes.append((on != on[:, :1]).any(1).sum(1))
            patterns.append(on)
        with torch.no_grad():
            z = part(z)
    rows = torch.cat(patterns, dim=2)
    distinct = [len({row.numpy().tobytes() for row in point}) for point in rows]
    return torch.stack(changes, dim=1), torch.tensor(distinct)
