"""Pickles of numpy arrays, read by an unpickler that can make nothing else."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .assets import AssetError

# The three names that a pickled array asks for. They are answered from here, so that a pickle makes Python import
# nothing; the first has moved between numpy 1 and 2, and an array itself says where it is now.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            wanted = ", ".join(".".join(pair) for pair in ALLOWED)
            raise AssetError(
                f"the pickle asks for {module}.{name}; wanted plain containers of numpy arrays, which need only "
                f"{wanted}. It could run any code, so it is not loaded; get the file from its source again."
            )
        return ALLOWED[module, name]


def read_arrays(path: str | Path) -> Any:
    """What a pickle of lists, tuples, dicts, numbers, strings and numpy arrays holds.

    Raises:
        AssetError: it asks for anything else, or is no whole pickle.

    Source: "Restricting Globals", https://docs.python.org/3/library/pickle.html#restricting-globals
    """
    with Path(path).open("rb") as file:
        try:
            return _ArraysOnly(file).load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise AssetError(f"{path} is no whole pickle ({error}); get the file from its source again.") from error
