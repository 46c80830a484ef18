"""Models for tests of the command line, as code and as archives. Nothing is tested here."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

FACTORIES = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

def random_net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

def broken():
    raise KeyError("no such layer")

def on_meta():
    with torch.device("meta"):
        return net()

def leaves():
    raise SystemExit(0)

def leaves_later():
    class Leaving(nn.Module):
        def forward(self, x):
            raise SystemExit(0)
    return Leaving()

def colourful():
    raise ValueError("two\\nlines, \\x1b[31mred")

class Models:
    small = staticmethod(net)

model = net()
three = lambda: 3
"""


def make_net() -> nn.Sequential:
    namespace: dict[str, Any] = {}
    exec(FACTORIES, namespace)
    model: nn.Sequential = namespace["net"]()
    return model


def export(model: nn.Module, path: Path, dynamic: bool = True, dtype: torch.dtype = torch.float32) -> None:
    batch = torch.export.Dim.AUTO if dynamic else torch.export.Dim.STATIC
    program = torch.export.export(
        model, (torch.zeros(3, 4, dtype=dtype),), dynamic_shapes=((batch, torch.export.Dim.STATIC),)
    )
    torch.export.save(program, path)
