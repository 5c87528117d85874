"""Questions to a canvas that are answered chunk by chunk, several in one pass."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Query(Protocol):
    """Sees the canvas as consecutive (rows, units, channels) pieces and answers at the end.

    Where rows are frames, a fresh copy sees all pixels of some units, and answers are put side by side along
    ``unit_axis`` (rankings are merged instead).
    """

    unit_axis: int

    def add(self, first: int, part: Tensor) -> None:
        """Take in the rows that begin at pixel ``first``."""

    def answer(self, size: tuple[int, ...]) -> Any:
        """The answer for a picture of ``size``."""


class TopUnits(NamedTuple):
    """Strengths Σ_channel |c| of the strongest units and which units they are, strongest first."""

    values: Tensor
    indices: Tensor


def _wide(part: Tensor) -> torch.dtype:
    """Sums over millions of pixels want float64; Apple's devices have none."""
    return torch.float32 if part.device.type == "mps" else torch.float64


class Totals:
    """Σ_pixels |c|: (units, channels)."""

    unit_axis = 0

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._dtype = torch.float32

    def add(self, first: int, part: Tensor) -> None:
        """Add one piece."""
        self._dtype = torch.promote_types(part.dtype, torch.float32)
        summed = part.abs().sum(0, dtype=self._dtype).to(_wide(part))
        self._sum = summed if self._sum is None else self._sum + summed

    def answer(self, size: tuple[int, ...]) -> Tensor:
        """(units, channels)."""
        return seen(self._sum).to(self._dtype)


def weights(masks: Tensor) -> Tensor:
    """Masks as they are, once it is certain that they weigh pixels from 0 to 1.

    Raises:
        ValueError: 8-bit masks from 0 to 255, negative weights, or values that are not finite.
    """
    if masks.dtype != torch.bool and masks.numel() and not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; wanted bool, or weights in [0, 1]: "
            "divide 8-bit masks by 255."
        )
    return masks


class Regions:
    """Σ over each mask of |c|, or of c when signed: (regions, units, channels)."""

    unit_axis = 1

    def __init__(self, masks: Tensor, *, signed: bool = False) -> None:
        self._masks, self._signed = weights(masks).flatten(1), signed
        self._ready: dict[tuple[torch.dtype, torch.device], Tensor] = {}  # shared by copies of this query
        self._sum: Tensor | None = None
        self._dtype = torch.float32

    def add(self, first: int, part: Tensor) -> None:
        """Add one piece."""
        self._dtype = torch.promote_types(part.dtype, torch.float32)
        part = part.to(self._dtype)
        if part.shape[0] < self._masks.shape[1]:
            mask = self._masks[:, first : first + part.shape[0]].to(device=part.device, dtype=part.dtype)
        else:
            if (part.dtype, part.device) not in self._ready:
                self._ready[part.dtype, part.device] = self._masks.to(device=part.device, dtype=part.dtype)
            mask = self._ready[part.dtype, part.device]
        summed = (mask @ (part if self._signed else part.abs()).flatten(1)).to(_wide(part))
        summed = summed.reshape(-1, *part.shape[1:])
        self._sum = summed if self._sum is None else self._sum + summed

    def answer(self, size: tuple[int, ...]) -> Tensor:
        """(regions, units, channels)."""
        return seen(self._sum).to(self._dtype)


class Top:
    """The k strongest units of every pixel."""

    unit_axis = 0

    def __init__(self, k: int, units: int, pixels: int) -> None:
        self._k, self._units, self._pixels = k, units, pixels
        self._values: Tensor | None = None
        self._indices: Tensor | None = None

    def add(self, first: int, part: Tensor) -> None:
        """Rank one piece; a slot, which stands behind the units, is left out."""
        strength = part[:, : self._units].abs().sum(2)
        values, indices = strength.topk(min(self._k, strength.shape[1]), dim=1)
        if self._values is None:
            shape = (values.shape[1], self._pixels)
            self._values = values.new_empty(shape)
            self._indices = values.new_empty(shape, dtype=smallest_index(self._units))
        self._values[:, first : first + len(values)] = values.T
        seen(self._indices)[:, first : first + len(values)] = indices.T

    def answer(self, size: tuple[int, ...]) -> TopUnits:
        """Values and indices, (k, *size) each."""
        return TopUnits(seen(self._values).reshape(-1, *size), seen(self._indices).reshape(-1, *size))

    def stronger(self, one: TopUnits, other: TopUnits) -> TopUnits:
        """The k strongest of two rankings, (≤ k, ...) each."""
        values, indices = torch.cat([one.values, other.values]), torch.cat([one.indices, other.indices])
        best, at = values.topk(min(self._k, len(values)), dim=0)
        return TopUnits(best, indices.gather(0, at))


class Maps:
    """Everything: (units, channels, *size)."""

    unit_axis = 0

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._maps: Tensor | None = None

    def add(self, first: int, part: Tensor) -> None:
        """Put one piece in its place."""
        if self._maps is None:
            self._maps = part.new_empty((*part.shape[1:], self._pixels))
        self._maps[..., first : first + part.shape[0]] = part.movedim(0, -1)

    def answer(self, size: tuple[int, ...]) -> Tensor:
        """(units, channels, *size)."""
        maps = seen(self._maps)
        return maps.reshape(*maps.shape[:-1], *size)


def seen(state: Tensor | None) -> Tensor:
    """What a query has gathered.

    Raises:
        RuntimeError: no piece was added.
    """
    if state is None:
        raise RuntimeError("this query saw no rows; pass it to Canvas.ask().")
    return state


def smallest_index(units: int) -> torch.dtype:
    """The narrowest signed integer type that numbers the units (uint8 would be taken for a mask when indexing).

    Example:
        >>> smallest_index(104), smallest_index(208)
        (torch.int8, torch.int16)
    """
    for dtype in (torch.int8, torch.int16, torch.int32):
        if units - 1 <= torch.iinfo(dtype).max:
            return dtype
    return torch.int64
