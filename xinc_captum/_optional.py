"""Packages that only some chores need, imported when they are."""

import importlib
from types import ModuleType


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """The module ``module``, imported now.

    Args:
        module: a dotted name.
        purpose: what needs it, for the error.
        extra: which extra of this package brings it.

    Raises:
        ModuleNotFoundError: it is not installed; the text says what to run.

    Example:
        >>> require("math", purpose="counting", extra="analysis").pi > 3
        True
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs {module.partition('.')[0]}, which cannot be imported ({error}). Run: pip install "
            f"'xinc-captum[{extra}]'",
            name=error.name,
        ) from error
