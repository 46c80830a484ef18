"""Small modules that tests of the capture share."""

import torch
from torch import nn


class Do(nn.Module):
    """``function(self, x)`` as the forward pass, with parts to use in it."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def mlp(*parts):
    return nn.Sequential(nn.Linear(6, 8), *(parts or [nn.ReLU()]))


def pair(function):
    return Do(function, linear=nn.Linear(6, 8), head=nn.Linear(8, 8), relu=nn.ReLU(inplace=True))


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    model[2].weight = model[0].weight
    return model


def relu_on_a_slice(self, x):
    h = self.linear(x)
    h[:, :4].relu_()
    return self.head(h).relu()


def branches(self, x):
    if x.abs().max() > 1:
        return x.relu()
    return x


def warmed_up(model, *shape):
    """Batch norms with statistics and weights that are not those they start with."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    model.train()
    for _ in range(3):
        model(2 * torch.randn(16, *shape) + 1)
    return model
