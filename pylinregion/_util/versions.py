"""The versions that a result depends on."""

from __future__ import annotations

import platform

import numpy as np
import torch

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """The versions that a result depends on, by name; ``"cuda"`` is the one that torch was built for, or ``"none"``."""
    return {
        "pylinregion": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda or "none",
    }
