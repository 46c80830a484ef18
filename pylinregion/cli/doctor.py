"""What this installation can do: versions, kernels, devices, and something tiny with a known answer on each device."""

from __future__ import annotations

import platform

import numpy as np
import torch
from torch import nn

from pylinregion._util.versions import VERSION
from pylinregion.counting.count import count_regions
from pylinregion.exact.device_check import problem_of
from pylinregion.exact.walk_device import cuda_walks
from pylinregion.native.extension import cuda_architectures, cuda_built
from pylinregion.native.simd import simd

# What examine() must find at its two points: changes of each layer, and distinct patterns.
_CHANGES = [[4, 4], [0, 0]]
_REGIONS = [5, 1]


def devices() -> list[torch.device]:
    """The CPU and every CUDA device that torch sees."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cpu"), *(torch.device("cuda", index) for index in range(found))]


def examine(device: torch.device) -> str | None:
    """Count around two points, and walk along slices of two small networks as the CPU does.

    Args:
        device: Where.

    Returns:
        None if all is right, else what was found or what was raised.
    """
    problem = counted(device)
    if problem is None and device.type == "cuda":
        problem = problem_of(cuda_walks(device.index or 0))
    return problem


def counted(device: torch.device) -> str | None:
    """Count around two points whose answer is known by hand.

    The first layer has kinks at ``x_i = (i + 0.5) / 10``, the second at ``sum_i h_i = (j + 0.5) / 10``. Around 0 the
    vertices are ``± 0.42 e_i``, so 4 neurons of each layer change and there are 5 patterns; around 10 nothing changes.

    Args:
        device: Where to count.

    Returns:
        None if the count is right, else what was found or what was raised.
    """
    try:
        model = _network().to(device)
        x = torch.tensor([[0.0] * 8, [10.0] * 8], device=device)
        counts = count_regions(model, x, 0.42, frame=torch.eye(8, device=device))
        changes, regions = (
            counts.changes.tolist(),
            counts.regions.tolist(),
        )  # waits for the device and its errors
    except Exception as error:  # a doctor reports whatever breaks
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if changes != _CHANGES or regions != _REGIONS:
        return (
            f"wrong numbers: changes {changes} and regions {regions} where {_CHANGES} and {_REGIONS} are right; "
            "please report this"
        )
    return None


def report() -> int:
    """Print the report.

    Returns:
        The exit code: 0, or 1 if a count failed or gave a wrong number.
    """
    rows = {
        "pylinregion": VERSION,
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "numpy": np.__version__,
        "CUDA of torch": torch.version.cuda or "none, this torch is for the CPU",
        "CUDA kernels": _cuda_kernels(),
        "SIMD": simd(),
    }
    for name, text in rows.items():
        print(f"{name:<14} {text}")
    failed = False
    print()
    for device in devices():
        problem = examine(device)
        failed = failed or problem is not None
        print(f"{device!s:<14} {_hardware(device)}: {problem or 'OK'}")
    return int(failed)


def _network() -> nn.Module:
    """Identity and all-ones layers of width 8, with the kinks that :func:`examine` names."""
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    thresholds = (torch.arange(8.0) + 0.5) / 10
    with torch.no_grad():
        first.weight.copy_(torch.eye(8))
        second.weight.fill_(1.0)
        first.bias.copy_(-thresholds)
        second.bias.copy_(-thresholds)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def _cuda_kernels() -> str:
    if not cuda_built:
        return "not built"
    return f"built for architectures {cuda_architectures.replace(';', ', ')}"


def _hardware(device: torch.device) -> str:
    if device.type == "cpu":
        return platform.processor() or platform.machine()
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, compute capability {properties.major}.{properties.minor}"
