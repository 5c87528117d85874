"""Motion in clips: optical flow, changes of contributions, and contributions along object tracks."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from .._optional import require
from .regions import intensity
from .spread import check_clip, check_weights, to_double
from .statistics import rank_vectors, shifts


def contribution_change(magnitudes: Tensor) -> Tensor:
    r"""Return how much each unit's contribution changes from frame to frame: (frames - 1, units, H, W), float64.

    .. math:: \Delta_{t,u,p} = |a_{t+1,u,p} - a_{t,u,p}|

    The magnitudes a are (frames, units, H, W), >= 0; a single frame raises ValueError. For the paper's figure, take the
    sum over units, ``.sum(1)``.

    Example:
        >>> contribution_change(torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)).item()
        3.0
    """
    return check_clip(magnitudes).diff(dim=0).abs()


def optical_flow(clip: Tensor) -> Tensor:
    r"""Return each pixel's displacement to the next frame, by TV-L1 (scikit-image, extra ``analysis``), float32.

    .. math:: I_t(p) \approx I_{t+1}(p + w_t(p))

    Symbols: I_t the :func:`intensity` of frame t, p a pixel. The clip is (frames, C, H, W), floats in [0, 1]; a single
    frame or 8-bit values raise ValueError. The result w is (frames - 1, 2, H, W): rows, then columns, in pixels. Speed:
    ``.norm(dim=1)``.

    Example:
        >>> optical_flow(torch.zeros(2, 3, 16, 16)).abs().amax()
        tensor(0.)

    Source: Zach, Pock & Bischof, "A duality based approach for realtime TV-L1 optical flow" (DAGM 2007).
    """
    if clip.dim() != 4 or len(clip) < 2:
        raise ValueError(f"clip has shape {tuple(clip.shape)}; expected (frames, C, H, W) with at least 2 frames.")
    registration = require("skimage.registration", purpose="optical flow", extra="analysis")
    grey = torch.stack([intensity(frame) for frame in clip.detach()]).float().cpu().numpy()
    flows = [torch.from_numpy(registration.optical_flow_tvl1(*pair)).float() for pair in itertools.pairwise(grey)]
    return torch.stack(flows).to(clip.device)


class MotionAgreement(NamedTuple):
    """Rank correlations of changes with speeds, for every pair of frames with every other.

    ``table`` is (units, pairs, pairs): the change between frames t and t + 1 with the speed between s and s + 1; nan if
    either is constant.
    """

    table: Tensor

    @property
    def matched(self) -> Tensor:
        """Mean of the diagonal, (units,): the change with the speed of the same frames."""
        return self.table.diagonal(dim1=1, dim2=2).nanmean(1)

    @property
    def shuffled(self) -> Tensor:
        """Mean of the rest, (units,): the change with the speed of other frames, the control over all permutations."""
        same_pair = torch.eye(self.table.shape[1], dtype=torch.bool, device=self.table.device)
        return self.table.masked_fill(same_pair, torch.nan).flatten(1).nanmean(1)


def motion_agreement(change: Tensor, speed: Tensor) -> MotionAgreement:
    r"""Return Spearman's correlation, over pixels, of contribution changes with speeds.

    .. math:: \rho_{u,t,s} = \mathrm{corr}\bigl(\mathrm{rank}_p\, \Delta_{t,u,p},\; \mathrm{rank}_p\, |w_s(p)|\bigr)

    Controls: s ≠ t in the same table, and a still clip (``clip[:1].expand_as(clip)``), which gives nan. To separate
    motion from changes of brightness, give the difference of the frames instead of the speed.

    Args:
        change: Δ, (pairs, units, H, W), of :func:`contribution_change`; ``.sum(1, keepdim=True)`` for the layer. A
            single pair of frames raises ValueError: shuffling needs three frames.
        speed: \|w\|, (pairs, H, W), >= 0, ``optical_flow(clip).norm(dim=1)``; another shape raises ValueError.

    Example:
        >>> change = torch.eye(3).view(3, 1, 1, 3)
        >>> agreement = motion_agreement(change, change[:, 0])
        >>> round(agreement.matched.item(), 6), round(agreement.shuffled.item(), 6)
        (1.0, -0.5)

    Source: the released code of Padmanabhan et al. (CVPR 2024) shows two frames of this as a figure; the statistic and
    the controls are ours.
    """
    if change.dim() != 4 or speed.dim() != 3 or change[:, 0].shape != speed.shape:
        raise ValueError(
            f"change has shape {tuple(change.shape)} and speed {tuple(speed.shape)}; expected (pairs, units, H, W) and "
            "(pairs, H, W). Of a flow, take .norm(dim=1)."
        )
    if len(change) < 2:
        raise ValueError("change has a single pair of frames; the shuffled control needs at least 3 frames.")
    changes = rank_vectors(change.flatten(2))
    speeds = rank_vectors(speed.to(change).flatten(1))
    return MotionAgreement(torch.einsum("tup,sp->uts", changes, speeds))


class Track(NamedTuple):
    """Contributions to objects in each frame.

    Attributes:
        density: mean magnitude per pixel of the object, (frames, objects, units); nan where it is not visible.
        matched: the density divided by the unit's mean over the frame, minus 1; the same shape.
        shuffled: the same under the masks of all *other* frames, their mean: the control.
    """

    density: Tensor
    matched: Tensor
    shuffled: Tensor

    @property
    def shares(self) -> Tensor:
        """Densities divided by their sum over frames and objects for each unit, as in the paper; nan counts as 0."""
        filled = self.density.nan_to_num()
        return filled / filled.sum((0, 1), keepdim=True)

    @property
    def carried(self) -> Tensor:
        """Mean over frames of matched − shuffled, (objects, units): above 0 if the unit follows the object.

        It is 0 for a still object, whose masks are the same at every frame.
        """
        return (self.matched - self.shuffled).nanmean(0)


def object_track(magnitudes: Tensor, masks: Tensor) -> Track:
    r"""Return each unit's contribution to each object in each frame, and a control at other frames' positions.

    .. math:: d_{t,o,u} = \frac{\Sigma_{p \in M_{t,o}} a_{t,u,p}}{|M_{t,o}|}, \quad
              m_{t,s,o,u} = \frac{d_{t,s,o,u}}{\mathrm{mean}_p\, a_{t,u,p}} - 1

    Symbols: M_{s,o} the mask of object o at frame s, d_{t,s} the density of the magnitudes a of frame t under the mask
    of frame s. *matched* is m at s = t; *shuffled* is its mean over all s ≠ t: the same shape at the places where the
    object is at other times. Both are equal for a unit with a constant position.

    Args:
        magnitudes: a, (frames, units, H, W), >= 0; a single frame raises ValueError.
        masks: (frames, objects, H, W), bool or weights in [0, 1]; all zero where an object is not visible. Another
            shape, or an object that is never visible, raises ValueError.

    Example:
        >>> magnitudes = torch.eye(3).view(3, 1, 1, 3)  # one unit that contributes to pixel t at frame t
        >>> object_track(magnitudes, magnitudes > 0).carried
        tensor([[3.]], dtype=torch.float64)

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), its released code: densities
    and shares; the control is ours.
    """
    values = check_clip(magnitudes)
    return _track(values, check_tracks(masks, values))


def control_tracks(magnitudes: Tensor, masks: Tensor, *, generator: torch.Generator, repeats: int = 20) -> Tensor:
    """Return :attr:`Track.carried` along the same paths elsewhere in the image: (repeats, objects, units), float64.

    This is a control for the choice of the object. All masks are rolled by one random offset for all frames. Of four
    times as many offsets, those with the least overlap of the objects with themselves are used, so that the object is
    not among its own controls. Some units follow any moving window a little, and the best of many units follows it
    more; so compare the largest values. Arguments and errors are those of :func:`object_track`, and at least one of
    ``repeats``.

    Example:
        >>> magnitudes, masks = torch.rand(3, 5, 6, 8), torch.rand(3, 1, 6, 8) > 0.5
        >>> control_tracks(magnitudes, masks, generator=torch.Generator().manual_seed(0), repeats=2).shape
        torch.Size([2, 1, 5])
    """
    values = check_clip(magnitudes)
    regions = check_tracks(masks, values)
    offsets = _away(regions, repeats, generator)
    return torch.stack([_track(values, regions.roll(offset, (2, 3))).carried for offset in offsets])


def _away(regions: Tensor, repeats: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Return the ``repeats`` offsets at which rolled masks overlap the masks (frames, objects, H, W) least."""
    offsets = shifts(tuple(regions.shape[2:]), 4 * repeats, generator)
    shared = torch.stack([(regions * regions.roll(offset, (2, 3))).sum((0, 2, 3)) for offset in offsets])
    worst = (shared / regions.square().sum((0, 2, 3))).amax(1)
    return [offsets[i] for i in sorted(worst.argsort(stable=True)[:repeats].tolist())]


