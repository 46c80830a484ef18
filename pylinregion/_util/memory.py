"""How much memory may be used."""

from __future__ import annotations

import os
from pathlib import Path

BUDGET_VARIABLE = "PYLINREGION_MEMORY_BUDGET"
PEAK_OF_CELLS = 3  # the engine's working memory at its peak, over the size of the cells it keeps (1.3 to 2.5 measured)
_FALLBACK = 2 << 30


def budget(given: int | None) -> int:
    """Bytes: those given, else those of the environment variable, else half of what is free on this machine."""
    if given is not None:
        return given
    if text := os.environ.get(BUDGET_VARIABLE):
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{BUDGET_VARIABLE} must be a number of bytes, got {text!r}")
        return int(text)
    return available() // 2


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
