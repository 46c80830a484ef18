"""Packages that only some methods need."""

from __future__ import annotations

import importlib
from typing import Any

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def optional(module: str, what: str, extra: str) -> Any:
    """Import a module.

    Args:
        module: Its name.
        what: The method that needs it.
        extra: What installs it: ``pip install "pylinregion[extra]"``.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        package = module.split(".")[0]
        package = _DISTRIBUTIONS.get(package, package)
        raise ModuleNotFoundError(
            f'{what} needs {package}: pip install "pylinregion[{extra}]"', name=error.name
        ) from None
