"""The default layers for distances and path vectors, and the modules of a model that depend on the images."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import (
    LayerError,
    eager,
    floats_of,
    has_places,
    is_scripted,
    modules_behind,
    of_this_thread,
    unit_axis,
)
from .activations import Activations, ImageModel

STRIDE = 8
MAX_TRIED = 8  # layers, until one responds to the images


def early_layer(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> nn.Module | None:
    """Return the last outer module whose output is the coarsest map of at least 1/8 of the images' size, or None.

    In a ResNet that is ``layer2``. In models without such maps (vision transformers) it is the module that ends after
    two fifths of all modules. Only modules whose output depends on the images, through gradients, are considered.

    Args:
        model: how images go through the model.
        images: (N, C, H, W).
        args: additional forward arguments.
        before: only modules that end before these are considered.
    """
    outputs = image_layers(model, images, args, before)
    order = [one.module for one in outputs]
    area = images.shape[-1] * images.shape[-2]
    fine = [one for one in outputs if one.map_size and one.map_size[0] * one.map_size[1] * STRIDE**2 * 1.2 >= area]
    chosen: nn.Module | None = None
    if fine:
        roots = modules_behind(model.forward_func)
        depth = {module: name.count(".") for root in roots for name, module in root.named_modules()}
        coarsest = min(one.map_size[0] * one.map_size[1] for one in fine)
        same_size = [one.module for one in fine if one.map_size[0] * one.map_size[1] == coarsest]
        outer = min(depth[m] for m in same_size)
        chosen = [m for m in same_size if depth[m] == outer][-1]
    elif order:
        chosen = order[2 * len(order) // 5]
    nearest = sorted(order, key=lambda m: abs(order.index(m) - order.index(chosen))) if chosen is not None else []
    return next((module for module in nearest[:MAX_TRIED] if _responds(model, images, args, module)), None)


def late_layers(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = (), count: int = 4
) -> list[nn.Module]:
    """Return up to ``count`` modules with at least four units, evenly over the second half of the pass.

    Early activations depend on the image more than on the feature; late ones differ between features.
    """
    modules = [one.module for one in image_layers(model, images, args, before) if max(one.shape[1:]) >= 4]
    half = len(modules) / 2
    positions = {int(half + half * (i + 1) / count) - 1 for i in range(count)}
    return [modules[position] for position in sorted(positions) if position >= 0]


@dataclass(frozen=True)
class LayerOutput:
    """The output of a module that depends on the images.

    Attributes:
        module: the module.
        shape: of its activation, (rows, ...).
        unit_axis: axis of the units.
        map_size: height and width of a map, else empty.
    """

    module: nn.Module
    shape: tuple[int, ...]
    unit_axis: int
    map_size: tuple[int, ...]


def image_layers(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> list[LayerOutput]:
    """Return the modules that run once and whose activation depends on the images, in the order in which they end.

    The activation is one float tensor (rows, ...) whose unit axis can be determined. It depends on the images where a
    gradient leads from it to them. Where no module is reached by gradients (the model runs under no_grad, or
    preprocessing leaves the graph), it depends on them where another image changes it.
    """
    roots = modules_behind(model.forward_func)
    modules = {m for root in roots for m in root.modules() if m is not root and not is_scripted(m)}
    calls, input_shape = _calls_by_gradient(model, images, args, modules)
    if not any(call.depends for call in calls):
        calls, input_shape = _calls_by_change(model, images, args, modules)
    first = min((i for i, call in enumerate(calls) if call.module in before), default=len(calls))
    counts = Counter(call.module for call in calls)
    around = {call.module for call in calls if any(b in set(call.module.modules()) for b in before)}
    outputs = []
    for call in calls[:first]:
        rows_first = len(call.shape) >= 2 and call.shape[0] == images.shape[0]
        if counts[call.module] > 1 or not call.depends or not rows_first or call.module in around:
            continue
        try:
            axis = unit_axis(call.shape, call.module, model.forward_func, entered=input_shape, loose=True)
        except LayerError:
            continue
        is_map = has_places(call.shape, axis, call.module, model.forward_func, input_shape)
        map_size = call.shape[1:axis] + call.shape[axis + 1 :] if is_map else ()
        outputs.append(LayerOutput(call.module, call.shape, axis, map_size))
    # Attention weights between tokens are no map either: modules that drop some, or mix the heads by a Linear.
    tokens = {(one.shape[1], one.shape[1]) for one in outputs if len(one.shape) == 3}
    return [replace(one, map_size=()) if one.map_size in tokens and _mixes(one.module) else one for one in outputs]


def _mixes(module: nn.Module) -> bool:
    """Return whether a module is a Linear or has no weights."""
    return isinstance(module, nn.Linear) or not any(True for _ in module.parameters())


@dataclass
class _Call:
    """One call of a module."""

    module: nn.Module
    shape: tuple[int, ...]
    depends: bool = False


def _run_with_hooks(
    modules: set[nn.Module], record: Callable[[nn.Module, Tensor | None], None], run: Callable[[], Activations]
) -> Activations:
    """Run a pass and record each module's activation: None where it is not one float tensor."""
    ours = of_this_thread()

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        if not ours(module):
            return
        try:
            tensors, _ = floats_of(output, module, str)
        except LayerError:
            tensors = ()
        record(module, tensors[0] if len(tensors) == 1 else None)

    with ExitStack() as stack:
        stack.enter_context(eager())
        for module in modules:
            stack.callback(module.register_forward_hook(after).remove)
        return run()


