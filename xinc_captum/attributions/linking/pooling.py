"""Maps and tokens to one row of units a picture."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ...hooks import ForwardFunc, unit_axis

Pool = Literal["auto", "mean", "flatten", "cls"]


def pooled(activation: Tensor, pool: Pool = "auto", unit_axis: int | None = None) -> Tensor:
    """One row of units a picture, of a layer's vectors, maps or tokens.

    Args:
        activation: (n, units), maps (n, C, H, W) or (n, C, D, H, W), or tokens (n, T, C).
        pool: ``"mean"`` over places or tokens, ``"flatten"``, ``"cls"`` (the first token), or ``"auto"``: vectors as
            they are, maps by mean, tokens by the first.
        unit_axis: which axis holds the units; None is the last of three axes, (n, T, C), and axis 1 otherwise.

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
    axis = (2 if activation.dim() == 3 else 1) if unit_axis is None else unit_axis % activation.dim()
    tokens = activation.dim() == 3 and axis == 2
    if pool == "cls" and not tokens:
        raise ValueError(
            f"pool='cls' takes the first of some tokens, but the layer has shape {tuple(activation.shape)}, not "
            "(n, tokens, C)."
        )
    if activation.dim() == 2 or pool == "flatten":
        return activation.flatten(1)
    if tokens:
        return activation.mean(1) if pool == "mean" else activation[:, 0]
    return activation.movedim(axis, 1).flatten(2).mean(2)


def pooling_axis(
    activation: Tensor,
    layer: nn.Module,
    forward_func: ForwardFunc,
    pool: Pool,
    *,
    entered: Sequence[int],
    asked: int | None,
    at_input: bool,
) -> int | None:
    """The axis of a layer's activation that holds the units, for :func:`pooled`; None where pooling needs none.

    Raises:
        LayerError: it cannot be determined.
    """
    if activation.dim() <= 2 or (pool == "flatten" and asked is None):
        return None
    return unit_axis(activation.shape, layer, forward_func, entered=entered, asked=asked, at_input=at_input, loose=True)
