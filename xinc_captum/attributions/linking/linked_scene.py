"""One call's classifier, link and generator, checked against one another and left as found."""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...alignment import settled
from ...batch import Batch
from ...generators.protocol import Generator, pictures_in_unit_range
from ...hooks import (
    ForwardFunc,
    LayerError,
    exclusive,
    layer_name,
    modules_behind,
)
from ...images import check_images
from ...targets import OutputFn
from ..contract import as_called, differentiable, explaining
from .encoding import Encoding, Preprocess
from .latent_link import LatentLink
from .link_checks import checked_size
from .loop import Loop, Shown
from .pooling import Pool

Images = Tensor | tuple[Tensor, ...]
LIMIT = 256


@dataclass(frozen=True)
class Parts:
    """What :class:`LinkedUnitVisualization` was built from."""

    forward_func: ForwardFunc
    layer: nn.Module
    generator: Generator
    link: LatentLink
    preprocess: Preprocess | None
    output_fn: OutputFn | None
    pool: Pool
    unit_axis: int | None = None


@dataclass(frozen=True)
class Scene:
    """The rows of a call, inside the loop.

    Attributes:
        loop: link, generator and classifier.
        encoding: the classifier's half of it.
        inputs: (N, C, H, W) in [0, 1].
        r: their representations, (N, units).
        scores: what the classifier gives them, (N, K).
        shape: what the linked layer gives a row.
    """

    loop: Loop
    encoding: Encoding
    inputs: Tensor
    r: Tensor
    scores: Tensor
    shape: tuple[int, ...]

    @property
    def rows(self) -> Tensor:
        """(N,)."""
        return self.encoding.rows

    @functools.cached_property
    def linked(self) -> Shown:
        """The inputs as link and generator draw them, and what the classifier sees in that."""
        with torch.no_grad():
            latents = self.loop.latents(self.r, self.rows)
        return self.loop.shown(latents, self.rows)


@contextmanager
def scene(parts: Parts, inputs: Images, args: Any, at_input: bool | None, limit: int | None) -> Iterator[Scene]:
    """Look at the inputs, with everything the call needs at hand and everything put back at the end.

    Raises:
        ValueError, TypeError: inputs that are no images in [0, 1], or parts that do not fit one another.
        LayerError: the layer is not the linked one, never runs, or runs twice.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"internal_batch_size is {limit}; wanted at least 1.")
    side = _checked_side(parts, at_input)
    images = check_images(inputs)
    with exclusive():
        call = as_called(differentiable(parts.forward_func), images.device.type)
    with protected(parts, images.device):
        batch = settled_rows(parts, call, Batch.of(images, args))
        latent = _latent(parts.generator, parts.link)
        units = len(parts.link.r_sd)
        pool = parts.pool if parts.pool != "auto" else parts.link.manifest.get("pool", "auto")
        axis = parts.link.manifest.get("unit_axis") if parts.unit_axis is None else parts.unit_axis
        encoding = Encoding(
            parts.forward_func, call, parts.layer, side, parts.preprocess, parts.output_fn, pool, batch, units, axis
        )
        try:
            r, scores, shape = encoding.of_inputs()
        except RuntimeError as error:
            with torch.no_grad():
                drawn = pictures_in_unit_range(parts.generator, latent.expand(2, -1))
            checked_size(images, drawn, error)
            raise
        classes = scores.argmax(1) if getattr(parts.link, "variant", "") == "per_class" else None
        loop = Loop(_ordinary(parts.link), parts.generator, encoding, latent, classes, limit or LIMIT)
        at_link = r.to(parts.link.r_sd.device).to(parts.link.r_sd.dtype)  # widened there: not every device has float64
        yield Scene(loop, encoding, images, at_link, scores, shape)


def settled_rows(parts: Parts, call: ForwardFunc, batch: Batch) -> Batch:
    """The batch with a decision on its arguments, made by the classifier."""

    def run(some: Batch) -> Any:
        (shown,) = some.inputs
        output = call(parts.preprocess(shown) if parts.preprocess is not None else shown, *some.args)
        return output if parts.output_fn is None else parts.output_fn(output)

    return settled(batch, run)


@contextmanager
def protected(parts: Parts, device: torch.device) -> Iterator[None]:
    """Leave all three as found; autocast, which is for the classifier alone, is off for the others."""
    others = [*_modules_of(parts.generator), parts.link]
    with explaining(parts.forward_func, *others):
        torch.set_autocast_enabled(device.type, False)  # ``explaining`` puts it back
        _freeze(parts.forward_func, *others)
        yield


def _ordinary(link: LatentLink) -> LatentLink:
    """A copy where it was solved under inference mode, whose tensors no gradient goes through."""
    return copy.deepcopy(link) if link.weight.is_inference() else link


def of_classes(view: Scene, classes: Tensor | None) -> Scene:
    """The same with other classes for the link."""
    return view if view.loop.classes is None else replace(view, loop=replace(view.loop, classes=classes))


def _modules_of(generator: Generator) -> list[nn.Module]:
    """Modules in the generator, in its attributes, and behind functions that it holds."""
    held: list[Any] = [generator, *getattr(generator, "__dict__", {}).values()]
    found = [m for thing in held if callable(thing) or hasattr(thing, "__dict__") for m in modules_behind(thing)]
    return list({id(m): m for m in found}.values())


def _freeze(forward_func: ForwardFunc, *also: nn.Module) -> None:
    """No gradients for weights; ``explaining`` puts the flags back."""
    for root in (*modules_behind(forward_func), *also):
        for p in root.parameters():
            if not p.is_inference():
                p.requires_grad_(False)


def _checked_side(parts: Parts, at_input: bool | None) -> bool:
    """Whether the layer's input is meant: as asked, else as the link's manifest says, else as in Captum its output."""
    manifest = parts.link.manifest
    linked, own = manifest.get("layer"), layer_name(parts.forward_func, parts.layer).strip("'")
    if isinstance(linked, str) and not f".{own}".endswith(f".{linked}") and not f".{linked}".endswith(f".{own}"):
        raise LayerError(
            f"layer {own!r} is not the linked one: the link was fitted to the layer {linked!r}. Give that layer, or a "
            "link of this one."
        )
    side = manifest.get("attribute_to_neuron_input")
    if at_input is None:
        return bool(side)
    if side is not None and bool(side) is not at_input:
        raise LayerError(
            f"the link was fitted to the {'input' if side else 'output'} of layer {own!r}, but "
            f"attribute_to_neuron_input is {at_input}; leave it out, or give a link of the other side."
        )
    return at_input


def _latent(generator: Generator, link: LatentLink) -> Tensor:
    """One latent of the generator, checked against the link's."""
    classes = 0 if getattr(generator, "num_classes", 0) else None
    latent = generator.sample_latents(1, classes, generator=torch.Generator().manual_seed(0)).detach()
    width = link.moments.latent_dim
    if latent.dim() != 2 or latent.shape[1] != width:
        raise ValueError(
            f"the link makes latents of {width} numbers, but the generator samples latents of shape "
            f"{tuple(latent.shape)}; give the generator whose pictures the link was fitted to."
        )
    return latent
