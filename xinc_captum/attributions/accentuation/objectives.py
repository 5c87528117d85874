"""What to raise: scores of units, directions and outputs, one number a row, with plain arithmetic."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from ...batch import Batch
from ...indices import python_index
from ...targets import one_score_a_row, selected
from ...units import OneUnit, select
from .reading import Layer, Seen

Score = Callable[[Seen], Tensor]


class Objective:
    """A score to raise: a function from what a forward pass showed to one number a row.

    Objectives add, subtract, multiply and divide with one another and with numbers, so several layers, models'
    ends and weights combine as they are written.

    Args:
        score: ``score(seen)`` answers (rows,); ``seen("layer4.1")`` is that layer's activation.
        name: for messages and pictures.

    Example:
        >>> both = channel("0", 1) - 0.5 * logit(2)
        >>> both.name
        '0:1 - 0.5 * logit 2'
    """

    def __init__(self, score: Score, name: str) -> None:
        self.score, self.name = score, name

    def __call__(self, seen: Seen) -> Tensor:
        """The score of every row, (rows,)."""
        return self.score(seen)

    def __repr__(self) -> str:
        return f"Objective({self.name})"

    def __add__(self, other: "Term") -> "Objective":
        return _joined(self, other, torch.add, "{} + {}")

    def __radd__(self, other: "Term") -> "Objective":
        return self if other == 0 else _joined(other, self, torch.add, "{} + {}")  # sum() begins with 0

    def __sub__(self, other: "Term") -> "Objective":
        return _joined(self, other, torch.sub, "{} - {}")

    def __rsub__(self, other: "Term") -> "Objective":
        return _joined(other, self, torch.sub, "{} - {}")

    def __mul__(self, other: "Term") -> "Objective":
        return _joined(self, other, torch.mul, "{} * {}")

    def __rmul__(self, other: "Term") -> "Objective":
        return _joined(other, self, torch.mul, "{} * {}")

    def __truediv__(self, other: "Term") -> "Objective":
        return _joined(self, other, torch.div, "{} / {}")

    def __neg__(self) -> "Objective":
        return -1 * self


Term = Objective | float


def _joined(left: Term, right: Term, operation: Callable[[Any, Any], Tensor], words: str) -> Objective:
    def value(term: Term, seen: Seen) -> Any:
        return term(seen) if isinstance(term, Objective) else term

    def name(term: Term) -> str:
        text = term.name if isinstance(term, Objective) else f"{term:g}"
        return f"({text})" if words[3] in "*/" and any(sign in text for sign in (" + ", " - ")) else text

    def score(seen: Seen) -> Tensor:
        a, b = value(left, seen), value(right, seen)
        return operation(a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=b.dtype, device=b.device), b)

    return Objective(score, words.format(name(left), name(right)))


def logit(target: Any) -> Objective:
    """One output of each row, as a Captum target selects it (a list or 1-D tensor holds one a row)."""
    target = python_index(target)

    def score(seen: Seen) -> Tensor:
        rows = len(target) if isinstance(target, list) or (isinstance(target, Tensor) and target.dim() == 1) else 0
        whole = Batch.of(seen.images, None, target)
        if rows and seen.rows % rows == 0:  # views: the rows come again and again
            whole = Batch.of(seen.images[:rows], None, target).repeat(seen.rows // rows)
        return one_score_a_row(selected(seen.output, whole, None))

    return Objective(score, f"logit {_short(target)}")


def channel(layer: Layer, unit: int) -> Objective:
    """A channel's mean over positions; of a flat layer, the unit."""

    def score(seen: Seen) -> Tensor:
        value = seen.grid(layer)
        return select(value, unit)[:, 0] / value[0, 0].numel()

    return Objective(score, f"{_name(layer)}:{unit}")


def neuron(layer: Layer, unit: int, position: tuple[int, ...] | None = None) -> Objective:
    """A channel at one position, (row, column) of a map, by default the middle (H // 2, W // 2)."""

    def score(seen: Seen) -> Tensor:
        return select(at_position(seen.grid(layer), position), unit)[:, 0]

    return Objective(score, f"{_name(layer)}:{unit} at {position or 'the middle'}")


def unit(layer: Layer, selector: OneUnit) -> Objective:
    """Captum's neuron selectors: a tuple indexes the dims after the rows (slices are summed), or a function."""
    return Objective(lambda seen: select(seen(layer), selector)[:, 0], f"{_name(layer)}:{_short(selector)}")


