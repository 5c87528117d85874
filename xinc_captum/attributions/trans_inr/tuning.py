"""Networks of pictures trained one by one, all at once: the written ones further, or controls from scratch."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...images import check_images
from ...inr import HypoNet, pixel_centres
from .shares import neuron_shares
from .training import mean_psnr
from .trans_inr import OUT_BIAS, TransINR
from .writer import Weights, as_module, run_networks, stack_weights


class FineTuned(NamedTuple):
    """Networks after some steps of training, and the mean of their PSNR, in decibels."""

    inrs: list[HypoNet]
    psnr: float


def fine_tune(
    inrs: list[HypoNet], images: Tensor, steps: int, lr: float = 1e-2, *, seen: Tensor | None = None
) -> FineTuned:
    r"""Train each network on its own picture, ``steps`` of Adam; those given stay as they are.

    .. math:: \min_{\theta_b} \; \mathrm{mean}_{c,p}\, (f_{\theta_b}(p) - x_b(p))^2

    Adam looks at each number alone, so that networks side by side are as if trained one after another. Nothing is
    drawn at random.

    Args:
        inrs: networks of one architecture, one a picture; ``model.generate(images)``, or :func:`independent_inits`.
        images: (B, C, H, W), floats in [0, 1].
        steps: 0 only measures.
        lr: the rate.
        seen: (B, H, W) bool, the pixels that may be trained on; the PSNR is of all.

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
            f"there are {len(inrs)} networks for {len(images)} images and {steps} steps; expected one each."
        )
    first = inrs[0].get_parameter("output.weight")
    size = (images.shape[2], images.shape[3])
    pixels = check_images(images).to(first).flatten(2).mT
    start = stack_weights(inrs)
    numbers = [x.clone().requires_grad_(True) for x in (*start.matrices, *start.biases)]
    weights = Weights(tuple(numbers[: len(start.matrices)]), tuple(numbers[len(start.matrices) :]))
    optimizer = torch.optim.Adam(numbers, lr=lr)
    weight = torch.ones_like(pixels) if seen is None else seen.flatten(1)[..., None].to(pixels).expand_as(pixels)
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
        drawn = run_networks(encoded, weights)
    done = [
        as_module(inr, Weights(weights.matrices, tuple(b[i, 0] for b in weights.biases)), i)
        for i, inr in enumerate(inrs)
    ]
    return FineTuned(done, mean_psnr(drawn, pixels))


def independent_inits(model: TransINR, count: int, *, seed: int = 0) -> list[HypoNet]:
    """Networks of the architecture that ``model`` writes, each from random weights of its own.

    The control for neurons that correspond: here index i means nothing.

    Example:
        >>> first, second = independent_inits(TransINR(), 2)
        >>> bool((first.linear1.weight == second.linear1.weight).all())
        False
    """
    return [_fresh(model, seed * count + i) for i in range(count)]


def shared_inits(model: TransINR, count: int, *, seed: int = 0) -> list[HypoNet]:
    """The same random network ``count`` times over: the control for what a common start alone brings.

    Example:
        >>> first, second = shared_inits(TransINR(), 2)
        >>> bool((first.linear1.weight == second.linear1.weight).all()), first.output is second.output
        (True, False)
    """
    return [_fresh(model, seed) for _ in range(count)]


def neuron_canvases(inrs: list[HypoNet], size: tuple[int, int], layer: int = -2) -> Tensor:
    """What each neuron of a layer adds to each network's picture: (B, neurons, C, H, W).

    Args:
        inrs: networks of one architecture.
        size: of what they draw.
        layer: by number; -2 is the last hidden one.

    Raises:
        ValueError: no such layer.

    Example:
        >>> neuron_canvases(TransINR(hidden=16, groups=4).generate(torch.rand(3, 1, 8, 8)), (8, 8)).shape
        torch.Size([3, 16, 1, 8, 8])
    """
    weights = stack_weights(inrs)
    count = len(weights.matrices)
    if not -count <= layer < count:
        raise ValueError(f"layer is {layer}; expected {-count} to {count - 1}.")
    like = weights.matrices[0]
    encoded = inrs[0].get_submodule("encoding")(pixel_centres(size, dtype=like.dtype, device=like.device))
    found = []
    for i in range(len(inrs)):  # biases differ from network to network
        one = Weights(tuple(m[i : i + 1] for m in weights.matrices), tuple(b[i, 0] for b in weights.biases))
        shares, _ = neuron_shares(encoded, one, layer % count)
        found.append(shares[0].movedim(0, -1).movedim(0, 1).unflatten(-1, size))
    return torch.stack(found)


def _fresh(model: TransINR, seed: int) -> HypoNet:
    like = model.tokens.places
    net = HypoNet(**model.writer.base.config, seed=seed).to(like)
    with torch.no_grad():
        net.get_parameter("output.bias").add_(OUT_BIAS)  # mid grey, as the written ones start from
    return net
