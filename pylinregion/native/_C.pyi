cuda_built: bool
cuda_architectures: str

most_folds: int

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

class TraceProblem:
    def __init__(
        self,
        stages: list[tuple[int, list[tuple[int, int]], int, int, int, int, int, float]],
        norms: list[list[float]],
        dimensions: int,
    ) -> None: ...
    def trace(
        self,
        pairs: int,
        n: int,
        first: int,
        n_first: int,
        second: int,
        n_second: int,
        radii: int,
        maps: bool,
        starts: bool,
        force_exact: bool,
        threads: int,
        report: object,
    ) -> dict[str, object]: ...

class SlicePoints:
    def __init__(
        self,
        stages: list[tuple[int, list[tuple[int, int]], int, int, int, int, int, float]],
        dimensions: int,
        u: int,
        v: int,
        origin: int,
    ) -> None: ...
    def sides(self, n: int, st: int, lines: int, less: int, on: int, stride: int, out: int) -> None: ...

class MeshOfParts:
    def __init__(self, pattern_bytes: int) -> None: ...
    def add(self, cells: int, offsets: int, xy: int, keys: int, rows: int, patterns: int) -> None: ...
    def take(self) -> dict[str, object]: ...

class SliceProblem:
    def __init__(
        self,
        stages: list[tuple[int, int, int, int, int]],
        lines: int,
        a: int,
        b: int,
        c: int,
        error: int,
        norms: int,
        corners: int,
        n_corners: int,
        exact_stages: list[tuple[int, list[tuple[int, int]], int, int, int, int, int, float]],
        dimensions: int,
        u: int,
        v: int,
        origin: int,
        groups: list[tuple[int, int]] = ...,
        zero: int = ...,
        same: int = ...,
        multiples: int = ...,
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
    ) -> dict[str, object]: ...
    def sign_at(self, i: int, j: int, k: int, on: int) -> int: ...
