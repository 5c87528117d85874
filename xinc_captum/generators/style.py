"""A small style-based generator: the network, its training, and files of it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import store
from ..batch import random_generator
from ..hooks import exclusive
from ..progress import progress
from .protocol import ClassSampler, check_unit_range, count_labels, normal, truncate


class ProjectionDiscriminator(nn.Module):
    r"""Discriminator that scores how real an image of a class looks.

    .. math:: D(x, c) = a^\top h(x) + b + \langle v_c, h(x) \rangle

    Symbols: h(x) (n, width) features of three convolutions and a linear layer; a and b another linear layer; v_c the
    direction of class c.

    Source: Miyato & Koyama, "cGANs with Projection Discriminator" (ICLR 2018), eq. 3.
    """

    def __init__(
        self,
        num_classes: int,
        size: int,
        image_channels: int = 1,
        *,
        width: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if size % 4 or size < 4:
            raise ValueError(f"size is {size}; expected a multiple of 4, since the images are halved twice.")
        with exclusive(), torch.random.fork_rng(devices=[]):  # modules draw initial weights, which are replaced
            self.backbone = nn.Sequential(
                nn.Conv2d(image_channels, 32, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.AvgPool2d(2),
                nn.Conv2d(32, 64, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.AvgPool2d(2),
                nn.Conv2d(64, 64, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Flatten(),
                nn.Linear(64 * (size // 4) ** 2, width),
                nn.LeakyReLU(0.2),
            )
            self.real = nn.Linear(width, 1)
            self.direction = nn.Embedding(num_classes, width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2, generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.direction.weight, std=width**-0.5, generator=generator)

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return scores (n,) of images (n, channels, H, W) and classes (n,), higher for real images."""
        features = self.backbone(images)
        score: Tensor = self.real(features)[:, 0] + torch.einsum("nk,nk->n", features, self.direction(classes))
        return score


_DRAWS = 2000  # latents from which the mean of a class is estimated
# Factor of the mapping's initial weights. With 1, the latent still varies after the training in directions that no
# image shows: a link explains .3 of its variance (digits, noise_dim 32) instead of .7. With a much smaller factor, the
# digits of a class are more alike.
_QUIET = 0.65


class StyledBlock(nn.Module):
    r"""A convolution whose maps are normalised, then scaled and shifted by functions of the latent.

    .. math:: y_k = \mathrm{LeakyReLU}\big((1 + s_k(w))\, \mathrm{IN}(\mathrm{conv}(x))_k + t_k(w)\big)

    Symbols: IN instance normalisation of each map; s and t affine functions of the latent w. With ``grow``, height and
    width are doubled first.

    Source: Huang & Belongie, "Arbitrary Style Transfer in Real-time with AdaIN" (ICCV 2017), eq. 8.
    """

    def __init__(self, channels: tuple[int, int], latent_dim: int, *, grow: bool) -> None:
        super().__init__()
        self.grow = grow
        self.conv = nn.Conv2d(*channels, 3, padding=1, bias=False)  # the normalisation would remove a bias
        self.style = nn.Linear(latent_dim, 2 * channels[1])

    def forward(self, maps: Tensor, latents: Tensor) -> Tensor:
        """Map (n, channels in, H, W) and latents (n, latent_dim) to (n, channels out, H, W), or twice that size."""
        if self.grow:
            maps = F.interpolate(maps, scale_factor=2.0, mode="nearest")
        scale, shift = self.style(latents)[:, :, None, None].chunk(2, 1)
        return F.leaky_relu((1 + scale) * F.instance_norm(self.conv(maps)) + shift, 0.2)


