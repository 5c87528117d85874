"""List the layers of a model with their shapes, and choose the default layer of maps."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attributions.accentuation.activations import LayerOutput, ModelInputs, image_layers
from ..batch import Batch, select_output
from ..hooks import ForwardFunc, LayerError, capture, eager, floats_of, of_this_thread, untouched
from ..hooks.layers import search_once
from ..hooks.layout import parents_of, parents_once, tensor_of
from ..image_model import ImageModel, zero_image

MAX_BLOCKS = 24  # how many of the last token modules are searched for one with a gradient


class LayerRow(NamedTuple):
    """A layer: its dotted name, its class, and the shape of its output for one image."""

    name: str
    kind: str
    shape: tuple[int, ...]


def list_layers(model: ImageModel | nn.Module, size: int | None = None) -> list[LayerRow]:
    """Return the modules that run for one black image, in the order in which their forward calls finish.

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


def last_map(
    model: ForwardFunc, images: Tensor, preprocess: Callable[[Tensor], Tensor] | None = None
) -> nn.Module | None:
    """Return the last module whose activation is a map with more than one position, or None.

    A map is (N, channels, h, w) or (N, h, w, channels), as determined by :func:`xinc_captum.hooks.unit_axis`. Modules
    that the images (N, C, H, W) in [0, 1] do not pass through are ignored. Of nested modules with the same map, such as
    a block and its last activation function, the outermost is returned.

    Tokens (N, positions, channels) of a vision transformer count as maps where
    :func:`~xinc_captum.attributions.token_grid.token_layout` lays them out. Of those outside attention and MLPs, the
    last one at whose patch tokens the gradient of the output is not zero is returned. If the model classifies by its
    class token, this is the norm before the last attention: patch tokens after it do not affect the output. If the
    model averages the patches, this is the last norm.

    The result is also None where most activations are tokens of unknown layout, and some of them come after the last
    map: the only map of such a model is that of its first layer. In a network whose output is a map, it is the last one
    with another number of channels than the output.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> last_map(model, torch.rand(1, 3, 8, 8))
        ReLU()
    """
    last = _last_map(model, images, preprocess)
    return None if last is None else last.module


def _last_map(model: ForwardFunc, images: Tensor, preprocess: Callable[[Tensor], Tensor] | None) -> LayerOutput | None:
    with untouched(model), parents_once(), search_once():
        inputs = ModelInputs(model, preprocess)
        layers = [one for one in image_layers(inputs, images, ()) if not isinstance(one.module, nn.Identity)]
        classes = _map_channels(inputs, images)
        maps = [
            i
            for i, layer in enumerate(layers)
            if math.prod(layer.map_size or (1,)) > 1 and layer.shape[layer.unit_axis] != classes
        ]
        tokens = [i for i, layer in enumerate(layers) if len(layer.shape) == 3 and layer.shape[1] > 1]
        after_maps = [layers[i] for i in tokens if not maps or i > maps[-1]]
        blocks = [one for one in after_maps if one.tokens and not _inside_block(one.module, model)]
        blocks = [one for one in blocks if not isinstance(one.module, nn.Linear)] or blocks  # a head of each patch
        if blocks:
            return _last_with_gradient(blocks, model, images, preprocess)
    if not maps or (len(maps) <= len(tokens) and tokens[-1] > maps[-1]):
        return None
    return layers[maps[-1]]


def _inside_block(module: nn.Module, model: ForwardFunc) -> bool:
    """Return whether a module is inside an attention or an MLP of a transformer."""
    kinds = ("attention", "attn", "mlp", "mlpblock", "ffn", "feedforward", "intermediate")
    names = [type(parent).__name__.lower() for parent in parents_of(module, model)]
    return any(name.endswith(kinds) or name.startswith(kinds[:2]) for name in names)


def _last_with_gradient(
    blocks: Sequence[LayerOutput], model: ForwardFunc, images: Tensor, preprocess: Callable[[Tensor], Tensor] | None
) -> LayerOutput:
    """Return the last module whose patch tokens have a gradient to the output; the last one if none has one."""
    blocks = blocks[-MAX_BLOCKS:]
    with torch.inference_mode(False), torch.enable_grad():
        with capture(model, [one.module for one in blocks]) as captured:
            inputs = images.detach().clone()
            output = model(inputs if preprocess is None else preprocess(inputs))
        try:
            scores = select_output(output, Batch.of(images, None, None), None)
            weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0)).to(scores)
            activations = [tensor_of(captured[one.module], one.module, model, len(images)) for one in blocks]
            slopes = torch.autograd.grad((scores * weights).sum(), activations, allow_unused=True)
        except (RuntimeError, TypeError, ValueError):  # no gradient, or an output that is no tensor
            return blocks[-1]
    for one, slope in zip(reversed(blocks), reversed(slopes), strict=True):
        if slope is not None and one.tokens and bool(one.tokens.grid(slope).ne(0).any()):
            return one
    return blocks[-1]


def _map_channels(inputs: ModelInputs, images: Tensor) -> int | None:
    """Return the number of channels of an output that is a map (N, channels, H, W), else None."""
    with torch.no_grad():
        output = inputs.run(images, (), (), to_output=True).output_or_container
    is_map = isinstance(output, Tensor) and output.dim() == 4 and math.prod(output.shape[2:]) > 1
    return output.shape[1] if is_map else None


def default_layer(model: ImageModel) -> str | None:
    """Return the dotted name of the layer that methods of maps use by default, :func:`last_map`, or None.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> default_layer(ImageModel("net", net, lambda images: images, 8, ()))
        '0'
    """
    return choose_layer(model)[0]


def choose_layer(model: ImageModel) -> tuple[str | None, str]:
    """Return the name of :func:`default_layer`, and the arrangement of its tokens as text, empty if it is a map."""
    last = _last_map(model, zero_image(model) + 0.5, None)
    if last is None:
        return None, ""
    name = next(name for name, module in model.model.named_modules() if module is last.module)
    if not last.tokens:
        return name, ""
    skip, (height, width) = last.tokens
    rest = f" after {skip} other token{'s' * (skip > 1)}" if skip else ""
    return name, f"{height} x {width} patches{rest}, {last.shape[-1]} channels"
