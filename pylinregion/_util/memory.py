"""How much memory may be used."""

from __future__ import annotations

import os
from pathlib import Path

import torch

BUDGET_VARIABLE = "PYLINREGION_MEMORY_BUDGET"
PEAK_OF_CELLS = 3  # the engine's working memory at its peak, over the size of the cells it keeps (1.3 to 2.5 measured)
_OF_BATCHES = 512 << 20  # in main memory
_FALLBACK = 2 << 30


def budget(given: int | None) -> int:
    """Bytes of a result: those given, else those of the environment variable, else half of this machine's free ones.

    Raises:
        ValueError: The variable is no number of bytes.
    """
    asked = _asked(given)
    return available() // 2 if asked is None else asked


def batch_budget(given: int | None, device: torch.device) -> int:
    """Bytes of the batches in flight: as :func:`budget`, but 512 MiB on a CPU, and half of a GPU's free ones there.

    Raises:
        ValueError: The variable is no number of bytes.
    """
    asked = _asked(given)
    if asked is not None:
        return asked
    return free_of(device) // 2 if device.type == "cuda" else _OF_BATCHES


def free_of(device: torch.device) -> int:
    """Bytes of a CUDA device that nobody has."""
    return int(torch.cuda.mem_get_info(device)[0])


def _asked(given: int | None) -> int | None:
    """What the caller or the environment variable says."""
    text = os.environ.get(BUDGET_VARIABLE)
    if given is not None or not text:
        return given
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{BUDGET_VARIABLE} must be a number of bytes, at least 1, got {text!r}")
    return int(text)


def available() -> int:
    """Bytes that are free: of the machine, and of the control group that limits this process."""
    found = []
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # none, or no limit: "max"
        pass
    return max(0, min(found, default=_FALLBACK))
