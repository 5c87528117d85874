"""DCGANs: noise, and perhaps a class, blown up to a picture by transposed convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapter import Adapter
from .latents import class_rows, normal, truncate


class DCGAN(nn.Module):
    r"""The usual network: from 1 x 1 to 4 x 4, then doubled by every layer.

    .. math:: x = \tanh(\mathrm{up}_L(h_{L-1})), \qquad h_l = \mathrm{ReLU}(\mathrm{BN}(\mathrm{up}_l(h_{l-1})))

    Symbols: up a transposed convolution of 4 x 4 with stride 2, without bias; the first one has stride 1; h_0 = z.

    Args:
        latent_dim: channels of z, with the classes if there are any.
        channels: maps after each layer but the last.
        image_channels: 1 for grey, 3 for colour.
        dropout: share of the first layer's values that training drops; None has no such layer.

    Example:
        >>> DCGAN(latent_dim=10, channels=(8, 4)).eval()(torch.randn(2, 10, 1, 1)).shape
        torch.Size([2, 3, 16, 16])

    Source: Radford et al., "Unsupervised Representation Learning with DCGANs" (ICLR 2016), fig. 1; layers are counted
    as in PyTorch's DCGAN example, so that state dicts of its many descendants fit.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: tuple[int, ...] = (512, 256, 128, 64),
        image_channels: int = 3,
        *,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(zip((latent_dim, *channels[:-1]), channels, strict=True)):
            layers += [_up(before, after, first=level == 0), nn.BatchNorm2d(after), nn.ReLU()]
            if level == 0 and dropout is not None:
                layers.append(nn.Dropout(dropout))
        self.main = nn.Sequential(*layers, _up(channels[-1], image_channels, first=False), nn.Tanh())

    def forward(self, latents: Tensor) -> Tensor:
        """(n, latent_dim, 1, 1) to (n, image_channels, size, size), size = 4 · 2^len(channels), in [-1, 1]."""
        pictures: Tensor = self.main(latents)
        return pictures


class DCGANAdapter(Adapter):
    r"""A DCGAN as a generator; its latent is z, with the one-hot class behind it where there are classes.

    .. math:: w = [\psi z, \mathrm{onehot}(c)], \qquad z \sim N(0, I)

    Args:
        network: :class:`DCGAN`, or any module from (n, latent_dim, 1, 1) to pictures; in eval mode.
        noise_dim: width of z.
        num_classes: width of the one-hot class, 0 for none.
        image_range: lowest and highest value of a pixel.

    Raises:
        TypeError: network is no module.
        ValueError: a module in training mode, or a width that is not positive.

    Example:
        >>> faces = DCGANAdapter(DCGAN(latent_dim=12, channels=(8, 4)).eval(), noise_dim=10, num_classes=2)
        >>> faces.synthesize(faces.sample_latents(3, classes=1, truncation=0.7)).shape
        torch.Size([3, 3, 16, 16])

    Source: Radford et al., "Unsupervised Representation Learning with DCGANs" (ICLR 2016).
    """

    def __init__(
        self,
        network: nn.Module,
        noise_dim: int = 100,
        *,
        num_classes: int = 0,
        image_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__(network, image_range, num_classes)
        if noise_dim < 1 or num_classes < 0:
            raise ValueError(f"got noise_dim={noise_dim}, num_classes={num_classes}; wanted at least 1 and 0.")
        self.noise_dim = noise_dim

    def latent_mean(self, classes: Tensor | int | None = None) -> Tensor:
        """(n, latent_dim): no noise, and the class; (1, latent_dim) for one class, or without classes."""
        n = len(classes) if isinstance(classes, Tensor) and classes.dim() else 1
        return self._with_class(torch.zeros(n, self.noise_dim).to(self.like()), classes)

    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(n, noise_dim + num_classes) latents of one class, or of ``classes`` (n,); truncation shrinks the noise.

        Raises:
            ValueError: n that is not positive, or classes that the generator does not know.
        """
        class_rows(classes, n, self.num_classes)
        noise = normal(n, self.noise_dim, generator, device=self.like().device, dtype=self.like().dtype)
        return self._with_class(truncate(noise, 0.0, truncation), classes)

    def synthesize(self, latents: Tensor) -> Tensor:
        """(n, channels, H, W) pictures."""
        wanted = self.noise_dim + self.num_classes
        if latents.dim() != 2 or latents.shape[1] != wanted:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; wanted (n, {wanted}).")
        pictures: Tensor = self.network(latents[:, :, None, None])
        return pictures

    def feature_layers(self) -> list[str]:
        """The rectified layers, smallest pictures first: each one's output is (n, channels, H, W)."""
        kinds = (nn.ReLU, nn.LeakyReLU)
        return [f"network.{name}" for name, module in self.network.named_modules() if isinstance(module, kinds)]

    def _with_class(self, noise: Tensor, classes: Tensor | int | None) -> Tensor:
        rows = class_rows(classes, len(noise), self.num_classes, noise.device)
        return noise if rows is None else torch.cat([noise, F.one_hot(rows, self.num_classes).to(noise)], 1)


def _up(before: int, after: int, *, first: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, 1 if first else 2, 0 if first else 1, bias=False)
