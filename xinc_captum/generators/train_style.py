"""Training a style generator on labelled pictures, small enough for one CPU core."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..progress import progress
from .discriminator import ProjectionDiscriminator
from .style_generator import StyleGenerator


@dataclass(frozen=True)
class Recipe:
    """How a style generator is trained.

    Args:
        steps: updates of each network.
        seed: of weights, batches and noise.
        noise_dim: numbers of noise behind a picture, as :class:`StyleGenerator`'s.
        batch: pictures a step.
        rate: of Adam, whose momenta are 0 and 0.99.
        penalty: γ, the weight of the gradient penalty.
        penalty_every: steps from one penalty to the next; it is made larger accordingly.
        decay: of the running mean of the generator's weights, which is what is kept.
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
            raise ValueError(f"got {self}; wanted positive numbers, and a decay in [0, 1).")


def train_style_generator(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe | None = None,
    *,
    channels: tuple[int, ...] = (64, 48, 32),
    show_progress: bool = False,
) -> StyleGenerator:
    r"""A :class:`StyleGenerator` of pictures like these, after a game between it and a critic.

    .. math:: L_D = \mathrm{sp}(D(G(w), c)) + \mathrm{sp}(-D(x, c))
                    + \tfrac{\gamma}{2} \lVert \nabla_x D(x, c) \rVert^2, \qquad
              L_G = \mathrm{sp}(-D(G(w), c))

    Symbols: sp softplus; x real pictures of class c; w latents of noise and the same class; γ ``recipe.penalty``.

    Args:
        images: (n, channels, size, size) floats in [0, 1].
        labels: (n,) classes 0, 1, …
        recipe: None takes the usual one.
        channels: maps of each level of the generator.
        show_progress: a bar on stderr.

    Returns:
        The running mean of the generator, in eval mode, with its mean latents measured, on the images' device. Torch's
        global random state is as found; the same arguments give the same weights on the same machine.

    Raises:
        ValueError: pictures that are not square or lie outside [0, 1], labels that do not fit, or a recipe that is
            none.

    Example:
        >>> images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 2
        >>> style = train_style_generator(images, labels, Recipe(steps=2, batch=4), channels=(8, 4))
        >>> style.synthesize(style.sample_latents(5, classes=1)).shape
        torch.Size([5, 1, 8, 8])

    Source: Goodfellow et al. (NeurIPS 2014), the non-saturating game; Mescheder et al., "Which Training Methods for
    GANs do actually Converge?" (ICML 2018), the penalty; Karras et al. (CVPR 2020), that it may be lazy.
    """
    recipe = recipe or Recipe()
    num_classes = _checked(images, labels)
    device, stream = images.device, torch.Generator().manual_seed(recipe.seed)
    shape = (num_classes, images.shape[-1], images.shape[1])
    ours = StyleGenerator(*shape, channels=channels, noise_dim=recipe.noise_dim, generator=stream).to(device)
    critic = ProjectionDiscriminator(*shape, generator=stream).to(device)
    kept = copy.deepcopy(ours).eval().requires_grad_(False)
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), lr=recipe.rate, betas=(0.0, 0.99)) for net in (ours, critic))
    for step in progress(range(recipe.steps), "training", show=show_progress):
        rows = torch.randint(len(images), (recipe.batch,), generator=stream).to(device)
        real, classes = images[rows] * 2 - 1, labels[rows].to(device)
        fake = _drawn(ours, classes, stream)
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
        # The critic's own gradients are not wanted here, only the picture's.
        for weight in critic.parameters():
            weight.requires_grad_(False)
        loss = F.softplus(-critic(_drawn(ours, classes, stream), classes)).mean()
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        for weight in critic.parameters():
            weight.requires_grad_(True)
        with torch.no_grad():
            for old, new in zip(kept.parameters(), ours.parameters(), strict=True):
                old.lerp_(new, 1 - recipe.decay)
    kept.measure_means()
    return kept


def _drawn(ours: StyleGenerator, classes: Tensor, stream: torch.Generator) -> Tensor:
    noise = torch.randn(len(classes), ours.noise_dim, generator=stream).to(classes.device)
    return ours.synthesize(ours.map(noise, classes))


def _checked(images: Tensor, labels: Tensor) -> int:
    """How many classes there are."""
    if images.dim() != 4 or images.shape[2] != images.shape[3] or not images.is_floating_point() or not len(images):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; wanted floats (n, channels, size, size)."
        )
    low, high = (float(edge) for edge in images.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"images lie in [{low:.3g}, {high:.3g}]; wanted [0, 1]. Divide by their highest value.")
    if labels.shape != images.shape[:1] or labels.is_floating_point() or int(labels.min()) < 0:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; wanted whole numbers from 0 on, "
            f"({len(images)},)."
        )
    counts = labels.bincount()
    if int(counts.min()) == 0:
        raise ValueError(f"class {int(counts.argmin())} has no picture; wanted some of each class up to the highest.")
    return len(counts)
