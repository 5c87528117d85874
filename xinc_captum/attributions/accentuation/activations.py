"""The layers of a model that reads images: their activations, and the default layers of distances and paths."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import output_tensor, read_output
from ...hooks import (
    Captured,
    ForwardFunc,
    LayerError,
    capture,
    eager,
    find_layer,
    floats_of,
    has_places,
    is_scripted,
    layer_name,
    modules_behind,
    of_this_thread,
    preprocesses,
    reach,
    unit_axis,
)
from ...hooks.layout import in_windows, parents_once, tensor_of
from ..token_grid import ADVICE, TokenLayout, token_layout, units_second
from .transforms import Size, resample

Layer = nn.Module | str
OUTPUT, INPUT = "labels", "input"  # Lucent's names for a model's output and its images
STRIDE = 8  # image pixels per position of the early layer along each side, at most
MAX_TRIED = 8  # number of layers that are tried until one responds to the images


@dataclass(frozen=True)
class ModelInputs:
    """A model and the arguments of :class:`.FeatureAccentuation` that determine how it processes images in [0, 1].

    Attributes:
        dtype: the model's dtype, where it is narrower than that of the optimization.
        call: function called instead of ``forward_func``: the same modules, perhaps with other weights.
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
        """Run the model on images (N, C, H, W); without ``to_output``, no further than the last of ``layers``."""
        shapes: list[tuple[int, ...]] = []

        def call() -> Any:
            x = images.to(self.dtype or images.dtype, copy=True)  # preprocess and the model may change it in place
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

    def with_forward_func(self, forward_func: ForwardFunc, call: ForwardFunc | None = None) -> "ModelInputs":
        """Return the same for a second model, without ``preprocess`` where that model has its own."""
        preprocess = None if preprocesses(forward_func) else self.preprocess
        return replace(self, forward_func=forward_func, call=call, preprocess=preprocess)


class MissingError(LookupError):
    """An objective reads a layer, ``args[0]`` of the error, that this pass did not record."""


class Activations:
    """The result of one forward pass: ``activations(layer)`` is that layer's activation, (rows, ...).

    "labels" is the output, "input" the images.

    Attributes:
        input_shape: shape of the model's input, after preprocessing.
        output_read: whether the output was accessed.
    """

    def __init__(
        self, model: ModelInputs, images: Tensor, captured: Captured | None, output: Any, input_shape: tuple[int, ...]
    ) -> None:
        self.model, self.images, self.input_shape, self.output_read = model, images, input_shape, False
        self._captured, self._output = captured, output
        self._all: Activations | None = None  # those of all images, if these are a selection
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
        value = tensor_of(self._captured[module], module, self.model.forward_func, self.rows)
        if value.dim() < 2:
            raise LayerError(
                f"layer {self._captured.name(module)} returns shape {tuple(value.shape)}; expected (rows, units, ...). "
                "Choose a layer with a unit axis."
            )
        return value

    def grid(self, layer: Layer) -> Tensor:
        """Return a layer's activation with its units on axis 1: (rows, units) or (rows, units, *positions)."""
        value, model = self(layer), self.model
        if value.dim() <= 2:
            return value
        if layer == INPUT or self._is_output(layer):
            return value if model.layer_to_grid is None else model.layer_to_grid(value)
        module = model.module(layer)
        return units_second(value, module, model.forward_func, self.input_shape, model.layer_to_grid, model.unit_axis)

    def unit_axis(self, layer: Layer) -> int:
        """Return the axis of a layer's units, for distances: it may also be determined by the modules around it."""
        shape, model = tuple(self(layer).shape), self.model
        if len(shape) <= 2 or layer == INPUT or self._is_output(layer):
            return 1
        module, forward_func = model.module(layer), model.forward_func
        try:
            return unit_axis(shape, module, forward_func, entered=self.input_shape, loose=True, advice=ADVICE)
        except LayerError:
            if model.unit_axis is not None:
                return unit_axis(shape, module, forward_func, requested=model.unit_axis)
            if isinstance(token_layout(shape, module, forward_func, self.input_shape), TokenLayout):
                return 2
            raise

    def _is_output(self, layer: Layer) -> bool:
        return layer == OUTPUT and not any(
            OUTPUT in dict(root.named_modules()) for root in modules_behind(self.model.forward_func)
        )

    @property
    def output_or_container(self) -> Any:
        """The model's output, after ``output_fn``; a container from which no tensor can be chosen is returned whole."""
        return read_output(self._output, self.rows, self.model.output_fn)

    @property
    def output(self) -> Any:
        """The model's output, after ``output_fn`` or :func:`~xinc_captum.batch.output_tensor`."""
        if self._all is not None:
            return self._all.output[self._index]
        self.output_read = True
        if self._output is None:
            raise MissingError(OUTPUT)
        if self.model.output_fn is not None:
            return self.model.output_fn(self._output)
        return output_tensor(self._output, self.rows)


