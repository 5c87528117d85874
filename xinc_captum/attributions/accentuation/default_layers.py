"""Pick layers of a model by where they lie: one early, whose features hold what stands where; several later on."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import (
    LayerError,
    eager,
    floats_of,
    has_places,
    is_scripted,
    layer_name,
    modules_behind,
    of_this_thread,
    unit_axis,
)
from .activations import ImageModel, Seen

STRIDE = 8
TRIED = 8  # layers, until one responds to the images


def early_layer(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> nn.Module | None:
    """The last outer module whose output is a map of the coarsest kind up to an eighth of the images, or None.

    In a ResNet that is ``layer2``. Models without such maps (vision transformers) have the module that ends after two
    fifths of all of them. Only modules whose output depends on the images, through gradients, are considered.

    Args:
        model: how images go through the model.
        images: (N, C, H, W).
        args: additional forward arguments.
        before: only modules that end before these are considered.
    """
    ended = image_layers(model, images, args, before)
    order = [one.module for one in ended]
    area = images.shape[-1] * images.shape[-2]
    fine = [one for one in ended if one.places and one.places[0] * one.places[1] * STRIDE**2 * 1.2 >= area]
    chosen: nn.Module | None = None
    if fine:
        roots = modules_behind(model.forward_func)
        depth = {module: name.count(".") for root in roots for name, module in root.named_modules()}
        coarsest = min(one.places[0] * one.places[1] for one in fine)
        alike = [one.module for one in fine if one.places[0] * one.places[1] == coarsest]
        outer = min(depth[m] for m in alike)
        chosen = [m for m in alike if depth[m] == outer][-1]
    elif order:
        chosen = order[2 * len(order) // 5]
    nearest = sorted(order, key=lambda m: abs(order.index(m) - order.index(chosen))) if chosen is not None else []
    return next((module for module in nearest[:TRIED] if _responds(model, images, args, module)), None)


def spaced_layers(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = (), count: int = 4
) -> list[nn.Module]:
    """Up to ``count`` modules with at least four units, evenly over the second half of the pass, the last at its end.

    Earlier layers carry what is in the picture, whatever the feature; the later ones tell circuits apart.
    """
    ended = [one.module for one in image_layers(model, images, args, before) if max(one.shape[1:]) >= 4]
    half = len(ended) / 2
    places = {int(half + half * (i + 1) / count) - 1 for i in range(count)}
    return [ended[place] for place in sorted(places) if place >= 0]


@dataclass(frozen=True)
class LayerOutput:
    """A module that the images went through.

    Attributes:
        module: itself.
        shape: of its activation, (rows, …).
        unit_axis: which axis of it holds the units.
        places: height and width of a map, else empty.
    """

    module: nn.Module
    shape: tuple[int, ...]
    unit_axis: int
    places: tuple[int, ...]


def image_layers(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> list[LayerOutput]:
    """The modules that ran once, whose activation depends on the images, in the order in which they ended.

    The activation is one float tensor (rows, …) whose unit axis can be determined. It depends on the images where a
    gradient leads from it to them; where no module is reached by gradients (the model runs under no_grad, or
    preprocessing leaves the graph), where another image changes it.
    """
    roots = modules_behind(model.forward_func)
    modules = {m for root in roots for m in root.modules() if m is not root and not is_scripted(m)}
    notes, entered = _by_gradient(model, images, args, modules)
    if not any(note.depends for note in notes):
        notes, entered = _by_change(model, images, args, modules)
    first = min((i for i, note in enumerate(notes) if note.module in before), default=len(notes))
    counts = Counter(note.module for note in notes)
    inside = {note.module for note in notes if any(b in set(note.module.modules()) for b in before)}
    found = []
    for note in notes[:first]:
        rows_first = len(note.shape) >= 2 and note.shape[0] == images.shape[0]
        if counts[note.module] > 1 or not note.depends or not rows_first or note.module in inside:
            continue
        try:
            axis = unit_axis(note.shape, note.module, model.forward_func, entered=entered, loose=True)
        except LayerError:
            continue
        mapped = has_places(note.shape, axis, note.module, model.forward_func, entered)
        places = note.shape[1:axis] + note.shape[axis + 1 :] if mapped else ()
        found.append(LayerOutput(note.module, note.shape, axis, places))
    # Attention weights between tokens are no map either: modules that drop some, or mix the heads by a Linear.
    tokens = {(one.shape[1], one.shape[1]) for one in found if len(one.shape) == 3}
    return [replace(one, places=()) if one.places in tokens and _mixes(one.module) else one for one in found]


def _mixes(module: nn.Module) -> bool:
    """Whether a module is a Linear or has no weights."""
    return isinstance(module, nn.Linear) or not any(True for _ in module.parameters())


@dataclass
class _Note:
    """What one call of a module showed."""

    module: nn.Module
    shape: tuple[int, ...]
    depends: bool = False


def _hooked(modules: set[nn.Module], note: Callable[[nn.Module, Tensor | None], None], run: Callable[[], Seen]) -> Seen:
    """Run a pass and note each module's activation: None where it is not one float tensor."""
    ours = of_this_thread()

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        if not ours(module):
            return
        try:
            tensors, _ = floats_of(output, module, str)
        except LayerError:
            tensors = ()
        note(module, tensors[0] if len(tensors) == 1 else None)

    with ExitStack() as stack:
        stack.enter_context(eager())
        for module in modules:
            stack.callback(module.register_forward_hook(after).remove)
        return run()


