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
        a scalar.

    Example:
        >>> completeness_error(torch.tensor([[0.5, 0.25]]), torch.tensor([1.0]))
        tensor(0.2500)
    """
    scale = output.abs().max().clamp_min(torch.finfo(output.dtype).tiny)
    return (shares.sum(1) - output).abs().max() / scale


def condition_number(shares: Tensor, output: Tensor) -> Tensor:
    r"""How many times larger the parts are than what they add up to.

    .. math:: \kappa = \Sigma_u |c_u| \, / \, |y|

    1 means that nothing cancels; log10 κ is the number of digits that cancellation costs.

    Args:
        shares: (rows, units, *left), a slot included where there is one.
        output: (rows, *left).

    Returns:
        (rows, *left).

    Example:
        >>> condition_number(torch.tensor([[2.0, -1.0]]), torch.tensor([1.0]))
        tensor([3.])
    """
    return shares.abs().sum(1) / output.abs().clamp_min(torch.finfo(output.dtype).tiny)
