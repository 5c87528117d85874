"""Objectives: scores to raise, from targets, units, directions and Lucent, and the models that compute them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

from ...batch import Batch, OneUnit, one_score_a_row, python_index, select, select_output
from ...hooks import LayerError, modules_behind, preprocesses
from ..base import as_called, differentiable
from .activations import Activations, Layer, MissingError, ModelInputs

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
        return _combine(self, other, torch.add, "+")

    def __radd__(self, other: "Term") -> "Objective":
        return self if other == 0 else _combine(other, self, torch.add, "+")  # sum() begins with 0

    def __sub__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.sub, "-")

    def __rsub__(self, other: "Term") -> "Objective":
        return _combine(other, self, torch.sub, "-")

    def __mul__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.mul, "*")

    def __rmul__(self, other: "Term") -> "Objective":
        return _combine(other, self, torch.mul, "*")

    def __truediv__(self, other: "Term") -> "Objective":
        return _combine(self, other, torch.div, "/")

    def __neg__(self) -> "Objective":
        return -1 * self


Term = Objective | float


def _combine(first: Term, second: Term, operation: Callable[[Any, Any], Tensor], symbol: str) -> Objective:
    def value(term: Term, activations: Activations) -> Any:
        return term(activations) if isinstance(term, Objective) else term

    def name(term: Term) -> str:
        text = term.name if isinstance(term, Objective) else f"{term:g}"
        return f"({text})" if symbol in "*/" and any(sign in text for sign in (" + ", " - ")) else text

    def score(activations: Activations) -> Tensor:
        a, b = value(first, activations), value(second, activations)
        return operation(a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=b.dtype, device=b.device), b)

    return Objective(score, f"{name(first)} {symbol} {name(second)}")


def logit(target: Any) -> Objective:
    """Return the objective of the output at a Captum target (a list or 1-D tensor holds one for each row)."""
    target = python_index(target)

    def score(activations: Activations) -> Tensor:
        rows = _entries(target)
        batch = Batch.of(activations.images, None, target)
        if rows and activations.rows % rows == 0:  # views: the rows repeat
            batch = Batch.of(activations.images[:rows], None, target).repeat(activations.rows // rows)
        return one_score_a_row(select_output(activations.output, batch, None))

    return Objective(score, f"logit {_short(target)}")


def channel(layer: Layer, unit: int) -> Objective:
    """Return the objective of a channel's mean over positions, or of a unit of a flat layer."""

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
    """Return the objective of a Captum selector: a function, or a tuple that indexes the axes after the rows."""

    def score(activations: Activations) -> Tensor:
        return select(activations(layer), selector)[:, 0]

    return Objective(score, f"{_name(layer)}:{_short(selector)}")


