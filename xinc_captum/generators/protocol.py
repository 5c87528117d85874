"""What a link needs of a generator: sampled latents, pictures drawn from latents, and the range of their values."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

_SLACK = 1e-3  # share of the range that a picture may leave it by, for rounding


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


class CallableGenerator:
    """What :func:`from_callable` makes."""

    def __init__(
        self,
        synthesize: Callable[[Tensor], Tensor],
        sample_latents: Callable[..., Tensor],
        image_range: tuple[float, float],
        *,
        latent_mean: Callable[[Tensor | int | None], Tensor] | None,
        num_classes: int,
        differentiable: bool,
    ) -> None:
        self.synthesize_function, self.sample_function = synthesize, sample_latents
        self.image_range, self.num_classes, self.differentiable = image_range, num_classes, differentiable
        if latent_mean is not None:
            self.latent_mean = latent_mean  # absent where unknown, as the protocol has it

    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the given function samples."""
        return self.sample_function(n, classes, truncation, generator=generator)

    def synthesize(self, latents: Tensor) -> Tensor:
        """What the given function draws."""
        return self.synthesize_function(latents)


def from_callable(
    synthesize: Callable[[Tensor], Tensor],
    sample_latents: Callable[..., Tensor],
    image_range: tuple[float, float] = (0.0, 1.0),
    *,
    latent_mean: Callable[[Tensor | int | None], Tensor] | None = None,
    num_classes: int = 0,
    differentiable: bool = True,
) -> CallableGenerator:
    """A generator of two functions; :func:`normal_latents` makes the second one for a Gaussian latent.

    Args:
        synthesize: (n, latent_dim) latents to (n, channels, H, W) pictures.
        sample_latents: called as ``sample_latents(n, classes, truncation, generator=…)``; (n, latent_dim).
        image_range: lowest and highest value of a pixel.
        latent_mean: classes to the (n, latent_dim) centre of truncation, where there is one.
        num_classes: how many the generator knows, 0 for none.
        differentiable: false when no gradient goes through ``synthesize``.

    Raises:
        TypeError: one of the functions cannot be called.
        ValueError: an empty range.

    Example:
        >>> from xinc_captum.generators import normal_latents
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> paint.synthesize(paint.sample_latents(3)).shape
        torch.Size([3, 1, 2, 2])
    """
    for name, function in (("synthesize", synthesize), ("sample_latents", sample_latents)):
        if not callable(function):
            raise TypeError(f"{name} is a {type(function).__name__}; wanted a function.")
    _check_range(image_range)
    return CallableGenerator(
        synthesize,
        sample_latents,
        image_range,
        latent_mean=latent_mean,
        num_classes=num_classes,
        differentiable=differentiable,
    )


def pictures_in_unit_range(generator: Generator, latents: Tensor) -> Tensor:
    r"""Pictures of latents, in 0 to 1.

    .. math:: y = (G(w) - low) / (high - low)

    Args:
        generator: any; ``low`` and ``high`` are its ``image_range``.
        latents: (n, latent_dim).

    Returns:
        (n, channels, H, W) floats in [0, 1] within rounding, differentiable where the generator is.

    Raises:
        ValueError: latents or pictures of another shape, pictures that are not finite or leave the generator's own
            range.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).tanh(), normal_latents(4), (-1, 1))
        >>> pictures_in_unit_range(paint, torch.zeros(1, 4)).flatten()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    if latents.dim() != 2 or not latents.is_floating_point():
        raise ValueError(f"latents are {latents.dtype} of shape {tuple(latents.shape)}; wanted floats (n, latent_dim).")
    low, high = _check_range(generator.image_range)
    pictures = generator.synthesize(latents)
    if pictures.dim() != 4 or len(pictures) != len(latents) or not pictures.is_floating_point():
        raise ValueError(
            f"the generator drew {pictures.dtype} of shape {tuple(pictures.shape)} of {len(latents)} latents; wanted "
            f"floats ({len(latents)}, channels, H, W)."
        )
    if pictures.numel():
        least, most = (float(edge) for edge in pictures.detach().aminmax())
        slack = _SLACK * (high - low)
        if not (low - slack <= least and most <= high + slack):  # said so that nan fails
            raise ValueError(
                f"the generator's pictures lie in [{least:.4g}, {most:.4g}], but its image_range says [{low:g}, "
                f"{high:g}]. Correct image_range, or clamp in synthesize; nan means that the latents or the weights "
                "are not finite."
            )
    return (pictures - low) / (high - low)


def _check_range(image_range: tuple[float, float]) -> tuple[float, float]:
    low, high = image_range
    if not low < high:
        raise ValueError(f"image_range is {tuple(image_range)}; wanted its lowest value first, then a higher one.")
    return low, high
