"""The exceptions that are pylinregion's own. Bad arguments are plain ``ValueError`` and ``TypeError``."""

from __future__ import annotations


class PylinregionError(Exception):
    """Base of the errors below."""


class UnsupportedModelError(PylinregionError):
    """A model that cannot be counted without guessing.

    The message names what stops it, the module path and the source line.
    """


class BudgetExceededError(PylinregionError):
    """A partition that was stopped because it reached a limit of regions or of memory.

    Attributes:
        n_regions: The regions found until then: the slice has at least as many.
    """

    def __init__(self, message: str, n_regions: int) -> None:
        super().__init__(message)
        self.n_regions = n_regions

    def __reduce__(self) -> tuple[type[BudgetExceededError], tuple[str, int]]:
        return type(self), (str(self), self.n_regions)


class VerificationError(PylinregionError):
    """A partition of which something is not true that is true of every right one."""
