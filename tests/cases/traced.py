"""Imported by the process that ``processes`` forks others from: the package, and what torch imports when it traces."""

import sys

# A server of forks is started by ``python -c``, which looks into the current folder first: there, a checkout would hide
# the package that is installed.
if "" in sys.path:
    sys.path.remove("")

import torch

import pylinregion as plr

torch.set_num_threads(1)  # a pool of threads would not be there after a fork
plr.capture(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU()), torch.zeros(2, 1))
