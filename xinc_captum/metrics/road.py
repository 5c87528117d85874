"""Remove and debias: whether the score follows what a map calls important, when a hole does not give itself away."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..hooks import ForwardFunc
from .deletion import Target, checked_maps, removal_order, settled, target_score, targets_of
from .imputation import noisy_linear_imputation
from .probability import Scores, probabilities

SHARES = (0.2, 0.5, 0.8)


def road(
    forward_func: ForwardFunc,
    images: Tensor,
    maps: Tensor,
    target: Target,
    *,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    rows_at_once: int = 32,
    scores: Scores = probabilities,
) -> Tensor:
    r"""How much more the target's score loses with the most important pixels than with the least important ones: (N,).

    .. math:: R = \frac{1}{2|P|} \Sigma_{p \in P}\ s(x \text{ without its least important share } p)
        - s(x \text{ without its most important share } p)

    Symbols: s the target's probability, see :func:`~xinc_captum.metrics.probabilities`; pixels are removed by
    :func:`~xinc_captum.metrics.noisy_linear_imputation`, so that the outline of a hole cannot be read as a picture.
    Between -1/2 and 1/2 for probabilities; 0 on average for a random map. Rows are independent; the value of a map that
    is not finite is nan.

    Args:
        forward_func: images to (rows, classes); run without gradients and left as found.
        images: (N, C, H, W) in [0, 1].
        maps: (N, H, W), large where important; equal values go in reading order.
        target: a class, or one for each row.
        shares: P, of the pixels, each above 0 and below 1.
        seed: of the imputation's noise.
        rows_at_once: images in one forward.
        scores: as in :func:`~xinc_captum.metrics.deletion_insertion`; "auto" is decided once, on the first images.

    Raises:
        TypeError: the model returns no tensor.
        ValueError: shapes that do not fit, shares out of range, or a target for another number of rows.
        IndexError: a target that is no class.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        >>> road(model, torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4), 1).shape
        torch.Size([2])

    Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022); both
    orders in one figure as Gildenblat's pytorch-grad-cam combines them.
    """
    checked_maps(images, maps)
    if rows_at_once < 1:
        raise ValueError(f"rows_at_once is {rows_at_once}; wanted at least 1.")
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares are {tuple(shares)}; wanted at least one, each above 0 and below 1.")
    maps, pixels = maps.detach().to(images.device), maps[0].numel()
    kind = settled(forward_func, images, targets_of(target, images), scores, rows_at_once)
    places = removal_order(maps)
    total = torch.zeros(len(images), device=images.device)
    for share in shares:
        count = min(max(round(share * pixels), 1), pixels - 1)
        for gone, sign in ((places >= pixels - count, 1), (places < count, -1)):
            filled = noisy_linear_imputation(images, gone, seed=seed)
            total = total + sign * target_score(forward_func, filled, target, scores=kind, rows_at_once=rows_at_once)
    return (total / (2 * len(shares))).masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan)