def direction(
    layer: Layer, vector: Tensor, *, power: float = 0.0, position: tuple[int, ...] | None = None
) -> Objective:
    r"""Return the objective of the activation along a direction, mean over positions.

    .. math:: \mathrm{mean}_{hw}\; \max(\cos(a_{hw}, v), 0.1)^{p}\; (a_{hw} \cdot v)

    Symbols: a the activation at a position, v the vector, (channels,), or (rows, channels) with one for each row; p the
    power: 0 is the plain product, a larger one prefers the pure direction to a large activation. ``position``, (row,
    column), replaces the mean over positions.
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
    """Return the objective mean_hw Σ_c w_chw a_chw: activation a, weights w (channels, h, w), resized to a."""

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
    """Return one position of (rows, channels, *positions), by default the middle of a map or volume.

    Flat activations, (rows, channels), are returned unchanged.
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
    v = v.repeat(value.shape[0] // v.shape[0], 1) if v.dim() == 2 else v[None]
    return value, v.reshape(*v.shape, *[1] * (value.dim() - 2))


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
    """Return an objective of Lucent, which returns one loss for a batch of images, as an :class:`Objective`.

    Its batch is the ``rows`` images of one view, so that ``diversity`` and ``alignment`` compare images, not views. The
    negative loss is the score of every row: the rows are not independent.
    """

    def score(activations: Activations) -> Tensor:
        starts = range(0, activations.rows, rows)
        losses = [objective(partial(_rows_for_lucent, activations, slice(start, start + rows))) for start in starts]
        return -torch.stack([torch.as_tensor(loss) for loss in losses]).repeat_interleave(rows)

    return Objective(score, f"lucent {getattr(objective, 'name', '') or 'objective'}")


def _rows_for_lucent(activations: Activations, rows: slice, layer: Layer) -> Tensor:
    """Return a layer's activation of some rows as Lucent's objectives index it, with units on axis 1."""
    chosen = activations.model.unit_axis is not None or activations.model.layer_to_grid is not None
    original, value = activations(layer), activations.grid(layer)
    if not chosen and (value.shape, value.stride()) != (original.shape, original.stride()):
        raise LayerError(
            f"layer {layer!r} returns shape {tuple(original.shape)} with its units on the last axis; Lucent's "
            "objectives expect them on axis 1. Give unit_axis=-1 to move them there, or unit_axis=1 for "
            "an objective of your own that expects the layer's own axes."
        )
    return value[rows]


def from_string(text: str) -> Objective:
    """Return the objective of "layer:unit", a channel's mean."""
    layer, colon, unit = text.rpartition(":")
    if not colon or not layer or not unit.strip().isdigit():
        raise ValueError(
            f'objective {text!r} is not valid; expected "layer:unit" such as "layer4:13", a Captum target, a '
            "function of the layers, or an objective."
        )
    return channel(layer, int(unit))


@dataclass(frozen=True)
class ScoredModel:
    """A model, an objective, and what the objective reads: the modules ``layers``, and the output if ``to_output``."""

    model: ModelInputs
    objective: Objective
    layers: tuple[nn.Module, ...]
    to_output: bool

    @classmethod
    def of(cls, model: ModelInputs, objective: Objective, images: Tensor, args: tuple[Any, ...]) -> "ScoredModel":
        """Determine what the objective reads, by evaluating it on ``images``."""
        layers: list[nn.Module] = []
        while True:
            with torch.no_grad():
                activations = _run_checked(model, images, args, layers)
                try:
                    objective(activations)
                except MissingError as missing:
                    layers.append(model.module(missing.args[0]))
                    continue
            return cls(model, objective, tuple(layers), activations.output_read or not layers)

    def run(self, images: Tensor, args: tuple[Any, ...], *layers: nn.Module) -> Activations:
        """Run the model as far as the objective needs, and record its layers and further ones."""
        recorded = (*layers, *(layer for layer in self.layers if layer not in layers))
        return self.model.run(images, args, recorded, to_output=self.to_output)

    def score(self, images: Tensor, args: tuple[Any, ...]) -> Tensor:
        """Return one number for each image, (rows,)."""
        return self.objective(self.run(images, args))


def _run_checked(model: ModelInputs, images: Tensor, args: tuple[Any, ...], layers: list[nn.Module]) -> Activations:
    """Run the model; where it does not accept the images, name their shape in the error."""
    try:
        return model.run(images, args, layers, to_output=True)
    except (torch.OutOfMemoryError, LayerError):
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        height, width = images.shape[-2:]
        raise ValueError(
            f"the model cannot process images of shape {tuple(images.shape)}: {error}. It receives them at "
            f"{height} x {width} pixels: the size= of FeatureAccentuation, or the images' own size without size=. "
            "If the model has a fixed input size (a vision transformer, a Linear layer after Flatten), give it: "
            "size=224. Otherwise check the channels, dtype and device of the images, and give the model's "
            "normalisation of images in [0, 1] as preprocess=."
        ) from error


@dataclass(frozen=True)
class Feature:
    """The feature whose score is raised: a target of the output, or a selector of the units of a layer.

    Attributes:
        selector: for the output, a Captum target, a function of the layers, "layer:unit", or an objective, also
            Lucent's; for a layer, an int, tuple, function, float tensor (channels,), objective, or a list, one per row.
        layer: the layer; None is the output.
    """

    selector: Any
    layer: nn.Module | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "selector", python_index(self.selector))

    def cut(self, start: int, stop: int, rows: int) -> "Feature":
        """Return the feature of some of ``rows`` rows."""
        return replace(self, selector=self.selector[start:stop]) if self.is_per_row(rows) else self

    def is_per_row(self, rows: int) -> bool:
        """Return whether each of ``rows`` rows has a selector or direction of its own."""
        chosen = self.selector
        if isinstance(chosen, Tensor) and chosen.is_floating_point():
            return self.layer is not None and chosen.dim() == 2 and len(chosen) == rows
        return _entries(chosen) == rows

    def objective(self, rows: int) -> Objective:
        """Return the objective for ``rows`` images, or for several views of each."""
        selector = self.selector
        if self.layer is None:
            return _of_target(selector, rows)
        if isinstance(selector, Tensor) and not selector.is_floating_point() and selector.dim() == 1:
            selector = selector.tolist()
        if not isinstance(selector, list):
            return _unit(self.layer, selector)
        if len(selector) != rows:
            raise ValueError(
                f"neuron_selector is a list of {len(selector)}, but there are {rows} images; give one "
                "selector for each row, or a single one for all."
            )
        return _each_row([_unit(self.layer, one) for one in selector])

    def peer_deviation(self, activations: Activations) -> Tensor | None:
        """Return the standard deviation over all outputs or channels of a row, (rows,), or None without such peers."""
        selector = self.selector
        if self.layer is None:
            has_peers = not callable(selector) and not isinstance(selector, str)
            return _deviation(activations.output.flatten(1)) if has_peers else None
        if not isinstance(selector[0] if isinstance(selector, list) else selector, int):
            return None
        value = activations.grid(self.layer)
        return _deviation(value.flatten(2).mean(2) if value.dim() > 2 else value)

    def in_model(self, model: ModelInputs, second: ModelInputs) -> "Feature":
        """Return the same feature of a second model, in the layer of the same name."""
        return self if self.layer is None else replace(self, layer=second.module(model.name_of(self.layer)))


