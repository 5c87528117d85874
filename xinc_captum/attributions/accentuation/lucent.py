"""Lucent's own words: its objectives and "layer:unit" strings, understood without importing it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...hooks import LayerError
from .objectives import Objective, channel
from .reading import Layer, Seen


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
        given = seen.reader.unit_axis is not None or seen.reader.layer_to_grid is not None
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
            f'objective {text!r} is not understood; wanted "layer:unit" such as "layer4:13", a Captum target, a '
            "function of the layers, or an objective."
        )
    return channel(layer, int(unit))
