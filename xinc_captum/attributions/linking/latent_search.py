"""The latent that draws a representation, searched through generator and classifier: what no link can beat."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...generators.features import modules_of
from ...generators.protocol import Generator, pictures_in_unit_range
from ...hooks import guarded
from .encoder import Encoder
from .link_checks import checked_pairs


class Searched(NamedTuple):
    """What :func:`latent_search` found.

    Attributes:
        latents: (n, latent_dim), the best met by each row.
        errors: (n,) mean squared distance to the wanted representation, in standard deviations.
        before: (n,) the same where the search began.
    """

    latents: Tensor
    errors: Tensor
    before: Tensor


def latent_search(
    encoder: Encoder,
    generator: Generator,
    r: Tensor,
    start: Tensor,
    *,
    scale: Tensor,
    steps: int = 100,
    lr: float = 0.05,
) -> Searched:
    r"""Move latents until the classifier represents their pictures as wanted.

    .. math:: \min_w \frac1U \sum_u \big(h_u(G(w)) - r_u\big)^2 / s_u^2

    Args:
        encoder: h.
        generator: G, differentiable.
        r: wanted, (n, units).
        start: latents to begin with, (n, latent_dim), a link's for instance.
        scale: s, (units,), standard deviations; units with 0 do not count.
        steps: of Adam.
        lr: its rate, in standard deviations of ``start`` (over rows and latents).

    Returns:
        a :class:`Searched`; never worse than ``start``.

    Raises:
        ValueError: a generator that says it is not differentiable, or shapes that do not fit.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import Encoder
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> encoder = Encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), "1")
        >>> found = latent_search(encoder, paint, torch.full((1, 4), 0.6), torch.rand(1, 4), scale=torch.ones(4))
        >>> bool(found.errors < 0.1 * found.before)
        True

    Source: Abdal, Qin, Wonka 2019, "Image2StyleGAN", with a classifier's distance.
    """
    if not getattr(generator, "differentiable", True):
        raise ValueError("the generator says that it is not differentiable, so latents cannot be searched through it.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; wanted at least 1.")
    r, start = (side.detach() for side in checked_pairs(r, start))
    weight = torch.where(scale > 0, scale.clamp_min(torch.finfo(scale.dtype).tiny) ** -2, 0.0)
    weight = (weight / max(int((scale > 0).sum()), 1)).to(r)
    best, errors = start.clone(), torch.full((len(r),), torch.inf, dtype=r.dtype, device=r.device)
    before = errors
    with guarded(encoder.forward_func, *modules_of(generator)), torch.enable_grad():
        w = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([w], lr * max(float(start.std()), 1e-6))
        for step in range(steps + 1):
            seen = encoder.read(pictures_in_unit_range(generator, w)).representations
            error = ((seen - r.to(seen)).square() * weight.to(seen)).sum(1)
            now = error.detach().to(errors)
            better = now < errors
            best, errors = torch.where(better[:, None], w.detach(), best), torch.where(better, now, errors)
            if step == 0:
                before = now
            if step < steps:
                (w.grad,) = torch.autograd.grad(error.sum(), w)
                optimizer.step()
    return Searched(best, errors, before)
