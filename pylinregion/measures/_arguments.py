"""Checks of arguments that several measures share; the words are those of :mod:`pylinregion._util.checks`."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion._util import checks


def points(name: str, x: Any, at_least: int = 1) -> None:
    """``[n, *input_shape]`` finite points of a floating dtype."""
    checks.floating_tensor(name, x)
    if x.dim() < 2 or len(x) < at_least or x.numel() == 0:
        few = "1 point" if at_least == 1 else f"{at_least} points"
        raise ValueError(f"{name} must be [n, *input_shape] with at least {few}, got {list(x.shape)}")
    checks.finite(name, x)


def features(name: str, value: Any) -> Tensor:
    """``[n, d]`` finite numbers, as float64."""
    checks.floating_tensor(name, value)
    if value.dim() != 2 or value.numel() == 0:
        raise ValueError(f"{name} must be [n, d] with n and d at least 1, got {list(value.shape)}")
    checks.finite(name, value)
    doubles: Tensor = value.detach().to(torch.float64)
    return doubles


def labels(name: str, y: Any, x_name: str, x: Tensor, classes: int | None = None) -> Tensor:
    """``[n]`` int64 class numbers, one for each point, on its device."""
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(y).__name__}")
    if y.dtype != torch.int64:
        raise TypeError(f"{name} must be int64 class numbers, got {y.dtype}")
    if y.shape != (len(x),):
        raise ValueError(f"{name} must have shape [{len(x)}], one for each point of {x_name}, got {list(y.shape)}")
    if y.device != x.device:
        raise ValueError(f"{name} must be on the device of {x_name}, {x.device}, got {y.device}")
    if int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes):
        upper = "" if classes is None else f" and below the {classes} classes of the model's output"
        raise ValueError(f"{name} must be at least 0{upper}, got {int(y.min())} to {int(y.max())}")
    return y


def real(name: str, value: Any, above: float = -math.inf, at_least: float = -math.inf) -> float:
    """A finite number, above one bound and at least another."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    if number <= above:
        raise ValueError(f"{name} must be above {above:g}, got {number:g}")
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least:g}, got {number:g}")
    return number


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One of some words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def fits(name: str, x: Tensor, model: Any) -> None:
    """Points on a module's device and of its dtype."""
    if isinstance(model, nn.Module):
        checks.fits_module(name, x, model)


def generator(seed: Any) -> torch.Generator:
    """A generator of its own, on the CPU, so that one seed gives the same numbers for every device."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be an integer, got {type(seed).__name__}")
    return torch.Generator("cpu").manual_seed(int(seed))
