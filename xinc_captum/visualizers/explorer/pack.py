"""Pack canvases into bytes."""

import math
import zlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

POOL = (8, 16)  # cells; the same that units are clustered by


def places_of(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of where units paint.

    Args:
        vectors: (units, cells), one each.

    Returns:
        (units, 2) from 0 to 1 in each direction, and the part of the variance that each direction shows, (2,).

    Example:
        >>> places, spread = places_of(torch.eye(4)[:, :3])
        >>> places.shape, float(spread.sum()) <= 1
        (torch.Size([4, 2]), True)
    """
    centred = (vectors - vectors.mean(0)).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred)  # ascending; cells are few, units may be many
    directions = directions[:, -2:].flip(1)
    most = directions.abs().argmax(0)
    directions = directions * directions.gather(0, most[None]).sign()  # a direction has no sign of its own
    along = centred @ directions
    low, high = along.amin(0), along.amax(0)
    spread = variances[-2:].flip(0).clamp_min(0) / variances.clamp_min(0).sum().clamp_min(1e-30)
    return ((along - low) / (high - low).clamp_min(1e-30)).float(), spread.float()


def nearest(vectors: Tensor, count: int) -> Tensor:
    """The units whose vectors point most the same way, nearest first: (units, count).

    Example:
        >>> nearest(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 1).flatten().tolist()
        [1, 0, 1]
    """
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    found = []
    for first in range(0, len(unit), 1024):
        alike = unit[first : first + 1024] @ unit.T
        alike[torch.arange(len(alike)), first + torch.arange(len(alike))] = -2.0  # not itself
        found.append(alike.topk(count, dim=1).indices)
    return torch.cat(found)


AT_ONCE = 1 << 23  # numbers of maps in work at a time
MOST_UNITS = 1 << 16
_SHARE_OF_TOP = 0.4  # of the room, at most; the small maps take what is left
_SMALLER = 0.85  # what deflating leaves of ids and shares, at most
_STEPS = (1.0, 0.75, 0.5, 0.375, 0.3125, 0.25, 0.1875, 0.15625, 0.125, 0.09375, 0.0625, 0.03125)


class PackedUnits(NamedTuple):
    """One layer's canvases as a page keeps them, plain tensors; frames are 1 for a photo.

    Attributes:
        top: the strongest units of each cell, strongest first, (frames, h, w, k), uint16.
        shares: what part each paints of all that units paint there, like ``top``, uint16, 65535 is everything.
        maps: change of brightness, (units, frames, th, tw), int8, 127 is the unit's ``scale``.
        scale: (units,), float32.
        amounts: Σ over pixels and channels of |c|, (units, frames), float32.
        extremes: the largest darkening and brightening of a pixel, (units, 2), float32, at full size.
        places: where a unit stands among all, (units, 2) in [0, 1], float32.
        spread: what parts of the differences the two directions show, (2,), float32.
        near: the units that paint most alike, (units, n), uint16.
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
    r"""Quantise canvases so that, deflated, they take about ``room`` bytes.

    .. math:: s_{u}(p) = \frac{\sum_{ch} |c_{u,ch}(p)|}{\sum_{v} \sum_{ch} |c_{v,ch}(p)|}

    with :math:`c_{u,ch}(p)` what unit u adds to channel ch of pixel p, and :math:`s` the share that is kept of the k
    strongest. Where the room is too small, pixels are averaged over cells, first in the maps of single units.

    Args:
        maps: (units, C, H, W), or (frames, units, C, H, W); any float dtype, 1 is from black to white.
        room: bytes.
        k: units kept of each cell.
        near: units kept as most alike.

    Raises:
        ValueError: another shape, no or more than 65,536 units, or maps that are not finite.

    Example:
        >>> packed = pack_units(torch.randn(5, 3, 8, 12))
        >>> packed.top.shape, packed.maps.shape
        (torch.Size([1, 8, 12, 5]), torch.Size([5, 1, 8, 12]))
    """
    whole = maps[None] if maps.dim() == 4 else maps
    if whole.dim() != 5 or not 1 <= whole.shape[1] <= MOST_UNITS or 0 in whole.shape:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}; expected (units, C, H, W) or (frames, units, C, H, W), with 1 to "
            f"{MOST_UNITS} units."
        )
    frames, units, _, height, width = whole.shape
    k = min(k, units)
    cells = room * _SHARE_OF_TOP / _SMALLER / (4 * k * frames)
    grid = _shrunk(height, width, min(1.0, math.sqrt(cells / (height * width))))
    beside = units * (20 + 4 * frames + 2 * near)  # what is said of each unit besides its map
    left = max(int(room - beside - _SMALLER * 4 * k * frames * grid[0] * grid[1]), 4 * units)
    small = _map_size(whole, left)
    gathered = _gathered(whole, grid, small, k)
    vectors = F.normalize(gathered.pooled, dim=1, eps=1e-30)  # where, not how much; one place or many count alike
    places, spread = places_of(vectors)
    held, scale = _quantised(gathered.small)
    while deflated(delta(held)) > left and max(small) > 1:  # the estimate was of a sample
        small = _shrunk(*small, 0.8)
        held, scale = _quantised(F.adaptive_avg_pool2d(gathered.small, small))
    return PackedUnits(
        top=gathered.top.to(torch.uint16).contiguous(),
        shares=(gathered.shares * 65535).round().to(torch.uint16).contiguous(),
        maps=held,
        scale=scale,
        amounts=gathered.amounts,
        extremes=gathered.extremes,
        places=places,
        spread=spread,
        near=nearest(vectors, min(near, units - 1)).to(torch.uint16),
    )


