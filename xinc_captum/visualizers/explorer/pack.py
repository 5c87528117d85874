"""Quantise canvases for a page: strongest units per pixel, small maps, and positions of units."""

import math
import zlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

POOL = (8, 16)  # rows and columns of cells in which units are compared, as for clustering

BATCH_NUMBERS = 1 << 23  # numbers of maps that are processed at a time
MAX_UNITS = 1 << 16
_TOP_SHARE = 0.4  # share of the room for the strongest units, at most; the rest is for the small maps
_DEFLATE_RATIO = 0.85  # of unit numbers and shares, at most
# scales of the small maps that are tried, largest first
_STEPS = (1.0, 0.75, 0.5, 0.375, 0.3125, 0.25, 0.1875, 0.15625, 0.125, 0.09375, 0.0625, 0.03125)


class PackedUnits(NamedTuple):
    """Quantised canvases of one layer; a photo has one frame.

    Attributes:
        top: the strongest units of each cell, strongest first, (frames, h, w, k), uint16.
        shares: share of each of these units in the contributions of all units, like ``top``, uint16, 65535 is 1.
        maps: change of brightness, (units, frames, th, tw), int8, 127 is the unit's ``scale``.
        scale: (units,), float32.
        amounts: contribution magnitudes, Σ over pixels and channels of |c|, (units, frames), float32.
        extremes: largest darkening and brightening of a pixel, (units, 2), float32, at full size.
        places: position of a unit in the map of all units, (units, 2) in [0, 1], float32.
        spread: shares of the variance that the two directions of ``places`` have, (2,), float32.
        near: the units with the most similar contributions, (units, n), uint16.
    """

    top: Tensor
    shares: Tensor
    maps: Tensor
    scale: Tensor
    amounts: Tensor
    extremes: Tensor
    places: Tensor
    spread: Tensor
    near: Tensor


def pack_units(maps: Tensor, *, room: int = 3_000_000, k: int = 8, near: int = 6) -> PackedUnits:
    r"""Quantise canvases to about ``room`` bytes after compression.

    .. math:: s_{u}(p) = \frac{\sum_{ch} |c_{u,ch}(p)|}{\sum_{v} \sum_{ch} |c_{v,ch}(p)|}

    with :math:`c_{u,ch}(p)` the contribution of unit u to channel ch of pixel p, and :math:`s` the share, which is
    stored for the k strongest units. Where the room is too small, pixels are averaged over cells, first in the maps of
    single units.

    Args:
        maps: (units, C, H, W), or (frames, units, C, H, W); any float dtype, black is 0 and white is 1.
        room: number of bytes, about.
        k: number of units per cell, at most.
        near: number of similar units per unit, at most.

    Raises:
        ValueError: more than 65,536 units, or maps that are not finite.

    Example:
        >>> pack_units(torch.randn(5, 3, 8, 12)).top.shape
        torch.Size([1, 8, 12, 5])
    """
    clip = maps[None] if maps.dim() == 4 else maps
    if clip.dim() != 5 or not 1 <= clip.shape[1] <= MAX_UNITS or 0 in clip.shape:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}; expected (units, C, H, W) or (frames, units, C, H, W), with 1 to "
            f"{MAX_UNITS} units."
        )
    frames, units, _, height, width = clip.shape
    k = min(k, units)
    cells = room * _TOP_SHARE / _DEFLATE_RATIO / (4 * k * frames)
    grid = _shrink(height, width, min(1.0, math.sqrt(cells / (height * width))))
    per_unit = units * (20 + 4 * frames + 2 * near)  # everything about units except their maps
    map_room = max(int(room - per_unit - _DEFLATE_RATIO * 4 * k * frames * grid[0] * grid[1]), 4 * units)
    small = _map_size(clip, map_room)
    top, shares, means, amounts, extremes, pooled = _reduce(clip, grid, small, k)
    vectors = F.normalize(pooled, dim=1, eps=1e-30)  # directions: the total magnitude does not count
    places, spread = places_of(vectors)
    quantised, scale = _quantise(means)
    while deflate_size(delta(quantised)) > map_room and max(small) > 1:  # the size was estimated from a sample
        small = _shrink(*small, 0.8)
        quantised, scale = _quantise(F.adaptive_avg_pool2d(means, small))
    return PackedUnits(
        top=top.to(torch.uint16).contiguous(),
        shares=(shares * 65535).round().to(torch.uint16).contiguous(),
        maps=quantised,
        scale=scale,
        amounts=amounts,
        extremes=extremes,
        places=places,
        spread=spread,
        near=nearest(vectors, min(near, units - 1)).to(torch.uint16),
    )


