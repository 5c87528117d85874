"""Import optional dependencies when they are needed."""

import importlib
from types import ModuleType


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """Import and return a module by its dotted name; the error names ``purpose`` and the ``extra`` that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs {module.partition('.')[0]}, which cannot be imported ({error}). Run: pip install "
            f"'xinc-captum[{extra}]'",
            name=error.name,
        ) from error
