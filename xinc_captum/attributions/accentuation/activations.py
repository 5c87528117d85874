"""Forward pass of images through a model, and look-up of its layers' activations."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import (
    Captured,
    ForwardFunc,
    LayerError,
    capture,
    find_layer,
    layer_name,
    modules_behind,
    one_tensor,
    preprocesses,
    reach,
    unit_axis,
)
from ..token_grid import ADVICE, units_second
from .transforms import Size, resample

Layer = nn.Module | str
OUTPUT, INPUT = "labels", "input"  # Lucent's names for a model's two ends


@dataclass(frozen=True)
class ImageModel:
    """A model, and how images in [0, 1] go through it.

    Attributes:
        forward_func: the model, or any function around it.
        preprocess: the model's own normalisation of images in [0, 1], where ``forward_func`` does not include it.
        output_fn: picks the tensor out of a dict or tuple output.
        layer_to_grid: rearranges a layer's activation to (rows, channels, h, w).
        dtype: the model's dtype, where it is narrower than that of the optimization.
        call: called instead of ``forward_func``, which still names the layers: the same modules with other weights.
        unit_axis: axis of the units in the layers that an objective reads; None determines it.
        size: height and width of the model's input; None takes the images' own.
    """

    forward_func: ForwardFunc
    preprocess: Callable[[Tensor], Tensor] | None = None
    output_fn: Callable[[Any], Tensor] | None = None
    layer_to_grid: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype | None = None
    call: ForwardFunc | None = None
    unit_axis: int | None = None
    size: Size | None = None

    def run(
        self, images: Tensor, args: tuple[Any, ...], layers: Sequence[nn.Module], *, to_output: bool
    ) -> "Activations":
        """Run the model on images and record the activations of ``layers``.

        The model gets a copy of the images, because it or ``preprocess`` may change its input in place.

        Args:
            images: (N, C, H, W).
            args: additional forward arguments.
            layers: modules to record.
            to_output: compute the output too; otherwise the pass may end after the last of the layers.
        """
        shapes: list[tuple[int, ...]] = []

        def call() -> Any:
            x = images.clone() if self.dtype is None else images.to(self.dtype, copy=True)
            x = self.preprocess(x) if self.preprocess else x
            shapes.append(tuple(x.shape) if isinstance(x, Tensor) else ())
            forward = self.forward_func if self.call is None else self.call  # models may have no truth value
            return forward(x, *args)

        captured, output = None, None
        if not layers:
            output = call()
        elif not to_output:
            captured = reach(self.forward_func, layers, call)
        else:
            with capture(self.forward_func, layers) as captured:
                output = call()
        return Activations(self, images, captured, output, shapes[-1])

    def resize(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) at the size of the model's input."""
        if self.size is None or tuple(images.shape[-2:]) == tuple(self.size):
            return images
        return resample(images, torch.eye(3)[None], self.size)[0]

    def module(self, layer: Layer) -> nn.Module:
        """Return the module of a layer's name, dotted or joined with underscores as in Lucent."""
        if isinstance(layer, str) and "_" in layer:
            for root in modules_behind(self.forward_func):
                modules = dict(root.named_modules())
                if layer not in modules:
                    matches = [name for name in modules if name and name.replace(".", "_") == layer]
                    if len(matches) == 1:
                        return root.get_submodule(matches[0])
        return find_layer(self.forward_func, layer)

    def name_of(self, layer: nn.Module) -> str:
        """Return the layer's dotted name."""
        return layer_name(self.forward_func, layer).strip("'")

    def has_layer(self, name: str) -> bool:
        """Return whether a module has exactly this name."""
        return any(name == module for root in modules_behind(self.forward_func) for module, _ in root.named_modules())

    def with_forward_func(self, forward_func: ForwardFunc, call: ForwardFunc | None = None) -> "ImageModel":
        """Return the same for a second model, without ``preprocess`` where that model has its own."""
        preprocess = None if preprocesses(forward_func) else self.preprocess
        return replace(self, forward_func=forward_func, call=call, preprocess=preprocess)


