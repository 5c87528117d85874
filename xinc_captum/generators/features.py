"""What the layers of a generator hold while it draws: the features that parts are told apart by."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..hooks import ForwardFunc, LayerError, capture, find_layer, layer_name
from .protocol import Generator, pictures_in_unit_range


def pictures_and_features(
    generator: Generator, latents: Tensor, layers: Sequence[nn.Module | str] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Pictures, and what ``layers`` handed on while they were drawn: one forward pass for both.

    Args:
        generator: any with modules behind its ``synthesize``.
        latents: (n, latent_dim).
        layers: modules or dotted names; None: the generator's own ``feature_layers()``.

    Returns:
        (n, C, H, W) pictures in [0, 1] and one (n, channels, h, w) map a layer, in the layers' order.

    Raises:
        ValueError: no layers are given and the generator names none.
        LayerError: a layer is unknown, runs twice or never, or hands over something else than maps.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 2, 2)), torch.nn.ConvTranspose2d(1, 3, 2, 2))
        >>> generator = from_callable(lambda w: net(w).sigmoid(), normal_latents(4))
        >>> pictures, (maps,) = pictures_and_features(generator, torch.zeros(5, 4), ["0"])
        >>> pictures.shape, maps.shape
        (torch.Size([5, 3, 4, 4]), torch.Size([5, 1, 2, 2]))
    """
    own = getattr(generator, "feature_layers", None)
    several = list(layers) if layers is not None else list(own()) if callable(own) else []
    if not several:
        raise ValueError(
            "no layers were given and the generator names none of its own (feature_layers()); give modules or dotted "
            "names of layers that hold maps, such as its blocks."
        )
    function = drawing(generator)
    modules = [find_layer(function, layer) for layer in several]
    with capture(function, modules) as captured:
        pictures = pictures_in_unit_range(generator, latents)
    maps = []
    for module in modules:
        value = captured[module]
        if not isinstance(value, Tensor) or value.dim() != 4 or len(value) != len(latents):
            shape = tuple(value.shape) if isinstance(value, Tensor) else f"a tuple of {len(value)}"
            raise LayerError(
                f"layer {layer_name(function, module)} hands over {shape} for {len(latents)} latents; parts want maps, "
                f"({len(latents)}, channels, h, w). Choose a layer after it."
            )
        maps.append(value if torch.is_grad_enabled() else value.detach())
    return pictures, maps


def stacked(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """All maps side by side at one size, by nearest neighbours, as the paper's head takes them.

    Args:
        maps: (n, channels, h, w) each.
        size: (H, W).

    Returns:
        (n, all channels, H, W).

    Example:
        >>> stacked([torch.zeros(1, 2, 2, 2), torch.ones(1, 3, 4, 4)], (4, 4)).shape
        torch.Size([1, 5, 4, 4])

    Source: Tritrong et al., "Repurposing GANs for One-shot Semantic Part Segmentation" (CVPR 2021).
    """
    return torch.cat([enlarged(m, size) for m in maps], 1)


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbours; by whole factors in half the time that ``interpolate`` takes on a CPU.

    Example:
        >>> enlarged(torch.tensor([[[[1.0, 2.0]]]]), (1, 4)).flatten()
        tensor([1., 1., 2., 2.])
    """
    rows, columns = maps.shape[2:]
    if (rows, columns) == size:
        return maps
    if size[0] % rows or size[1] % columns:
        return F.interpolate(maps, size, mode="nearest")
    wide = maps[:, :, :, None, :, None].expand(-1, -1, -1, size[0] // rows, -1, size[1] // columns)
    return wide.reshape(*maps.shape[:2], *size)


def drawing(generator: Generator) -> ForwardFunc:
    """Where to look for a generator's layers: itself if it is a module, else behind what draws for it."""
    if isinstance(generator, nn.Module):
        return generator
    function: ForwardFunc = getattr(generator, "_synthesize", generator.synthesize)
    return function
