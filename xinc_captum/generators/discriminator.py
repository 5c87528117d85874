"""The critic that a style generator is trained against."""

import torch
from torch import Tensor, nn

from ..hooks import exclusive


class ProjectionDiscriminator(nn.Module):
    r"""How real a picture looks, as a picture of its class.

    .. math:: D(x, c) = a^\top h(x) + b + \langle v_c, h(x) \rangle

    Symbols: h(x) (n, width) what three convolutions and a layer see in a picture; v_c the direction of class c.

    Args:
        num_classes: at least 1.
        size: height and width of the pictures, a multiple of 4.
        image_channels: 1 for grey, 3 for colour.
        width: of h.
        generator: for the first weights; None takes torch's global stream.

    Example:
        >>> critic = ProjectionDiscriminator(num_classes=10, size=16)
        >>> critic(torch.rand(2, 1, 16, 16), torch.tensor([3, 4])).shape
        torch.Size([2])

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
            raise ValueError(f"size is {size}; wanted a multiple of 4, since the pictures are halved twice.")
        with exclusive(), torch.random.fork_rng(devices=[]):  # modules draw weights of their own, which are not kept
            self.seen = nn.Sequential(
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
        """(n, channels, H, W) pictures and (n,) classes to (n,) scores, higher for what looks real."""
        seen = self.seen(images)
        score: Tensor = self.real(seen)[:, 0] + torch.einsum("nk,nk->n", seen, self.direction(classes))
        return score
