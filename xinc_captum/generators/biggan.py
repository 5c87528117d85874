"""BigGAN, with the interface of the package pytorch-pretrained-biggan."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapter import Adapter
from .latents import class_rows, truncate

_BOUND = 2.0  # of the noise, in standard deviations, as BigGAN is sampled


class BigGANAdapter(Adapter):
    r"""A BigGAN as a generator; its latent is what enters every layer, noise and the embedded class.

    .. math:: w = [\psi z, E\, \mathrm{onehot}(c)], \qquad z \sim N(0, I) \text{ within } [-2, 2]

    The noise half has no part in the class, so a linear link finds little of it in a classifier.

    Args:
        network: already built and loaded, in eval mode, with ``embeddings``, a linear layer from one-hot classes, and
            ``generator(w, truncation)``.
        statistics: which of the stored batch statistics are used, as a truncation in (0, 1]; give the one that latents
            are sampled with.

    Raises:
        TypeError: network is no module, or has no such members.
        ValueError: a module in training mode, or statistics outside (0, 1].

    Example:
        >>> class Small(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embeddings = torch.nn.Linear(5, 4, bias=False)
        ...         self.generator = lambda w, truncation: w.view(-1, 2, 2, 2).tanh()
        >>> BigGANAdapter(Small().eval()).sample_latents(3, classes=2).shape
        torch.Size([3, 8])

    Source: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (ICLR 2019), sec. 3.1.
    """

    def __init__(self, network: nn.Module, *, statistics: float = 1.0) -> None:
        embeddings = getattr(network, "embeddings", None)
        if isinstance(network, nn.Module) and not (isinstance(embeddings, nn.Linear) and hasattr(network, "generator")):
            raise TypeError(
                f"{type(network).__name__} has no embeddings (a linear layer) and generator(w, truncation); wanted a "
                "BigGAN as pytorch-pretrained-biggan builds it."
            )
        if not 0 < statistics <= 1:
            raise ValueError(f"statistics is {statistics}; wanted a truncation above 0 and up to 1.")
        super().__init__(network, (-1.0, 1.0), 0 if embeddings is None else embeddings.in_features)
        self.noise_dim = int(network.embeddings.out_features)  # type: ignore[union-attr,arg-type]
        self.statistics = statistics

    def latent_mean(self, classes: Tensor | int | None = None) -> Tensor:
        """(n, latent_dim): no noise, and the embedded class; (1, latent_dim) for one class."""
        n = len(classes) if isinstance(classes, Tensor) and classes.dim() else 1
        embedded = self._embedded(classes, n)
        return torch.cat([torch.zeros_like(embedded), embedded], 1)

    @torch.no_grad()
    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(n, latent_dim) latents of one class, or of ``classes`` (n,); truncation shrinks the noise.

        Raises:
            ValueError: n that is not positive, or classes that the generator does not know.
        """
        embedded = self._embedded(classes, n)
        noise = _bounded(n, self.noise_dim, generator).to(embedded)
        return torch.cat([truncate(noise, 0.0, truncation), embedded], 1)

    def synthesize(self, latents: Tensor) -> Tensor:
        """(n, 3, size, size) pictures in [-1, 1]."""
        if latents.dim() != 2 or latents.shape[1] != 2 * self.noise_dim:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; wanted (n, {2 * self.noise_dim}).")
        pictures: Tensor = self.network.generator(latents, self.statistics)  # type: ignore[operator]
        return pictures

    def feature_layers(self) -> list[str]:
        """The blocks, smallest pictures first: each one's output is (n, channels, H, W)."""
        return [name for name, _ in self.named_modules() if name.rpartition(".")[0] == "network.generator.layers"]

    def _embedded(self, classes: Tensor | int | None, n: int) -> Tensor:
        rows = class_rows(classes, n, self.num_classes, self.like().device)
        assert rows is not None  # noqa: S101 - it has classes
        embedded: Tensor = self.network.embeddings(  # type: ignore[operator]
            F.one_hot(rows, self.num_classes).to(self.like())
        )
        return embedded


def _bounded(n: int, width: int, generator: torch.Generator | None) -> Tensor:
    """Normal noise within ±2, by the inverse of its distribution: as many draws for every seed."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    edge = math.erf(_BOUND / math.sqrt(2))
    uniform = torch.rand(n, width, generator=generator, device=generator.device, dtype=torch.float64)
    return math.sqrt(2) * torch.erfinv(edge * (2 * uniform - 1))
