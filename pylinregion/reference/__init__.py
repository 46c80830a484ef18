"""Slow, plain NumPy versions of what the kernels and the counting do, for the tests to judge them by.

Nothing here imports the compiled extension or the code it judges.
"""

from pylinregion.reference.kernel_twins import distinct_patterns, label_changes, sign_changes, split_preactivations

__all__ = ["distinct_patterns", "label_changes", "sign_changes", "split_preactivations"]
