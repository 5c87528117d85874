"""Errors of the user, printed in one line."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ..attributions.canvas.rules.secant_tensor import CarryError
from ..hooks import LayerError
from ..images import PhotoError
from ..inr.training import CheckpointError
from ..store import StoreError
from ..videos import VideoError
from ..zoo.assets import AssetError


class UsageError(ValueError):
    """An option has a value that cannot be used."""


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


def error_text(error: Exception) -> str | None:
    """Return one line for the user, or None if the error is a bug of this package, which keeps its traceback.

    Operating-system errors with an error number (no permission, a name that is too long) are errors of the user.

    Example:
        >>> error_text(PermissionError(13, "Permission denied", "photo.png"))
        'photo.png: Permission denied'
    """
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    elif isinstance(error, FAILURES):
        text = str(error)
    else:
        return None
    return " ".join(text.split("\n"))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print a foreseeable error as one line on standard error and exit with status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # terminals and file names are not always UTF-8
    try:
        yield
    except (*FAILURES, OSError) as error:
        if (line := error_text(error)) is None:
            raise
        typer.secho(f"xinc: {line}", err=True, fg=typer.colors.RED)
        sys.exit(1)