class _Gathered(NamedTuple):
    top: Tensor
    shares: Tensor
    small: Tensor
    amounts: Tensor
    extremes: Tensor
    pooled: Tensor


def _gathered(whole: Tensor, grid: tuple[int, int], small: tuple[int, int], k: int) -> _Gathered:
    """One pass over the units, a few at a time."""
    frames, units, channels, height, width = whole.shape
    step = max(1, AT_ONCE // (frames * channels * height * width))
    values = torch.zeros(frames, *grid, 0)
    top = torch.zeros(frames, *grid, 0, dtype=torch.int32)
    everything = torch.zeros(frames, *grid)
    smalls, amounts, extremes, pools = [], [], [], []
    for first in range(0, units, step):
        part = whole[:, first : first + step].to(device="cpu", dtype=torch.float32)
        strength, bright = part.abs().sum(2), part.mean(2)
        amount = strength.sum((2, 3)).T
        if not bool(torch.isfinite(amount).all()):
            raise ValueError(f"maps of units {first} to {first + part.shape[1] - 1} are not finite; expected numbers.")
        amounts.append(amount)
        extremes.append(torch.stack([bright.amin((0, 2, 3)), bright.amax((0, 2, 3))], 1))
        smalls.append(_pooled(bright, small).transpose(0, 1))
        pools.append(F.adaptive_avg_pool2d(strength.mean(0), POOL).flatten(1))
        cells = _pooled(strength, grid).permute(0, 2, 3, 1)
        everything += cells.sum(-1)
        best, at = cells.topk(min(k, cells.shape[-1]), dim=-1)
        values, top = torch.cat([values, best], -1), torch.cat([top, (at + first).int()], -1)
        values, at = values.topk(min(k, values.shape[-1]), dim=-1)
        top = top.gather(-1, at)
    shares = values / everything[..., None].clamp_min(1e-30)
    return _Gathered(top, shares, torch.cat(smalls), torch.cat(amounts), torch.cat(extremes), torch.cat(pools))


def _map_size(whole: Tensor, room: int) -> tuple[int, int]:
    """The largest size whose maps, by a sample of the units, take no more than the room."""
    frames, units, _, height, width = whole.shape
    chosen = torch.linspace(0, units - 1, min(units, 48)).round().long().unique()
    some = torch.stack([whole[:, u].to(device="cpu", dtype=torch.float32).mean(1) for u in chosen.tolist()])
    size = height, width
    for share in _STEPS:
        size = _shrunk(height, width, share)
        if units * frames * size[0] * size[1] > 16 * room:  # nothing real becomes as small as that
            continue
        if deflated(delta(_quantised(F.adaptive_avg_pool2d(some, size))[0])) * units <= room * len(chosen):
            break
    return size


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Means over cells; nothing to do where a cell is a pixel."""
    return maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size)


def _shrunk(height: int, width: int, share: float) -> tuple[int, int]:
    return max(1, int(height * share + 1e-9)), max(1, int(width * share + 1e-9))


def _quantised(small: Tensor) -> tuple[Tensor, Tensor]:
    """(units, frames, h, w) to int8, and what 127 means for each unit."""
    scale = small.abs().amax((1, 2, 3))
    steps = small / scale.clamp_min(1e-30)[:, None, None, None] * 127
    return steps.round().to(torch.int8).contiguous(), scale


def delta(maps: Tensor) -> bytes:
    """Each number less its left neighbour, modulo 256: smooth maps become small numbers, which deflate well."""
    held = maps.to(torch.int16)
    held[..., 1:] -= maps[..., :-1].to(torch.int16)
    return bytes((held % 256).to(torch.uint8).contiguous().numpy())


def deflated(content: bytes) -> int:
    """How many bytes are left."""
    return len(zlib.compress(content, 6))
