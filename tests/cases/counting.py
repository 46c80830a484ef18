"""Networks and points that tests of ``count_regions`` share."""

from itertools import pairwise

import torch
from torch import nn


def mlp(*widths, dtype=torch.float64, seed=0, bias=True):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=bias)).to(dtype)


def convnet(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, stride=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 30),
        nn.BatchNorm1d(30),
        nn.ReLU(),
        nn.Linear(30, 3),
    ).to(dtype)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                part.weight.normal_()
                part.bias.normal_()
    return net.eval()


def points(count, *shape, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64).to(dtype)


NETS = {"mlp": (mlp(20, 33, 70, 5, 3), (20,)), "conv": (convnet(), (2, 10, 10))}