def early_layer(
    model: ModelInputs, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> nn.Module | None:
    """Return the last outer module whose output is the coarsest map of at least 1/8 of the images' size, or None.

    In a ResNet that is ``layer2``. Maps of tokens count in models that have several sizes of them. In models without
    such maps, and in those whose tokens have one size (vision transformers), it is the module at two fifths of the
    order in which modules end. It responds to the images, and ends before the modules in ``before``.
    """
    outputs = image_layers(model, images, args, before)
    if not outputs:
        return None
    order = [one.module for one in outputs]
    area = images.shape[-1] * images.shape[-2]
    sizes = {one.tokens.size for one in outputs if one.tokens}
    maps = [(one, one.map_size) for one in outputs if one.map_size]
    maps += [(one, one.tokens.size) for one in outputs if one.tokens and len(sizes) > 1]
    fine = [(one, size) for one, size in maps if math.prod(size) * STRIDE**2 * 1.2 >= area]
    if fine and (len(sizes) != 1 or any(size not in sizes for _, size in fine)):
        roots = modules_behind(model.forward_func)
        depth = {module: name.count(".") for root in roots for name, module in root.named_modules()}
        coarsest = min(math.prod(size) for _, size in fine)
        same_size = sorted((one.module for one, size in fine if math.prod(size) == coarsest), key=order.index)
        outer = min(depth[m] for m in same_size)
        chosen = [m for m in same_size if depth[m] == outer][-1]
    else:
        chosen = order[2 * len(order) // 5]
    nearest = sorted(order, key=lambda m: abs(order.index(m) - order.index(chosen)))
    return next((module for module in nearest[:MAX_TRIED] if _responds(model, images, args, module)), None)


def late_layers(
    model: ModelInputs, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> list[nn.Module]:
    """Return up to four modules with at least four units, evenly over the second half of the pass.

    Early activations depend on the image more than on the feature; late ones differ between features.
    """
    layers = image_layers(model, images, args, before)
    modules = [one.module for one in layers if one.shape[one.unit_axis] >= 4]
    half = len(modules) / 2
    positions = {int(half + half * (i + 1) / 4) - 1 for i in range(4)}
    return [modules[position] for position in sorted(positions) if position >= 0]


@dataclass(frozen=True)
class LayerOutput:
    """A module whose activation, of shape (rows, ...), depends on the images.

    Attributes:
        map_size: size of a map of four axes, else empty.
        tokens: layout of (rows, tokens, channels), where it is known.
    """

    module: nn.Module
    shape: tuple[int, ...]
    unit_axis: int
    map_size: tuple[int, ...]
    tokens: TokenLayout | None = None


def image_layers(
    model: ModelInputs, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> list[LayerOutput]:
    """Return the modules that run once and whose activation depends on the images, in the order in which they end.

    The activation is one float tensor with a known unit axis. It depends on the images if a gradient leads from it to
    them. If this holds for no module (the model runs under no_grad, or preprocessing leaves the graph), it depends on
    them if another image changes it.
    """
    roots = modules_behind(model.forward_func)
    modules = {m for root in roots for m in root.modules() if m is not root and not is_scripted(m)}
    calls, input_shape = _calls_by_gradient(model, images, args, modules)
    if not any(call.depends for call in calls):
        calls, input_shape = _calls_by_change(model, images, args, modules)
    first = min((i for i, call in enumerate(calls) if call.module in before), default=len(calls))
    counts = Counter(call.module for call in calls)
    with parents_once():
        return _with_axes(model, calls[:first], counts, images.shape[0], before, input_shape)


def _with_axes(
    model: ModelInputs,
    calls: Sequence["_Call"],
    counts: Counter[nn.Module],
    rows: int,
    before: tuple[nn.Module, ...],
    input_shape: tuple[int, ...],
) -> list[LayerOutput]:
    outputs = []
    for call in calls:
        rows_first = len(call.shape) >= 2 and call.shape[0] == rows
        around = not set(before).isdisjoint(call.module.modules())
        if counts[call.module] > 1 or not call.depends or not rows_first or around:
            continue
        shape, module, forward_func = call.shape, call.module, model.forward_func
        layout = token_layout(shape, module, forward_func, input_shape) if len(shape) == 3 else ""
        try:
            axis = unit_axis(shape, module, forward_func, entered=input_shape, loose=True)
        except LayerError:
            if isinstance(layout, str):
                continue
            axis = 2
        is_map = has_places(shape, axis, module, forward_func, input_shape) and not in_windows(module, forward_func)
        map_size = shape[1:axis] + shape[axis + 1 :] if is_map else ()
        outputs.append(LayerOutput(module, shape, axis, map_size, None if isinstance(layout, str) else layout))
    # Attention weights, (tokens, tokens), are no map: the outputs of a softmax, a dropout, or a Linear over heads.
    tokens = {(one.shape[1], one.shape[1]) for one in outputs if len(one.shape) == 3}
    return [replace(one, map_size=()) if one.map_size in tokens and _mixes(one.module) else one for one in outputs]


def _mixes(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or not any(True for _ in module.parameters())


@dataclass
class _Call:
    """One call of a module."""

    module: nn.Module
    shape: tuple[int, ...]
    depends: bool = False


def _calls(
    model: ModelInputs, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module], mark: Callable[[Tensor], Any]
) -> tuple[list[_Call], list[Any], tuple[int, ...]]:
    """Run a pass; return the calls, ``mark`` of each output that is one float tensor (else None), the input's shape."""
    ours = of_this_thread()
    calls: list[_Call] = []
    marks: list[Any] = []

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        if not ours(module):
            return
        try:
            tensors, _ = floats_of(output, module, str)
        except LayerError:
            tensors = ()
        value = tensors[0] if len(tensors) == 1 else None
        calls.append(_Call(module, () if value is None else tuple(value.shape)))
        marks.append(None if value is None else mark(value))

    with ExitStack() as stack:
        stack.enter_context(eager())
        for module in modules:
            stack.callback(module.register_forward_hook(after).remove)
        return calls, marks, model.run(images, args, (), to_output=True).input_shape


def _calls_by_gradient(
    model: ModelInputs, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module]
) -> tuple[list[_Call], tuple[int, ...]]:
    """Return the calls of one pass; an output depends on the images where its node of the graph leads to them."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        start = leaf.clone()  # the model may write into its input, which a leaf does not allow
        try:
            calls, nodes, input_shape = _calls(model, start, args, modules, lambda value: value.grad_fn)
        except RuntimeError:  # such as weights of inference mode; a fault of the model is raised by the other pass
            return [], ()
    goal = start.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
    leads: dict[Any, bool] = {goal: True}
    for call, node in zip(calls, nodes, strict=True):
        call.depends = node is not None and _leads(node, leads)
    return calls, input_shape


def _leads(node: Any, known: dict[Any, bool]) -> bool:
    """Return whether an autograd node leads to one that is True in ``known``, which stores the results of all calls."""
    stack = [node]
    while stack:
        top = stack[-1]
        if top in known:
            stack.pop()
            continue
        inputs = [following for following, _ in top.next_functions if following is not None]
        unknown = [following for following in inputs if following not in known]
        if unknown:
            stack += unknown
            continue
        known[top] = any(known[following] for following in inputs)
        stack.pop()
    return known[node]


def _calls_by_change(
    model: ModelInputs, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module]
) -> tuple[list[_Call], tuple[int, ...]]:
    """Return the calls of one pass; an output depends on the images where other images change it."""
    state = torch.get_rng_state()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    passes = []
    for inputs in (images, noise):
        torch.set_rng_state(state)
        with torch.no_grad():
            passes.append(_calls(model, inputs, args, modules, _moments))
    (calls, before, _), (_, after, input_shape) = passes
    for call, one, other in zip(calls, before, after, strict=False):
        call.depends = one is not None and other is not None and not torch.equal(one, other)
    return calls, input_shape


def _moments(value: Tensor) -> Tensor:
    return torch.stack([value.double().sum(), value.double().square().sum()])


def _responds(model: ModelInputs, images: Tensor, args: tuple[Any, ...], module: nn.Module) -> bool:
    """Return whether the gradient of an activation along a random direction is not zero."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        try:
            value = model.run(leaf.clone(), args, (module,), to_output=False)(module)
            weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
            (slope,) = torch.autograd.grad((value * weights).sum(), leaf, allow_unused=True)
        except (LayerError, RuntimeError):
            return False
    return slope is not None and bool(slope.ne(0).any())
