"""From a rule and rows that are frames to a FrameCanvas."""

import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ...batch import Batch
from .frame_canvas import FrameCanvas
from .rules import Rule, Tail, Xinc
from .rules.budget import Footprint
from .rules.pairs import kernels_of
from .rules.site import Site

_SMALL = 16 << 20  # bytes of maps that stay close to the processor


class Sites:
    """The last few sites that were opened, so that one map after another costs no forward pass.

    Args:
        open_site: from first and last frame to a site.
        keep: how many stay.
    """

    def __init__(self, open_site: Callable[[int, int], Site], keep: int) -> None:
        self._open, self._keep = open_site, keep
        self._sites: OrderedDict[tuple[int, int], Site] = OrderedDict()

    def __call__(self, first: int, last: int) -> Site:
        """The site of these frames."""
        site = self._sites.pop((first, last), None)
        if site is None:
            while len(self._sites) >= self._keep:
                self._sites.popitem(last=False)
            site = self._open(first, last)
        self._sites[first, last] = site
        return site


def are_frames(left: tuple[int, ...], size: tuple[int, ...], rows: int) -> bool:
    """Whether each row of the output is a picture of ``size``, not a pixel of one.

    Example:
        >>> are_frames((3, 8, 8), (8, 8), 64), are_frames((3,), (8, 8), 64)
        (True, False)
    """
    ends = len(left) >= len(size) and left[len(left) - len(size) :] == size
    return ends and not (len(left) == 1 and rows == math.prod(size))


def frame_canvas(
    rule: Rule,
    tail: Tail,
    batch: Batch,
    size: tuple[int, ...],
    pairs: bool,
    footprint: Footprint,
    budget: int | None,
    surroundings: Callable[[], AbstractContextManager[None]],
    show_progress: bool,
) -> tuple[FrameCanvas, Tensor]:
    """A lazy canvas of frames, and one unit's part of the first frame to look at.

    Args:
        rule: prepared.
        tail: the model from the layer on.
        batch: rows that are frames.
        size: of a frame.
        pairs: kernels instead of units.
        footprint: what a few frames need.
        budget: bytes of working memory of each query.
        surroundings: what queries run in.
        show_progress: a bar on every query.
    """
    shape = kernels_of(tail).shape if pairs else None
    at_once = footprint.rows(1, budget)  # maps of one frame, carried together
    if isinstance(rule, Xinc):  # expanded from a core: nothing of the network is in the way
        at_once = max(at_once, _SMALL // (footprint.output[0].numel() * footprint.output.element_size()))
    frames = min(batch.rows, max(1, math.isqrt(at_once)))

    def open_site(first: int, last: int) -> Site:
        return rule.site(tail, batch.cut(first, last), pairs, max(1, at_once // (last - first)))

    sites = Sites(open_site, keep=max(1, at_once // (4 * frames)))

    def shares(first: int, last: int, keys: list[Any]) -> Tensor:
        with torch.enable_grad():
            parts = sites(first, last).maps(keys).detach()
        return parts.reshape(*parts.shape[:2], -1, math.prod(size))

    def sums(first: int, last: int, weights: Tensor) -> Tensor | None:
        left = footprint.output.shape[1:]
        with torch.enable_grad():
            site = sites(first, last)
            if not site.by_adjoint:
                return None
            return site.sums(weights.to(footprint.output).reshape(*weights.shape[:2], *left))

    sample = shares(0, 1, [(0, 0) if pairs else 0])
    canvas = FrameCanvas(
        size=size,
        units=footprint.activation.shape[1] if shape is None else math.prod(shape),
        channels=sample.shape[2],
        slots=rule.slots,
        frames=batch.rows,
        pairs=shape,
        _shares=shares,
        _sums=sums,
        _rows_at_once=frames,
        _maps_at_once=max(1, at_once // frames),
        _surroundings=surroundings,
        _show_progress=show_progress,
    )
    return canvas, sample
