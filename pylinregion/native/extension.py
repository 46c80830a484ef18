"""The compiled extension ``_C``, and whether it was built for GPUs.

Only :mod:`pylinregion.native` imports it. The extension is not linked against torch: tensors cross as addresses, which
:func:`pylinregion.native.addresses.address` gives away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from pylinregion.native import _C
except ImportError as error:
    raise ImportError(
        f"the compiled extension of pylinregion cannot be imported from {Path(__file__).parent}: {error}. If that is a "
        "checkout, install it in place (pip install -e .), or run Python in another folder after pip install ."
    ) from error

__all__ = ["_C", "cuda_architectures", "cuda_built", "for_cuda"]

cuda_built: bool = _C.cuda_built
cuda_architectures: str = _C.cuda_architectures


def for_cuda(name: str, owner: Any = _C) -> Any:
    """A function of the extension that runs on a GPU.

    Raises:
        RuntimeError: The extension was built without.
    """
    if not cuda_built:
        raise RuntimeError(
            "pylinregion was built without CUDA, so it cannot count on a GPU: reinstall it from its source folder with "
            "a CUDA toolchain (nvcc): `PYLINREGION_CUDA=1 pip install .`, or move model and x to the CPU"
        )
    return getattr(owner, name)
