"""Forward pass with layer look-up; token grids."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import (
    Captured,
    ForwardFunc,
    LayerError,
    capture,
    find_layer,
    image_size,
    modules_behind,
    one_tensor,
    reach,
    unit_axis,
)

_IMAGE: ContextVar[tuple[int, int] | None] = ContextVar("image", default=None)
ADVICE = (
    "unit_axis=1 for (rows, units, ...), unit_axis=-1 for (rows, ..., units), or layer_to_grid=, for example "
    "xinc_captum.layer_to_grid for (rows, tokens, channels)"
)


@contextmanager
def laying_out(image: tuple[int, int] | None) -> Iterator[None]:
    """Lay tokens out in the height : width of an image inside the block; None is a square."""
    token = _IMAGE.set(image)
    try:
        yield
    finally:
        _IMAGE.reset(token)


def units_second(
    activation: Tensor,
    layer: nn.Module,
    forward_func: ForwardFunc,
    *,
    entered: Sequence[int],
    rearrange: Callable[[Tensor], Tensor] | None = None,
    asked: int | None = None,
) -> Tensor:
    """An activation as (rows, units), or as (rows, units, *places).

    Args:
        activation: (rows, ...).
        layer: whose activation it is.
        forward_func: the model around it.
        entered: shape of the model's first input.
        rearrange: the caller's ``layer_to_grid=``, which then decides alone.
        asked: the caller's ``unit_axis=``.

    Raises:
        LayerError: which axis holds the units cannot be determined.
        ValueError: tokens that do not fill a map.
    """
    if activation.dim() <= 2:
        return activation
    if rearrange is not None:
        with laying_out(image_size(entered)):
            return rearrange(activation)
    axis = unit_axis(activation.shape, layer, forward_func, entered=entered, requested=asked, advice=ADVICE)
    return activation if axis == 1 else activation.movedim(axis, 1)


def layer_to_grid(
    activation: Tensor,
    *,
    token_axis: int = 1,
    channel_axis: int = 2,
    skip: int | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The tokens of a vision transformer's layer, laid out as a map: (rows, channels, h, w).

    Args:
        activation: (rows, tokens, channels), or the axes named below.
        token_axis: which axis holds the tokens.
        channel_axis: which axis holds the channels.
        skip: tokens before the first patch (class and register tokens); None takes none or one, whichever leaves a
            square number of patches.
        size: (h, w) of the patches. None lays them out in the height : width of the image that the model got, where a
            class of this package calls this function, and in a square where you call it yourself.

    Raises:
        ValueError: not three axes, or tokens that do not fill the map.

    Example:
        >>> layer_to_grid(torch.rand(2, 197, 384)).shape
        torch.Size([2, 384, 14, 14])

    ``functools.partial(layer_to_grid, skip=5)`` is handed to NeuronFeatureAccentuation where a model has registers.
    """
    axes = (token_axis % 3, channel_axis % 3)
    if activation.dim() != 3 or 0 in axes or axes[0] == axes[1]:
        raise ValueError(
            f"the layer returns {tuple(activation.shape)} and the axes are token_axis={token_axis}, "
            f"channel_axis={channel_axis}; expected (rows, tokens, channels) and two different axes after the rows."
        )
    tokens = activation.permute(0, axes[1], axes[0])
    count = tokens.shape[2]
    image = _IMAGE.get()
    shape = "a square" if image is None else f"a map with the shape of the image, {image[0]} x {image[1]}"
    shape = shape if size is None else f"a map of {size}"
    if skip is None:
        skips = [first for first in (0, 1) if _sides(count - first, size, image) is not None]
        if not skips:
            raise ValueError(
                f"the layer has {count} tokens, and neither {count} nor {count - 1} of them make {shape}; give skip= "
                "and size=."
            )
        skip = skips[0]
    sides = _sides(count - skip, size, image)
    if not 0 <= skip < count or sides is None:
        raise ValueError(
            f"skip={skip} leaves {count - skip} of {count} tokens, which do not make "
            f"{shape}{'; give size=' if size is None else ''}."
        )
    grid: Tensor = tokens[:, :, skip:].unflatten(2, sides)
    return grid


