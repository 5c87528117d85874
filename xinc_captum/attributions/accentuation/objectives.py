"""Objectives, targets and units, Lucent adapter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

from ...batch import Batch, one_score_a_row, select_output
from ...hooks import LayerError, layer_name
from ...selectors import OneUnit, python_index, select
from .activations import ImageModel, Layer, Seen

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
        return one_score_a_row(select_output(seen.output, whole, None))

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


def positions(layer: Layer, expected: Tensor) -> Objective:
    """The activation weighted by a map (channels, h, w), mean over positions; maps of another size are resized."""

    def score(seen: Seen) -> Tensor:
        value = seen.grid(layer)
        if value.dim() != 4:
            raise ValueError(
                f"the layer has shape {tuple(value.shape)} with its units on axis 1; a map of weights (channels, h, w) "
                "needs (rows, channels, h, w). Give layer_to_grid=."
            )
        weights = expected.to(value)
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
            f"position is {position} and the layer has places {' x '.join(map(str, places))}; expected {len(places)} "
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
            f"the direction has shape {tuple(vector.shape)}, but the layer has {value.shape[1]} channels; expected "
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


def is_lucent(thing: Any) -> bool:
    """Whether this is an objective of the ``lucent`` package."""
    return type(thing).__module__.partition(".")[0] == "lucent" and callable(thing)


def from_lucent(objective: Callable[[Any], Any], rows: int) -> Objective:
    """A Lucent objective as one of ours.

    Lucent's objectives answer one loss for a batch of images, to be lowered. Here they see the images of one view at
    a time as their batch (so that ``diversity`` and ``alignment`` compare images, not views), and the negative loss
    is every row's score: rows are not apart from one another.

    Args:
        objective: ``lucent.optvis.objectives.channel("layer4", 3)``, sums of such, …
        rows: how many images are optimised together.
    """

    def score(seen: Seen) -> Tensor:
        losses = [objective(_part(seen, slice(start, start + rows))) for start in range(0, seen.rows, rows)]
        return -torch.stack([torch.as_tensor(loss) for loss in losses]).repeat_interleave(rows)

    name = getattr(objective, "name", "") or "objective"
    return Objective(score, f"lucent {name}")


def _part(seen: Seen, rows: slice) -> Callable[[Layer], Tensor]:
    """The layers of some rows as Lucent's objectives index them, with units on axis 1."""

    def layer_of(layer: Layer) -> Tensor:
        given = seen.model.unit_axis is not None or seen.model.layer_to_grid is not None
        own, value = seen(layer), seen.grid(layer)
        if not given and (value.shape, value.stride()) != (own.shape, own.stride()):
            raise LayerError(
                f"layer {layer!r} returns shape {tuple(own.shape)} with its units on the last axis, and "
                "Lucent's objectives take them from axis 1. Give unit_axis=-1 to move them there, or unit_axis=1 for "
                "an objective of your own that expects the layer's own axes."
            )
        return value[rows]

    return layer_of


def from_string(text: str) -> Objective:
    """The objective of "layer:unit", a channel's mean.

    Raises:
        ValueError: no colon, or no whole number after it.

    Example:
        >>> from_string("layer4.1.conv2:13")
        Objective(layer4.1.conv2:13)
    """
    layer, colon, unit = text.rpartition(":")
    if not colon or not layer or not unit.strip().isdigit():
        raise ValueError(
            f'objective {text!r} is not understood; expected "layer:unit" such as "layer4:13", a Captum target, a '
            "function of the layers, or an objective."
        )
    return channel(layer, int(unit))


class Feature(Protocol):
    """What is raised in each row."""

    def cut(self, start: int, stop: int, rows: int) -> "Feature":
        """The feature of some of ``rows`` rows."""

    def one_a_row(self, rows: int) -> bool:
        """Whether each of ``rows`` rows has a feature of its own."""

    def objective(self, rows: int) -> Objective:
        """The score of ``rows`` images, or of as many views of each."""

    def spread(self, seen: Seen) -> Tensor | None:
        """Standard deviation over the feature's peers in the same layer, (rows,), where it has such."""

    def inside(self, here: ImageModel, there: ImageModel) -> "Feature":
        """The same feature of another model."""


