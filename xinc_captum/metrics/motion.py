"""Motion: whether contributions change where the picture moves."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from .._extra import needed
from .amounts import check_clip
from .pictures import intensity
from .rank import rank_vectors


def contribution_change(amounts: Tensor) -> Tensor:
    r"""How much each unit's contribution changes from frame to frame.

    .. math:: \Delta_{t,u,p} = |a_{t+1,u,p} - a_{t,u,p}|

    Args:
        amounts: (frames, units, H, W), >= 0.

    Returns:
        (frames - 1, units, H, W), float64. For the paper's picture: ``.sum(1)``.

    Raises:
        ValueError: one frame, another number of dims, negative or non-finite amounts.

    Example:
        >>> contribution_change(torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)).item()
        3.0
    """
    return check_clip(amounts).diff(dim=0).abs()


def optical_flow(clip: Tensor) -> Tensor:
    r"""Where each pixel goes in the next frame: TV-L1 (scikit-image, extra ``analysis``).

    .. math:: I_t(p) \approx I_{t+1}(p + w_t(p))

    Args:
        clip: (frames, C, H, W), floats in [0, 1].

    Returns:
        (frames - 1, 2, H, W): rows, then columns, in pixels; float32. Speed: ``.norm(dim=1)``.

    Raises:
        ValueError: one frame, 8-bit values, or another number of dims.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> optical_flow(torch.zeros(2, 3, 16, 16)).abs().amax()
        tensor(0.)

    Source: Zach, Pock & Bischof, "A duality based approach for realtime TV-L1 optical flow" (DAGM 2007).
    """
    if clip.dim() != 4 or len(clip) < 2:
        raise ValueError(f"clip has shape {tuple(clip.shape)}; wanted (frames, C, H, W) with at least 2 frames.")
    registration = needed("skimage.registration", purpose="optical flow", extra="analysis")
    grey = torch.stack([intensity(frame) for frame in clip.detach()]).float().cpu().numpy()
    flows = [torch.from_numpy(registration.optical_flow_tvl1(*pair)).float() for pair in itertools.pairwise(grey)]
    return torch.stack(flows).to(clip.device)


class MotionAgreement(NamedTuple):
    """Rank correlations of changes with speeds, every pair of frames with every other.

    Attributes:
        table: (units, pairs, pairs): the change between frames t and t + 1 against the speed between s and s + 1;
            nan where either is constant.
    """

    table: Tensor

    @property
    def matched(self) -> Tensor:
        """Mean of the diagonal, (units,): the change with its own frames' speed."""
        return self.table.diagonal(dim1=1, dim2=2).nanmean(1)

    @property
    def shuffled(self) -> Tensor:
        """Mean of the rest, (units,): the change with other frames' speed. The control, of all shufflings at once."""
        own = torch.eye(self.table.shape[1], dtype=torch.bool, device=self.table.device)
        return self.table.masked_fill(own, torch.nan).flatten(1).nanmean(1)


def motion_agreement(change: Tensor, speed: Tensor) -> MotionAgreement:
    r"""Spearman's correlation, over pixels, of contribution changes with speeds.

    .. math:: \rho_{u,t,s} = \mathrm{corr}\bigl(\mathrm{rank}_p\, \Delta_{t,u,p},\; \mathrm{rank}_p\, |w_s(p)|\bigr)

    Symbols: Δ the change of unit u between frames t and t + 1, w_s the flow between s and s + 1. Controls: s ≠ t in
    the same table, and a clip that stands still (``clip[:1].expand_as(clip)``), of which only nan may come. Put the
    frames' own difference in the place of the speed to see how much is motion and how much any change of brightness.

    Args:
        change: (pairs, units, H, W), of :func:`contribution_change`; ``.sum(1, keepdim=True)`` for the layer.
        speed: (pairs, H, W), >= 0, ``optical_flow(clip).norm(dim=1)``.

    Returns:
        a :class:`MotionAgreement`.

    Raises:
        ValueError: shapes that do not match, or a single pair of frames: shuffling needs three frames.

    Example:
        >>> change = torch.eye(3).view(3, 1, 1, 3)
        >>> agreement = motion_agreement(change, change[:, 0])
        >>> round(agreement.matched.item(), 6), round(agreement.shuffled.item(), 6)
        (1.0, -0.5)

    Source: the released code of Padmanabhan et al. (CVPR 2024) shows two frames of this as a picture; statistic and
    controls are ours.
    """
    if change.dim() != 4 or speed.dim() != 3 or change[:, 0].shape != speed.shape:
        raise ValueError(
            f"change has shape {tuple(change.shape)} and speed {tuple(speed.shape)}; wanted (pairs, units, H, W) and "
            "(pairs, H, W). Of a flow, take .norm(dim=1)."
        )
    if len(change) < 2:
        raise ValueError("change has a single pair of frames; the shuffled control wants at least 3 frames.")
    changes = rank_vectors(change.flatten(2))
    speeds = rank_vectors(speed.to(change).flatten(1))
    return MotionAgreement(torch.einsum("tup,sp->uts", changes, speeds))
