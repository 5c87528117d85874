"""A small generator of classes whose one latent sets the style of every layer."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks import exclusive
from .latents import class_rows, normal, truncate

_DRAWS = 2000  # latents from which the mean of a class is estimated
# Of the mapping's first weights. At 1, what they do to the noise by chance outlives the training, as variation of the
# latent that no picture shows: a link can explain .3 of it (of digits, at 32 noise dims) instead of .7; much lower, and
# the digits of a class are more alike.
_QUIET = 0.65


class StyledBlock(nn.Module):
    r"""A convolution whose maps are normalised, then scaled and shifted as the latent says.

    .. math:: y_k = \mathrm{LeakyReLU}\big((1 + s_k(w))\, \mathrm{IN}(\mathrm{conv}(x))_k + t_k(w)\big)

    Symbols: IN instance normalisation of each map; s and t affine functions of the latent w.

    Args:
        channels: maps in and out.
        latent_dim: width of w.
        grow: doubles height and width before the convolution.

    Example:
        >>> StyledBlock((4, 8), latent_dim=16, grow=True)(torch.rand(2, 4, 7, 7), torch.rand(2, 16)).shape
        torch.Size([2, 8, 14, 14])

    Source: Huang & Belongie, "Arbitrary Style Transfer in Real-time with AdaIN" (ICCV 2017), eq. 8.
    """

    def __init__(self, channels: tuple[int, int], latent_dim: int, *, grow: bool) -> None:
        super().__init__()
        self.grow = grow
        self.conv = nn.Conv2d(*channels, 3, padding=1, bias=False)  # the normalisation would undo a bias
        self.style = nn.Linear(latent_dim, 2 * channels[1])

    def forward(self, maps: Tensor, latents: Tensor) -> Tensor:
        """(n, channels in, H, W) maps and (n, latent_dim) latents to (n, channels out, H, W), or twice the size."""
        if self.grow:
            maps = F.interpolate(maps, scale_factor=2.0, mode="nearest")
        scale, shift = self.style(latents)[:, :, None, None].chunk(2, 1)
        return F.leaky_relu((1 + scale) * F.instance_norm(self.conv(maps)) + shift, 0.2)


class StyleGenerator(nn.Module):
    r"""A class and noise make one latent w, and w sets the style of every layer that draws the picture.

    .. math:: w = f([z, e_c]), \quad z \sim N(0, I), \qquad
              x = \tanh(\mathrm{conv}(g_L(\dots g_1(\mathrm{const}, w), w)))

    Symbols: e_c the embedding of class c; f the mapping, an MLP; g_l the :class:`StyledBlock` of level l, each but the
    first at twice the size of the one before.

    Args:
        num_classes: at least 1.
        size: height and width of a picture; 2^(levels − 1) times a whole number.
        image_channels: 1 for grey, 3 for colour.
        latent_dim: width of w.
        noise_dim: width of z and of e_c.
        channels: maps of each level, smallest pictures first.
        generator: for the first weights; None takes torch's global stream.

    Raises:
        ValueError: a size that cannot be reached by doubling, or a number that is not positive.

    Example:
        >>> style = StyleGenerator(num_classes=10, size=16, channels=(8, 8, 4))
        >>> w = style.sample_latents(3, classes=7, truncation=0.7)
        >>> w.shape, style.synthesize(w).shape
        (torch.Size([3, 64]), torch.Size([3, 1, 16, 16]))

    Source: Karras et al., "A Style-Based Generator Architecture for GANs" (CVPR 2019), sec. 2; without its noise
    inputs, so that one latent is one picture.
    """

    image_range = (-1.0, 1.0)
    differentiable = True
    class_means: Tensor

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        image_channels: int = 1,
        *,
        latent_dim: int = 64,
        noise_dim: int = 16,
        channels: tuple[int, ...] = (64, 48, 32),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check(num_classes, size, image_channels, latent_dim, noise_dim, channels)
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "size": size,
            "image_channels": image_channels,
            "latent_dim": latent_dim,
            "noise_dim": noise_dim,
            "channels": list(channels),
        }
        self.num_classes, self.noise_dim = num_classes, noise_dim
        with exclusive(), torch.random.fork_rng(devices=[]):  # modules draw weights of their own, which are not kept
            self._build(num_classes, size, image_channels, latent_dim, channels)
        self.register_buffer("class_means", torch.zeros(num_classes, latent_dim))
        self._draw_weights(generator)
        self.measure_means()

    def _build(
        self, num_classes: int, size: int, image_channels: int, latent_dim: int, channels: tuple[int, ...]
    ) -> None:
        self.embedding = nn.Embedding(num_classes, self.noise_dim)
        self.mapping = nn.Sequential(
            nn.Linear(2 * self.noise_dim, latent_dim),
            nn.LeakyReLU(0.2),
            nn.Linear(latent_dim, latent_dim),
            nn.LeakyReLU(0.2),
        )
        small = size >> (len(channels) - 1)
        self.const = nn.Parameter(torch.empty(1, channels[0], small, small))
        before = (channels[0], *channels[:-1])
        self.blocks = nn.ModuleList(
            StyledBlock(pair, latent_dim, grow=level > 0)
            for level, pair in enumerate(zip(before, channels, strict=True))
        )
        self.paint = nn.Conv2d(channels[-1], image_channels, 3, padding=1)

    def _draw_weights(self, generator: torch.Generator | None) -> None:
        """Weights as He et al. (2015) have them, the mapping's smaller; biases zero: every style begins as no style."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, generator=generator)
        nn.init.normal_(self.const, generator=generator)
        with torch.no_grad():
            for module in self.mapping:
                if isinstance(module, nn.Linear):
                    module.weight.mul_(_QUIET)

    def map(self, noise: Tensor, classes: Tensor) -> Tensor:
        """(n, noise_dim) noise and (n,) classes to (n, latent_dim) latents."""
        latents: Tensor = self.mapping(torch.cat([noise, self.embedding(classes)], 1))
        return latents

    @torch.no_grad()
    def measure_means(self) -> None:
        """Set the mean latent of every class to that of 2,000 draws; wanted again after the weights change."""
        noise = normal(_DRAWS, self.noise_dim, torch.Generator().manual_seed(0)).to(self.const)
        for label in range(self.num_classes):
            rows = torch.full((_DRAWS,), label, device=noise.device)
            self.class_means[label] = self.map(noise, rows).mean(0)

    def latent_mean(self, classes: Tensor | int | None = None) -> Tensor:
        """(n, latent_dim) mean latents of (n,) classes; (1, latent_dim) of one class."""
        n = len(classes) if isinstance(classes, Tensor) and classes.dim() else 1
        return self.class_means[class_rows(classes, n, self.num_classes, self.const.device)]

    @torch.no_grad()
    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(n, latent_dim) latents of one class, or of ``classes`` (n,), drawn towards the class mean.

        Raises:
            ValueError: n that is not positive, or classes that the generator does not know.
        """
        rows = class_rows(classes, n, self.num_classes, self.const.device)
        assert rows is not None  # noqa: S101 - it has classes
        noise = normal(n, self.noise_dim, generator, device=self.const.device, dtype=self.const.dtype)
        return truncate(self.map(noise, rows), self.class_means[rows], truncation)

    def synthesize(self, latents: Tensor) -> Tensor:
        """(n, image_channels, size, size) pictures in [-1, 1]."""
        maps = self.const.expand(len(latents), -1, -1, -1)
        for block in self.blocks:
            maps = block(maps, latents)
        pictures: Tensor = self.paint(maps).tanh()
        return pictures

    def forward(self, latents: Tensor) -> Tensor:
        """As :meth:`synthesize`."""
        return self.synthesize(latents)

    def feature_layers(self) -> list[str]:
        """The levels, smallest pictures first: each one's output is (n, channels, H, W)."""
        return [f"blocks.{level}" for level in range(len(self.blocks))]


def _check(
    num_classes: int, size: int, image_channels: int, latent_dim: int, noise_dim: int, channels: tuple[int, ...]
) -> None:
    if not channels or min(num_classes, size, image_channels, latent_dim, noise_dim, *channels) < 1:
        raise ValueError(
            f"got num_classes={num_classes}, size={size}, image_channels={image_channels}, latent_dim={latent_dim}, "
            f"noise_dim={noise_dim}, channels={tuple(channels)}; wanted positive numbers, and at least one level."
        )
    step = 1 << (len(channels) - 1)
    if size % step or size // step < 2:
        raise ValueError(
            f"size is {size}; wanted {step} (2^(levels - 1)) times 2 or more, since {len(channels)} levels double the "
            "picture between them. Give other sizes another number of channels."
        )