def _sides(count: int, size: tuple[int, int] | None, image: tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width of so many patches, or None where they do not fit."""
    if count < 1:
        return None
    if size is not None:
        return size if size[0] * size[1] == count else None
    if image is None or image[0] == image[1]:
        side = math.isqrt(count)
        return (side, side) if side * side == count else None
    height, width = image
    guess = max(1, round((height * width / count) ** 0.5))  # pixels along a square patch
    patches = sorted(range(max(1, guess // 2), 2 * guess + 1), key=lambda patch: abs(patch - guess))
    for sides in ((part(height, patch), part(width, patch)) for patch in patches for part in (_whole, _padded)):
        if sides[0] * sides[1] == count:
            return sides
    return None


def _whole(length: int, patch: int) -> int:
    return length // patch


def _padded(length: int, patch: int) -> int:
    return -(-length // patch)


Layer = nn.Module | str
OUTPUT, INPUT = "labels", "input"  # Lucent's names for a model's two ends


@dataclass(frozen=True)
class Reader:
    """How images in [0, 1] go through a model.

    Attributes:
        forward_func: the model, or any function around it.
        preprocess: the model's own normalisation of images in [0, 1], where ``forward_func`` does not hold it.
        output_fn: picks the tensor out of a dict or tuple output.
        layer_to_grid: rearranges a layer's activation to (rows, channels, h, w).
        dtype: what the model computes in, where that is narrower than what the ascent needs.
        call: run instead of ``forward_func``, which still names the layers: the same modules with other weights.
        unit_axis: which axis of the layers that an objective reads holds the units; None determines it.
    """

    forward_func: ForwardFunc
    preprocess: Callable[[Tensor], Tensor] | None = None
    output_fn: Callable[[Any], Tensor] | None = None
    layer_to_grid: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype | None = None
    call: ForwardFunc | None = None
    unit_axis: int | None = None

    def read(self, images: Tensor, args: tuple[Any, ...], layers: Sequence[nn.Module], *, whole: bool) -> "Seen":
        """Run the model on ``images`` and record ``layers``; to its end only where ``whole``.

        The model gets a copy: it, or ``preprocess``, may change its input in place.
        """
        entered: list[tuple[int, ...]] = []

        def call() -> Any:
            x = images.clone() if self.dtype is None else images.to(self.dtype, copy=True)
            x = self.preprocess(x) if self.preprocess else x
            entered.append(tuple(x.shape) if isinstance(x, Tensor) else ())
            forward = self.forward_func if self.call is None else self.call  # models may have no truth value
            return forward(x, *args)

        captured, output = None, None
        if not layers:
            output = call()
        elif not whole:
            captured = reach(self.forward_func, layers, call)
        else:
            with capture(self.forward_func, layers) as captured:
                output = call()
        return Seen(self, images, captured, output, entered[-1])

    def module(self, layer: Layer) -> nn.Module:
        """The module of a layer's name, dotted or joined with underscores as in Lucent."""
        if isinstance(layer, str) and "_" in layer:
            for root in modules_behind(self.forward_func):
                named = dict(root.named_modules())
                if layer not in named:
                    spelled: list[nn.Module] = [
                        module for name, module in named.items() if name and name.replace(".", "_") == layer
                    ]
                    if len(spelled) == 1:
                        return spelled[0]
        return find_layer(self.forward_func, layer)


class MissingError(LookupError):
    """An objective asked for a layer that this pass did not record."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(str(layer))
        self.layer = layer


class Seen:
    """``seen(layer)`` is the layer's activation, (rows, …). "labels" is the output, "input" the images."""

    def __init__(
        self,
        reader: Reader,
        images: Tensor,
        captured: Captured | None,
        output: Any,
        entered: tuple[int, ...] = (),
    ) -> None:
        self.reader, self.images, self._captured, self._output = reader, images, captured, output
        self.entered = entered  # shape of what went into the model, after preprocessing

    @property
    def rows(self) -> int:
        """How many images went in."""
        return self.images.shape[0]

    def __call__(self, layer: Layer) -> Tensor:
        """The activation of ``layer``, (rows, …), in the layer's own order of axes."""
        if layer == INPUT:
            return self.images
        if layer == OUTPUT and OUTPUT not in _names(self.reader):
            output: Tensor = self.output
            return output
        module = self.reader.module(layer)
        if self._captured is None or module not in self._captured._names:
            raise MissingError(layer)
        value = one_tensor(self._captured[module], lambda: self._captured.name(module), self.rows)  # type: ignore[union-attr]
        if value.dim() < 2:
            raise LayerError(
                f"layer {self._captured.name(module)} returns shape {tuple(value.shape)}; expected (rows, units, ...). "
                "Choose a layer with a unit axis."
            )
        return value

    def grid(self, layer: Layer) -> Tensor:
        """A layer's activation with its units on axis 1: (rows, units) or (rows, units, *places).

        Raises:
            LayerError: which axis holds the units cannot be determined.
        """
        value, reader = self(layer), self.reader
        if value.dim() <= 2 or self._is_end(layer):
            return value if reader.layer_to_grid is None or value.dim() <= 2 else reader.layer_to_grid(value)
        return units_second(
            value,
            reader.module(layer),
            reader.forward_func,
            entered=self.entered,
            rearrange=reader.layer_to_grid,
            asked=reader.unit_axis,
        )

    def unit_axis(self, layer: Layer) -> int:
        """The axis that holds a layer's units, for distances: those may also read it off the modules around it.

        Raises:
            LayerError: it cannot be determined, and no ``unit_axis=`` was given.
        """
        shape, reader = tuple(self(layer).shape), self.reader
        if len(shape) <= 2 or self._is_end(layer):
            return 1
        module, forward_func, entered = reader.module(layer), reader.forward_func, self.entered
        try:
            return unit_axis(shape, module, forward_func, entered=entered, loose=True, advice=ADVICE)
        except LayerError:
            if reader.unit_axis is None:
                raise
            return unit_axis(shape, module, forward_func, requested=reader.unit_axis)

    def _is_end(self, layer: Layer) -> bool:
        """Whether it is the input or the output, which have their units on axis 1."""
        return layer == INPUT or (layer == OUTPUT and OUTPUT not in _names(self.reader))

    @property
    def output(self) -> Any:
        """What the model returned, after ``output_fn``."""
        if self._output is None:
            raise MissingError(OUTPUT)
        return self.reader.output_fn(self._output) if self.reader.output_fn else self._output

    def part(self, rows: slice) -> Callable[[Layer], Tensor]:
        """The same look-ups for some of the rows."""
        return lambda layer: self(layer)[rows]


def needs(
    reader: Reader, images: Tensor, args: tuple[Any, ...], objective: Callable[[Seen], Any]
) -> tuple[list[nn.Module], bool]:
    """Which layers an objective reads, and whether it reads the output, found by trying it on ``images``.

    Raises:
        LayerError: a layer is not there, runs twice, or never runs.
        ValueError: the model refuses such images.
    """
    layers: list[nn.Module] = []
    whole = True
    while True:
        with torch.no_grad():
            seen = _first(reader, images, args, layers)
            asked = _Asked(seen)
            try:
                objective(asked)
            except MissingError as missing:
                layers.append(reader.module(missing.layer))
                continue
        whole = asked.whole or not layers
        return layers, whole


def _first(reader: Reader, images: Tensor, args: tuple[Any, ...], layers: list[nn.Module]) -> Seen:
    """The first pass of all: where the model cannot take such images, say what they were."""
    try:
        return reader.read(images, args, layers, whole=True)
    except (torch.OutOfMemoryError, LayerError):
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        height, width = images.shape[-2:]
        raise ValueError(
            f"the model refuses images of shape {tuple(images.shape)}: {error}. The images reach it at {height} x "
            f"{width} pixels: the size= of the accentuation object, or the images' own size without one. For a model "
            "that takes one size only (a vision transformer, a Linear layer after Flatten), give it: size=224. "
            "Otherwise give the channels, dtype and device that it was made for, and preprocess= for what it wants "
            "done to images in [0, 1]."
        ) from error


class _Asked(Seen):
    """Notes whether the output was asked for."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen.reader, seen.images, seen._captured, seen._output, seen.entered)
        self.whole = False

    @property
    def output(self) -> Any:
        self.whole = True
        return super().output


def _names(reader: Reader) -> set[str]:
    return {name for root in modules_behind(reader.forward_func) for name, _ in root.named_modules()}
