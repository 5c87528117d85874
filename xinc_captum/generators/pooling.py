"""Maps and tokens to one row of units a picture."""

from typing import Literal

from torch import Tensor

Pool = Literal["auto", "mean", "flatten", "cls"]


def pooled(activation: Tensor, pool: Pool = "auto") -> Tensor:
    """(n, units) of (n, units), maps (n, C, H, W) or tokens (n, T, C)."""
    if activation.dim() == 2:
        return activation
    if pool == "flatten":
        return activation.flatten(1)
    if activation.dim() == 3:
        return activation[:, 0] if pool in ("cls", "auto") else activation.mean(1)
    return activation.flatten(2).mean(2)
