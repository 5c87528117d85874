"""What each unit of a clip responds to: motion, colour, edges, position."""

import torch
from torch import Tensor

from .amounts import check_clip
from .motion import contribution_change
from .pictures import edges, opponents
from .rank import rank_vectors


def unit_responses(amounts: Tensor, clip: Tensor, flow: Tensor) -> dict[str, Tensor]:
    r"""Four descriptions of each unit, all by rank correlations over pixels, means over frames.

    ========  ==================================================================================
    motion    ρ(change of a, speed) and ρ(a, speed)
    colour    ρ(a, brightness), ρ(a, red against green), ρ(a, blue against yellow)
    edge      ρ(a, Sobel's edge strength)
    position  centre of mass of a: row, column, from 0 to 1
    ========  ==================================================================================

    Args:
        amounts: a, (frames, units, H, W), >= 0.
        clip: (frames, 3, H, W), floats in [0, 1].
        flow: (frames - 1, 2, H, W), of :func:`optical_flow` or known.

    Returns:
        by name, (units, numbers), float64; nan where a unit's maps, or the speeds, are constant at all frames.

    Raises:
        ValueError: one frame, or shapes that do not match.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> clip = torch.rand(3, 3, 6, 8)
        >>> found = unit_responses(torch.rand(3, 5, 6, 8), clip, torch.rand(2, 2, 6, 8))
        >>> {name: found[name].shape[1] for name in found}
        {'motion': 2, 'colour': 3, 'edge': 1, 'position': 2}
    """
    values = check_clip(amounts)
    frames, size = len(values), values.shape[2:]
    if clip.shape != (frames, 3, *size) or flow.shape != (frames - 1, 2, *size):
        raise ValueError(
            f"clip has shape {tuple(clip.shape)} and flow {tuple(flow.shape)} for amounts {tuple(amounts.shape)}; "
            f"wanted {(frames, 3, *size)} and {(frames - 1, 2, *size)}."
        )
    maps = rank_vectors(values.flatten(2))
    changes = rank_vectors(contribution_change(values).flatten(2))
    speed = rank_vectors(flow.to(values).norm(dim=1).flatten(1))
    colours = rank_vectors(torch.stack([opponents(frame) for frame in clip]).to(values).flatten(2))
    outlines = rank_vectors(torch.stack([edges(frame) for frame in clip]).to(values).flatten(1))
    moving = torch.stack([_over_frames(changes, speed), _over_frames(maps[:-1], speed)], 1)
    coloured = torch.stack([_over_frames(maps, one) for one in colours.unbind(1)], 1)
    return {
        "motion": moving,
        "colour": coloured,
        "edge": _over_frames(maps, outlines)[:, None],
        "position": _centres(values),
    }


def _over_frames(maps: Tensor, fields: Tensor) -> Tensor:
    """Mean over frames of the correlations: (frames, units, P) and (frames, P) to (units,)."""
    return torch.einsum("tup,tp->tu", maps, fields).nanmean(0)


def _centres(values: Tensor) -> Tensor:
    """(frames, units, H, W) to (units, 2)."""
    total = values.sum((0, 2, 3))
    centres = []
    for dim in (2, 3):
        along = values.sum((0, 5 - dim))
        places = torch.linspace(0, 1, along.shape[1], dtype=along.dtype, device=along.device)
        centres.append((along @ places) / total.where(total > 0, torch.nan))
    return torch.stack(centres, 1)
