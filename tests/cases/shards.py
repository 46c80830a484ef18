"""Work in shards: small models and points, and what the command line is given of them. Nothing is tested here."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pylinregion as plr


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()


@functools.cache
def network():
    return plr.capture(model(), torch.from_numpy(points(1)))


def points(count=23):
    return np.random.default_rng(0).normal(size=(count, 6))


def where():
    a, b, c = torch.from_numpy(points(3) * 3)
    return plr.Slice.through(a, b, c)


def count_small(folder, radius):
    found = plr.count_in_shards(network(), points(), radius, folder, shard_size=5, n_directions=4)
    print("counted:", radius, found.load().changes.tolist())


# ---- of the command line

FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 2)).double()
"""


def built():
    names = {}
    exec(FACTORY, names)
    return names["build"]()


def saved_changes(folder="counts"):
    return np.concatenate([np.load(path)["changes"] for path in sorted(Path(folder).glob("shard-*"))])