def _calls_by_gradient(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module]
) -> tuple[list[_Call], tuple[int, ...]]:
    """Return the calls of one pass; an output depends on the images where its node of the graph leads to them."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        start = leaf.clone()  # the model may write into its input, which a leaf does not allow
        goal = start.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        nodes: list[Any] = []
        calls: list[_Call] = []

        def record(module: nn.Module, value: Tensor | None) -> None:
            calls.append(_Call(module, () if value is None else tuple(value.shape)))
            nodes.append(None if value is None else value.grad_fn)

        try:
            activations = _run_with_hooks(modules, record, lambda: model.run(start, args, (), to_output=True))
        except RuntimeError:  # such as weights of inference mode; a fault of the model is raised by the other pass
            return [], ()
    leads: dict[Any, bool] = {goal: True}
    for call, node in zip(calls, nodes, strict=True):
        call.depends = node is not None and _leads(node, leads)
    return calls, activations.input_shape


def _leads(node: Any, known: dict[Any, bool]) -> bool:
    """Return whether a graph's node leads to one that is known to; each node is visited once over all calls."""
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
    model: ImageModel, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module]
) -> tuple[list[_Call], tuple[int, ...]]:
    """Return the calls of one pass; an output depends on the images where other images change it."""
    passes: list[list[tuple[_Call, Tensor | None]]] = []
    state = torch.get_rng_state()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    for inputs in (images, noise):
        torch.set_rng_state(state)
        calls: list[tuple[_Call, Tensor | None]] = []

        def record(module: nn.Module, value: Tensor | None, calls: Any = calls) -> None:
            sums = None if value is None else torch.stack([value.double().sum(), value.double().square().sum()])
            calls.append((_Call(module, () if value is None else tuple(value.shape)), sums))

        with torch.no_grad():
            run = partial(model.run, inputs, args, (), to_output=True)
            activations = _run_with_hooks(modules, record, run)
        passes.append(calls)
    for (call, sums), (_, changed) in zip(*passes, strict=False):
        call.depends = sums is not None and changed is not None and not torch.equal(sums, changed)
    return [call for call, _ in passes[0]], activations.input_shape


def _responds(model: ImageModel, images: Tensor, args: tuple[Any, ...], module: nn.Module) -> bool:
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
