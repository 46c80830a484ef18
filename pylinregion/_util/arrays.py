"""The kinds of NumPy arrays that annotations name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]  # of any width
Int64s = NDArray[np.int64]
AnyArray = NDArray[Any]
Bools = NDArray[np.bool_]
