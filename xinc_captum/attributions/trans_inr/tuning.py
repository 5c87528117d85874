"""Fine-tune many generated networks in one batch, or train controls from scratch."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...batch import python_index
from ...images import check_images
from ...inr.coordinates import pixel_centres
from ...inr.mlp import HypoNet
from .token_contribution import neuron_contributions
from .training import mean_psnr
from .trans_inr import OUT_BIAS, TransINR
from .writer import Weights, as_module, run_networks, stack_weights


class FineTuned(NamedTuple):
    """Networks after some steps of training, and their mean PSNR, in decibels."""

    inrs: list[HypoNet]
    psnr: float


def fine_tune(
    inrs: list[HypoNet], images: Tensor, steps: int, lr: float = 1e-2, *, mask: Tensor | None = None
) -> FineTuned:
    r"""Train each network on its image with ``steps`` of Adam; the given networks are not changed.

    .. math:: \min_{\theta_b} \; \mathrm{mean}_{c,p}\, (f_{\theta_b}(p) - x_b(p))^2

    Adam treats each parameter separately, so the networks of a batch are trained as if one by one. Training is
    deterministic.

    Args:
        inrs: networks of one architecture, one an image; ``model.generate(images)``, or :func:`independent_inits`.
        images: (B, C, H, W), floats in [0, 1].
        steps: 0 only measures the PSNR.
        lr: the learning rate.
        mask: (B, H, W) bool, the pixels to train on; the PSNR is of all.

    Raises:
        ValueError: another number of networks than of images, fewer than 0 steps, or images that are not finite.

    Example:
        >>> model, images = TransINR(seed=0), torch.rand(3, 1, 8, 8)
        >>> better = fine_tune(model.generate(images), images, 5)
        >>> better.psnr > fine_tune(model.generate(images), images, 0).psnr
        True

    Source: Chen & Wang (ECCV 2022), sec. 4.2, test-time optimisation.
    """
    if len(inrs) != len(images) or steps < 0:
        raise ValueError(
            f"there are {len(inrs)} networks for {len(images)} images and {steps} steps; expected one each, steps >= 0."
        )
    first = inrs[0].get_parameter("output.weight")
    size = (images.shape[2], images.shape[3])
    pixels = check_images(images).to(first).flatten(2).mT
    initial = stack_weights(inrs)
    parameters = [x.clone().requires_grad_(True) for x in (*initial.matrices, *initial.biases)]
    weights = Weights(tuple(parameters[: len(initial.matrices)]), tuple(parameters[len(initial.matrices) :]))
    optimizer = torch.optim.Adam(parameters, lr=lr)
    weight = torch.ones_like(pixels) if mask is None else mask.flatten(1)[..., None].to(pixels).expand_as(pixels)
    weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(1)
    with torch.no_grad():
        encoded = inrs[0].get_submodule("encoding")(pixel_centres(size, dtype=first.dtype, device=first.device))
    with torch.enable_grad():
        for _ in range(steps):
            loss = ((run_networks(encoded, weights) - pixels).square() * weight).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        outputs = run_networks(encoded, weights)
    networks = [
        as_module(inr, Weights(weights.matrices, tuple(b[i, 0] for b in weights.biases)), i)
        for i, inr in enumerate(inrs)
    ]
    return FineTuned(networks, mean_psnr(outputs, pixels))


def independent_inits(model: TransINR, count: int, *, seed: int = 0) -> list[HypoNet]:
    """Return networks of the architecture that ``model`` generates, with separate random weights.

    These networks are the control for corresponding neurons: their neurons of the same index are unrelated.

    Example:
        >>> first, second = independent_inits(TransINR(), 2)
        >>> bool((first.linear1.weight == second.linear1.weight).all())
        False
    """
    first = 1_000_003 * python_index(seed)  # the networks of two seeds differ, whatever their counts
    return [_random_network(model, first + i) for i in range(count)]


def identical_inits(model: TransINR, count: int, *, seed: int = 0) -> list[HypoNet]:
    """Return ``count`` copies of one random network: the control for the effect of common initial weights.

    Example:
        >>> first, second = identical_inits(TransINR(), 2)
        >>> bool((first.linear1.weight == second.linear1.weight).all()), first.output is second.output
        (True, False)
    """
    return [_random_network(model, seed) for _ in range(count)]


def neuron_canvases(inrs: list[HypoNet], size: tuple[int, int], layer: int = -2) -> Tensor:
    """Return the contribution of each neuron of a layer to each network's image: (B, neurons, C, H, W).

    The networks have one architecture. Layer -2 is the last hidden one; an unknown layer raises ValueError.

    Example:
        >>> neuron_canvases(TransINR(hidden=16, groups=4).generate(torch.rand(3, 1, 8, 8)), (8, 8)).shape
        torch.Size([3, 16, 1, 8, 8])
    """
    weights = stack_weights(inrs)
    count = len(weights.matrices)
    if not -count <= layer < count:
        raise ValueError(f"layer is {layer}; expected {-count} to {count - 1}.")
    reference = weights.matrices[0]
    encoded = inrs[0].get_submodule("encoding")(pixel_centres(size, dtype=reference.dtype, device=reference.device))
    canvases = []
    for i in range(len(inrs)):  # biases differ from network to network
        network = Weights(tuple(m[i : i + 1] for m in weights.matrices), tuple(b[i, 0] for b in weights.biases))
        shares, _ = neuron_contributions(encoded, network, layer % count)
        canvases.append(shares[0].movedim(0, -1).movedim(0, 1).unflatten(-1, size))
    return torch.stack(canvases)


def _random_network(model: TransINR, seed: int) -> HypoNet:
    like = model.tokens.places
    net = HypoNet(**model.writer.base.config, seed=seed).to(like)
    with torch.no_grad():
        net.get_parameter("output.bias").add_(OUT_BIAS)  # mid grey, the initial value of generated networks
    return net
