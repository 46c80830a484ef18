"""The words of the errors for bad arguments: which argument, what was expected, what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def floating_tensor(name: str, value: Any) -> None:
    """A tensor of one of the dtypes that the kernels take."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be float32, float64, bfloat16 or float16, got {value.dtype}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    with_data(name, value)


def with_data(name: str, value: Tensor) -> None:
    """A tensor that holds numbers: none that stands for others."""
    if value.is_meta or isinstance(value, FakeTensor):
        what = "one on the meta device" if value.is_meta else "a fake one"
        raise TypeError(f"{name} must be a tensor with data, got {what}")
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        raise TypeError(
            f"{name} must be a tensor with data, got one that a transform of torch.func made (vmap, grad, jvp ...): "
            "call this outside of it, or give it tensors that it does not transform"
        )


def fits_module(name: str, value: Tensor, module: nn.Module) -> None:
    """Points on the module's device and of its dtype, where it has but one of each."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    devices, dtypes = {t.device for t in tensors}, {t.dtype for t in tensors}
    if len(devices) == 1 and value.device not in devices:
        raise ValueError(f"{name} must be on the model's device {devices.pop()}, got {value.device}")
    if len(dtypes) == 1 and value.dtype not in dtypes:
        raise TypeError(f"{name} must have the model's dtype {dtypes.pop()}, got {value.dtype}; convert one of the two")


def points(name: str, value: Any, model: Any, dtype: Any) -> Tensor:
    """Finite points ``[B, *input_shape]`` to compute with in ``dtype``, or in their own if that is None.

    Returns:
        The points as the model takes them: in its dtype, where they are computed with in another.
    """
    floating_tensor(name, value)
    if value.dim() < 1:
        raise ValueError(f"{name} must be [B, *input_shape], got a tensor without dimensions")
    if dtype is not None and dtype not in FLOATS:
        raise TypeError(f"dtype must be float32, float64, bfloat16 or float16, got {dtype}")
    taken: Tensor = value.detach()
    if isinstance(model, nn.Module):
        if dtype is not None:
            taken = taken.to(next((p.dtype for p in model.parameters() if p.is_floating_point()), taken.dtype))
        fits_module(name, taken, model)
    finite(name, value)
    return taken


def all_finite(value: Tensor) -> bool:
    """Whether there is no NaN and no infinity; one pass, nothing stored."""
    if value.numel() == 0 or not value.is_floating_point():
        return True
    low, high = torch.aminmax(value)  # NaN comes through
    return bool(torch.isfinite(low) & torch.isfinite(high))


def finite(name: str, value: Tensor) -> None:
    """No NaN and no infinity; the first one is named by its place."""
    if not all_finite(value):
        place = (~torch.isfinite(value)).nonzero()[0].tolist()
        raise ValueError(f"{name} must be finite, got {value[tuple(place)].item()} at {place}")


def exact_doubles(name: str, value: Any) -> Tensor:
    """Real numbers as a float64 tensor of its own on the CPU, each exactly what it was, and finite."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
        if value.is_complex() or value.dtype is torch.bool:
            raise TypeError(f"{name} must be a tensor of real numbers, got {value.dtype}")
        with_data(name, value)
        integers, exact = not value.is_floating_point(), True
        result = value.detach().to("cpu", torch.float64, copy=True).contiguous()
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"{name} must be an array of real numbers, got {type(value).__name__}: {error}") from None
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} must be an array of real numbers, got {type(value).__name__} of {array.dtype}")
        with np.errstate(over="ignore"):
            doubles = np.array(array, dtype=np.float64, order="C")
        integers = array.dtype.kind in "iu"
        exact = array.dtype.itemsize <= 8 or np.array_equal(doubles.astype(array.dtype), array, equal_nan=True)
        result = torch.from_numpy(doubles)
    if not exact or (integers and result.numel() and float(result.abs().max()) >= 2**53):
        raise ValueError(f"{name} must hold numbers that float64 holds exactly, got others")
    finite(name, result)
    return result


def integer(name: str, value: Any) -> int:
    """An integer, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    return int(value)


def positive_number(name: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and above 0, got {number}")
    return number


def positive_integer(name: str, value: Any, most: int = 2**62) -> int:
    """An integer from 1 to ``most``, by default what the kernels can count to."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, got {number}")
    return number


def threads(value: Any) -> int:
    """A number of CPU threads; torch's own for None."""
    return torch.get_num_threads() if value is None else positive_integer("threads", value, 1 << 16)


def switches(**values: Any) -> None:
    """Each True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {type(value).__name__}")


def optional_switch(name: str, value: Any) -> None:
    """True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} must be True, False or None, got {type(value).__name__}")


def indices(name: str, value: Any, count: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Numbers of things, ``[...]`` integers from 0 to ``count - 1``; an empty list is of none."""
    array = np.asarray(value)
    if not array.size and array.dtype.kind == "f":
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= count):
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name} must be from 0 to {count - 1}, got {wrong}")
    return array.astype(np.intp)


def radii(radius: Any, points: int, device: torch.device) -> Tensor:
    """A number or ``[B]`` numbers, finite and positive, as ``[B]`` float64."""
    if isinstance(radius, Tensor):
        if radius.is_complex() or radius.dtype is torch.bool:
            raise TypeError(f"radius must be a number or a tensor of real numbers, got {radius.dtype}")
        with_data("radius", radius)
        if radius.dim() > 0 and radius.shape != (points,):
            raise ValueError(
                f"radius must be a number or have shape [{points}], one per point, got {list(radius.shape)}"
            )
        result = radius.detach().to(device=device, dtype=torch.float64).expand(points)
    elif isinstance(radius, numbers.Real) and not isinstance(radius, bool):
        result = torch.full((points,), float(radius), dtype=torch.float64, device=device)
        if not (math.isfinite(float(radius)) and float(radius) > 0):
            raise ValueError(f"radius must be finite and above 0, got {radius}")
    else:
        raise TypeError(f"radius must be a number or a tensor, got {type(radius).__name__}")
    bad = ~(torch.isfinite(result) & (result > 0))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(f"radius must be finite and above 0, got {result[first].item()} for point {first}")
    return result.contiguous()


def chosen_layers(layers: Any, names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of the layers named, in the network's order; all for None."""
    if layers is None:
        return tuple(range(len(names)))
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"layers must be a list of layer names, got {type(layers).__name__}")
    unknown = [name for name in layers if name not in names]
    if unknown:
        raise ValueError(f"layers must be among {', '.join(map(repr, names)) or '(none)'}, got {unknown[0]!r}")
    if len(set(layers)) != len(layers):
        raise ValueError(f"layers must not repeat a name, got {list(layers)}")
    return tuple(number for number, name in enumerate(names) if name in layers)
