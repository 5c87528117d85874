"""Targets and unit indices that are NumPy integers, as the Python ints that PyTorch and Captum take."""

from typing import Any

import numpy as np


def python_index(index: Any) -> Any:
    """Return a target or selector with its NumPy integers as ints, and its 1-D integer arrays as lists.

    Everything else is returned as it is: bools and floats stay what they are, for the caller to refuse.

    Example:
        >>> python_index(np.int64(3)), python_index(np.array([1, 2])), python_index([(np.int32(0), 4)])
        (3, [1, 2], [(0, 4)])
    """
    if isinstance(index, np.integer):
        return int(index)
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu" and index.ndim < 2:
        return index.tolist()
    if type(index) in (list, tuple):
        return type(index)(python_index(one) for one in index)
    return index