def _track(values: Tensor, masks: Tensor) -> Track:
    maps, regions = values.flatten(2), masks.flatten(2)
    means = maps.mean(2)
    density, matched, shuffled = [], [], []
    for region in regions.unbind(1):  # one object at a time limits memory to (frames, frames, units)
        area = region.sum(1)
        here = torch.einsum("tup,sp->tsu", maps, region) / area.where(area > 0, torch.nan)[:, None]
        above = here / means.where(means > 0, torch.nan)[:, None] - 1
        density.append(here.diagonal().T)
        matched.append(above.diagonal().T)
        other = ~torch.eye(len(region), dtype=torch.bool, device=above.device)[..., None]
        shuffled.append(above.where(other, torch.nan).nanmean(1))
    return Track(torch.stack(density, 1), torch.stack(matched, 1), torch.stack(shuffled, 1))


def check_tracks(masks: Tensor, clip: Tensor) -> Tensor:
    """Return checked masks of a clip's objects, (frames, objects, H, W), in the clip's precision and on its device."""
    frames, _, height, width = clip.shape
    if masks.dim() != 4 or (len(masks), *masks.shape[2:]) != (frames, height, width) or not masks.shape[1]:
        hint = " For one object: masks[:, None]." if masks.dim() == 3 else ""
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} for {frames} frames of {height} x {width}; expected ({frames}, "
            f"objects, {height}, {width}).{hint}"
        )
    check_weights(masks)
    never = [i for i, visible in enumerate((masks > 0).flatten(2).any(2).any(0).tolist()) if not visible]
    if never:
        raise ValueError(f"objects {never[:8]} are visible in no frame; drop them: masks[:, visible].")
    return to_double(masks.to(clip.device))
