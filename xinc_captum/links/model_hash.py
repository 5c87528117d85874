"""A name for the weights of a model, to tell whether a link belongs to it."""

import hashlib

import torch
from torch import nn

from ..hooks import ForwardFunc, modules_behind


def model_sha256(model: ForwardFunc | object) -> str | None:
    """sha256 of names, shapes and bytes of all weights behind a model, or None where no module is to be seen.

    Example:
        >>> model_sha256(torch.nn.Linear(2, 2)) == model_sha256(torch.nn.Linear(2, 2))
        False
    """
    roots: list[nn.Module] = modules_behind(model)  # type: ignore[arg-type]
    if not roots:
        return None
    total = hashlib.sha256()
    for root in roots:
        for name, value in root.state_dict().items():
            if not isinstance(value, torch.Tensor):
                continue
            total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
