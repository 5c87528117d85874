"""Link → generator → classifier round trip."""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import (
    Batch,
    OutputFn,
    chunks,
    select_output,
    settle_arguments,
)
from ...generators.protocol import Generator, images_in_unit_range
from ...hooks import ForwardFunc, LayerError, capture, exclusive, layer_name, modules_behind, one_tensor
from ...images import check_images
from ..base import as_called, attribution_context, differentiable
from .checks import checked_size
from .encoder import Pool, pooled, pooling_axis
from .latent_link import LatentLink

Preprocess = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Encoding:
    """The classifier's half of the loop, for the rows of one call.

    Args:
        forward_func: the model, or any function around it.
        call: the same as it is to be called now (autocast, ordinary weights).
        layer: whose activation is linked.
        at_input: what enters the layer instead of what leaves it.
        preprocess: the model's own normalisation of pictures in [0, 1].
        output_fn: picks the scores out of the output.
        pool: how maps and tokens become one row.
        batch: the call's rows; pictures take the dtype and device of its inputs.
        units: of the link, which the representation must have.
        unit_axis: which axis of the activation holds the units; None determines it.
    """

    forward_func: ForwardFunc
    call: ForwardFunc
    layer: nn.Module
    at_input: bool
    preprocess: Preprocess | None
    output_fn: OutputFn | None
    pool: Pool
    batch: Batch
    units: int
    unit_axis: int | None = None

    def __call__(self, pictures: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, C, H, W) of rows (n,) to representations (n, units) and scores (n, K)."""
        activation, axis, scores = self._seen(pictures, rows)
        return self._flat(activation, axis), scores

    def of_inputs(self) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Representations and scores of the inputs, and the shape that the layer gives a row."""
        with torch.no_grad():
            activation, axis, scores = self._seen(self.batch.inputs[0], self.rows)
            return self._flat(activation, axis).detach(), scores, tuple(activation.shape[1:])

    @property
    def rows(self) -> Tensor:
        """Every row of the call, (N,)."""
        return torch.arange(self.batch.rows, device=self.batch.inputs[0].device)

    def slopes(self, origin: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        r"""How the lead of a class over another goes with each unit at the inputs, (n, units), and the lead, (n,).

        A unit of a mean-pooled map moves at every place at once.
        """
        with torch.enable_grad():
            activation, axis, scores = self._seen(self.batch.inputs[0], self.rows)
            lead = _at(scores, target) - _at(scores, origin)
            (slope,) = torch.autograd.grad(lead.sum(), activation, allow_unused=True, materialize_grads=True)
            flat = self._flat(activation, axis)
            (weight,) = torch.autograd.grad(flat.sum(), activation)
        # The lift of a change of r to the activation is the right inverse of pooling, which scales by 1/weight.
        return self._flat(slope, axis) / self._flat(weight, axis), lead.detach()

    def _seen(self, pictures: Tensor, rows: Tensor) -> tuple[Tensor, int | None, Tensor]:
        batch = self.batch.take(rows.to(self.batch.inputs[0].device)) if self.batch.args else self.batch
        like = self.batch.inputs[0]
        shown = pictures.to(like.device, like.dtype)
        shown = self.preprocess(shown) if self.preprocess is not None else shown
        with capture(self.forward_func, self.layer, at_input=self.at_input) as captured:
            output = self.call(shown, *batch.args)
        activation = one_tensor(captured[self.layer], self._name, len(shown), at_input=self.at_input)
        scores = select_output(output, Batch((shown,), rows=len(shown)), self.output_fn)
        axis = pooling_axis(
            activation,
            self.layer,
            self.forward_func,
            self.pool,
            entered=tuple(shown.shape),
            asked=self.unit_axis,
            at_input=self.at_input,
        )
        return activation, axis, scores.reshape(len(scores), -1)

    def _flat(self, activation: Tensor, axis: int | None) -> Tensor:
        r = pooled(activation, self.pool, axis)
        if r.shape[1] != self.units:
            raise ValueError(
                f"layer {self._name()} gives {r.shape[1]} units (shape {tuple(activation.shape)} pooled by "
                f"{self.pool!r}) at its {'input' if self.at_input else 'output'}, but the link is of {self.units}; "
                "give the layer, attribute_to_neuron_input= (True: what enters it, False: what leaves it) and pool= of "
                "the pairs that the link was fitted to, or fit it with manifest=pairs.manifest, which says all three."
            )
        return r

    def _name(self) -> str:
        return layer_name(self.forward_func, self.layer)


def _at(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]


Look = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Loop:
    r"""What is drawn from representations, and what the classifier sees in it.

    .. math:: r \mapsto w = \mathrm{link}(r) \mapsto x = G(w) \mapsto (r', f) = \mathrm{classifier}(x)

    Args:
        link: a fitted link.
        generator: what draws.
        look: pictures in [0, 1] and, for each, the row of the call it belongs to (row-aligned arguments of the model
            are taken along) to representations (n, units) and scores (n, K).
        latent: a latent of the generator; its dtype and device are those that ``synthesize`` wants.
        classes: of the rows, (rows,), where the link wants them.
        limit: pictures in one forward pass.
    """

    link: LatentLink
    generator: Generator
    look: Look
    latent: Tensor
    classes: Tensor | None = None
    limit: int = 256

    def latents(self, r: Tensor, rows: Tensor) -> Tensor:
        """(n, units) of rows (n,) to (n, latent_dim), as the generator takes them."""
        latents: Tensor = self.link(r.to(self.link.r_sd), self.classes_of(rows))
        return latents.to(self.latent)

    def classes_of(self, rows: Tensor) -> Tensor | None:
        """Classes of the rows (n,), where the link wants them."""
        return None if self.classes is None else self.classes[rows.to(self.classes.device)]

    def draw(self, latents: Tensor) -> Tensor:
        """(n, latent_dim) to pictures in [0, 1], (n, C, H, W)."""
        return images_in_unit_range(self.generator, latents.to(self.latent)).clamp(0, 1)

    def shown(self, latents: Tensor, rows: Tensor) -> "Shown":
        """Draw, look, and keep all three, without gradients, ``limit`` at a time."""
        parts: list[Shown] = []
        with torch.no_grad():
            for start, stop in chunks(len(latents), self.limit):
                pictures = self.draw(latents[start:stop])
                parts.append(Shown(latents[start:stop], pictures, *self.look(pictures, rows[start:stop])))
        return Shown.joined(parts)


@dataclass(frozen=True)
class Shown:
    """Latents, their pictures, and what the classifier saw in these; rows first."""

    latents: Tensor
    pictures: Tensor
    representations: Tensor
    scores: Tensor

    @classmethod
    def joined(cls, parts: "list[Shown]") -> "Shown":
        """One after the other."""
        return parts[0] if len(parts) == 1 else cls(*(torch.cat([getattr(p, name) for p in parts]) for name in _NAMES))

    def take(self, index: Tensor | slice) -> "Shown":
        """The rows of an index or a mask."""
        return Shown(*(getattr(self, name)[index] for name in _NAMES))

    def put(self, index: Tensor, other: "Shown") -> "Shown":
        """Rows ``index`` replaced by those of another."""
        return Shown(*(getattr(self, name).index_copy(0, index, getattr(other, name)) for name in _NAMES))


_NAMES = ("latents", "pictures", "representations", "scores")


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
        raise ValueError(f"internal_batch_size is {limit}; expected at least 1.")
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
                drawn = images_in_unit_range(parts.generator, latent.expand(2, -1))
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

    return settle_arguments(batch, run)


@contextmanager
def protected(parts: Parts, device: torch.device) -> Iterator[None]:
    """Leave all three as found; autocast, which is for the classifier alone, is off for the others."""
    others = [*_modules_of(parts.generator), parts.link]
    with attribution_context(parts.forward_func, *others):
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
