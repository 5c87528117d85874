"""Class LinkedUnitVisualization."""

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import torch
from captum.robust import Perturbation
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..._compat import GradientAttribution, NeuronAttribution
from ...batch import Batch, OutputFn, chunks
from ...fingerprint import warn_of_other_models
from ...generators.protocol import Generator
from ...hooks import ForwardFunc, check_preprocess, find_layer
from ...hooks.gradients import JacobianVectorProduct, UnsupportedError
from ...images import check_images
from ...metrics.probability import Probability
from ...progress import progress
from ..base import as_called, captum_method, differentiable
from .counterfactuals.counterfactual import Counterfactual, Method, searched
from .counterfactuals.search import Search
from .encoder import Pool
from .latent_link import LatentLink
from .loop import Images, Parts, Preprocess, Scene, Shown, protected, scene, settled_rows
from .sweep import Direction, Sweeping, SweepOptions, UnitSweep, Values, columns, one_column, swept, units_at_once

_SPAN = 0.02  # of a standard deviation: the step of the difference where no gradient goes through the generator


def change_map(view: Scene, units: list[int], direction: Direction) -> Tensor:
    r"""Size of the derivative of the drawn picture by the units, (N, C, H, W) as the generator draws.

    .. math:: \Bigl| \tfrac{d}{d\epsilon}\, G(\mathrm{link}(r + \epsilon \textstyle\sum_u e_u)) \Bigr|, \qquad
        \text{or } \Bigl| \tfrac{d}{d\epsilon}\, G(\mathrm{link}(r) + \epsilon d_u) \Bigr|

    One forward and two backward passes; a central difference where the generator cannot be differentiated.
    """
    link, way = view.loop.link, view.r.new_zeros(view.r.shape[1])
    way[units] = 1
    moved = way
    if direction != "partial":
        moved = link.direction(units, direction).sum(0)
    start = view.r if direction == "partial" else view.loop.latents(view.r, view.rows).detach()

    def drawn(at: Tensor) -> Tensor:
        return view.loop.draw(view.loop.latents(at, view.rows) if direction == "partial" else at)

    along = moved.to(start).expand_as(start)
    if getattr(view.loop.generator, "differentiable", True):
        try:
            with torch.enable_grad():
                leaf = start.detach().clone().requires_grad_()
                return JacobianVectorProduct(leaf, drawn(leaf))(along[None])[0].abs()
        except UnsupportedError:
            pass
    half = _SPAN / 2 * float(link.r_sd[units].max())
    with torch.no_grad():
        return ((drawn(start + half * along) - drawn(start - half * along)) / (2 * half)).abs()


def laid_over(pictures: Tensor, inputs: Tensor) -> Tensor:
    """Pictures in the size and channels of the inputs.

    Other channels are averaged and repeated; another size is resized by an antialiased bilinear filter.
    """
    if pictures.shape[1] != inputs.shape[1]:
        pictures = pictures.mean(1, keepdim=True).expand(-1, inputs.shape[1], -1, -1)
    if pictures.shape[-2:] != inputs.shape[-2:]:
        size = (inputs.shape[-2], inputs.shape[-1])
        pictures = interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
    return pictures.to(inputs.dtype).detach().contiguous()


