"""Objects through time: whether a unit's contribution goes along with an object that moves."""

from typing import NamedTuple

import torch
from torch import Tensor

from .amounts import check_clip, wide
from .shuffles import shifts


class Track(NamedTuple):
    """Contributions to objects, frame by frame.

    Attributes:
        density: mean amount per pixel of the object, (frames, objects, units); nan where it is out of sight.
        matched: how much more than the object's area accounts for, at each frame, likewise.
        shuffled: the same at the same frame under the masks of every *other* frame, their mean: the control.
    """

    density: Tensor
    matched: Tensor
    shuffled: Tensor

    @property
    def shares(self) -> Tensor:
        """Densities divided by their sum over frames and objects, unit by unit, as in the paper; nan → 0."""
        filled = self.density.nan_to_num()
        return filled / filled.sum((0, 1), keepdim=True)

    @property
    def carried(self) -> Tensor:
        """Mean over frames of matched − shuffled, (objects, units): above 0, the unit goes along with the object.

        0 for an object that stands still: its masks are the same at every frame, so nothing can be said.
        """
        return (self.matched - self.shuffled).nanmean(0)


def object_track(amounts: Tensor, masks: Tensor) -> Track:
    r"""Each unit's contribution to each object at each frame, beside the same where the object is not.

    .. math:: d_{t,o,u} = \frac{\Sigma_{p \in M_{t,o}} a_{t,u,p}}{|M_{t,o}|}, \quad
              m_{t,s,o,u} = \frac{d_{t,s,o,u}}{\mathrm{mean}_p\, a_{t,u,p}} - 1

    Symbols: a the amounts at frame t, M_{s,o} object o's mask at frame s, d_{t,s} the density of frame t's amounts
    under frame s's mask. *matched* is m at s = t, *shuffled* its mean over all s ≠ t: the same shape at the places
    where the object is at other times. A unit that always paints the same place scores both alike.

    Args:
        amounts: (frames, units, H, W), >= 0.
        masks: (frames, objects, H, W), bool or weights in [0, 1]; all zero where an object is out of sight.

    Returns:
        a :class:`Track`, float64.

    Raises:
        ValueError: one frame, masks that do not match, an object that is never seen, negative amounts.

    Example:
        >>> amounts = torch.eye(3).view(3, 1, 1, 3)  # one unit that paints pixel t at frame t
        >>> object_track(amounts, amounts > 0).carried
        tensor([[3.]], dtype=torch.float64)

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), its released code: densities
    and shares; the control is ours.
    """
    values = check_clip(amounts)
    return _track(values, check_tracks(masks, values).to(values.device))


def carried_elsewhere(amounts: Tensor, masks: Tensor, *, generator: torch.Generator, repeats: int = 20) -> Tensor:
    """What :attr:`Track.carried` comes to along the same paths elsewhere in the picture: the control of *which* object.

    All masks are rolled by one random offset for all frames; of four times as many offsets, those at which the objects
    overlap themselves least are kept, lest the finding be among its own controls. Some units follow any window that
    moves a little, and the best of many units follows it more than a little: compare the best with the best.

    Args:
        amounts: (frames, units, H, W), >= 0.
        masks: (frames, objects, H, W), as in :func:`object_track`.
        generator: of the offsets.
        repeats: how many.

    Returns:
        (repeats, objects, units), float64.

    Raises:
        ValueError: as :func:`object_track`, or no repeats.

    Example:
        >>> amounts, masks = torch.rand(3, 5, 6, 8), torch.rand(3, 1, 6, 8) > 0.5
        >>> carried_elsewhere(amounts, masks, generator=torch.Generator().manual_seed(0), repeats=2).shape
        torch.Size([2, 1, 5])
    """
    values = check_clip(amounts)
    regions = check_tracks(masks, values).to(values.device)
    return torch.stack(
        [_track(values, regions.roll(offset, (2, 3))).carried for offset in _away(regions, repeats, generator)]
    )


def _away(regions: Tensor, repeats: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Offsets at which rolled masks (frames, objects, H, W) share least with themselves, in the order of drawing."""
    drawn = shifts(tuple(regions.shape[2:]), 4 * repeats, generator)
    shared = torch.stack([(regions * regions.roll(offset, (2, 3))).sum((0, 2, 3)) for offset in drawn])
    worst = (shared / regions.square().sum((0, 2, 3))).amax(1)
    return [drawn[i] for i in sorted(worst.argsort(stable=True)[:repeats].tolist())]


def _track(values: Tensor, masks: Tensor) -> Track:
    maps, regions = values.flatten(2), masks.flatten(2)
    means = maps.mean(2)
    density, matched, shuffled = [], [], []
    for region in regions.unbind(1):  # one object at a time: (frames, frames, units) is enough to hold
        area = region.sum(1)
        here = torch.einsum("tup,sp->tsu", maps, region) / area.where(area > 0, torch.nan)[:, None]
        above = here / means.where(means > 0, torch.nan)[:, None] - 1
        density.append(here.diagonal().T)
        matched.append(above.diagonal().T)
        other = ~torch.eye(len(region), dtype=torch.bool, device=above.device)[..., None]
        shuffled.append(above.where(other, torch.nan).nanmean(1))
    return Track(torch.stack(density, 1), torch.stack(matched, 1), torch.stack(shuffled, 1))


def check_tracks(masks: Tensor, clip: Tensor) -> Tensor:
    """Masks of a clip's objects, (frames, objects, H, W), in the clip's precision.

    Raises:
        ValueError: masks that do not match the clip, leave [0, 1], or an object that is never seen.
    """
    frames, _, height, width = clip.shape
    if masks.dim() != 4 or (len(masks), *masks.shape[2:]) != (frames, height, width) or not masks.shape[1]:
        hint = " For one object: masks[:, None]." if masks.dim() == 3 else ""
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} for {frames} frames of {height} x {width}; wanted "
            f"({frames}, objects, {height}, {width}).{hint}"
        )
    if not ((masks >= 0) & (masks <= 1)).all():  # written so that nan fails
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; wanted bool, or weights in [0, 1]."
        )
    never = [i for i, seen in enumerate((masks > 0).flatten(2).any(2).any(0).tolist()) if not seen]
    if never:
        raise ValueError(f"objects {never[:8]} are at no frame; drop them: masks[:, kept].")
    return wide(masks)