class MissingError(LookupError):
    """An objective reads a layer that this pass did not record."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(str(layer))
        self.layer = layer


class Activations:
    """The result of one forward pass: ``activations(layer)`` is that layer's activation, (rows, ...).

    "labels" is the output, "input" the images.

    Attributes:
        model: the model that was run.
        images: (rows, C, H, W).
        input_shape: shape of the model's input, after preprocessing.
        output_read: whether the output was accessed.
    """

    def __init__(
        self,
        model: ImageModel,
        images: Tensor,
        captured: Captured | None,
        output: Any,
        input_shape: tuple[int, ...] = (),
    ) -> None:
        self.model, self.images, self.input_shape, self.output_read = model, images, input_shape, False
        self._captured, self._output = captured, output
        self._all: Activations | None = None  # of which these are some rows
        self._index = slice(None)

    @property
    def rows(self) -> int:
        """Number of images."""
        return self.images.shape[0]

    def select(self, rows: slice) -> "Activations":
        """Return the activations of some of the images."""
        selected = copy.copy(self)
        selected.images, selected._all, selected._index = self.images[rows], self, rows
        return selected

    def __call__(self, layer: Layer) -> Tensor:
        """Return the activation of ``layer``, (rows, ...), in the layer's own order of axes."""
        if self._all is not None:
            return self._all(layer)[self._index]
        if layer == INPUT:
            return self.images
        if self._is_output(layer):
            output: Tensor = self.output
            return output
        module = self.model.module(layer)
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
        """Return a layer's activation with its units on axis 1: (rows, units) or (rows, units, *positions).

        Raises:
            LayerError: which axis holds the units cannot be determined.
        """
        value, model = self(layer), self.model
        if value.dim() <= 2:
            return value
        if layer == INPUT or self._is_output(layer):
            return value if model.layer_to_grid is None else model.layer_to_grid(value)
        return units_second(
            value,
            model.module(layer),
            model.forward_func,
            input_shape=self.input_shape,
            rearrange=model.layer_to_grid,
            axis=model.unit_axis,
        )

    def unit_axis(self, layer: Layer) -> int:
        """Return the axis of a layer's units, for distances, which may also be determined by the modules around it.

        Raises:
            LayerError: it cannot be determined, and no ``unit_axis=`` was given.
        """
        shape, model = tuple(self(layer).shape), self.model
        if len(shape) <= 2 or layer == INPUT or self._is_output(layer):
            return 1
        module, forward_func = model.module(layer), model.forward_func
        try:
            return unit_axis(shape, module, forward_func, entered=self.input_shape, loose=True, advice=ADVICE)
        except LayerError:
            if model.unit_axis is None:
                raise
            return unit_axis(shape, module, forward_func, requested=model.unit_axis)

    def _is_output(self, layer: Layer) -> bool:
        return layer == OUTPUT and not self.model.has_layer(OUTPUT)

    @property
    def output(self) -> Any:
        """What the model returned, after ``output_fn``."""
        if self._all is not None:
            return self._all.output[self._index]
        self.output_read = True
        if self._output is None:
            raise MissingError(OUTPUT)
        return self.model.output_fn(self._output) if self.model.output_fn else self._output


def find_required_layers(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], objective: Callable[[Activations], Any]
) -> tuple[tuple[nn.Module, ...], bool]:
    """Return the layers that an objective reads, and whether it reads the output, by evaluating it on ``images``.

    Raises:
        LayerError: a layer is not in the model, runs twice, or never runs.
        ValueError: the model does not accept such images.
    """
    layers: list[nn.Module] = []
    while True:
        with torch.no_grad():
            activations = _run_checked(model, images, args, layers)
            try:
                objective(activations)
            except MissingError as missing:
                layers.append(model.module(missing.layer))
                continue
        return tuple(layers), activations.output_read or not layers


def _run_checked(model: ImageModel, images: Tensor, args: tuple[Any, ...], layers: list[nn.Module]) -> Activations:
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
