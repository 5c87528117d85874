"""Class Encoder: images to representations and class scores."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...batch import Batch, OutputFn, chunks, select_output
from ...hooks import (
    ForwardFunc,
    capture,
    check_preprocess,
    find_layer,
    layer_name,
    modules_behind,
    one_tensor,
    protect,
    unit_axis,
)

Pool = Literal["auto", "mean", "flatten", "cls"]
Preprocess = Callable[[Tensor], Tensor]
_BATCH_DEPENDENT = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def pool_units(activation: Tensor, pool: Pool = "auto", unit_axis: int | None = None) -> Tensor:
    """Return one vector of units per sample from a layer's vectors, maps or tokens.

    Args:
        activation: (n, units), maps (n, C, H, W) or (n, C, D, H, W), or tokens (n, T, C).
        pool: ``"mean"`` over positions or tokens, ``"flatten"``, ``"cls"`` (the first token), or ``"auto"``: vectors
            unchanged, maps by mean, tokens by the first.
        unit_axis: the axis of the units; None is the last of three axes, (n, T, C), and axis 1 otherwise.

    Returns:
        (n, units), differentiable.

    Raises:
        ValueError: an unknown ``pool``, ``"cls"`` without tokens, or no axis of units.

    Example:
        >>> from torch import ones
        >>> [tuple(pool_units(ones(2, 3, 4, 4), pool).shape) for pool in ("auto", "flatten")]
        [(2, 3), (2, 48)]
    """
    if pool not in ("auto", "mean", "flatten", "cls"):
        raise ValueError(f"pool is {pool!r}; expected 'auto', 'mean', 'flatten' or 'cls'.")
    if activation.dim() < 2:
        raise ValueError(f"the layer's activation has shape {tuple(activation.shape)}; expected (n, units, …).")
    axis = (2 if activation.dim() == 3 else 1) if unit_axis is None else unit_axis % activation.dim()
    tokens = activation.dim() == 3 and axis == 2
    if pool == "cls" and not tokens:
        raise ValueError(
            f"pool='cls' uses the first token, but the layer has shape {tuple(activation.shape)}; expected "
            "(n, tokens, C)."
        )
    if activation.dim() == 2 or pool == "flatten":
        return activation.flatten(1)
    if tokens:
        return activation.mean(1) if pool == "mean" else activation[:, 0]
    return activation.movedim(axis, 1).flatten(2).mean(2)


def is_same_layer(first: str, second: str) -> bool:
    """Return whether two dotted names may be one layer: one ends with the other.

    Example:
        >>> is_same_layer("net.head", "head"), is_same_layer("overhead", "head")
        (True, False)
    """
    return f".{first}".endswith(f".{second}") or f".{second}".endswith(f".{first}")


class Encoded(NamedTuple):
    """Representations and scores of images.

    Attributes:
        representations: (n, units).
        logits: (n, classes), the model's output.
    """

    representations: Tensor
    logits: Tensor


class ForwardPass(NamedTuple):
    """One forward pass of an :class:`Encoder`.

    Attributes:
        activation: of the layer, (n, …).
        unit_axis: its axis of units; None where pooling needs none.
        scores: the selected model output, (n, …).
    """

    activation: Tensor
    unit_axis: int | None
    scores: Tensor


class Encoder:
    r"""Images to representations of a layer, with the classifier's state restored.

    .. math:: r = \mathrm{pool}(h_l(\mathrm{preprocess}(x)))

    Args:
        forward_func: the model, or any function around it.
        layer: a module or a dotted name.
        attribute_to_neuron_input: whether the representation is the layer's *input* (the penultimate representation,
            where ``layer`` is the last linear one) or its output.
        device_ids: devices of a DataParallel model when ``forward_func`` is not the DataParallel object itself.
        preprocess: the model's own normalisation, a differentiable function of images in [0, 1].
        pool: how maps and tokens become one vector, see :func:`pool_units`.
        output_fn: selects the scores from a dict or tuple output.
        unit_axis: the axis of units of a layer with maps or tokens; None determines it from the layer's class, the
            height and width of the images, and the modules in and around the layer.

    Raises:
        LayerError: the layer is not in the model; later, it never runs, runs twice, returns several tensors or not one
            entry per image, or the axis of its units cannot be determined.
        ValueError: later, images of another shape, or scores that are not (n, classes).

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.Linear(5, 3))
        >>> encoder = Encoder(model, "2")
        >>> encoder(torch.rand(4, 3, 2, 2)).shape, encoder.encode(torch.rand(4, 3, 2, 2)).logits.shape
        (torch.Size([4, 5]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        *,
        attribute_to_neuron_input: bool = True,
        device_ids: list[int] | None = None,
        preprocess: Preprocess | None = None,
        pool: Pool = "auto",
        output_fn: OutputFn | None = None,
        unit_axis: int | None = None,
    ) -> None:
        check_preprocess(forward_func, preprocess)
        self.forward_func, self.layer = forward_func, find_layer(forward_func, layer)
        self.name = layer_name(forward_func, self.layer).strip("'")
        self.attribute_to_neuron_input, self.device_ids = attribute_to_neuron_input, device_ids
        self.preprocess, self.pool, self.output_fn, self.unit_axis = preprocess, pool, output_fn, unit_axis

    def __call__(self, images: Tensor, *, batch_size: int = 64) -> Tensor:
        """Return the representations of images, (n, units)."""
        return self.encode(images, batch_size=batch_size).representations

    def encode(self, images: Tensor, *, batch_size: int = 64) -> Encoded:
        """Return representations and scores of images, (n, C, H, W) in [0, 1].

        Differentiable if the images require gradients and gradients are enabled. All images then form one batch, and
        the caller must protect the model (:func:`xinc_captum.untouched`) until the gradients are computed.
        """
        if images.dim() != 4 or not images.is_floating_point() or not len(images):
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats (n, C, H, W), n >= 1."
            )
        with self._context(images) as graph:
            size = len(images) if graph else batch_size
            batches = [self._encode_batch(images[a:b], graph) for a, b in chunks(len(images), size)]
        return Encoded(*(torch.cat(same) if len(same) > 1 else same[0] for same in zip(*batches, strict=True)))

    def run(self, images: Tensor, *args: Any, call: ForwardFunc | None = None) -> ForwardPass:
        """Run one forward pass as the caller's context has it, with neither chunks nor protection.

        Args:
            images: (n, C, H, W) in [0, 1], in the model's dtype and on its device.
            *args: additional arguments of the model.
            call: called instead of ``forward_func``, which it wraps.
        """
        inputs = images if self.preprocess is None else self.preprocess(images)
        at_input = self.attribute_to_neuron_input
        with capture(self.forward_func, self.layer, at_input=at_input) as captured:
            output = (self.forward_func if call is None else call)(inputs, *args)
        scores = select_output(output, Batch((inputs,), rows=len(inputs)), self.output_fn)
        activation = one_tensor(captured[self.layer], lambda: repr(self.name), len(inputs), at_input=at_input)
        axis = None
        if activation.dim() > 2 and not (self.pool == "flatten" and self.unit_axis is None):
            axis = unit_axis(
                activation.shape,
                self.layer,
                self.forward_func,
                entered=tuple(inputs.shape),
                requested=self.unit_axis,
                at_input=at_input,
                loose=True,
            )
        return ForwardPass(activation, axis, scores)

    def describe(self) -> dict[str, str | bool | int]:
        """Return what a manifest records about the encoder."""
        function = self.preprocess
        text = "none" if function is None else getattr(function, "__qualname__", None) or repr(function)
        axis: dict[str, int] = {} if self.unit_axis is None else {"unit_axis": self.unit_axis}
        return {
            "layer": self.name,
            "attribute_to_neuron_input": self.attribute_to_neuron_input,
            "pool": self.pool,
            "preprocess": text,
            **axis,
        }

    def check_pairs(self, manifest: Mapping[str, Any], units: int, encoded_units: int) -> None:
        """Compare this encoder with the one that pairs were made with.

        Args:
            manifest: of the pairs.
            units: of the pairs.
            encoded_units: units that this encoder returns.

        Raises:
            ValueError: another layer, the other side of it, or another number of units.
        """
        layer, at_input = manifest.get("layer"), manifest.get("attribute_to_neuron_input")
        other_layer = isinstance(layer, str) and not is_same_layer(layer, self.name)
        other_side = at_input is not None and bool(at_input) is not self.attribute_to_neuron_input
        if other_layer or other_side or encoded_units != units:
            source = (
                f", the {'output' if at_input is False else 'input'} of layer {layer!r}"
                if isinstance(layer, str)
                else ""
            )
            raise ValueError(
                f"the encoder returns the {'input' if self.attribute_to_neuron_input else 'output'} of layer "
                f"{self.name!r}, {encoded_units} units; the pairs have {units}{source}. Give an encoder of the layer "
                "and side that the pairs were made with."
            )

    @contextlib.contextmanager
    def _context(self, images: Tensor) -> Iterator[bool]:
        self._warn_if_training()
        graph = torch.is_grad_enabled() and images.requires_grad
        # Restoring buffers would spoil the graph that batch norms saved them for, so with gradients the caller protects
        # the model around forward and backward pass.
        protection = contextlib.nullcontext() if graph else protect(self.forward_func, self.layer)
        with protection, torch.set_grad_enabled(graph):
            yield graph

    def _encode_batch(self, images: Tensor, graph: bool) -> Encoded:
        device = self._device()  # copied, because the model may write into its input
        result = self.run(images.clone() if device is None else images.to(device, copy=True))
        if result.scores.dim() != 2:
            raise ValueError(
                f"the model's output has shape {tuple(result.scores.shape)}; expected scores (n, classes). Select "
                "them with output_fn=."
            )
        encoded = Encoded(pool_units(result.activation, self.pool, result.unit_axis), result.scores)
        return encoded if graph else Encoded(*(t.detach() for t in encoded))

    def _device(self) -> torch.device | None:
        return next((p.device for root in modules_behind(self.forward_func) for p in root.parameters()), None)

    def _warn_if_training(self) -> None:
        for root in modules_behind(self.forward_func):
            if any(m.training and isinstance(m, _BATCH_DEPENDENT) for m in root.modules()):
                warnings.warn(
                    f"{type(root).__name__} is in training mode, so its output for an image depends on chance or on "
                    "the other images of the batch; call model.eval() first if that is not intended.",
                    stacklevel=5,
                )


def check_image_size(images: Tensor, generated: Tensor, error: RuntimeError) -> None:
    """Compare the shape of images on which a model failed with that of the generator's images, (n, C, H, W).

    Raises:
        ValueError: the shapes differ, which is then the likely cause of ``error``.
    """
    if images.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"the model fails on images of shape {tuple(images.shape[1:])} ({str(error).splitlines()[0]}); the link's "
            f"generator generates {tuple(generated.shape[1:])}. Give images of that size and number of channels, or a "
            "preprocess= that converts them."
        ) from error
