"""The iterates of robust_accuracy against those of torchattacks' PGD, from the points themselves.

python bench/attacks.py --peer PATH, a folder with torchattacks in it: pip install --no-deps --target PATH torchattacks
"""

import argparse
import importlib
import sys

import torch
from torch import nn

from pylinregion.measures import robust_accuracy

EPS = (0.03, 0.06, 0.1, 0.16, 0.2)
STEPS, ALPHA = 10, 4 / 255


class Recorder(nn.Module):
    """A model whose last input is kept outside of it."""

    def __init__(self, model, keep):
        super().__init__()
        self.model, self.keep = model, keep.append

    def forward(self, x):
        self.keep(x.detach().clone())
        return self.model(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="a folder with torchattacks in it")
    sys.path.insert(0, parser.parse_args().peer)
    torchattacks = importlib.import_module("torchattacks")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    for dtype in (torch.float32, torch.float64):
        model = model.to(dtype)
        x = torch.rand(500, 64, dtype=dtype)
        y = model(x).argmax(1)
        for eps in EPS:
            seen = []
            found = robust_accuracy(
                Recorder(model, seen),
                x,
                y,
                eps,
                low=0,
                high=1,
                alpha=ALPHA,
                steps=STEPS,
                random_start=False,
                batch_size=len(x),
            )
            theirs = torchattacks.PGD(model, eps=eps, alpha=ALPHA, steps=STEPS, random_start=False)(x, y)
            apart = float((theirs - seen[-1]).abs().max())
            print(f"{dtype} eps {eps}: accuracy {float(found.accuracy):.3f}, iterates at most {apart:g} apart")
            if apart:
                sys.exit("the iterates differ")


if __name__ == "__main__":
    main()
