"""The round trip of one call: representation → link → generator → classifier."""

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import Batch, chunks, settle_arguments
from ...generators.protocol import Generator, images_in_unit_range, modules_of
from ...hooks import ForwardFunc, LayerError, exclusive, modules_behind
from ...images import check_images
from ..base import as_called, attribution_context, differentiable
from .encoder import Encoder, ForwardPass, check_image_size, is_same_layer, pool_units
from .link import Link

Images = Tensor | tuple[Tensor, ...]
LIMIT = 256  # images in one forward pass, unless the caller says otherwise


@dataclass(frozen=True)
class RoundTrip:
    """Latents, their generated images, and the classifier's representations and scores of these; samples first."""

    latents: Tensor
    images: Tensor
    representations: Tensor
    scores: Tensor

    @classmethod
    def cat(cls, trips: "Sequence[RoundTrip]") -> "RoundTrip":
        """Concatenate along the samples."""
        return trips[0] if len(trips) == 1 else cls(*(torch.cat([getattr(t, name) for t in trips]) for name in _FIELDS))

    def take(self, index: Tensor | slice) -> "RoundTrip":
        """Return the samples of an index or a mask."""
        return RoundTrip(*(getattr(self, name)[index] for name in _FIELDS))

    def replace(self, index: Tensor, other: "RoundTrip") -> "RoundTrip":
        """Return a copy in which the samples ``index`` are those of ``other``."""
        return RoundTrip(*(getattr(self, name).index_copy(0, index, getattr(other, name)) for name in _FIELDS))


_FIELDS = ("latents", "images", "representations", "scores")


@dataclass(frozen=True)
class Loop:
    r"""Link, generator and classifier, with the encoded inputs of one call.

    .. math:: r \mapsto w = \mathrm{link}(r) \mapsto x = G(w) \mapsto (r', f) = \mathrm{classifier}(x)

    Samples are given by their position in the call, ``index`` (n,), which selects their arguments of the model and
    their class.

    Attributes:
        link: a fitted link.
        generator: latents to images.
        encoder: images to representations and scores.
        call: the classifier as this call runs it (autocast, ordinary weights).
        batch: the inputs, (N, C, H, W), with the model's additional arguments.
        latent: a latent of the generator, for dtype and device.
        r: representations of the inputs, (N, units), in the link's dtype and on its device.
        scores: scores of the inputs, (N, K).
        shape: of the layer's activation for one sample.
        classes: of the samples, (N,), if the link needs them.
        limit: images in one forward pass.
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

    def with_classes(self, classes: Tensor) -> "Loop":
        """Return a loop with other classes for the link; the same loop if the link needs none."""
        return self if self.classes is None else replace(self, classes=classes)

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
        # Lifting a change of r to the activation is the right inverse of pooling, which scales by 1/weight.
        scale = pool_units(weight, self.encoder.pool, axis)
        return pool_units(gradient, self.encoder.pool, axis) / scale, gap.detach()


def _pool(encoder: Encoder, result: ForwardPass, link: Link) -> Tensor:
    r = pool_units(result.activation, encoder.pool, result.unit_axis)
    if r.shape[1] != len(link.r_sd):
        raise ValueError(
            f"layer {encoder.name!r} has {r.shape[1]} units (shape {tuple(result.activation.shape)} pooled by "
            f"{encoder.pool!r}) at its {'input' if encoder.attribute_to_neuron_input else 'output'}, but the link has "
            f"{len(link.r_sd)}. Give the layer, attribute_to_neuron_input= (True: its input, False: its output) and "
            "pool= of the pairs that the link was fitted to, or fit it with manifest=pairs.manifest, which records all "
            "three."
        )
    return r


@contextmanager
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

    Args:
        encoder: pool "auto" and a unit axis of None are replaced by those of the link's manifest.
        generator: latents to images.
        link: a fitted link.
        inputs: images in [0, 1].
        args: additional arguments of the model.
        at_input: whether the layer's input is linked; None takes the side from the link's manifest.
        limit: images in one forward pass; None is 256.

    Raises:
        ValueError, TypeError: inputs that are not images in [0, 1], or encoder, generator and link do not match.
        LayerError: the layer is not the linked one, never runs, or runs twice.
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
            limit or LIMIT,
        )


def settle_batch(encoder: Encoder, call: ForwardFunc, batch: Batch) -> Batch:
    """Return the batch with the decision which arguments of the model are one per sample."""

    def run(samples: Batch) -> Any:
        (images,) = samples.inputs
        output = call(encoder.preprocess(images) if encoder.preprocess is not None else images, *samples.args)
        return output if encoder.output_fn is None else encoder.output_fn(output)

    return settle_arguments(batch, run)


@contextmanager
def protect_loop(encoder: Encoder, generator: Generator, link: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore all three at the end; autocast is off, except in the classifier's own call."""
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
            f"the link was fitted to the {'input' if linked_input else 'output'} of layer {encoder.name!r}, but "
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
