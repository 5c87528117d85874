"""Images to representations (Encoder), and the round trip of a call: representation → link → generator → classifier."""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...batch import Batch, OutputFn, chunks, python_index, read_output, select_output, settle_arguments
from ...generators.protocol import Generator, images_in_unit_range, modules_of
from ...hooks import (
    ForwardFunc,
    LayerError,
    capture,
    check_preprocess,
    exclusive,
    find_layer,
    layer_name,
    modules_behind,
    one_tensor,
    protect,
    unit_axis,
)
from ...images import check_images
from ..base import as_called, attribution_context, differentiable
from .link import Link

Pool = Literal["auto", "mean", "flatten", "cls"]
Preprocess = Callable[[Tensor], Tensor]
Images = Tensor | tuple[Tensor, ...]
LIMIT = 256  # images in one forward pass, by default
_BATCH_DEPENDENT = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def pool_units(activation: Tensor, pool: Pool = "auto", unit_axis: int | None = None) -> Tensor:
    """Return one vector of units per sample, (n, units), from a layer's vectors, maps or tokens; differentiable.

    ``pool`` is ``"mean"`` over positions or tokens, ``"flatten"``, ``"cls"`` (the first token), or ``"auto"``: vectors
    (n, units) unchanged, maps (n, C, [D,] H, W) by mean, tokens (n, T, C) by the first. A ``unit_axis`` of None is the
    last of three axes, and axis 1 otherwise.

    Raises:
        ValueError: an unknown ``pool``, ``"cls"`` without tokens, or no axis of units.

    Example:
        >>> [tuple(pool_units(torch.ones(2, 3, 4, 4), pool).shape) for pool in ("auto", "flatten")]
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


class Encoded(NamedTuple):
    """Representations of images, (n, units), and the model's output for them, (n, classes)."""

    representations: Tensor
    logits: Tensor


class ForwardPass(NamedTuple):
    """A layer's activation, (n, …), its axis of units (None where pooling needs none), and the scores, (n, …)."""

    activation: Tensor
    unit_axis: int | None
    scores: Tensor


class Encoder:
    r"""Encode images as representations of a layer; the classifier's state is restored.

    .. math:: r = \mathrm{pool}(h_l(\mathrm{preprocess}(x)))

    Symbols: x the images, h_l the layer's input or output, r the representations (n, units).

    Args:
        forward_func: the model, or any function around it.
        layer: a module or a dotted name.
        attribute_to_neuron_input: whether the representation is the layer's *input* (the penultimate representation,
            where ``layer`` is the last linear one) or its output.
        device_ids: unused, part of Captum's signature.
        preprocess: the model's own normalisation, a differentiable function of images in [0, 1].
        pool: how maps and tokens become one vector, see :func:`pool_units`.
        output_fn: reads the scores from the model's output; None uses :func:`~xinc_captum.batch.output_tensor`.
        unit_axis: the axis of units of a layer with maps or tokens; None determines it from the layer's class, the
            height and width of the images, and the modules in and around the layer.

    Raises:
        LayerError: the layer is not in the model; when called, it does not run once, does not return one tensor with an
            entry per image, or the axis of its units cannot be determined.
        ValueError: when called, images of another shape, or scores that are not (n, classes).

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
        self._warn_if_training()
        graph = torch.is_grad_enabled() and images.requires_grad
        # Restoring buffers would spoil the graph that batch norms saved them for, so with gradients the caller protects
        # the model around forward and backward pass.
        protection = contextlib.nullcontext() if graph else protect(self.forward_func, self.layer)
        with protection, torch.set_grad_enabled(graph):
            size = len(images) if graph else batch_size
            batches = [self._encode_batch(images[a:b], graph) for a, b in chunks(len(images), size)]
        return Encoded(*(torch.cat(same) if len(same) > 1 else same[0] for same in zip(*batches, strict=True)))

    def run(self, images: Tensor, *args: Any, call: ForwardFunc | None = None) -> ForwardPass:
        """Run one forward pass on images (n, C, H, W) in [0, 1], with neither chunks nor protection.

        ``call`` is called instead of ``forward_func``, which it wraps; ``args`` are its additional arguments.
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
        axis = {} if self.unit_axis is None else {"unit_axis": self.unit_axis}
        return {
            "layer": self.name,
            "attribute_to_neuron_input": self.attribute_to_neuron_input,
            "pool": self.pool,
            "preprocess": text,
            **axis,
        }

    def check_pairs(self, manifest: Mapping[str, Any], units: int, encoded_units: int) -> None:
        """Raise ValueError if pairs have another layer, side (input or output) or number of units than this encoder."""
        layer, at_input = manifest.get("layer"), manifest.get("attribute_to_neuron_input")
        other_layer = isinstance(layer, str) and not is_same_layer(layer, self.name)
        other_side = at_input is not None and bool(at_input) is not self.attribute_to_neuron_input
        if other_layer or other_side or encoded_units != units:
            source = f", the {_side(at_input is not False)} of layer {layer!r}" if isinstance(layer, str) else ""
            raise ValueError(
                f"the encoder returns the {_side(self.attribute_to_neuron_input)} of layer {self.name!r}, "
                f"{encoded_units} units; the pairs have {units}{source}. Give an encoder of the layer and side that "
                "the pairs were made with."
            )

    def _encode_batch(self, images: Tensor, graph: bool) -> Encoded:
        parameters = (p for root in modules_behind(self.forward_func) for p in root.parameters())
        device = next((p.device for p in parameters), images.device)
        result = self.run(images.to(device, copy=True))  # copied, because the model may write into its input
        if result.scores.dim() != 2:
            raise ValueError(
                f"the model's output has shape {tuple(result.scores.shape)}; expected scores (n, classes). Select "
                "them with output_fn=."
            )
        encoded = Encoded(pool_units(result.activation, self.pool, result.unit_axis), result.scores)
        return encoded if graph else Encoded(*(t.detach() for t in encoded))

    def _warn_if_training(self) -> None:
        for root in modules_behind(self.forward_func):
            if any(m.training and isinstance(m, _BATCH_DEPENDENT) for m in root.modules()):
                warnings.warn(
                    f"{type(root).__name__} is in training mode, so its output for an image depends on chance or on "
                    "the other images of the batch; call model.eval() first if that is not intended.",
                    stacklevel=3,
                )


