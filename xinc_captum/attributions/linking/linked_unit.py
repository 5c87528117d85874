"""Class LinkedUnitVisualization."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Unpack

import torch
from captum.robust import Perturbation
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..._compat import GradientAttribution, NeuronAttribution
from ...batch import Batch, OutputFn, chunks
from ...generators.protocol import Generator
from ...hooks import ForwardFunc, JacobianVectorProduct, UnsupportedError, find_layer
from ...images import check_images
from ...metrics.statistics import Probability
from ...progress import progress
from ...store import warn_of_other_models
from ..base import as_called, captum_method, differentiable
from .counterfactuals.counterfactual import Counterfactual, Method, find_counterfactuals
from .counterfactuals.search import Search
from .latent_link import LatentLink
from .link import Direction
from .loop import Encoder, Images, Loop, Pool, Preprocess, open_loop, protect_loop, settle_batch
from .sweep import SweepOptions, SweepSettings, UnitSweep, Values, column, columns, sweep_units

_SPAN = 0.02  # in standard deviations: step of the difference for generators without gradients


def change_map(loop: Loop, units: list[int], direction: Direction) -> Tensor:
    r"""Return the absolute derivative of the generated images by the units, (N, C, H, W) in the generator's size.

    .. math:: \Bigl| \tfrac{d}{d\epsilon}\, G(\mathrm{link}(r + \epsilon \textstyle\sum_u e_u)) \Bigr|, \qquad
        \text{or } \Bigl| \tfrac{d}{d\epsilon}\, G(\mathrm{link}(r) + \epsilon \textstyle\sum_u d_u) \Bigr|

    Symbols: e_u the basis vector of unit u, d_u its ``direction`` (second form) unless that is "partial" (first form).
    It takes one forward and two backward passes; a central difference if the generator cannot be differentiated.
    """
    link, step = loop.link, loop.r.new_zeros(loop.r.shape[1])
    step[units] = 1
    if direction != "partial":
        step = link.direction(units, direction).sum(0)
    start = loop.r if direction == "partial" else loop.latents(loop.r, loop.index).detach()

    def generate(point: Tensor) -> Tensor:
        return loop.generate(loop.latents(point, loop.index) if direction == "partial" else point)

    along = step.to(start).expand_as(start)
    if getattr(loop.generator, "differentiable", True):
        try:
            with torch.enable_grad():
                leaf = start.detach().clone().requires_grad_()
                return JacobianVectorProduct(leaf, generate(leaf))(along[None])[0].abs()
        except UnsupportedError:
            pass
    half = _SPAN / 2 * float(link.r_sd[units].max())
    with torch.no_grad():
        return ((generate(start + half * along) - generate(start - half * along)) / (2 * half)).abs()


def resize_like(images: Tensor, inputs: Tensor) -> Tensor:
    """Return images in the size of the inputs (antialiased bilinear); other channels are averaged and repeated."""
    if images.shape[1] != inputs.shape[1]:
        images = images.mean(1, keepdim=True).expand(-1, inputs.shape[1], -1, -1)
    if images.shape[-2:] != inputs.shape[-2:]:
        size = (inputs.shape[-2], inputs.shape[-1])
        images = interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return images.to(inputs.dtype).detach().contiguous()


class LinkedUnitVisualization(NeuronAttribution, GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Generate images in which one unit of a classifier has other values, through a link to a generator's latents.

    All results show the *reconstruction* G(link(r)) of an input, not the input itself. The classifier encodes every
    generated image again, so the unit's set value and its measured value can be compared.

    .. math:: x(v) = G\bigl(\mathrm{link}(r) + (v - r_u)\, d_u\bigr)

    Symbols: r the linked representation of the input, u the unit, v the value, d_u the latent's change per unit of
    change (:meth:`LatentLink.direction`), G the generator.

    Args:
        forward_func: the classifier, or any function around it.
        layer: a module or dotted name, whose output (or input) is linked.
        generator: latents to images (:class:`xinc_captum.generators.Generator`).
        link: a fitted :class:`LatentLink` from this layer to this generator.
        device_ids: unused, part of Captum's signature.
        output_fn: as in :class:`Encoder`; this and the next three as for the pairs that the link was fitted to.
        preprocess: as in :class:`Encoder`; it may resize.
        pool: as in :class:`Encoder`.
        unit_axis: as in :class:`Encoder`; None first tries that of the link's manifest.

    Warns:
        UserWarning: classifier or generator have other weights than the link's manifest records.

    Raises:
        ValueError, IndexError: layer, link and generator do not match; a dead unit; a unit, value, image or target out
            of range.
        LayerError: the layer is not in the model, is not the linked one, never runs, or runs twice.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import LatentLink
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
        >>> w = generator.sample_latents(99)
        >>> units = LinkedUnitVisualization(net, "1", generator, LatentLink().fit(net[:2](generator.synthesize(w)), w))
        >>> units.sweep(torch.rand(2, 1, 2, 2), 5, [0.0, 0.1, 0.2]).images.shape
        torch.Size([2, 3, 1, 2, 2])

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        generator: Generator,
        link: LatentLink,
        device_ids: list[int] | None = None,
        *,
        output_fn: OutputFn | None = None,
        preprocess: Preprocess | None = None,
        pool: Pool = "auto",
        unit_axis: int | None = None,
    ) -> None:
        module = find_layer(forward_func, layer)
        NeuronAttribution.__init__(self, forward_func, module, device_ids)
        GradientAttribution.__init__(self, forward_func)
        warn_of_other_models(link.manifest, forward_func, generator)
        self._link = link
        self._encoder = Encoder(
            forward_func, module, preprocess=preprocess, pool=pool, output_fn=output_fn, unit_axis=unit_axis
        )
        self._open = partial(open_loop, self._encoder, generator, link)
        self._protect = partial(protect_loop, self._encoder, generator, link)

    @captum_method
    def attribute(
        self,
        inputs: Images,
        neuron_selector: Any,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool | None = None,
        internal_batch_size: int | None = None,
        direction: Direction = "partial",
    ) -> Images:
        r"""Return where the *reconstruction* of each input changes as the unit rises; G(link(r)), not the input itself.

        .. math:: \Bigl| \frac{\partial\, G(\mathrm{link}(r))}{\partial r_u} \Bigr|

        Args:
            inputs: (N, C, H, W) in [0, 1].
            neuron_selector: an int is a unit of the linked representation. A tuple indexes the layer's own dimensions
                if these were flattened; slices raise several units together.
            additional_forward_args: additional arguments of the model. A tensor with one entry per sample is sliced
                with the inputs; any other is passed unchanged (:func:`~xinc_captum.batch.settle_arguments` decides).
            attribute_to_neuron_input: whether the layer's input is linked; None uses the side of the link's manifest,
                or the output without one.
            internal_batch_size: maximum number of samples in one forward pass.
            direction: "partial" is the formula above; "marginal" and "within_class" are the change of G along that
                direction of :meth:`LatentLink.direction`, as in a sweep.

        The maps are resized to the inputs, and averaged over channels if the generator has another number of them. For
        a generator that cannot be differentiated they are central differences.
        """
        images, maps = check_images(inputs), []
        batch = Batch.of(images, additional_forward_args)
        pieces = chunks(batch.rows, internal_batch_size or batch.rows)
        if len(pieces) > 1:
            call = as_called(differentiable(self._encoder.forward_func), images.device.type)
            with self._protect(images.device):
                batch = settle_batch(self._encoder, call, batch)
        for start, stop in pieces:
            piece = batch.cut(start, stop)
            with self._open(piece.inputs[0], piece.args, attribute_to_neuron_input, internal_batch_size) as loop:
                units = columns(neuron_selector, loop.shape, self._link.alive)
                maps.append(resize_like(change_map(loop, units, direction), loop.inputs))
        return _match_container(inputs, torch.cat(maps))

    def perturb(
        self,
        inputs: Images,
        neuron_selector: Any,
        value: float | Tensor,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool | None = None,
        internal_batch_size: int | None = None,
        **options: Unpack[SweepOptions],
    ) -> Images:
        """Return the linked inputs with one unit at ``value``, in the inputs' shape, as ``captum.robust`` expects.

        The other arguments are those of :meth:`attribute`; ``options`` are mode, direction and latents as for
        :meth:`sweep`.
        """
        settings = SweepSettings(values=[float(value)], **options)
        with self._open(inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size) as loop:
            unit = column(neuron_selector, loop.shape, self._link.alive)
            latents = settings.plan(loop, settings.anchor(loop), unit).latents[:, 0]
            images = [loop.generate(some) for some in latents.split(loop.limit)]
            return _match_container(inputs, resize_like(torch.cat(images), loop.inputs))

    def sweep(
        self,
        inputs: Images,
        neuron_selector: Any,
        values: Values = "quantile",
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool | None = None,
        internal_batch_size: int | None = None,
        **options: Unpack[SweepOptions],
    ) -> UnitSweep:
        """Return the linked inputs with one unit at each value, and what the classifier computes from every frame.

        ``values`` are numbers (S,), or a span of the link: "quantile" (5 % to 95 %), "minmax" or "sd". ``options`` are
        steps=5 over a span, mode="anchored" or "replace", direction="marginal", "partial" or "within_class", and
        latents= anchors (:class:`SweepSettings` explains each). The paper's sweep is ``values="minmax",
        mode="replace", direction="partial"``. The other arguments are those of :meth:`attribute`; an
        ``internal_batch_size`` of None is 256 images.
        """
        settings = SweepSettings(values=values, **options)
        with self._open(inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size) as loop:
            unit = column(neuron_selector, loop.shape, self._link.alive)
            return sweep_units(loop, settings.anchor(loop), [unit], settings)[0]

    def sweeps(
        self,
        inputs: Images,
        neuron_selectors: Sequence[Any] | None = None,
        values: Values = "quantile",
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool | None = None,
        internal_batch_size: int | None = None,
        *,
        show_progress: bool = False,
        **options: Unpack[SweepOptions],
    ) -> Iterator[UnitSweep]:
        """Yield one :meth:`sweep` per unit (None: every live unit of the link), with the arguments of a sweep.

        Forward passes may hold several units; earlier results are not stored. ``show_progress`` shows a progress bar.
        The call itself checks all arguments, before the first result.
        """
        settings = SweepSettings(values=values, **options)
        alive = self._link.alive
        selectors = alive.nonzero()[:, 0].tolist() if neuron_selectors is None else list(neuron_selectors)
        if not selectors:
            raise ValueError("neuron_selectors is empty; give at least one unit, or None for every live one.")
        with self._open(inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size) as loop:
            units = [column(selector, loop.shape, alive) for selector in selectors]
            anchor = settings.anchor(loop)
            frames = len(settings.plan(loop, anchor, units[0]).values)  # also checks values, steps and direction
            if settings.direction == "within_class":
                self._link.direction(units, settings.direction)  # units that do not vary within a class
        size = max(1, loop.limit // max(1, len(loop.r) * frames))
        batches = [units[start:stop] for start, stop in chunks(len(units), size)]

        def results() -> Iterator[UnitSweep]:
            for batch in progress(batches, "sweeps", show=show_progress):
                with self._protect(loop.inputs.device):
                    sweeps = sweep_units(loop, anchor, batch, settings)
                yield from sweeps

        return results()

    def counterfactual(
        self,
        inputs: Images,
        target: Any,
        method: Method | Search = "ray",
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool | None = None,
        internal_batch_size: int | None = None,
        *,
        origin: Any = None,
        confidence: float = 0.0,
        probability: Probability = "auto",
    ) -> Counterfactual:
        """Change the linked inputs until the classifier predicts the target, in a bounded number of steps.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            target: the class to reach, or one per sample.
            method: "ray" (a line search without the generator's gradient), "latent" (Adam through generator and
                classifier), "minimal" (the shortest shift for which a linear head predicts the target, with a proven
                bound) or "linking_in_style" (the paper's update); or one of these with options, such as
                :class:`xinc_captum.attributions.linking.counterfactuals.Ray` (top=10).
            additional_forward_args: as for :meth:`attribute`.
            attribute_to_neuron_input: as for :meth:`attribute`.
            internal_batch_size: maximum number of images in one forward pass; None is 256.
            origin: the class to leave, or one per sample; None uses the prediction for each input (its second choice
                if the prediction is the target).
            confidence: probability that the target must reach, in [0, 1).
            probability: what the model's scores are, see :func:`xinc_captum.metrics.probabilities`.
        """
        with self._open(inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size) as loop:
            return find_counterfactuals(loop, target, origin, method, confidence, probability)


def _match_container(inputs: Images, result: Tensor) -> Images:
    """Return a tuple if the inputs are one, as Captum's metrics expect."""
    return (result,) if isinstance(inputs, tuple) else result
