"""How parts move between two pictures, beyond the motion of the whole."""

import torch
from torch import Tensor

from .motion import optical_flow
from .part_means import check_parts, part_means


def without_affine(flow: Tensor, rounds: int = 10) -> Tensor:
    r"""What is left of a flow after the best affine motion of the whole picture is taken out.

    .. math:: w_p - (A\,p + b), \qquad (A, b) = \arg\min \Sigma_p\, \rho\bigl(|w_p - A\,p - b|\bigr)

    ρ is the absolute value, by iterated reweighting, so that a part that moves by itself does not pull the whole along.

    Args:
        flow: (n, 2, H, W), rows then columns, pixels.
        rounds: of reweighting.

    Returns:
        (n, 2, H, W).

    Raises:
        ValueError: another shape, or fewer than three pixels.

    Example:
        >>> without_affine(torch.ones(1, 2, 4, 4)).abs().max() < 1e-4
        tensor(True)

    Source: the paper fits the affine motion but draws the flow before it is taken out; the robust fit is ours.
    """
    if flow.dim() != 4 or flow.shape[1] != 2 or flow[0, 0].numel() < 3:
        raise ValueError(f"flow has shape {tuple(flow.shape)}; wanted (n, 2, H, W) with at least 3 pixels.")
    wide = flow.double()
    sides = [torch.linspace(-1, 1, side, dtype=wide.dtype, device=wide.device) for side in flow.shape[2:]]
    places = torch.cartesian_prod(*sides)
    design = torch.cat([places, torch.ones_like(places[:, :1])], 1)
    vectors = wide.flatten(2).transpose(1, 2)
    weights = torch.ones_like(vectors[..., :1])
    left = vectors
    for _ in range(rounds):
        weighted = design * weights
        fit = torch.linalg.pinv(weighted.transpose(1, 2) @ design) @ (weighted.transpose(1, 2) @ vectors)
        left = vectors - design @ fit
        weights = 1 / left.norm(dim=2, keepdim=True).clamp_min(1e-3)
    return left.transpose(1, 2).reshape(flow.shape).to(flow)


def part_motion(before: Tensor, after: Tensor, masks: Tensor) -> Tensor:
    """Mean displacement of each part from one picture to the other, by TV-L1 flow (scikit-image, extra ``analysis``).

    The affine motion of the whole picture is taken out first: :func:`without_affine`.

    Args:
        before: (n, C, H, W), floats in [0, 1].
        after: likewise, row by row.
        masks: (n, parts, H, W), of ``before``; bool or weights in [0, 1].

    Returns:
        (n, parts, 3): down, right and speed (the mean length, whatever the direction), pixels; nan where a part is
        empty.

    Raises:
        ValueError: shapes that do not match.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> still = torch.zeros(1, 1, 16, 16)
        >>> part_motion(still, still, torch.ones(1, 1, 16, 16)).abs().max() < 1e-4
        tensor(True)
    """
    if before.shape != after.shape:
        raise ValueError(
            f"the pictures before have shape {tuple(before.shape)} and after {tuple(after.shape)}; wanted the same."
        )
    check_parts(before, masks)
    flow = torch.cat([optical_flow(torch.stack(pair)) for pair in zip(before, after, strict=True)])
    left = without_affine(flow).to(before)
    return part_means(torch.cat([left, left.norm(dim=1, keepdim=True)], 1), masks)