@dataclass(frozen=True)
class OutputFeature:
    """An output, or anything else that an objective says.

    Attributes:
        target: a Captum target, an objective, a function of the layers, "layer:unit", or a Lucent objective.
    """

    target: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", python_index(self.target))

    def cut(self, start: int, stop: int, rows: int) -> "OutputFeature":
        """The targets of some rows."""
        return OutputFeature(self.target[start:stop]) if self.one_a_row(rows) else self

    def one_a_row(self, rows: int) -> bool:
        """Whether the target is a list or 1-D tensor of so many."""
        return _one_a_row(self.target, rows)

    def objective(self, rows: int) -> Objective:
        """The output, or the objective that was given."""
        target = self.target
        if isinstance(target, Objective):
            return target
        if is_lucent(target):
            return from_lucent(target, rows)
        if isinstance(target, str):
            return from_string(target)
        if callable(target):
            return Objective(target, getattr(target, "__name__", "a function"))
        count = len(target) if isinstance(target, list) or (isinstance(target, Tensor) and target.dim() == 1) else rows
        if count != rows and not (isinstance(target, Tensor) and count == 1):
            raise ValueError(
                f"target has {count} entries, but there are {rows} images; give one target a row, or a single one for "
                "all."
            )
        return logit(target)

    def spread(self, seen: Seen) -> Tensor | None:
        """Over all outputs of a row."""
        if callable(self.target) or isinstance(self.target, str):
            return None
        return _deviation(seen.output.flatten(1))

    def inside(self, here: ImageModel, there: ImageModel) -> "OutputFeature":
        """The same words."""
        return self


@dataclass(frozen=True)
class UnitFeature:
    """A unit, channel, direction or position of a layer.

    Attributes:
        layer: where.
        selector: int, tuple, function, float tensor (channels,), objective, or a list with one a row.
    """

    layer: nn.Module
    selector: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "selector", python_index(self.selector))

    def cut(self, start: int, stop: int, rows: int) -> "UnitFeature":
        """The selectors of some rows."""
        return UnitFeature(self.layer, self.selector[start:stop]) if self.one_a_row(rows) else self

    def one_a_row(self, rows: int) -> bool:
        """Whether the selector is a list of so many, or so many directions."""
        chosen = self.selector
        directions = isinstance(chosen, Tensor) and chosen.is_floating_point() and chosen.dim() == 2
        return (directions and len(chosen) == rows) or _one_a_row(chosen, rows)

    def objective(self, rows: int) -> Objective:
        """The score of the selected unit, each row its own where there is a list."""
        if isinstance(self.selector, list):
            if len(self.selector) != rows:
                raise ValueError(
                    f"neuron_selector is a list of {len(self.selector)}, but there are {rows} images; give one "
                    "selector a row, or a single one for all."
                )
            return _each([_unit(self.layer, one) for one in self.selector])
        if isinstance(self.selector, Tensor) and not self.selector.is_floating_point() and self.selector.dim() == 1:
            return UnitFeature(self.layer, self.selector.tolist()).objective(rows)
        return _unit(self.layer, self.selector)

    def spread(self, seen: Seen) -> Tensor | None:
        """Over all channels of the layer, for a channel."""
        first = self.selector[0] if isinstance(self.selector, list) else self.selector
        if not isinstance(first, int):
            return None
        value = seen.grid(self.layer)
        return _deviation(value.flatten(2).mean(2) if value.dim() > 2 else value)

    def inside(self, here: ImageModel, there: ImageModel) -> "UnitFeature":
        """The same selector in the other model's layer of the same name."""
        return UnitFeature(there.module(layer_name(here.forward_func, self.layer).strip("'")), self.selector)


def _unit(layer: nn.Module, selector: Any) -> Objective:
    if isinstance(selector, Objective):
        return selector
    if isinstance(selector, Tensor) and selector.is_floating_point() and selector.dim():
        return direction(layer, selector)
    if isinstance(selector, Tensor) and not selector.dim():
        selector = int(selector)
    if isinstance(selector, bool) or selector is None:
        raise TypeError(
            f"neuron_selector is {selector!r}; expected an int (a channel), a tuple, a function, a float tensor (a "
            "direction), or a list with one of these a row."
        )
    if isinstance(selector, int) or (isinstance(selector, tuple) and len(selector) == 1):
        return channel(layer, selector if isinstance(selector, int) else selector[0])
    return unit(layer, selector)


def _each(objectives: list[Objective]) -> Objective:
    """Row r by objective r, view after view."""

    def score(seen: Seen) -> Tensor:
        rows = len(objectives)
        parts: list[Tensor] = [
            one(_Rows(seen, slice(row, None, rows))) for row, one in enumerate(objectives)
        ]  # each (views,)
        return torch.stack(parts, 1).flatten()

    return Objective(score, " | ".join(one.name for one in objectives))


class _Rows(Seen):
    """What a pass showed of some rows."""

    def __init__(self, seen: Seen, rows: slice) -> None:
        super().__init__(seen.model, seen.images[rows], None, None, seen.entered)
        self._whole, self._slice = seen, rows

    def __call__(self, layer: Any) -> Tensor:
        return self._whole(layer)[self._slice]

    @property
    def output(self) -> Any:
        return self._whole.output[self._slice]


def _one_a_row(chosen: Any, rows: int) -> bool:
    if isinstance(chosen, Tensor):
        return not chosen.is_floating_point() and chosen.dim() == 1 and chosen.numel() == rows
    return isinstance(chosen, list) and len(chosen) == rows


def _deviation(peers: Tensor) -> Tensor:
    return peers.detach().float().std(1) if peers.shape[1] > 1 else peers.detach().float().abs()[:, 0]
