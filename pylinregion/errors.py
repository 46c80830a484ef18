"""The exceptions that are pylinregion's own. Bad arguments are plain ``ValueError`` and ``TypeError``."""


class PylinregionError(Exception):
    """Base of the errors below."""


class UnsupportedModelError(PylinregionError):
    """A model that cannot be counted without guessing.

    The message names what stops it, the module path and the source line.
    """
