"""List the layers of a model with their shapes, and choose the default layer of maps."""

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attributions.accentuation.activations import LayerOutput, ModelInputs, image_layers
from ..hooks import LayerError, eager, floats_of, of_this_thread, untouched
from ..image_model import ImageModel

DEFAULT_SIZE = 224  # of models whose input size is not known
MAX_TRIED = 4  # token blocks, from the last one, that are tried as the default layer


class LayerRow(NamedTuple):
    """A layer: its dotted name, its class, and the shape of its output for one image."""

    name: str
    kind: str
    shape: tuple[int, ...]


def zero_image(model: ImageModel | nn.Module, size: int | None = None) -> Tensor:
    """Return one black image, (1, C, size, size), of the model's dtype and on its device."""
    known, channels = (model.size, model.channels) if isinstance(model, ImageModel) else (None, None)
    side = size or known or DEFAULT_SIZE
    network = model.model if isinstance(model, ImageModel) else model
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(1, channels or 3, side, side, dtype=like.dtype, device=like.device)


def list_layers(model: ImageModel | nn.Module, size: int | None = None) -> list[LayerRow]:
    """Return the modules that run for one black image, in the order in which they end.

    A module that runs several times is listed once. The shape is that of its first float tensor; modules that return
    none are left out.

    Args:
        model: a model of :func:`load_model`, or any module of images (N, C, H, W).
        size: height and width of the image; None uses the model's ``size``, or 224.

    Returns:
        Rows of name, class and shape. The name is what ``layer=`` takes.

    Raises:
        RuntimeError: the error of the model itself if it cannot run an image of this size.

    Example:
        >>> list_layers(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), size=8)[0]
        LayerRow(name='0', kind='Conv2d', shape=(1, 4, 6, 6))
    """
    network = model.model if isinstance(model, ImageModel) else model
    names = {module: name for name, module in network.named_modules() if name}
    ours, rows = of_this_thread(), dict[str, LayerRow]()

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        if not ours(module):
            return
        try:
            tensors, _ = floats_of(output, module, str)
        except LayerError:
            return
        name = names[module]
        rows.setdefault(name, LayerRow(name, type(module).__name__, tuple(tensors[0].shape)))

    with untouched(model), eager(), torch.no_grad(), ExitStack() as stack:
        for module in names:
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(after).remove)
        model(zero_image(model, size))
    return list(rows.values())


def default_layer(model: ImageModel) -> str | None:
    """Return the dotted name of the layer that methods of maps use by default, or None if there is none.

    In a convolutional network it is the outermost module with the last map of more than one position. In a network
    whose output is a map it is the last one before the classes. In a vision transformer it is the last block of tokens
    on which the output depends: behind the last block, classifiers with a class token use that token alone.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> default_layer(ImageModel("net", net, lambda images: images, 8, ()))
        '0'
    """
    with untouched(model), torch.no_grad():
        output = model(zero_image(model))
    return choose_layer(model, output)[0]


def choose_layer(model: ImageModel, output: Tensor) -> tuple[str | None, str]:
    """Return the name of :func:`default_layer` and the arrangement of its tokens; ``output`` is that of one image."""
    image = zero_image(model)
    with untouched(model):
        layers = [one for one in image_layers(ModelInputs(model), image, ()) if not isinstance(one.module, nn.Identity)]
        names = {module: name for name, module in model.model.named_modules()}
        # A map with as many channels as the output has classes is the output, before it is enlarged.
        classes = output.shape[1] if output.dim() == 4 else None
        maps = [
            i
            for i, layer in enumerate(layers)
            if math.prod(layer.map_size or (1,)) > 1 and layer.shape[layer.unit_axis] != classes
        ]
        tokens = [i for i, layer in enumerate(layers) if len(layer.shape) == 3 and layer.shape[1] > 1]
        if maps and (len(maps) > len(tokens) or tokens[-1] < maps[-1]):
            return names[layers[maps[-1]].module], ""
        if not tokens:
            return None, ""
        module = _last_block(model, image, [layers[i] for i in tokens], names)
        return names[module], _token_text(next(one.shape for one in layers if one.module is module))


def _last_block(
    model: ImageModel, image: Tensor, tokens: Sequence[LayerOutput], names: dict[nn.Module, str]
) -> nn.Module:
    """Return the last block of tokens where more than one token has a gradient to the output."""
    numbered = [one.module for one in tokens if re.search(r"(^|[._])\d+$", names[one.module])]
    depth = min((names[module].count(".") for module in numbered), default=0)
    blocks = [module for module in numbered if names[module].count(".") == depth][-MAX_TRIED:]
    if not blocks:
        return tokens[-1].module
    values: dict[nn.Module, Tensor] = {}

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        values[module] = floats_of(output, module, str)[0][0]

    with torch.inference_mode(False), torch.enable_grad(), eager(), ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(after).remove)
        output = model((image + 0.5).requires_grad_())
        # Random weights: the sum of a normalised output is constant.
        weights = torch.rand(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
        activations = [values[block] for block in blocks]
        slopes = torch.autograd.grad((output * weights).sum(), activations, allow_unused=True)
    for block, slope in zip(reversed(blocks), reversed(slopes), strict=True):
        if slope is not None and int(slope[0].ne(0).any(1).sum()) > 1:
            return block
    return blocks[-2:][0]  # no gradient at all: a head whose initial weights are zero


def _token_text(shape: Sequence[int]) -> str:
    """Return how the tokens of a layer's output (1, tokens, channels) for a square image are arranged."""
    side = math.isqrt(shape[1])
    first = shape[1] - side * side
    rest = f" after {first} other token{'s' * (first > 1)}" if first else ""
    return f"{side} x {side} patches{rest}, {shape[2]} channels"
