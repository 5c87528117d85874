"""Maps that know nothing of the model: what any method has to differ from before its scores mean something."""

from typing import Any

import torch
from torch import Tensor

from .methods import Explain

SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def random_map(seed: int = 0, *, cells: int = 7) -> Explain:
    """A map that knows nothing, the line that others have to beat: (N, 1, cells, cells) in [0, 1).

    As coarse as Grad-CAM, because single noisy pixels fool a classifier faster than any map finds what it looks at.
    Row i depends on the seed and on i alone.

    Example:
        >>> random_map(seed=3)(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 1, 7, 7])
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        generator = torch.Generator().manual_seed(seed)  # drawn on the host: the same map on every device
        rows = [torch.rand(1, cells, cells, generator=generator) for _ in range(len(images))]
        return torch.stack(rows).to(images)

    return explain


def centre_blob(width: float = 0.25) -> Explain:
    """The middle of every picture, where photographers put things: (N, H, W), a Gaussian with a peak of 1.

    Args:
        width: its standard deviation, in sides of the picture.

    Example:
        >>> centre_blob()(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 8, 8])
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        down, across = (
            torch.exp(-(((torch.arange(n, device=images.device) + 0.5) / n - 0.5) ** 2) / (2 * width**2))
            for n in images.shape[-2:]
        )
        return (down[:, None] * across).to(images.dtype).expand(len(images), -1, -1)

    return explain


def edge_map() -> Explain:
    """How strong the edges of the picture are, whatever the model: (N, H, W), the magnitude of Sobel's gradient.

    Example:
        >>> edge_map()(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 8, 8])

    Source: Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), sec. 5.
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        across = torch.tensor(SOBEL, dtype=images.dtype, device=images.device)
        grey = torch.nn.functional.pad(images.mean(1, keepdim=True), [1] * 4, mode="replicate")
        slopes = torch.nn.functional.conv2d(grey, torch.stack([across, across.T])[:, None])
        return slopes.square().sum(1).sqrt()

    return explain