class LinkedUnitVisualization(NeuronAttribution, GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Draws what a unit means: its value is changed, linked to a generator's latent, and a picture comes out.

    Everything it shows lives on the *reconstruction* G(link(r)) of an input, not on the input; each picture is shown to
    the classifier again, so that what was asked for and what came of it lie side by side.

    .. math:: x(v) = G\bigl(\mathrm{link}(r) + (v - r_u)\, d_u\bigr)

    Symbols: r the linked representation of the input, u the unit, v the value, d_u the latent's change per unit of
    change (:meth:`LatentLink.direction`), G the generator.

    Args:
        forward_func: the classifier, or any function around it.
        layer: a module or dotted name, whose output (or input) is linked.
        generator: draws pictures from latents (:class:`xinc_captum.generators.Generator`).
        link: a fitted :class:`LatentLink` from this layer to this generator.
        device_ids: devices of a DataParallel model when ``forward_func`` is not the DataParallel object itself.
        output_fn: picks the class scores out of a dict or tuple output.
        preprocess: the classifier's own normalisation (and resizing) of pictures in [0, 1], a differentiable function;
            None where ``forward_func`` holds it.
        pool: how the layer's maps or tokens became one row a picture, as for the pairs of the link.
        unit_axis: which axis of a layer with maps or tokens holds the units, as for the pairs of the link; None takes
            what the link's manifest has, or determines it.

    Warns:
        UserWarning: network or generator have other weights than the link's manifest names.

    Raises:
        ValueError: parts that do not fit one another, a dead unit, a value or an image out of range, an impossible
            target.
        LayerError: the layer is not in the model, is not the linked one, never runs, or runs twice.
        IndexError: a unit out of range.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import LatentLink
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
        >>> w = paint.sample_latents(99)
        >>> units = LinkedUnitVisualization(net, "1", paint, LatentLink().fit(net[:2](paint.synthesize(w)), w))
        >>> units.sweep(torch.rand(2, 1, 2, 2), 5, [0.0, 0.1, 0.2]).images.shape
        torch.Size([2, 3, 1, 2, 2])

    Source: Wehrheim et al., "Linking in Style: Understanding learned features in deep learning models"
    (arXiv 2409.16865).
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
        found = find_layer(forward_func, layer)
        NeuronAttribution.__init__(self, forward_func, found, device_ids)
        GradientAttribution.__init__(self, forward_func)
        warn_of_other_models(link.manifest, forward_func, generator)
        check_preprocess(forward_func, preprocess)
        self._parts = Parts(forward_func, found, generator, link, preprocess, output_fn, pool, unit_axis)

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
        r"""Where the *reconstruction* of each input changes as the unit rises; it lies on G(link(r)), not on the input.

        .. math:: \Bigl| \frac{\partial\, G(\mathrm{link}(r))}{\partial r_u} \Bigr|

        Args:
            inputs: (N, C, H, W) in [0, 1].
            neuron_selector: an int is a unit of the linked representation; a tuple indexes the layer's own dims where
                these were flattened, slices raise several units together.
            additional_forward_args: passed on to the model; a tensor with one entry for each sample is cut along
                with the inputs, any other is passed whole (:func:`~xinc_captum.batch.settle_arguments` decides).
            attribute_to_neuron_input: whether the layer's input is linked; None takes what the link's manifest says,
                and without one the output.
            internal_batch_size: at most so many rows a forward.
            direction: "partial", the formula; "marginal" or "within_class": where the sweeps of that name go.

        Returns:
            >= 0, like the inputs: resized to them, and averaged over channels where the generator has others. A
            generator that cannot be differentiated is given a central difference.
        """
        images, answers = check_images(inputs), []
        batch = Batch.of(images, additional_forward_args)
        pieces = chunks(batch.rows, internal_batch_size or batch.rows)
        if len(pieces) > 1:
            call = as_called(differentiable(self._parts.forward_func), images.device.type)
            with protected(self._parts, images.device):
                batch = settled_rows(self._parts, call, batch)
        for start, stop in pieces:
            part = batch.cut(start, stop)
            with scene(self._parts, part.inputs[0], part.args, attribute_to_neuron_input, internal_batch_size) as view:
                units = columns(neuron_selector, view.shape, self._parts.link.alive)
                answers.append(laid_over(change_map(view, units, direction), view.inputs))
        return _echoed(inputs, torch.cat(answers))

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
        """The inputs redrawn with the unit at ``value``, like the inputs, for ``captum.robust`` and everyone else.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            neuron_selector: one unit, as for :meth:`attribute`.
            value: of the unit, one number.
            additional_forward_args: as for :meth:`attribute`.
            attribute_to_neuron_input: as for :meth:`attribute`.
            internal_batch_size: at most so many pictures a forward.
            **options: mode, direction and latents, as for :meth:`sweep`.
        """
        how = Sweeping(values=[float(value)], **options)
        view_of = scene(self._parts, inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size)
        with view_of as view:
            unit = one_column(neuron_selector, view.shape, self._parts.link.alive)
            latents = how.planned(view, how.anchor(view), unit)[2][:, 0]
            parts = [view.loop.draw(latents[a:b]) for a, b in chunks(len(latents), view.loop.limit)]
            return _echoed(inputs, laid_over(torch.cat(parts), view.inputs))

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
        """The inputs redrawn with the unit at each value, and what the network sees in every frame.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            neuron_selector: one unit, as for :meth:`attribute`.
            values: numbers (S,), or a span of the link: "quantile" (5 % to 95 %), "minmax" or "sd".
            additional_forward_args: as for :meth:`attribute`.
            attribute_to_neuron_input: as for :meth:`attribute`.
            internal_batch_size: at most so many pictures a forward; 256 where None.
            **options: steps=5 over a span; mode="anchored" or "replace"; direction="marginal", "partial" or
                "within_class"; latents= anchors (:class:`Sweeping` explains each). The paper's sweep is
                ``values="minmax", mode="replace", direction="partial"``.
        """
        return next(
            self.sweeps(
                inputs,
                [neuron_selector],
                values,
                additional_forward_args,
                attribute_to_neuron_input,
                internal_batch_size,
                **options,
            )
        )

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
        """One :meth:`sweep` after another, units in common batches; nothing is kept of those already handed over.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            neuron_selectors: several units; None takes every live unit of the link.
            values: as for :meth:`sweep`, the same for all.
            additional_forward_args: as for :meth:`attribute`.
            attribute_to_neuron_input: as for :meth:`attribute`.
            internal_batch_size: at most so many pictures a forward; 256 where None. More units than fill one wait.
            show_progress: a bar over the units.
            **options: as for :meth:`sweep`.
        """
        how = Sweeping(values=values, **options)
        alive = self._parts.link.alive
        given = alive.nonzero()[:, 0].tolist() if neuron_selectors is None else list(neuron_selectors)
        if not given:
            raise ValueError("neuron_selectors is empty; give at least one unit, or None for every live one.")
        view_of = scene(self._parts, inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size)
        with view_of as view:
            units = [one_column(one, view.shape, alive) for one in given]
            anchor, at_once = how.anchor(view), units_at_once(view, how)
        pieces = [units[start:stop] for start, stop in chunks(len(units), at_once)]
        return self._streamed(view, anchor, pieces, how, show_progress)

    def _streamed(
        self, view: Scene, anchor: Shown, pieces: list[list[int]], how: Sweeping, show: bool
    ) -> Iterator[UnitSweep]:
        for piece in progress(pieces, "sweeps", show=show):
            with protected(self._parts, view.inputs.device):
                done = swept(view, anchor, piece, how)
            yield from done

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
        """The inputs redrawn until the classifier says the target, in a bounded number of steps.

        Args:
            inputs: (N, C, H, W) in [0, 1].
            target: the class to reach, or one a row.
            method: "ray" (a line search, no gradient of the generator), "latent" (Adam through generator and
                classifier), "minimal" (the shortest shift that convinces a linear head, with a proven bound) or
                "linking_in_style" (the paper's update); or one of these with options, such as
                :class:`xinc_captum.attributions.linking.counterfactuals.Ray` (top=10).
            additional_forward_args: as for :meth:`attribute`.
            attribute_to_neuron_input: as for :meth:`attribute`.
            internal_batch_size: at most so many pictures a forward; 256 where None.
            origin: the class to leave, or one a row; None takes the model's class of each input (its second choice
                where that is the target already).
            confidence: probability that the target must reach, in [0, 1).
            probability: what the model's scores are, see :func:`xinc_captum.metrics.probabilities`.
        """
        view_of = scene(self._parts, inputs, additional_forward_args, attribute_to_neuron_input, internal_batch_size)
        with view_of as view:
            return searched(view, target, origin, method, confidence, probability)


def _echoed(inputs: Images, answer: Tensor) -> Images:
    """A tuple where the inputs were one, as Captum's metrics expect."""
    return (answer,) if isinstance(inputs, tuple) else answer
