from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Doubles = NDArray[np.float64]
_Int64s = NDArray[np.int64]

cuda_built: bool
cuda_architectures: str

most_folds: int
convolution_run: int

def simd() -> str: ...
def has_simd(name: str) -> bool: ...
def set_simd(name: str) -> None: ...
def sign_changes_cpu(
    dtype: int,
    dense: int,
    centre: int,
    directions: int,
    radius: int,
    points: int,
    vertices: int,
    neurons: int,
    activation: int,
    n_breakpoints: int,
    breakpoint0: float,
    breakpoint1: float,
    slope: float,
    low: float,
    high: float,
    out: int,
    patterns: int,
    row_words: int,
    changes: int,
    changes_stride: int,
    nonfinite: int,
    threads: int,
) -> None: ...
def sign_changes_cuda(
    dtype: int,
    dense: int,
    centre: int,
    directions: int,
    radius: int,
    points: int,
    vertices: int,
    neurons: int,
    activation: int,
    n_breakpoints: int,
    breakpoint0: float,
    breakpoint1: float,
    slope: float,
    low: float,
    high: float,
    out: int,
    patterns: int,
    row_words: int,
    changes: int,
    changes_stride: int,
    nonfinite: int,
    stream: int,
) -> None: ...
def label_changes_cpu(
    type: int,
    labels: int,
    points: int,
    vertices: int,
    neurons: int,
    patterns: int,
    row_words: int,
    changes: int,
    changes_stride: int,
    threads: int,
) -> None: ...
def label_changes_cuda(
    type: int,
    labels: int,
    points: int,
    vertices: int,
    neurons: int,
    patterns: int,
    row_words: int,
    changes: int,
    changes_stride: int,
    stream: int,
) -> None: ...
def distinct_patterns_cpu(
    patterns: int, points: int, vertices: int, words: int, distinct: int, weak_hash: bool, threads: int
) -> None: ...
def distinct_patterns_cuda(
    patterns: int,
    points: int,
    vertices: int,
    words: int,
    distinct: int,
    weak_hash: bool,
    hashes: int,
    stream: int,
) -> None: ...
def packed_size(dtype: int, in_features: int, out_features: int) -> int: ...
def pack_linear(dtype: int, weight: int, bias: int, in_features: int, out_features: int, packed: int) -> None: ...
def linear_cpu(
    dtype: int, x: int, rows: int, in_features: int, out_features: int, packed: int, y: int, threads: int
) -> None: ...

# map: what LinearMap.for_core gives
def add_convolved(map: tuple[Any, ...], x: _Doubles, forwards: bool, threads: int, out: _Doubles) -> None: ...
def add_images(map: tuple[Any, ...], units: _Int64s, factors: _Doubles, threads: int, out: _Doubles) -> None: ...

class ChainLayer:
    def __init__(
        self,
        *,
        inputs: int,
        neurons: int,
        weight: int,
        exact: int,
        bias_size: int,
        row_norm: int,
        slope: int,
        column_square: int,
        frobenius: float,
        spectral: float,
        bias_norm: float,
        steepest: float,
    ) -> None: ...

class ChainPoints:
    def __init__(
        self, *, n: int, centres: list[int], norms: list[int], radius: int, vertices: int, base: int
    ) -> None: ...

class ChainCounts:
    def __init__(
        self,
        *,
        changes: int,
        changes_stride: int,
        ambiguous: int,
        classes: int,
        classes_stride: int,
        work: int,
        nonfinite: int,
    ) -> None: ...

class DenseChain:
    def __init__(
        self,
        *,
        dtype: int,
        layers: list[ChainLayer],
        pairs: int,
        directions: int,
        direction_size: int,
        direction_norm: float,
    ) -> None: ...
    def count_cpu(self, points: ChainPoints, counts: ChainCounts, threads: int) -> None: ...
    def scratch_cuda(self, points: int) -> int: ...
    def count_cuda(self, points: ChainPoints, counts: ChainCounts, scratch: int, stream: int) -> None: ...

# Blocks by source (what LinearMap.for_core gives), bias, line_begin, kinks, slopes, intercepts, denominator. Arrays
# here and below are row-major and of the dtype that is named; others are refused.
_StageArrays = tuple[list[tuple[int, tuple[Any, ...]]], _Doubles, _Int64s, _Doubles, _Doubles, _Doubles, float]