def _by_gradient(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module]
) -> tuple[list[_Note], tuple[int, ...]]:
    """Notes of one pass; a module depends on the images where its node of the graph leads to them."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        start = leaf.clone()  # the model may write into its input, which a leaf does not allow
        goal = start.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        nodes: list[Any] = []
        notes: list[_Note] = []

        def note(module: nn.Module, value: Tensor | None) -> None:
            notes.append(_Note(module, () if value is None else tuple(value.shape)))
            nodes.append(None if value is None else value.grad_fn)

        try:
            seen = _hooked(modules, note, lambda: model.run(start, args, (), to_output=True))
        except RuntimeError:  # such as weights of inference mode; a fault of the model is raised by the other pass
            return [], ()
    leads: dict[Any, bool] = {goal: True}
    for one, node in zip(notes, nodes, strict=True):
        one.depends = node is not None and _leads(node, leads)
    return notes, seen.entered


def _leads(node: Any, known: dict[Any, bool]) -> bool:
    """Whether a graph's node leads to one that is known to; each node is visited once over all calls."""
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


def _by_change(
    model: ImageModel, images: Tensor, args: tuple[Any, ...], modules: set[nn.Module]
) -> tuple[list[_Note], tuple[int, ...]]:
    """Notes of one pass; a module depends on the images where other images change its activation."""
    passes: list[list[tuple[_Note, Tensor | None]]] = []
    state = torch.get_rng_state()
    others = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    for shown in (images, others):
        torch.set_rng_state(state)
        notes: list[tuple[_Note, Tensor | None]] = []

        def note(module: nn.Module, value: Tensor | None, notes: Any = notes) -> None:
            sums = None if value is None else torch.stack([value.double().sum(), value.double().square().sum()])
            notes.append((_Note(module, () if value is None else tuple(value.shape)), sums))

        with torch.no_grad():
            seen = _hooked(modules, note, lambda shown=shown: model.run(shown, args, (), to_output=True))  # type: ignore[misc]
        passes.append(notes)
    for (one, sums), (_, changed) in zip(*passes, strict=False):
        one.depends = sums is not None and changed is not None and not torch.equal(sums, changed)
    return [one for one, _ in passes[0]], seen.entered


def _responds(model: ImageModel, images: Tensor, args: tuple[Any, ...], module: nn.Module) -> bool:
    """Whether an activation moves with the images: its gradient along a random direction is not zero."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        try:
            value = model.run(leaf.clone(), args, (module,), to_output=False)(module)
            weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
            (slope,) = torch.autograd.grad((value * weights).sum(), leaf, allow_unused=True)
        except (LayerError, RuntimeError):
            return False
    return slope is not None and bool(slope.ne(0).any())


def name_of(model: ImageModel, layer: nn.Module) -> str:
    """The layer's dotted name."""
    return layer_name(model.forward_func, layer).strip("'")
