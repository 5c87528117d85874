"""Import optional dependencies when they are needed."""

import importlib
from types import ModuleType


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """Import and return a module of an optional dependency.

    Args:
        module: a dotted name.
        purpose: what needs the module, for the error.
        extra: the extra of this package that installs it.

    Raises:
        ModuleNotFoundError: it is not installed; the text contains the command that installs it.

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
