"""Pick layers of a model by where they lie: one early, whose features hold what stands where; several later on."""

from typing import Any

import torch
from torch import Tensor, nn

from ..hooks import layer_name, modules_behind, of_this_thread
from .reading import Reader

STRIDE = 8


def early_layer(
    reader: Reader, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> nn.Module | None:
    """The last outer module whose output is a map of the coarsest kind up to an eighth of the images, or None.

    In a ResNet that is ``layer2``. Models without such maps (vision transformers) answer with the module that ends
    after two fifths of all of them.

    Args:
        reader: how images go through the model.
        images: (N, C, H, W), seen once, without gradients.
        args: additional forward arguments.
        before: only modules that end before these are considered.
    """
    ended = passed(reader, images, args, before)
    area = images.shape[-1] * images.shape[-2]
    fine = [(m, s[2] * s[3]) for m, s in ended if len(s) == 4 and s[2] * s[3] * STRIDE**2 * 1.2 >= area]
    if fine:
        roots = modules_behind(reader.forward_func)
        depth = {module: name.count(".") for root in roots for name, module in root.named_modules()}
        coarsest = min(size for _, size in fine)
        outer = min(depth[m] for m, size in fine if size == coarsest)
        return [m for m, size in fine if size == coarsest and depth[m] == outer][-1]
    return ended[2 * len(ended) // 5][0] if ended else None


def spaced_layers(
    reader: Reader, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = (), count: int = 4
) -> list[nn.Module]:
    """Up to ``count`` modules with at least four units, evenly over the second half of the pass, the last at its end.

    Earlier layers carry what is in the picture, whatever the feature; the later ones tell circuits apart.
    """
    ended = [module for module, shape in passed(reader, images, args, before) if max(shape[1:]) >= 4]
    half = len(ended) / 2
    places = {int(half + half * (i + 1) / count) - 1 for i in range(count)}
    return [ended[place] for place in sorted(places) if place >= 0]


def passed(
    reader: Reader, images: Tensor, args: tuple[Any, ...], before: tuple[nn.Module, ...] = ()
) -> list[tuple[nn.Module, tuple[int, ...]]]:
    """The modules that ran exactly once and hand over rows of floats, in the order they ended, and their shapes."""
    ended: list[tuple[nn.Module, tuple[int, ...]]] = []
    ours = of_this_thread()

    def note(module: nn.Module, _args: Any, output: Any) -> None:
        shape = tuple(output.shape) if isinstance(output, Tensor) and output.is_floating_point() else ()
        if ours(module):
            ended.append((module, shape))

    roots = modules_behind(reader.forward_func)
    handles = [m.register_forward_hook(note) for m in {m for root in roots for m in root.modules() if m is not root}]
    try:
        with torch.no_grad():
            reader.read(images, args, (), whole=True)
    finally:
        for handle in handles:
            handle.remove()
    first = min((i for i, (module, _) in enumerate(ended) if module in before), default=len(ended))
    counts: dict[nn.Module, int] = {}
    for module, _ in ended:
        counts[module] = counts.get(module, 0) + 1
    inside = {outer for outer, _ in ended if any(b in set(outer.modules()) for b in before)}
    return [
        (module, shape)
        for module, shape in ended[:first]
        if counts[module] == 1 and len(shape) >= 2 and shape[0] == images.shape[0] and module not in inside
    ]


def name_of(reader: Reader, layer: nn.Module) -> str:
    """The layer's dotted name."""
    return layer_name(reader.forward_func, layer).strip("'")
