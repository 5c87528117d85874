"""Maps and tokens to one row of units a picture."""

from typing import Literal

from torch import Tensor

Pool = Literal["auto", "mean", "flatten", "cls"]


def pooled(activation: Tensor, pool: Pool = "auto") -> Tensor:
    """One row of units a picture, of a layer's vectors, maps or tokens.

    Args:
        activation: (n, units), maps (n, C, H, W) or (n, C, D, H, W), or tokens (n, T, C).
        pool: ``"mean"`` over places or tokens, ``"flatten"``, ``"cls"`` (the first token), or ``"auto"``: vectors as
            they are, maps by mean, tokens by the first.

    Returns:
        (n, units), differentiable.

    Raises:
        ValueError: an unknown ``pool``, ``"cls"`` of what has no tokens, or no axis of units.

    Example:
        >>> from torch import ones
        >>> [tuple(pooled(ones(2, 3, 4, 4), pool).shape) for pool in ("auto", "flatten")]
        [(2, 3), (2, 48)]
    """
    if pool not in ("auto", "mean", "flatten", "cls"):
        raise ValueError(f"pool is {pool!r}; wanted 'auto', 'mean', 'flatten' or 'cls'.")
    if activation.dim() < 2:
        raise ValueError(f"the layer's activation has shape {tuple(activation.shape)}; wanted (n, units, …).")
    if pool == "cls" and activation.dim() != 3:
        raise ValueError(
            f"pool='cls' takes the first of some tokens, but the layer has shape {tuple(activation.shape)}, not "
            "(n, tokens, C)."
        )
    if activation.dim() == 2 or pool == "flatten":
        return activation.flatten(1)
    if activation.dim() == 3:
        return activation.mean(1) if pool == "mean" else activation[:, 0]
    return activation.flatten(2).mean(2)