def _reduce(clip: Tensor, grid: tuple[int, int], small: tuple[int, int], k: int) -> tuple[Tensor, ...]:
    """Return statistics of all units, computed for a batch of units at a time.

    They are the strongest units and their shares per cell of ``grid``, the units' maps of size ``small``, their
    magnitudes and extremes, and their magnitudes in the cells of :data:`POOL`.
    """
    frames, units, channels, height, width = clip.shape
    step = max(1, BATCH_NUMBERS // (frames * channels * height * width))
    values = torch.zeros(frames, *grid, 0)
    top = torch.zeros(frames, *grid, 0, dtype=torch.int32)
    total = torch.zeros(frames, *grid)
    small_maps, magnitudes, extremes, pooled = [], [], [], []
    for first in range(0, units, step):
        batch = clip[:, first : first + step].to(device="cpu", dtype=torch.float32)
        strength, bright = batch.abs().sum(2), batch.mean(2)
        magnitude = strength.sum((2, 3)).T
        if not bool(torch.isfinite(magnitude).all()):
            last = first + batch.shape[1] - 1
            raise ValueError(f"maps of units {first} to {last} are not finite; expected finite numbers.")
        magnitudes.append(magnitude)
        extremes.append(torch.stack([bright.amin((0, 2, 3)), bright.amax((0, 2, 3))], 1))
        small_maps.append(_pool(bright, small).transpose(0, 1))
        pooled.append(F.adaptive_avg_pool2d(strength.mean(0), POOL).flatten(1))
        cells = _pool(strength, grid).permute(0, 2, 3, 1)
        total += cells.sum(-1)
        best, at = cells.topk(min(k, cells.shape[-1]), dim=-1)
        values, top = torch.cat([values, best], -1), torch.cat([top, (at + first).int()], -1)
        values, at = values.topk(min(k, values.shape[-1]), dim=-1)
        top = top.gather(-1, at)
    shares = values / total[..., None].clamp_min(1e-30)
    return top, shares, torch.cat(small_maps), torch.cat(magnitudes), torch.cat(extremes), torch.cat(pooled)


def _map_size(clip: Tensor, room: int) -> tuple[int, int]:
    """Return the largest size at which the maps take at most ``room`` bytes, estimated from a sample of the units."""
    frames, units, _, height, width = clip.shape
    indices = torch.linspace(0, units - 1, min(units, 48)).round().long().unique()
    sample = torch.stack([clip[:, u].to(device="cpu", dtype=torch.float32).mean(1) for u in indices.tolist()])
    size = height, width
    for scale in _STEPS:
        size = _shrink(height, width, scale)
        if units * frames * size[0] * size[1] > 16 * room:  # compression by more than 16 does not occur
            continue
        maps, _ = _quantise(F.adaptive_avg_pool2d(sample, size))
        if deflate_size(delta(maps)) * units <= room * len(indices):
            break
    return size


def _pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return means over cells, or the maps themselves where a cell is a pixel."""
    return maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size)


def _shrink(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, int(height * scale + 1e-9)), max(1, int(width * scale + 1e-9))


def _quantise(small: Tensor) -> tuple[Tensor, Tensor]:
    """Return (units, frames, h, w) as int8, and per unit the value of 127."""
    scale = small.abs().amax((1, 2, 3))
    steps = small / scale.clamp_min(1e-30)[:, None, None, None] * 127
    return steps.round().to(torch.int8).contiguous(), scale


def delta(maps: Tensor) -> bytes:
    """Return differences to the left neighbour, modulo 256, which compress well for smooth maps."""
    differences = maps.to(torch.int16)
    differences[..., 1:] -= maps[..., :-1].to(torch.int16)
    return bytes((differences % 256).to(torch.uint8).contiguous().numpy())


def deflate_size(content: bytes) -> int:
    """Return the number of bytes after compression."""
    return len(zlib.compress(content, 6))


def places_of(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first two principal components of (units, cells), from 0 to 1, and their shares of the variance."""
    centred = (vectors - vectors.mean(0)).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred)  # ascending; of few cells and possibly many units
    directions = directions[:, -2:].flip(1)
    most = directions.abs().argmax(0)
    directions = directions * directions.gather(0, most[None]).sign()  # the sign of an eigenvector is arbitrary
    scores = centred @ directions
    low, high = scores.amin(0), scores.amax(0)
    spread = variances[-2:].flip(0).clamp_min(0) / variances.clamp_min(0).sum().clamp_min(1e-30)
    return ((scores - low) / (high - low).clamp_min(1e-30)).float(), spread.float()


def nearest(vectors: Tensor, count: int) -> Tensor:
    """Return the units with the most similar directions, nearest first: (units, count)."""
    unit = F.normalize(vectors.float(), dim=1)
    neighbours = []
    for first in range(0, len(unit), 1024):
        similarity = unit[first : first + 1024] @ unit.T
        similarity[torch.arange(len(similarity)), first + torch.arange(len(similarity))] = -2.0  # not itself
        neighbours.append(similarity.topk(count, dim=1).indices)
    return torch.cat(neighbours)
