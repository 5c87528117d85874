"""Activations of a generator's layers, the features by which parts of images are segmented."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..hooks import ForwardFunc, LayerError, find_layer, layer_name, patch
from .protocol import Generator, images_in_unit_range

Read = Callable[[Tensor], Tensor]


def images_and_features(
    generator: Generator,
    latents: Tensor,
    layers: Sequence[nn.Module | str] | None = None,
    *,
    reads: Sequence[Read] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return images and the activations of ``layers``, from one forward pass.

    Args:
        generator: with modules behind its ``synthesize``.
        latents: (n, latent_dim).
        layers: modules or dotted names; None is the generator's ``feature_layers()``.
        reads: one function for each layer that is applied to its map during the forward pass; its result is stored
            instead of the map. A projection to few channels saves memory.

    Returns:
        (n, C, H, W) images in [0, 1] and one (n, channels, h, w) map a layer, in the layers' order.

    Raises:
        ValueError: no layers are given and there are no ``feature_layers()``; or a layer is given twice.
        LayerError: a layer is unknown, runs twice or never, or does not return maps.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 2, 2)), torch.nn.ConvTranspose2d(1, 3, 2, 2))
        >>> generator = from_callable(lambda w: net(w).sigmoid(), normal_latents(4))
        >>> images, (maps,) = images_and_features(generator, torch.zeros(5, 4), ["0"])
        >>> images.shape, maps.shape
        (torch.Size([5, 3, 4, 4]), torch.Size([5, 1, 2, 2]))
    """
    feature_layers = getattr(generator, "feature_layers", None)
    several = list(layers) if layers is not None else list(feature_layers()) if callable(feature_layers) else []
    if not several:
        raise ValueError(
            "no layers were given, and the generator has no feature_layers(); give modules or dotted names of layers "
            "that return maps, such as its blocks."
        )
    function = layer_root(generator)
    modules = [find_layer(function, layer) for layer in several]
    if len(set(modules)) != len(modules) or (reads is not None and len(reads) != len(modules)):
        raise ValueError(
            f"there are {len(several)} layers, {len(set(modules))} of them different, and "
            f"{len(several) if reads is None else len(reads)} reads; expected different layers and one read for each."
        )
    activations: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, read: Read | None) -> Callable[[Any], Any]:
        def edit(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dim() != 4 or len(value) != len(latents):
                shape = tuple(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise LayerError(
                    f"layer {layer_name(function, module)} returns {shape} for {len(latents)} latents; expected maps, "
                    f"({len(latents)}, channels, h, w). Choose a layer after it."
                )
            activations[module] = value if read is None else read(value)
            # the next layer may work in place, so it receives a copy of a stored map
            return value.clone() if read is None or value.requires_grad else value

        return edit

    with ExitStack() as stack:
        for module, read in zip(modules, reads if reads is not None else [None] * len(modules), strict=True):
            stack.enter_context(patch(function, module, keep(module, read)))
        images = images_in_unit_range(generator, latents)
    return images, [activations[module] for module in modules]


def stack_maps(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Return all maps enlarged to one size and concatenated, (n, all channels, H, W): the input of the paper's head."""
    return torch.cat([enlarge(m, size) for m in maps], 1)


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps upsampled by nearest neighbours; integer factors take half the time of ``interpolate`` on a CPU."""
    rows, columns = maps.shape[2:]
    if (rows, columns) == size:
        return maps
    if size[0] % rows or size[1] % columns:
        return F.interpolate(maps, size, mode="nearest")
    wide = maps[:, :, :, None, :, None].expand(-1, -1, -1, size[0] // rows, -1, size[1] // columns)
    return wide.reshape(*maps.shape[:2], *size)


def layer_root(generator: Generator) -> ForwardFunc:
    """Return the function or module behind which a generator's layers are found."""
    if isinstance(generator, nn.Module):
        return generator
    function: ForwardFunc = getattr(generator, "synthesize_function", generator.synthesize)
    return function
