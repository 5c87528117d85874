"""How few pixels hold most of a map."""

import torch
from torch import Tensor


def gini(maps: Tensor) -> Tensor:
    r"""The Gini index of each map's magnitudes, 0 when all are equal and near 1 when one pixel has everything: (N,).

    .. math:: G = \frac{\Sigma_i (2i - n - 1)\, |m|_{(i)}}{n\, \Sigma_i |m|_{(i)}}

    Symbols: \|m\|_(i) the i-th smallest of n magnitudes.

    Args:
        maps: (N, …), floats.

    Returns:
        (N,), in float32 or wider; nan for a map of zeros or one that is not finite.

    Raises:
        ValueError: fewer than two dimensions.

    Example:
        >>> gini(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]))
        tensor([0.0000, 0.7500])

    Source: Hurley & Rickard, "Comparing Measures of Sparsity" (2009); for maps Chalasani et al. (ICML 2020).
    """
    if maps.dim() < 2:
        raise ValueError(f"maps have shape {tuple(maps.shape)}; wanted (N, …), a map a row.")
    wide = maps.detach().to(torch.promote_types(maps.dtype, torch.float32)).flatten(1).abs()
    ordered, n = wide.sort(1).values, wide.shape[1]
    weights = 2 * torch.arange(1, n + 1, device=wide.device, dtype=wide.dtype) - n - 1
    return (ordered * weights).sum(1) / (n * ordered.sum(1))
