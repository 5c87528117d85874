"""Objectives, targets and units, Lucent adapter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

from ...batch import Batch, OneUnit, one_score_a_row, python_index, select, select_output
from ...hooks import LayerError
from .activations import Activations, ImageModel, Layer

Score = Callable[[Activations], Tensor]


class Objective:
    """A score to raise: a function from the activations of a forward pass to one number for each row.

    Objectives support +, -, * and / with one another and with numbers, to combine several layers and outputs.

    Args:
        score: ``score(activations)`` returns (rows,); ``activations("layer4.1")`` is that layer's activation.
        name: for messages and figures.

    Example:
        >>> both = channel("0", 1) - 0.5 * logit(2)
        >>> both.name
        '0:1 - 0.5 * logit 2'
    """

    def __init__(self, score: Score, name: str) -> None:
        self.score, self.name = score, name

    def __call__(self, activations: Activations) -> Tensor:
        """Return the score of every row, (rows,)."""
        return self.score(activations)

    def __repr__(self) -> str:
        return f"Objective({self.name})"

    def __add__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.add, "{} + {}")

    def __radd__(self, other: "Term") -> "Objective":
        return self if other == 0 else _combine(other, self, torch.add, "{} + {}")  # sum() begins with 0

    def __sub__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.sub, "{} - {}")

    def __rsub__(self, other: "Term") -> "Objective":
        return _combine(other, self, torch.sub, "{} - {}")

    def __mul__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.mul, "{} * {}")

    def __rmul__(self, other: "Term") -> "Objective":
        return _combine(other, self, torch.mul, "{} * {}")

    def __truediv__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.div, "{} / {}")

    def __neg__(self) -> "Objective":
        return -1 * self


Term = Objective | float


def _combine(first: Term, second: Term, operation: Callable[[Any, Any], Tensor], template: str) -> Objective:
    def value(term: Term, activations: Activations) -> Any:
        return term(activations) if isinstance(term, Objective) else term

    def name(term: Term) -> str:
        text = term.name if isinstance(term, Objective) else f"{term:g}"
        return f"({text})" if template[3] in "*/" and any(sign in text for sign in (" + ", " - ")) else text

    def score(activations: Activations) -> Tensor:
        a, b = value(first, activations), value(second, activations)
        return operation(a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=b.dtype, device=b.device), b)

    return Objective(score, template.format(name(first), name(second)))


def logit(target: Any) -> Objective:
    """Return the objective of one output, a Captum target (a list or 1-D tensor holds one for each row)."""
    target = python_index(target)

    def score(activations: Activations) -> Tensor:
        rows = len(target) if isinstance(target, list) or (isinstance(target, Tensor) and target.dim() == 1) else 0
        batch = Batch.of(activations.images, None, target)
        if rows and activations.rows % rows == 0:  # views: the rows repeat
            batch = Batch.of(activations.images[:rows], None, target).repeat(activations.rows // rows)
        return one_score_a_row(select_output(activations.output, batch, None))

    return Objective(score, f"logit {_short(target)}")


def channel(layer: Layer, unit: int) -> Objective:
    """Return the objective of a channel, its mean over positions; in a flat layer, of the unit."""

    def score(activations: Activations) -> Tensor:
        value = activations.grid(layer)
        return select(value, unit)[:, 0] / value[0, 0].numel()

    return Objective(score, f"{_name(layer)}:{unit}")


def neuron(layer: Layer, unit: int, position: tuple[int, ...] | None = None) -> Objective:
    """Return the objective of a channel at one position, (row, column) of a map, by default (H // 2, W // 2)."""

    def score(activations: Activations) -> Tensor:
        return select(at_position(activations.grid(layer), position), unit)[:, 0]

    return Objective(score, f"{_name(layer)}:{unit} at {position or 'the middle'}")


def unit(layer: Layer, selector: OneUnit) -> Objective:
    """Return the objective of a Captum neuron selector: a tuple or a function.

    A tuple holds indices after the rows; slices are summed.
    """

    def score(activations: Activations) -> Tensor:
        return select(activations(layer), selector)[:, 0]

    return Objective(score, f"{_name(layer)}:{_short(selector)}")


def direction(
    layer: Layer, vector: Tensor, *, power: float = 0.0, position: tuple[int, ...] | None = None
) -> Objective:
    r"""Return the objective of the activation along a direction, mean over positions.

    .. math:: \mathrm{mean}_{hw}\; \max(\cos(a_{hw}, v), 0.1)^{p}\; (a_{hw} \cdot v)

    Symbols: a the activation at a position, v the vector, p the power (0: the plain product).

    Args:
        layer: module or name.
        vector: (channels,), or (rows, channels) for one direction for each row.
        power: a larger one prefers the pure direction to a large activation.
        position: (row, column), instead of the mean over positions.
    """

    def score(activations: Activations) -> Tensor:
        value, v = _align(activations.grid(layer), vector, position)
        product = (value * v).sum(1)
        if power:
            product = product * cosine_similarity(value, v, dim=1).clamp_min(0.1) ** power
        return _mean(product)

    return Objective(score, f"{_name(layer)} along a direction")


def cosine(layer: Layer, vector: Tensor, *, position: tuple[int, ...] | None = None) -> Objective:
    """Return the objective of the cosine with a vector (channels,) or (rows, channels), mean over positions."""

    def score(activations: Activations) -> Tensor:
        value, v = _align(activations.grid(layer), vector, position)
        return _mean(cosine_similarity(value, v, dim=1))

    return Objective(score, f"{_name(layer)} cosine to a direction")


def positions(layer: Layer, weights: Tensor) -> Objective:
    """Return the objective of the activation weighted by a map (channels, h, w), mean over positions.

    A map of another size is resized.
    """

    def score(activations: Activations) -> Tensor:
        value = activations.grid(layer)
        if value.dim() != 4:
            raise ValueError(
                f"the layer has shape {tuple(value.shape)} with its units on axis 1; a map of weights (channels, h, w) "
                "needs (rows, channels, h, w). Give layer_to_grid=."
            )
        resized = weights.to(value)
        if resized.shape[-2:] != value.shape[-2:]:
            resized = interpolate(resized[None], value.shape[-2:], mode="bilinear", antialias=True)[0]
        return _mean((value * resized).sum(1))

    return Objective(score, f"{_name(layer)} at positions")


def at_position(value: Tensor, position: tuple[int, ...] | None) -> Tensor:
    """Return one position of (rows, channels, *positions); flat activations are returned unchanged.

    Args:
        value: (rows, channels) or (rows, channels, *positions).
        position: one number for each axis of positions; None is the middle of a map or volume.

    Raises:
        ValueError: another number of axes, or tokens without a position.
        IndexError: a position outside the layer.
    """
    if value.dim() == 2:
        return value
    sizes = tuple(value.shape[2:])
    if position is None and len(sizes) == 1:
        raise ValueError(
            f"the layer has one axis of {sizes[0]} positions (tokens, or a signal), which has no middle in general; "
            "give position=(number,), or layer_to_grid= for a map."
        )
    at = tuple(size // 2 for size in sizes) if position is None else tuple(position)
    shape = " x ".join(map(str, sizes))
    if len(at) != len(sizes):
        raise ValueError(f"position is {position} and the layer has {shape} positions; expected {len(sizes)} numbers.")
    if not all(-size <= i < size for i, size in zip(at, sizes, strict=True)):
        raise IndexError(f"position {position} is outside the layer's {shape} positions.")
    index: tuple[int | slice, ...] = (slice(None), slice(None), *at)
    return value[index]


def _align(value: Tensor, vector: Tensor, position: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
    if position is not None:
        value = at_position(value, position)
    v = vector.to(value)
    if v.shape[-1] != value.shape[1] or v.dim() > 2:
        raise ValueError(
            f"the direction has shape {tuple(vector.shape)}, but the layer has {value.shape[1]} channels; expected "
            f"({value.shape[1]},), or (rows, {value.shape[1]}) for one direction for each row."
        )
    if v.dim() == 2 and value.shape[0] % v.shape[0]:
        raise ValueError(
            f"there are {v.shape[0]} directions, but {value.shape[0]} views; give one for each row, or a single one."
        )
    if v.dim() == 2:
        v = v.repeat(value.shape[0] // v.shape[0], 1)
    return value, v.reshape(*(v.shape if v.dim() == 2 else (1, -1)), *[1] * (value.dim() - 2))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _name(layer: Layer) -> str:
    return layer if isinstance(layer, str) else type(layer).__name__


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.numel() <= 8 else f"of shape {tuple(value.shape)}"
    return getattr(value, "__name__", None) or repr(value)[:60]


def is_lucent(value: Any) -> bool:
    """Return whether this is an objective of the ``lucent`` package."""
    return type(value).__module__.partition(".")[0] == "lucent" and callable(value)


def from_lucent(objective: Callable[[Any], Any], rows: int) -> Objective:
    """Return an objective of Lucent as an :class:`Objective`.

    Lucent's objectives return one loss for a batch of images, which is minimised. Here their batch is the images of one
    view (so that ``diversity`` and ``alignment`` compare images, not views), and the negative loss is the score of
    every row: the rows are not independent.

    Args:
        objective: ``lucent.optvis.objectives.channel("layer4", 3)``, a sum of such objectives, ...
        rows: number of images that are optimised together.
    """

    def score(activations: Activations) -> Tensor:
        starts = range(0, activations.rows, rows)
        losses = [objective(_select_for_lucent(activations, slice(start, start + rows))) for start in starts]
        return -torch.stack([torch.as_tensor(loss) for loss in losses]).repeat_interleave(rows)

    name = getattr(objective, "name", "") or "objective"
    return Objective(score, f"lucent {name}")


def _select_for_lucent(activations: Activations, rows: slice) -> Callable[[Layer], Tensor]:
    """Return the layers' activations of some rows as Lucent's objectives index them, with units on axis 1."""

    def layer_of(layer: Layer) -> Tensor:
        chosen = activations.model.unit_axis is not None or activations.model.layer_to_grid is not None
        original, value = activations(layer), activations.grid(layer)
        if not chosen and (value.shape, value.stride()) != (original.shape, original.stride()):
            raise LayerError(
                f"layer {layer!r} returns shape {tuple(original.shape)} with its units on the last axis; Lucent's "
                "objectives expect them on axis 1. Give unit_axis=-1 to move them there, or unit_axis=1 for "
                "an objective of your own that expects the layer's own axes."
            )
        return value[rows]

    return layer_of


def from_string(text: str) -> Objective:
    """Return the objective of "layer:unit", a channel's mean.

    Raises:
        ValueError: no colon, or no integer after it.

    Example:
        >>> from_string("layer4.1.conv2:13")
        Objective(layer4.1.conv2:13)
    """
    layer, colon, unit = text.rpartition(":")
    if not colon or not layer or not unit.strip().isdigit():
        raise ValueError(
            f'objective {text!r} is not valid; expected "layer:unit" such as "layer4:13", a Captum target, a '
            "function of the layers, or an objective."
        )
    return channel(layer, int(unit))


class Feature(Protocol):
    """The feature whose score is raised in each row."""

    def cut(self, start: int, stop: int, rows: int) -> "Feature":
        """Return the feature of some of ``rows`` rows."""

    def is_per_row(self, rows: int) -> bool:
        """Return whether each of ``rows`` rows has a feature of its own."""

    def objective(self, rows: int) -> Objective:
        """Return the objective for ``rows`` images, or for several views of each."""

    def peer_deviation(self, activations: Activations) -> Tensor | None:
        """Return the standard deviation over the feature's peers in the same layer, (rows,), or None without peers."""

    def in_model(self, model: ImageModel, second: ImageModel) -> "Feature":
        """Return the same feature of a second model."""


@dataclass(frozen=True)
class OutputFeature:
    """An output, or any objective.

    Attributes:
        target: a Captum target, an objective, a function of the layers, "layer:unit", or a Lucent objective.
    """

    target: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", python_index(self.target))

    def cut(self, start: int, stop: int, rows: int) -> "OutputFeature":
        """Return the feature of some rows."""
        return OutputFeature(self.target[start:stop]) if self.is_per_row(rows) else self

    def is_per_row(self, rows: int) -> bool:
        """Return whether the target is a list or 1-D tensor of that length."""
        return _is_per_row(self.target, rows)

    def objective(self, rows: int) -> Objective:
        """Return the objective of the target."""
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
                f"target has {count} entries, but there are {rows} images; give one target for each row, or a single "
                "one for all."
            )
        return logit(target)

    def peer_deviation(self, activations: Activations) -> Tensor | None:
        """Return the standard deviation over all outputs of a row."""
        if callable(self.target) or isinstance(self.target, str):
            return None
        return _deviation(activations.output.flatten(1))

    def in_model(self, model: ImageModel, second: ImageModel) -> "OutputFeature":
        """Return the same feature: names and targets apply to both models."""
        return self


@dataclass(frozen=True)
class UnitFeature:
    """A unit, channel, direction or position of a layer.

    Attributes:
        layer: the module.
        selector: int, tuple, function, float tensor (channels,), objective, or a list with one for each row.
    """

    layer: nn.Module
    selector: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "selector", python_index(self.selector))

    def cut(self, start: int, stop: int, rows: int) -> "UnitFeature":
        """Return the feature of some rows."""
        return UnitFeature(self.layer, self.selector[start:stop]) if self.is_per_row(rows) else self

    def is_per_row(self, rows: int) -> bool:
        """Return whether the selector is a list of that length, or that number of directions."""
        chosen = self.selector
        directions = isinstance(chosen, Tensor) and chosen.is_floating_point() and chosen.dim() == 2
        return (directions and len(chosen) == rows) or _is_per_row(chosen, rows)

    def objective(self, rows: int) -> Objective:
        """Return the objective of the selected unit, one for each row where there is a list."""
        if isinstance(self.selector, list):
            if len(self.selector) != rows:
                raise ValueError(
                    f"neuron_selector is a list of {len(self.selector)}, but there are {rows} images; give one "
                    "selector for each row, or a single one for all."
                )
            return _each_row([_unit(self.layer, one) for one in self.selector])
        if isinstance(self.selector, Tensor) and not self.selector.is_floating_point() and self.selector.dim() == 1:
            return UnitFeature(self.layer, self.selector.tolist()).objective(rows)
        return _unit(self.layer, self.selector)

    def peer_deviation(self, activations: Activations) -> Tensor | None:
        """Return the standard deviation over all channels of the layer, for a channel."""
        first = self.selector[0] if isinstance(self.selector, list) else self.selector
        if not isinstance(first, int):
            return None
        value = activations.grid(self.layer)
        return _deviation(value.flatten(2).mean(2) if value.dim() > 2 else value)

    def in_model(self, model: ImageModel, second: ImageModel) -> "UnitFeature":
        """Return the same selector in the second model's layer of the same name."""
        return UnitFeature(second.module(model.name_of(self.layer)), self.selector)


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
            "direction), or a list with one of these for each row."
        )
    if isinstance(selector, int) or (isinstance(selector, tuple) and len(selector) == 1):
        return channel(layer, selector if isinstance(selector, int) else selector[0])
    return unit(layer, selector)


def _each_row(objectives: list[Objective]) -> Objective:
    """Return the objective that applies objective r to row r of each view."""

    def score(activations: Activations) -> Tensor:
        rows = len(objectives)
        scores: list[Tensor] = [
            one(activations.select(slice(row, None, rows))) for row, one in enumerate(objectives)
        ]  # each (views,)
        return torch.stack(scores, 1).flatten()

    return Objective(score, " | ".join(one.name for one in objectives))


def _is_per_row(chosen: Any, rows: int) -> bool:
    if isinstance(chosen, Tensor):
        return not chosen.is_floating_point() and chosen.dim() == 1 and chosen.numel() == rows
    return isinstance(chosen, list) and len(chosen) == rows


def _deviation(peers: Tensor) -> Tensor:
    return peers.detach().float().std(1) if peers.shape[1] > 1 else peers.detach().float().abs()[:, 0]
