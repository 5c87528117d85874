"""Failures whose message is enough for the user; everything else keeps its traceback."""

from ..hooks import LayerError
from ..images import PhotoError
from ..inr import CheckpointError
from ..propagation import CarryError
from ..store import StoreError
from ..videos import VideoError
from ..zoo import AssetError


class UsageError(ValueError):
    """An option that cannot be used as given."""


FAILURES = (
    UsageError,
    PhotoError,
    VideoError,
    StoreError,
    CheckpointError,
    LayerError,
    CarryError,
    AssetError,
    FileNotFoundError,
)


def words_of(error: Exception) -> str | None:
    """Return one line for the user; None where the error is a mistake of this package, which keeps its traceback.

    Among errors of the operating system those with a number (no permission, a name that is too long) are the user's.

    Example:
        >>> words_of(PermissionError(13, "Permission denied", "photo.png"))
        'photo.png: Permission denied'
    """
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        said = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    elif isinstance(error, FAILURES):
        said = str(error)
    else:
        return None
    return " ".join(said.split("\n"))