class StyleGenerator(ClassSampler, nn.Module):
    r"""Generator whose latent w, a function of class and noise, sets the style of every layer.

    .. math:: w = f([z, e_c]), \quad z \sim N(0, I), \qquad
              x = \tanh(\mathrm{conv}(g_L(\dots g_1(\mathrm{const}, w), w)))

    Symbols: z the noise, e_c the embedding of class c; f the mapping, an MLP; const a learned tensor; g_l the
    :class:`StyledBlock` of level l, each but the first at twice the size of the one before.

    Args:
        num_classes: at least 1.
        size: height and width of an image; 2^(levels − 1) times a whole number of at least 2.
        image_channels: 1 for grey, 3 for colour.
        latent_dim: width of w.
        noise_dim: width of z and of e_c.
        channels: maps of each level, smallest images first.
        generator: for the first weights; None takes torch's global stream.

    Raises:
        ValueError: a size that cannot be reached by doubling, or a number that is not positive.

    Example:
        >>> style = StyleGenerator(num_classes=10, size=16, channels=(8, 8, 4))
        >>> w = style.sample_latents(3, classes=7, truncation=0.7)
        >>> w.shape, style.synthesize(w).shape
        (torch.Size([3, 64]), torch.Size([3, 1, 16, 16]))

    Source: Karras et al., "A Style-Based Generator Architecture for GANs" (CVPR 2019), sec. 2; without its noise
    inputs, so that one latent is one image.
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
        with exclusive(), torch.random.fork_rng(devices=[]):  # modules draw initial weights, which are replaced
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
        """Draw weights as in He et al. (2015), smaller ones for the mapping, and zero biases."""
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
        """Return latents (n, latent_dim) of noise (n, noise_dim) and classes (n,)."""
        latents: Tensor = self.mapping(torch.cat([noise, self.embedding(classes)], 1))
        return latents

    @torch.no_grad()
    def measure_means(self) -> None:
        """Set the mean latent of every class to that of 2,000 samples; call it again after the weights change."""
        noise = normal(_DRAWS, self.noise_dim, torch.Generator().manual_seed(0)).to(self.const)
        for label in range(self.num_classes):
            rows = torch.full((_DRAWS,), label, device=noise.device)
            self.class_means[label] = self.map(noise, rows).mean(0)

    def like(self) -> Tensor:
        """Return the constant, which has the latents' device and dtype."""
        return self.const

    def _centre(self, rows: Tensor | None, n: int) -> Tensor:
        """Return the measured mean of each class."""
        return self.class_means[rows]

    def _draw(self, rows: Tensor | None, n: int, truncation: float, generator: torch.Generator | None) -> Tensor:
        """Return the mapped noise, truncated towards the class mean."""
        assert rows is not None  # noqa: S101 - it has classes
        noise = normal(n, self.noise_dim, generator, device=self.const.device, dtype=self.const.dtype)
        return truncate(self.map(noise, rows), self.class_means[rows], truncation)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, image_channels, size, size) in [-1, 1]."""
        maps = self.const.expand(len(latents), -1, -1, -1)
        for block in self.blocks:
            maps = block(maps, latents)
        images: Tensor = self.paint(maps).tanh()
        return images

    def forward(self, latents: Tensor) -> Tensor:
        """As :meth:`synthesize`."""
        return self.synthesize(latents)

    def feature_layers(self) -> list[str]:
        """Return the names of the levels, lowest resolution first; their outputs are (n, channels, H, W)."""
        return [f"blocks.{level}" for level in range(len(self.blocks))]


def _check(
    num_classes: int, size: int, image_channels: int, latent_dim: int, noise_dim: int, channels: tuple[int, ...]
) -> None:
    if not channels or min(num_classes, size, image_channels, latent_dim, noise_dim, *channels) < 1:
        raise ValueError(
            f"got num_classes={num_classes}, size={size}, image_channels={image_channels}, latent_dim={latent_dim}, "
            f"noise_dim={noise_dim}, channels={tuple(channels)}; expected positive numbers, and at least one level."
        )
    step = 1 << (len(channels) - 1)
    if size % step or size // step < 2:
        raise ValueError(
            f"size is {size}; expected {step} (2^(levels - 1)) times 2 or more, since {len(channels)} levels double "
            "the image between them. For other sizes, give another number of channels."
        )


KIND, WRITER = "style-generator", "save_style_generator()"


class LoadedStyle(NamedTuple):
    """A generator and the recipe of its training."""

    generator: StyleGenerator
    recipe: dict[str, Any]


def save_style_generator(model: StyleGenerator, path: str | Path, *, recipe: Mapping[str, Any]) -> None:
    """Write a generator and ``recipe``, values that JSON can hold, as :func:`~xinc_captum.store.write_tensors` does.

    Raises:
        StoreError: the file cannot be written.
        TypeError: a recipe that JSON cannot hold.
    """
    note = {"config": model.config, "recipe": dict(recipe)}
    store.write_tensors(path, model.state_dict(), kind=KIND, metadata=note)


def load_style_generator(path: str | Path, *, device: torch.device | str = "cpu") -> LoadedStyle:
    """Return the generator in a file of :func:`save_style_generator`, in eval mode, and its recipe.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a file of something else or of a newer version, an incomplete or changed file, or weights that do
            not fit the configuration.
    """
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    with store.consistent(path, WRITER):
        config = {**note["config"], "channels": tuple(note["config"]["channels"])}
        model = StyleGenerator(**config, generator=torch.Generator())
        store.check_state(path, model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return LoadedStyle(model.to(device).eval(), dict(note["recipe"]))


@dataclass(frozen=True)
class Recipe:
    """Training options of a style generator.

    Args:
        steps: updates of each network.
        seed: of weights, batches and noise.
        noise_dim: dimensions of the noise, as in :class:`StyleGenerator`.
        batch: images a step.
        rate: learning rate of Adam, whose momenta are 0 and 0.99.
        penalty: γ, the weight of the gradient penalty.
        penalty_every: steps from one penalty to the next; the penalty is multiplied by this number.
        decay: of the running mean of the generator's weights, which is the result.
    """

    steps: int = 2000
    seed: int = 0
    noise_dim: int = 16
    batch: int = 32
    rate: float = 2e-3
    penalty: float = 1.0
    penalty_every: int = 8
    decay: float = 0.998

    def __post_init__(self) -> None:
        if (
            min(self.steps, self.noise_dim, self.batch, self.penalty_every) < 1
            or not self.rate > 0
            or not 0 <= self.decay < 1
        ):
            raise ValueError(f"got {self}; expected positive numbers, and a decay in [0, 1).")


def train_style_generator(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe | None = None,
    *,
    channels: tuple[int, ...] = (64, 48, 32),
    show_progress: bool = False,
) -> StyleGenerator:
    r"""Return a :class:`StyleGenerator` of images like these, trained against a discriminator.

    .. math:: L_D = \mathrm{sp}(D(G(w), c)) + \mathrm{sp}(-D(x, c))
                    + \tfrac{\gamma}{2} \lVert \nabla_x D(x, c) \rVert^2, \qquad
              L_G = \mathrm{sp}(-D(G(w), c))

    Symbols: sp softplus; x real images of class c; w latents of noise and the same class; γ ``recipe.penalty``.

    Args:
        images: (n, channels, size, size) floats in [0, 1].
        labels: (n,) classes 0, 1, …
        recipe: None takes the default one.
        channels: maps of each level of the generator.
        show_progress: a progress bar on stderr.

    Returns:
        The running mean of the generator, in eval mode, on the images' device; equal for equal arguments on a machine.

    Raises:
        ValueError: images that are not square or lie outside [0, 1], or labels that do not fit.

    Example:
        >>> images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 2
        >>> style = train_style_generator(images, labels, Recipe(steps=2, batch=4), channels=(8, 4))
        >>> style.synthesize(style.sample_latents(5, classes=1)).shape
        torch.Size([5, 1, 8, 8])

    Source: Goodfellow et al. (NeurIPS 2014), the non-saturating game; Mescheder et al., "Which Training Methods for
    GANs do actually Converge?" (ICML 2018), the penalty; Karras et al. (CVPR 2020), its lazy regularization.
    """
    recipe = recipe or Recipe()
    num_classes = _check_training_images(images, labels)
    device, stream = images.device, random_generator(recipe.seed)
    shape = (num_classes, images.shape[-1], images.shape[1])
    model = StyleGenerator(*shape, channels=channels, noise_dim=recipe.noise_dim, generator=stream).to(device)
    critic = ProjectionDiscriminator(*shape, generator=stream).to(device)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), lr=recipe.rate, betas=(0.0, 0.99)) for net in (model, critic))
    for step in progress(range(recipe.steps), "training", show=show_progress):
        rows = torch.randint(len(images), (recipe.batch,), generator=stream).to(device)
        real, classes = images[rows] * 2 - 1, labels[rows].to(device)
        fake = _generate(model, classes, stream)
        loss = F.softplus(critic(fake.detach(), classes)).mean()
        penalised = step % recipe.penalty_every == 0
        score = critic(real.requires_grad_(penalised), classes)
        loss = loss + F.softplus(-score).mean()
        if penalised:
            (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            loss = loss + recipe.penalty / 2 * recipe.penalty_every * slope.square().sum((1, 2, 3)).mean()
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()
        # The gradients of the critic's weights are not needed here, only those of the image.
        for weight in critic.parameters():
            weight.requires_grad_(False)
        loss = F.softplus(-critic(_generate(model, classes, stream), classes)).mean()
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        for weight in critic.parameters():
            weight.requires_grad_(True)
        with torch.no_grad():
            for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 1 - recipe.decay)
    averaged.measure_means()
    return averaged


def _generate(model: StyleGenerator, classes: Tensor, stream: torch.Generator) -> Tensor:
    noise = torch.randn(len(classes), model.noise_dim, generator=stream).to(classes.device)
    return model.synthesize(model.map(noise, classes))


def _check_training_images(images: Tensor, labels: Tensor) -> int:
    """Check images and labels, and return the number of classes."""
    if images.dim() != 4 or images.shape[2] != images.shape[3] or not images.is_floating_point() or not len(images):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats (n, channels, size, size)."
        )
    check_unit_range(images)
    counts = count_labels(labels, len(images))
    if int(counts.min()) == 0:
        raise ValueError(f"class {int(counts.argmin())} has no image; expected some of each class up to the highest.")
    return len(counts)