def _of_target(target: Any, rows: int) -> Objective:
    if isinstance(target, Objective):
        return target
    if is_lucent(target):
        return from_lucent(target, rows)
    if isinstance(target, str):
        return from_string(target)
    if callable(target):
        return Objective(target, getattr(target, "__name__", "a function"))
    count = _entries(target)
    if count not in (None, rows) and not (isinstance(target, Tensor) and count == 1):
        raise ValueError(
            f"target has {count} entries, but there are {rows} images; give one target for each row, or a single "
            "one for all."
        )
    return logit(target)


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
        scores = [
            one(activations.select(slice(row, None, rows))) for row, one in enumerate(objectives)
        ]  # each (views,)
        return torch.stack(scores, 1).flatten()

    return Objective(score, " | ".join(one.name for one in objectives))


def _entries(target: Any) -> int | None:
    """Return the length of a list or 1-D tensor, which holds one target for each row."""
    return len(target) if isinstance(target, list) or (isinstance(target, Tensor) and target.dim() == 1) else None


def _deviation(peers: Tensor) -> Tensor:
    return peers.detach().float().std(1) if peers.shape[1] > 1 else peers.detach().float().abs()[:, 0]


def resolve_contrast(
    model: ModelInputs, feature: Feature, contrast: Any, batch: Batch
) -> tuple[ModelInputs, Feature] | None:
    """Return the model and feature of ``contrast=``: the same feature in another model, or another feature in this."""
    if contrast is None:
        return None
    first = batch.cut(0, 1)
    if is_model(contrast, feature, model.resize(first.inputs[0]), first.args):
        call = as_called(differentiable(contrast), batch.inputs[0].device.type)
        second = model.with_forward_func(contrast, call)
        return second, feature.in_model(model, second)
    return model, replace(feature, selector=contrast)


def is_model(value: Any, feature: Feature, image: Tensor, args: tuple[Any, ...]) -> bool:
    """Return whether ``contrast=`` is a second model, and not an objective, a target or a selector.

    Modules, zoo classifiers, and methods and partials of modules are models. Any other function is a model where it
    accepts an image; functions of the layers or of an activation raise an error then. For a unit's feature it must also
    hold a module, in which the unit's layer is looked up.
    """
    if isinstance(value, nn.Module) or preprocesses(value):
        return True
    if not callable(value) or isinstance(value, Objective) or is_lucent(value):
        return False
    owner = value.func if isinstance(value, partial) else getattr(value, "__self__", None)
    if isinstance(owner, nn.Module):
        return True
    if feature.layer is not None and not modules_behind(value):
        return False
    try:
        with torch.no_grad():
            output = value(image, *args)
    except (TypeError, AttributeError):
        return False
    except Exception:  # a model that cannot process the image: running it later raises the error that says so
        return True
    return feature.layer is None or not isinstance(output, Tensor) or output.dim() >= 2
