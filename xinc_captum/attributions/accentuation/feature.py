"""The feature of each row: an output or a unit, the same for all rows or one a row."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...hooks import layer_name
from ...indices import python_index
from .lucent import from_lucent, from_string, is_lucent
from .objectives import Objective, channel, direction, logit, unit
from .reading import Reader, Seen


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

    def inside(self, here: Reader, there: Reader) -> "Feature":
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

    def inside(self, here: Reader, there: Reader) -> "OutputFeature":
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

    def inside(self, here: Reader, there: Reader) -> "UnitFeature":
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
            f"neuron_selector is {selector!r}; wanted an int (a channel), a tuple, a function, a float tensor (a "
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
        super().__init__(seen.reader, seen.images[rows], None, None, seen.entered)
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