class TraceProblem:
    def __init__(self, stages: list[_StageArrays], norms: list[list[float]], dimensions: int) -> None: ...
    def trace(
        self,
        pairs: _Int64s,
        first: _Doubles,
        second: _Doubles,
        radii: _Doubles | None,
        maps: bool,
        starts: bool,
        force_exact: bool,
        threads: int,
        report: object,
    ) -> dict[str, object]: ...

class SlicePoints:
    def __init__(self, stages: list[_StageArrays], u: _Doubles, v: _Doubles, origin: _Doubles) -> None: ...
    def sides(self, st: _Doubles, lines: _Int64s, less: _Int64s, on: NDArray[np.uint8]) -> NDArray[np.int8]: ...

class MeshOfParts:
    def __init__(self, pattern_bytes: int) -> None: ...
    def add(
        self,
        offsets: _Int64s,
        xy: _Doubles,
        keys: NDArray[np.uint64],
        rows: NDArray[np.int32],
        patterns: NDArray[np.uint8],
    ) -> None: ...
    def take(self) -> dict[str, object]: ...

class ManySlices:
    def __init__(
        self,
        exact_stages: list[_StageArrays],
        dimensions: int,
        groups: list[tuple[int, int]],
        zero: _Int64s | None,
        same: _Int64s | None,
        multiples: _Int64s | None,
        central: bool,
    ) -> None: ...
    # arrays: begin, stage_begin, line, on, a, b, c, error, columns, u, v, origin, corners;
    # of tiles borders, and of one slice norms
    def count(
        self,
        arrays: Mapping[str, NDArray[Any] | None],
        threads: int,
        force_exact: bool,
        max_regions: int,
        report: object,
        pieces: bool = ...,
        on_device: bool = ...,
    ) -> dict[str, object]: ...
    def trace(
        self,
        arrays: Mapping[str, NDArray[Any] | None],
        threads: int,
        force_exact: bool,
        report: object,
        on_device: bool = ...,
    ) -> dict[str, Any]: ...
    def enumerate(
        self,
        arrays: Mapping[str, NDArray[Any] | None],
        cells: bool,
        threads: int,
        part: int,
        parts: int,
        force_exact: bool,
        fold_ahead: int,
        max_regions: int,
        max_bytes: int,
        report: object,
        pieces: bool = ...,
        on_device: bool = ...,
    ) -> dict[str, object]: ...

class DenseLayers:
    # layers: weights [rows, width], bias, row norms, slopes [rows, 2]; norms of the weights (2), of the bias
    def __init__(
        self, layers: list[tuple[_Doubles, _Doubles, _Doubles, _Doubles, float, float, float]], lines: int
    ) -> None: ...

class DenseFold:
    def __init__(
        self, chain: DenseLayers, axes: int, radii: _Doubles | None, corners: _Doubles | None, sizes: _Doubles
    ) -> None: ...
    def layer(self, constants: _Doubles, images: _Doubles | None = ..., units: _Doubles | None = ...) -> int: ...
    def systems(self, cells: bool) -> dict[str, Any]: ...

class Arms:
    def __init__(self, exact_stages: list[_StageArrays], dimensions: int, multiples: _Int64s) -> None: ...
    # arrays: begin, stage_begin, line, on, affine [arms + 1, rows], error, columns
    def count(
        self,
        arrays: Mapping[str, NDArray[Any]],
        directions: _Doubles,
        origins: _Doubles,
        radii: _Doubles | None,
        force_exact: bool,
        report: object,
    ) -> dict[str, Any]: ...

class SliceProblem:
    def __init__(
        self,
        stages: list[tuple[int, int, int, _Doubles]],
        a: _Doubles,
        b: _Doubles,
        c: _Doubles,
        error: _Doubles,
        norms: _Doubles | None,
        corners: _Doubles,
        exact_stages: list[_StageArrays],
        u: _Doubles,
        v: _Doubles,
        origin: _Doubles,
        groups: list[tuple[int, int]] = ...,
        zero: _Int64s | None = ...,
        same: _Int64s | None = ...,
        multiples: _Int64s | None = ...,
        central: bool = ...,
    ) -> None: ...
    def enumerate(
        self,
        cells: bool,
        threads: int,
        part: int,
        parts: int,
        force_exact: bool,
        fold_ahead: int,
        max_regions: int,
        max_bytes: int,
        report: object,
        on_device: bool = ...,
    ) -> dict[str, object]: ...
    def sign_at(self, i: int, j: int, k: int, on: NDArray[np.uint8]) -> int: ...
