"""The exact engines of ``csrc/partition``, as :mod:`pylinregion.exact` asks them.

``SliceProblem`` enumerates the cells of a slice, ``MeshOfParts`` puts those of parts together, ``ManySlices`` counts
those of many slices, ``DenseFold`` leaves of ``DenseLayers`` what may cross each, ``Arms`` counts along the arms around
points, ``SlicePoints`` gives signs of lines at points of a slice, ``TraceProblem`` follows segments.
"""

from __future__ import annotations

from collections.abc import Callable

from pylinregion.native.extension import _C

__all__ = [
    "Arms",
    "DenseFold",
    "DenseLayers",
    "ManySlices",
    "MeshOfParts",
    "Report",
    "SlicePoints",
    "SliceProblem",
    "TraceProblem",
    "most_folds",
]

Report = Callable[[int], object]  # told how much is done, about twenty times a second

Arms = _C.Arms
DenseLayers = _C.DenseLayers
DenseFold = _C.DenseFold
ManySlices = _C.ManySlices
MeshOfParts = _C.MeshOfParts
SlicePoints = _C.SlicePoints
SliceProblem = _C.SliceProblem
TraceProblem = _C.TraceProblem

most_folds: int = _C.most_folds  # of the slice engine, one below the other
