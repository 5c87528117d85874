"""Class NeuronCanvas, and canvases() for several layers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from ..._compat import GradientAttribution, InternalAttribution
from ...batch import Batch, OutputFn, Selector, call_model, chunks, python_index, settle_arguments
from ...hooks import (
    ForwardFunc,
    check_call,
    exclusive,
    find_layer,
    layer_name,
    modules_behind,
    refuse_sharded,
    snapshot,
    unwrap,
)
from ...progress import progress
from ..base import attribution_context, captum_method, differentiable, plain
from .build import CanvasSpec, build_canvas
from .canvas import Canvas
from .points import PointTail, compose_points, points_of
from .rules import Rule, Secant, Tail, Tangent, Xinc, as_rule
from .rules.derivatives import SharedPass
from .rules.rules import plan_chunks
from .rules.tail import RayTail, Renderer, compose_renderer


class NeuronCanvas(InternalAttribution, GradientAttribution):  # type: ignore[misc]
    r"""Contributions of every neuron to every output value that ``target`` selects.

    .. math:: C_{r,u,o} = \text{the contribution of unit } u \text{ to } y_{r,o} \text{ under the rule}

    Symbols: r a row (for a coordinate network, a pixel), u a unit of the layer, y_{r,o} the output o (a colour channel)
    of row r. Unlike in Captum's neuron methods, the result includes the output's dimensions: (rows, neurons, *output).

    Args:
        forward_func: the model, or any function around it.
        layer: a module or a dotted name.
        device_ids: unused, part of Captum's signature; of a DataParallel model the wrapped module is explained.
        rule: "tangent", "secant", "ablation", "xinc", or a rule object, which has options.
        unit: "neuron" (one unit axis) or "pair" (an input unit and an output unit of a Linear: two axes).
        output_fn: reads the tensor to explain from the model's output; None uses
            :func:`~xinc_captum.batch.output_tensor`, which reads scores of transformers and torchvision models too.
        render: for a radiance field: ``render(outputs, *inputs)`` maps the model's outputs at samples, (rays,
            samples, ...), to pixels, (rays, ...). Inputs are (rays, samples, ...), the model gets (rays · samples,
            ...), rows of the result are rays, and contributions are summed over a ray's samples.
        unit_axis: the axis of the layer's activation that has the units, for example -1 for (rows, ..., units); the
            other axes are summed. None determines it from the layer's class; for four and more axes also from the
            input's height and width and the modules inside the layer. Not for ``unit="pair"``.
        call: which call of the layer to explain, from 0, if the model calls it several times in one forward pass, such
            as a shared activation function; other calls belong to the model before or after. Not for ``rule="xinc"``.

    Raises:
        LayerError: the layer is not in the model, never runs, runs several times without ``call``, or does not affect
            the output; or its unit axis cannot be determined, for example for tokens of a custom module.
        CarryError: the secant does not support an operation after the layer.
        ValueError: unknown rule or unit, invalid target, or empty batch.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> coordinates = torch.rand(64, 2)
        >>> NeuronCanvas(model, "1").attribute(coordinates).shape
        torch.Size([64, 4, 3])

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024).
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        device_ids: list[int] | None = None,
        *,
        rule: str | Rule = "tangent",
        unit: Literal["neuron", "pair"] = "neuron",
        output_fn: OutputFn | None = None,
        render: Renderer | None = None,
        unit_axis: int | None = None,
        call: int | None = None,
    ) -> None:
        check_call(call)
        if unit not in ("neuron", "pair"):
            raise ValueError(f'unit is {unit!r}; expected "neuron" or "pair".')
        InternalAttribution.__init__(self, forward_func, find_layer(forward_func, layer), device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.rule = as_rule(rule)
        self.unit = unit
        self.output_fn = output_fn
        self.unit_axis = unit_axis
        self.render = render
        self.call = call
        if call is not None and isinstance(self.rule, Xinc):
            raise ValueError(
                f"call={call} goes with the rules tangent, secant and ablation; the paper's maps are those of layers "
                "that run once."
            )
        if unit_axis is not None and self._reads_weight:
            raise ValueError(
                f'unit_axis={unit_axis} goes with unit="neuron" and the rules tangent, secant and ablation: pairs and '
                "the 'xinc' rule read the weight of a Linear (rows, units) or of a convolution (rows, units, ...)."
            )
        if render is not None and not callable(render):
            raise TypeError(
                f"render is {render!r}; expected a function render(outputs, *inputs) from samples to pixels."
            )
        if render is not None and self._reads_weight:
            raise ValueError(
                'render= goes with unit="neuron" and the rules tangent, secant and ablation: pairs and the paper\'s '
                "maps at samples do not sum to a rendered pixel."
            )

    @property
    def _reads_weight(self) -> bool:
        """Whether contributions are computed from the weight of the layer."""
        return self.unit == "pair" or isinstance(self.rule, Xinc)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: contributions are parts of the output, not sensitivities."""
        return True

    def has_convergence_delta(self) -> bool:
        """Return True: ``attribute(..., return_convergence_delta=True)`` is supported."""
        return True

    @overload
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        neuron_selector: Selector = ...,
        target: Any = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        perturbations_per_eval: int | None = ...,
        memory_budget: int | None = ...,
        return_convergence_delta: Literal[False] = ...,
        show_progress: bool = ...,
    ) -> Tensor: ...

    @overload
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        neuron_selector: Selector = ...,
        target: Any = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        perturbations_per_eval: int | None = ...,
        memory_budget: int | None = ...,
        *,
        return_convergence_delta: Literal[True],
        show_progress: bool = ...,
    ) -> tuple[Tensor, Tensor]: ...

    @captum_method
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        neuron_selector: Selector = None,
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        perturbations_per_eval: int | None = None,
        memory_budget: int | None = None,
        return_convergence_delta: bool = False,
        show_progress: bool = False,
    ) -> Any:
        """Return the contributions of every selected neuron to every output that ``target`` selects.

        Args:
            inputs: (rows, ...) or a tuple of such tensors. A sample of points (1, points, dims) is one row, and its
                output dimensions are (points, channels); :meth:`canvas` splits it into points.
            neuron_selector: None for all units; an int, a tuple (an index of the layer's axes after the rows) or a
                callable, as in Captum, for one; a list of these for several, in that order. With ``unit="pair"`` a
                tuple (in, out) or a list of tuples.
            target: a Captum target, or None; the output dimensions that it does not index are those of the result.
            additional_forward_args: passed to the model (:func:`~xinc_captum.batch.settle_arguments`).
            attribute_to_layer_input: explain the layer's input instead of its output.
            perturbations_per_eval: units stacked in one forward pass (ablation, forward mode); None: from the budget.
            memory_budget: bytes of working memory apart from the result; rows are cut to fit. None: 256 MiB.
            return_convergence_delta: also return (rows,), the sum over units and outputs minus its exact value.
            show_progress: a progress bar over the chunks.

        Returns:
            (rows, neurons, *output), or (rows, in, out, *output) for pairs. Without a selector the secant adds the
            remainder as the last unit.
        """
        if return_convergence_delta and neuron_selector is not None:
            raise ValueError(
                "return_convergence_delta needs neuron_selector=None: only the sum of all units equals the output."
            )
        neuron_selector = python_index(neuron_selector)
        if isinstance(self.rule, Secant) or self._reads_weight:
            description = f"NeuronCanvas with rule {type(self.rule).__name__} and unit {self.unit!r}"
            refuse_sharded(modules_behind(self.forward_func), description)
        with self._surroundings():
            batch = Batch.of(inputs, additional_forward_args, target)
            tail = self._tail(self._call, attribute_to_layer_input)
            batch = settle_arguments(batch, partial(call_model, tail.forward_func, self.output_fn))
            chunk_plan = plan_chunks(self.rule, tail, batch, self.unit == "pair", memory_budget, perturbations_per_eval)
            rule, max_rows = chunk_plan.rule, chunk_plan.max_rows
            contributions = rule.pairs if self.unit == "pair" else rule.neurons
            if self.unit == "neuron":
                neuron_selector = tail.move_selector(neuron_selector, chunk_plan.footprint.activation)
            if isinstance(rule, Xinc) and memory_budget is None:
                max_rows = batch.rows  # computed in place: chunks would only add copies
            result: Tensor | None = None
            deltas: list[Tensor] = []
            for first, last in progress(chunks(batch.rows, max_rows), "canvas", show=show_progress):
                rows = batch.cut(first, last)
                chunk = plain(contributions(tail, rows, neuron_selector, chunk_plan.max_units))
                if return_convergence_delta:
                    total = rule.total(tail, rows).reshape(rows.rows, -1).sum(1)
                    deltas.append(plain(chunk.flatten(1).sum(1) - total))
                if last - first == batch.rows:
                    result = chunk
                else:
                    result = chunk.new_empty((batch.rows, *chunk.shape[1:])) if result is None else result
                    result[first:last] = chunk
        return (result, torch.cat(deltas)) if return_convergence_delta else result

    @property
    def _surroundings(self) -> Callable[[], AbstractContextManager[None]]:
        """The context of every call; it restores the model and the modules of the renderer."""
        also = () if self.render is None else modules_behind(self.render)
        return partial(attribution_context, self.forward_func, self.layer, *also)

    @property
    def _call(self) -> Callable[..., Any]:
        """The function to run: the module inside DataParallel (rows are cut here), followed by the renderer."""
        owner = getattr(self.forward_func, "__self__", None)
        parallel = [m for m in (self.forward_func, owner) if isinstance(m, nn.DataParallel)]
        call = unwrap(parallel[0]) if parallel else self.forward_func
        call = call if self.render is None else compose_renderer(call, self.render)
        return call if parallel else differentiable(call, self.layer)

    def _tail(self, call: Callable[..., Any], at_input: bool, kind: type[Tail] | None = None) -> Tail:
        # Pairs are always computed from the layer's input; only Xinc requires attribute_to_layer_input=True.
        at_input = at_input or (self.unit == "pair" and not isinstance(self.rule, Xinc))
        kind = kind or (Tail if self.render is None else RayTail)
        output_fn = None if kind is PointTail else self.output_fn  # compose_points() reads the output
        unit_axis = 1 if self._reads_weight else self.unit_axis
        return kind(call, self.layer, at_input, output_fn, unit_axis=unit_axis, call=self.call)

    def canvas(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        size: tuple[int, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        perturbations_per_eval: int | None = None,
        memory_budget: int | None = None,
        show_progress: bool = False,
    ) -> Canvas:
        """Return a lazy canvas of an image whose pixels are the rows, or of images that are the rows.

        ``inputs`` are coordinates (pixels, dims), row-major over ``size``: (H, W), or (L,) and (D, H, W) for 1-D and
        3-D signals. One sample of points, (1, pixels, dims), is split into its points if the model returns
        (1, pixels, channels), as code for SIRENs does. If the shape of each row of the output ends in ``size``, rows
        are frames and the result is a :class:`~xinc_captum.attributions.FrameCanvas`. The other arguments are those of
        :meth:`attribute`; the memory budget is that of each query.

        Maps are computed by queries only. The canvas stores the inputs and a copy of the parameters, so its results do
        not change with further training.

        Raises:
            ValueError: the rows do not match ``size``, values are not finite, unit is "pair" and rows are pixels, or
                points of one sample depend on each other.

        Example:
            >>> from xinc_captum.inr import FourierMLP, coordinates
            >>> canvas = NeuronCanvas(FourierMLP(), "activation2").canvas(coordinates((8, 12)), size=(8, 12))
            >>> canvas.map(3).shape, canvas.totals().shape
            (torch.Size([3, 8, 12]), torch.Size([104, 3]))
        """
        (canvas,) = _build_canvases(
            [self],
            (inputs, additional_forward_args, target),
            size,
            attribute_to_layer_input,
            per_eval=perturbations_per_eval,
            memory_budget=memory_budget,
            show_progress=show_progress,
        )
        return canvas


def canvases(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module | str],
    inputs: Tensor | tuple[Tensor, ...],
    size: tuple[int, ...],
    target: Any = None,
    additional_forward_args: Any = None,
    attribute_to_layer_input: bool = False,
    perturbations_per_eval: int | None = None,
    memory_budget: int | None = None,
    show_progress: bool = False,
    **method: Any,
) -> dict[str, Canvas]:
    """Return one lazy canvas for each layer, equal to ``NeuronCanvas(forward_func, layer, **method).canvas(...)``.

    The result is a dict by layer name, in the order of ``layers``, which are modules or dotted names. Arguments from
    ``inputs`` on are those of :meth:`NeuronCanvas.canvas`; ``method`` are the keyword-only arguments of
    :class:`NeuronCanvas`: ``rule``, ``unit``, ``output_fn``, ``render``, ``unit_axis`` and ``call``.

    The canvases share one copy of the parameters and, under the tangent and the secant, the last forward pass: a query
    of the same rows at another layer does not run the model again. If the rows are frames, this needs layers on one
    chain of operations without branches. ``Ablation`` and ``Xinc`` run the model for each layer.

    Raises:
        ValueError: no layers, or one layer twice; and the errors of ``NeuronCanvas``.

    Example:
        >>> from xinc_captum.inr import FourierMLP, coordinates
        >>> both = canvases(FourierMLP(), ["activation1", "activation2"], coordinates((8, 12)), (8, 12))
        >>> {name: canvas.totals().shape for name, canvas in both.items()}
        {'activation1': torch.Size([104, 3]), 'activation2': torch.Size([104, 3])}

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), which analyses every layer.
    """
    methods = [NeuronCanvas(forward_func, layer, **method) for layer in layers]
    if not methods or len({id(one.layer) for one in methods}) < len(methods):
        raise ValueError(f"layers are {list(layers)!r}; expected at least one, and each only once.")
    canvases_of_layers = _build_canvases(
        methods,
        (inputs, additional_forward_args, target),
        size,
        attribute_to_layer_input,
        per_eval=perturbations_per_eval,
        memory_budget=memory_budget,
        show_progress=show_progress,
    )
    names = [layer_name(forward_func, method.layer).strip("'") for method in methods]
    return dict(zip(names, canvases_of_layers, strict=True))


@exclusive()  # another thread's call may replace the parameters while they are copied
def _build_canvases(
    methods: Sequence[NeuronCanvas],
    batch_arguments: tuple[Any, Any, Any],
    size: tuple[int, ...],
    at_input: bool,
    **options: Any,
) -> list[Canvas]:
    """Return one canvas for each method; all share one copy of the model's parameters and one forward pass.

    ``batch_arguments`` are those of :meth:`Batch.of`, ``options`` the last fields of :class:`CanvasSpec`.
    """
    with torch.inference_mode(False):
        batch = Batch.of(*batch_arguments)
    call = snapshot(methods[0]._call, *(method.layer for method in methods))
    tails = [method._tail(call, at_input) for method in methods]
    with methods[0]._surroundings():
        points = None if methods[0].render else points_of(batch, size, call, methods[0].output_fn)
        if points is not None:
            call = compose_points(call, methods[0].output_fn, len(batch.inputs))
            batch, tails = points, [method._tail(call, at_input, PointTail) for method in methods]
        batch = settle_arguments(batch, partial(call_model, call, tails[0].output_fn))
    if len(tails) > 1 and isinstance(methods[0].rule, Tangent | Secant):
        # Contributions of pairs are propagated from the layer's output.
        shared_pass = SharedPass([tail.after_layer() if methods[0].unit == "pair" else tail for tail in tails])
        tails = [replace(tail, shared_pass=shared_pass) for tail in tails]
    results = []
    for method, tail in zip(methods, tails, strict=True):
        surroundings, name = method._surroundings, layer_name(method.forward_func, method.layer).strip("'")
        name += "" if method.call is None else f" (call {method.call})"
        spec = CanvasSpec(
            method.rule, tail, batch, tuple(size), method.unit == "pair", surroundings, layer=name, **options
        )
        with surroundings():
            results.append(build_canvas(spec))
    return results