class RoundTrip(NamedTuple):
    """Latents, their generated images, and the classifier's representations and scores of these; samples first."""

    latents: Tensor
    images: Tensor
    representations: Tensor
    scores: Tensor

    @classmethod
    def cat(cls, trips: Sequence[RoundTrip]) -> RoundTrip:
        """Concatenate along the samples."""
        return trips[0] if len(trips) == 1 else cls(*(torch.cat(same) for same in zip(*trips, strict=True)))

    def take(self, index: Tensor | slice) -> RoundTrip:
        """Return the samples of an index or a mask."""
        return RoundTrip(*(tensor[index] for tensor in self))

    def replace(self, index: Tensor, other: RoundTrip) -> RoundTrip:
        """Return a copy in which the samples ``index`` are those of ``other``."""
        return RoundTrip(*(old.index_copy(0, index, new) for old, new in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Loop:
    r"""Link, generator and classifier, with the encoded inputs of one call.

    .. math:: r \mapsto w = \mathrm{link}(r) \mapsto x = G(w) \mapsto (r', f) = \mathrm{classifier}(x)

    Symbols: r the representation, w the latent, x the image, r' and f the representation and scores of x. The methods'
    ``index``, (n,), are positions of samples in the call; it selects their additional arguments and their classes.

    Attributes:
        call: the classifier as this call runs it (autocast, ordinary weights).
        batch: the inputs, (N, C, H, W), with the model's additional arguments.
        latent: a latent of the generator, for dtype and device.
        r: representations of the inputs, (N, units), in the link's dtype and on its device.
        scores: scores of the inputs, (N, K).
        shape: shape of the layer's activation for one sample.
        classes: of the samples, (N,), if the link needs them, else None.
        limit: maximum number of images in one forward pass.
    """

    link: Link
    generator: Generator
    encoder: Encoder
    call: ForwardFunc
    batch: Batch
    latent: Tensor
    r: Tensor
    scores: Tensor
    shape: tuple[int, ...]
    classes: Tensor | None = None
    limit: int = LIMIT

    @property
    def inputs(self) -> Tensor:
        """The input images, (N, C, H, W) in [0, 1]."""
        return self.batch.inputs[0]

    @property
    def index(self) -> Tensor:
        """Positions of all samples, (N,)."""
        return torch.arange(self.batch.rows, device=self.inputs.device)

    @functools.cached_property
    def linked(self) -> RoundTrip:
        """The inputs' round trip, with no unit changed."""
        with torch.no_grad():
            latents = self.latents(self.r, self.index)
        return self.run(latents, self.index)

    def latents(self, r: Tensor, index: Tensor) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim), in the generator's dtype."""
        latents: Tensor = self.link(r.to(self.link.r_sd), self.classes_of(index))
        return latents.to(self.latent)

    def classes_of(self, index: Tensor) -> Tensor | None:
        """Return the classes of samples, (n,), if the link needs them."""
        return None if self.classes is None else self.classes[index.to(self.classes.device)]

    def generate(self, latents: Tensor) -> Tensor:
        """Return the images of latents, (n, latent_dim) → (n, C, H, W) in [0, 1]."""
        return images_in_unit_range(self.generator, latents.to(self.latent)).clamp(0, 1)

    def encode(self, images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return representations (n, units) and scores (n, K) of images (n, C, H, W) of the samples ``index``."""
        batch = self.batch.take(index.to(self.inputs.device)) if self.batch.args else self.batch
        images = images.to(self.inputs.device, self.inputs.dtype)
        result = self.encoder.run(images, *batch.args, call=self.call)
        return _pool(self.encoder, result, self.link), result.scores.reshape(len(result.scores), -1)

    def run(self, latents: Tensor, index: Tensor) -> RoundTrip:
        """Generate and encode without gradients, ``limit`` images at a time."""
        trips: list[RoundTrip] = []
        with torch.no_grad():
            for start, stop in chunks(len(latents), self.limit):
                images = self.generate(latents[start:stop])
                trips.append(RoundTrip(latents[start:stop], images, *self.encode(images, index[start:stop])))
        return RoundTrip.cat(trips)

    def score_gradient(self, origin: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return ∂(f_target − f_origin)/∂r at the inputs, (N, units), and f_target − f_origin, (N,).

        A change of a unit of a mean-pooled map changes all positions equally.
        """
        with torch.enable_grad():
            activation, axis, scores = self.encoder.run(self.inputs, *self.batch.args, call=self.call)
            scores = scores.reshape(len(scores), -1)
            gap = scores.gather(1, target[:, None])[:, 0] - scores.gather(1, origin[:, None])[:, 0]
            (gradient,) = torch.autograd.grad(gap.sum(), activation, allow_unused=True, materialize_grads=True)
            pooled = pool_units(activation, self.encoder.pool, axis)
            (weight,) = torch.autograd.grad(pooled.sum(), activation)
        # If r changes by 1, so does every pooled position: the slope is the sum of their gradients.
        scale = pool_units(weight, self.encoder.pool, axis)
        return pool_units(gradient, self.encoder.pool, axis) / scale, gap.detach()


def _pool(encoder: Encoder, result: ForwardPass, link: Link) -> Tensor:
    r = pool_units(result.activation, encoder.pool, result.unit_axis)
    if r.shape[1] != len(link.r_sd):
        raise ValueError(
            f"layer {encoder.name!r} has {r.shape[1]} units (shape {tuple(result.activation.shape)} pooled by "
            f"{encoder.pool!r}) at its {_side(encoder.attribute_to_neuron_input)}, but the link has {len(link.r_sd)}. "
            "Give the layer, attribute_to_neuron_input= (True: its input, False: its output) and pool= of the pairs "
            "that the link was fitted to, or fit it with manifest=pairs.manifest, which records all three."
        )
    return r


@contextlib.contextmanager
def open_loop(
    encoder: Encoder,
    generator: Generator,
    link: Link,
    inputs: Images,
    args: Any,
    at_input: bool | None,
    limit: int | None,
) -> Iterator[Loop]:
    """Encode the inputs and yield the loop of a call; the state of all three is restored at the end.

    The encoder's pool "auto", unit axis None and ``at_input`` None are replaced by those of the link's manifest.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"internal_batch_size is {limit}; expected at least 1.")
    encoder = _encoder_of_link(encoder, link, at_input)
    images = check_images(inputs)
    with exclusive():
        call = as_called(differentiable(encoder.forward_func), images.device.type)
    with protect_loop(encoder, generator, link, images.device):
        batch = settle_batch(encoder, call, Batch.of(images, args))
        latent = _sample_latent(generator, link)
        try:
            with torch.no_grad():
                result = encoder.run(batch.inputs[0], *batch.args, call=call)
                r = _pool(encoder, result, link).detach()
        except RuntimeError as error:
            with torch.no_grad():
                generated = images_in_unit_range(generator, latent.expand(2, -1))
            check_image_size(images, generated, error)
            raise
        scores = result.scores.reshape(len(result.scores), -1)
        classes = scores.argmax(1) if getattr(link, "variant", "") == "per_class" else None
        yield Loop(
            # A link solved in inference mode is copied: its tensors block gradients.
            copy.deepcopy(link) if link.weight.is_inference() else link,
            generator,
            encoder,
            call,
            batch,
            latent,
            r.to(link.r_sd.device).to(link.r_sd.dtype),  # converted on the link's device: not all have float64
            scores,
            tuple(result.activation.shape[1:]),
            classes,
            python_index(limit) or LIMIT,
        )


def settle_batch(encoder: Encoder, call: ForwardFunc, batch: Batch) -> Batch:
    """Return the batch after deciding which additional arguments have one entry per sample."""

    def run(samples: Batch) -> Any:
        (images,) = samples.inputs
        output = call(encoder.preprocess(images) if encoder.preprocess is not None else images, *samples.args)
        return read_output(output, samples.rows, encoder.output_fn)

    return settle_arguments(batch, run)


@contextlib.contextmanager
def protect_loop(encoder: Encoder, generator: Generator, link: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore encoder, generator and link at the end; autocast is off, except in the classifier's own call."""
    modules = [*modules_of(generator), link]
    with attribution_context(encoder.forward_func, *modules):
        torch.set_autocast_enabled(device.type, False)  # restored by ``attribution_context``, as are the flags below
        for root in (*modules_behind(encoder.forward_func), *modules):
            for p in root.parameters():
                if not p.is_inference():
                    p.requires_grad_(False)
        yield


def _encoder_of_link(encoder: Encoder, link: Link, at_input: bool | None) -> Encoder:
    """Return a copy for the linked side of the layer: as given, else from the link's manifest, else the output."""
    manifest = link.manifest
    layer = manifest.get("layer")
    if isinstance(layer, str) and not is_same_layer(layer, encoder.name):
        raise LayerError(
            f"layer {encoder.name!r} is not the linked one: the link was fitted to the layer {layer!r}. Give that "
            "layer, or a link of this one."
        )
    linked_input = manifest.get("attribute_to_neuron_input")
    if None not in (at_input, linked_input) and bool(linked_input) is not at_input:
        raise LayerError(
            f"the link was fitted to the {_side(linked_input)} of layer {encoder.name!r}, but "
            f"attribute_to_neuron_input is {at_input}. Omit it, or give a link of the other side."
        )
    encoder = copy.copy(encoder)
    encoder.attribute_to_neuron_input = bool(linked_input) if at_input is None else at_input
    encoder.pool = manifest.get("pool", "auto") if encoder.pool == "auto" else encoder.pool
    encoder.unit_axis = manifest.get("unit_axis") if encoder.unit_axis is None else encoder.unit_axis
    return encoder


def _sample_latent(generator: Generator, link: Link) -> Tensor:
    """Return one latent of the generator; raise ValueError if its length differs from the link's."""
    classes = 0 if getattr(generator, "num_classes", 0) else None
    latent = generator.sample_latents(1, classes, generator=torch.Generator().manual_seed(0)).detach()
    width = link.moments.latent_dim
    if latent.dim() != 2 or latent.shape[1] != width:
        raise ValueError(
            f"the link returns latents of {width} numbers, but the generator samples latents of shape "
            f"{tuple(latent.shape)}. Give the generator whose images the link was fitted to."
        )
    return latent


def _side(at_input: object) -> str:
    return "input" if at_input else "output"


def is_same_layer(first: str, second: str) -> bool:
    """Return whether two dotted names may be one layer: one ends with the other ("net.head", "head")."""
    return f".{first}".endswith(f".{second}") or f".{second}".endswith(f".{first}")


def check_image_size(images: Tensor, generated: Tensor, error: RuntimeError) -> None:
    """Raise ValueError if images, (n, C, H, W), on which a model failed differ in shape from the generated ones."""
    if images.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"the model fails on images of shape {tuple(images.shape[1:])} ({str(error).splitlines()[0]}); the link's "
            f"generator generates {tuple(generated.shape[1:])}. Give images of that size and number of channels, or a "
            "preprocess= that converts them."
        ) from error
