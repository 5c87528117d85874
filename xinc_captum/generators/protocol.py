"""What a link needs of a generator: sampled latents, pictures drawn from latents, and the range of their values."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Generator(Protocol):
    r"""Draws pictures from latents.

    .. math:: x = G(w), \qquad w \sim p(w \mid c)

    Any object with these three members will do; :func:`from_callable` makes one of a plain function. A generator may
    also have ``latent_mean(classes)``, the (n, latent_dim) centre that truncation draws towards, ``num_classes`` (0 if
    it knows none), ``feature_layers()``, the names of submodules whose activations describe the picture in place, and
    ``differentiable``, false when no gradient goes through it.
    """

    image_range: tuple[float, float]
    """Lowest and highest value of a pixel."""

    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(n, latent_dim) latents, of one class or of ``classes`` (n,), from the generator's own random stream."""
        ...

    def synthesize(self, latents: Tensor) -> Tensor:
        """(n, channels, H, W) pictures of (n, latent_dim) latents; each row's picture depends on that row alone."""
        ...
