"""Which of many findings to believe: p-values from a null that was run, and a bound on the false share."""

import torch
from torch import Tensor


def chance_of(observed: Tensor, null: Tensor) -> Tensor:
    r"""How often a null gives as much as was observed.

    .. math:: p_i = \frac{1 + \#\{j : T^0_j \ge T_i\}}{1 + V}

    Symbols: T the statistic, larger is stronger; T⁰ its V values under the null, all units together, so it wants units
    that are alike under the null. The smallest p there can be is 1 / (1 + V).

    Args:
        observed: (n,), floats; nan is never exceeded by chance's standards and gets p = 1.
        null: (V,), floats; nan are left out.

    Returns:
        (n,), float64.

    Raises:
        ValueError: other shapes, or a null without a finite value.

    Example:
        >>> chance_of(torch.tensor([5.0, 1.5]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0.2500, 0.7500], dtype=torch.float64)

    Source: Phipson & Smyth, "Permutation p-values should never be zero" (2010).
    """
    held = null[~null.isnan()].double() if null.dim() == 1 else null
    if observed.dim() != 1 or null.dim() != 1 or not len(held):
        raise ValueError(
            f"observed has shape {tuple(observed.shape)} and the null {tuple(null.shape)}; wanted (n,) and (V,), "
            "with values in the null that are not nan."
        )
    ordered = held.sort().values
    values = observed.double().nan_to_num(nan=-torch.inf)
    reached = len(ordered) - torch.searchsorted(ordered, values.to(ordered), right=False)
    p = (1 + reached).double() / (1 + len(ordered))
    return p.where(~observed.isnan().to(p.device), 1.0)


def false_discovery_rate(p: Tensor) -> Tensor:
    r"""The smallest rate of false discoveries at which each finding would be among the discoveries.

    .. math:: q_{(i)} = \min_{j \ge i}\, \min\Bigl(1,\; \frac{n\, p_{(j)}}{j}\Bigr)

    Keeping all with q <= .05 expects at most one in twenty of the kept to be false, if the p-values are independent
    or positively dependent.

    Args:
        p: (n,), p-values.

    Returns:
        (n,), float64, in the order of ``p``.

    Raises:
        ValueError: another shape, or values outside [0, 1].

    Example:
        >>> false_discovery_rate(torch.tensor([0.01, 0.5, 0.02]))
        tensor([0.0300, 0.5000, 0.0300], dtype=torch.float64)

    Source: Benjamini & Hochberg, "Controlling the false discovery rate" (1995).
    """
    if p.dim() != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p has shape {tuple(p.shape)}; wanted (n,) p-values from 0 to 1.")
    ordered, order = p.double().sort()
    ranks = torch.arange(1, len(p) + 1, dtype=ordered.dtype, device=p.device)
    least = (len(p) * ordered / ranks).clamp(max=1).flip(0)
    running = torch.cummin(least, 0).values.flip(0) if len(p) else least
    return torch.empty_like(running).scatter(0, order, running)