def direction(
    layer: Layer, vector: Tensor, *, power: float = 0.0, position: tuple[int, ...] | None = None
) -> Objective:
    r"""The activation along a direction, mean over positions.

    .. math:: \mathrm{mean}_{hw}\; \max(\cos(a_{hw}, v), 0.1)^{p}\; (a_{hw} \cdot v)

    Symbols: a the activation at a position, v the vector, p the power (0: the plain product).

    Args:
        layer: where.
        vector: (channels,), or (rows, channels) for one direction a row.
        power: larger prefers the pure direction to a large activation.
        position: (row, column), instead of the mean over positions.
    """

    def score(seen: Seen) -> Tensor:
        value, v = _aligned(seen.grid(layer), vector, position)
        product = (value * v).sum(1)
        if power:
            product = product * cosine_similarity(value, v, dim=1).clamp_min(0.1) ** power
        return _mean(product)

    return Objective(score, f"{_name(layer)} along a direction")


def cosine(layer: Layer, vector: Tensor, *, position: tuple[int, ...] | None = None) -> Objective:
    """The cosine between activation and a vector (channels,) or (rows, channels), mean over positions."""

    def score(seen: Seen) -> Tensor:
        value, v = _aligned(seen.grid(layer), vector, position)
        return _mean(cosine_similarity(value, v, dim=1))

    return Objective(score, f"{_name(layer)} cosine to a direction")


def positions(layer: Layer, wanted: Tensor) -> Objective:
    """The activation weighted by a map (channels, h, w), mean over positions; maps of another size are resized."""

    def score(seen: Seen) -> Tensor:
        value = seen.grid(layer)
        if value.dim() != 4:
            raise ValueError(
                f"the layer has shape {tuple(value.shape)} with its units on axis 1; a map of weights (channels, h, w) "
                "needs (rows, channels, h, w). Give layer_to_grid=."
            )
        weights = wanted.to(value)
        if weights.shape[-2:] != value.shape[-2:]:
            weights = interpolate(weights[None], value.shape[-2:], mode="bilinear", antialias=True)[0]
        return _mean((value * weights).sum(1))

    return Objective(score, f"{_name(layer)} at positions")


def at_position(value: Tensor, position: tuple[int, ...] | None) -> Tensor:
    """One position of (rows, channels, *places); flat activations have none to choose from.

    Args:
        value: (rows, channels) or (rows, channels, *places).
        position: one number for each axis of places; None is the middle of a map or volume.

    Raises:
        ValueError: another number of places, or tokens without a position.
        IndexError: outside.
    """
    if value.dim() == 2:
        return value
    places = tuple(value.shape[2:])
    if position is None and len(places) == 1:
        raise ValueError(
            f"the layer has {places[0]} positions in a row (tokens, or a signal), which have no middle in general; "
            "give position=(number,), or layer_to_grid= for a map."
        )
    at = tuple(size // 2 for size in places) if position is None else tuple(position)
    if len(at) != len(places):
        raise ValueError(
            f"position is {position} and the layer has places {' x '.join(map(str, places))}; wanted {len(places)} "
            "numbers."
        )
    if not all(-size <= place < size for place, size in zip(at, places, strict=True)):
        raise IndexError(f"position {position} lies outside the layer's {' x '.join(map(str, places))} positions.")
    index: tuple[int | slice, ...] = (slice(None), slice(None), *at)
    return value[index]


def _aligned(value: Tensor, vector: Tensor, position: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    if position is not None:
        value = at_position(value, position)
    v = vector.to(value)
    if v.shape[-1] != value.shape[1] or v.dim() > 2:
        raise ValueError(
            f"the direction has shape {tuple(vector.shape)}, but the layer has {value.shape[1]} channels; wanted "
            f"({value.shape[1]},), or (rows, {value.shape[1]}) for one direction a row."
        )
    if v.dim() == 2 and value.shape[0] % v.shape[0]:
        raise ValueError(
            f"there are {v.shape[0]} directions, but {value.shape[0]} views; give one a row, or a single one."
        )
    if v.dim() == 2:
        v = v.repeat(value.shape[0] // v.shape[0], 1)
    return value, v.reshape(*(v.shape if v.dim() == 2 else (1, -1)), *[1] * (value.dim() - 2))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _name(layer: Layer) -> str:
    return layer if isinstance(layer, str) else type(layer).__name__


def _short(thing: Any) -> str:
    if isinstance(thing, Tensor):
        return str(thing.tolist()) if thing.numel() <= 8 else f"of shape {tuple(thing.shape)}"
    return getattr(thing, "__name__", None) or repr(thing)[:60]
