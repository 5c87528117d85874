"""The device that a person names."""

import torch

from .failures import UsageError


def device_called(name: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        UsageError: nothing can be computed there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.Generator(name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device {name!r} cannot be used here ({reason}); try --device cpu or --device auto."
        ) from error
