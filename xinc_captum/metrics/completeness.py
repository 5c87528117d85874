"""Whether the parts add up to the whole, and how hard that was in floating point."""

import torch
from torch import Tensor


def completeness_error(shares: Tensor, output: Tensor) -> Tensor:
    r"""How far the parts miss the whole, as a fraction of the largest output.

    .. math:: \max |\Sigma_u c_u - y| \, / \, \max |y|

    Args:
        shares: (rows, units, *left), a slot included where there is one.
        output: (rows, *left).

    Returns:
        a scalar, in float32 or wider.

    Raises:
        ValueError: no rows, or an output of another shape than the shares without their units.

    Example:
        >>> completeness_error(torch.tensor([[0.5, 0.25]]), torch.tensor([1.0]))
        tensor(0.2500)
    """
    parts, whole = _checked(shares, output)
    return (parts.sum(1) - whole).abs().max() / whole.abs().max().clamp_min(torch.finfo(whole.dtype).tiny)


def condition_number(shares: Tensor, output: Tensor) -> Tensor:
    r"""How many times larger the parts are than what they add up to.

    .. math:: \kappa = \Sigma_u |c_u| \, / \, |y|

    1 means that nothing cancels; log10 κ is the number of digits that cancellation costs.

    Args:
        shares: (rows, units, *left), a slot included where there is one.
        output: (rows, *left).

    Returns:
        (rows, *left), in float32 or wider.

    Raises:
        ValueError: as :func:`completeness_error`.

    Example:
        >>> condition_number(torch.tensor([[2.0, -1.0]]), torch.tensor([1.0]))
        tensor([3.])
    """
    parts, whole = _checked(shares, output)
    return parts.abs().sum(1) / whole.abs().clamp_min(torch.finfo(whole.dtype).tiny)


def _checked(shares: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in float32 or wider; a sum beside another shape would be spread over it."""
    if shares.dim() < 2 or (len(shares), *shares.shape[2:]) != tuple(output.shape) or not output.numel():
        raise ValueError(
            f"shares have shape {tuple(shares.shape)} and output {tuple(output.shape)}; wanted (rows, units, *left) "
            "and (rows, *left), for example output[:, target]."
        )
    return _wide(shares), _wide(output)


def _wide(values: Tensor) -> Tensor:
    """In float32 or wider: sums of half numbers lose or overflow what is measured here."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
