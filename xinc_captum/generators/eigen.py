"""A generator that needs no training: principal components of images, with a Gaussian for each class."""

import torch
from torch import Tensor, nn

from .protocol import ClassSampler, check_unit_range, count_labels, normal, truncate


class EigenGenerator(ClassSampler, nn.Module):
    r"""Generator of images as the mean image plus principal components, with Gaussian latents for each class.

    .. math:: G(w) = \mathrm{clamp}_{[0,1]}\Big(\bar x + \sum_k w_k v_k\Big), \qquad
              w = m_c + L_c \epsilon, \quad \epsilon \sim N(0, I), \quad L_c L_c^\top = \mathrm{Cov}(w \mid c)

    Symbols: x̄ the mean image and v_k its components, (C, H, W) each; m_c and Cov(w|c) mean and covariance of the
    latents of the real images of class c.

    Args:
        images: (n, C, H, W) floats in [0, 1].
        labels: (n,) classes 0, 1, …; None fits one Gaussian to all images.
        components: width of the latent, at most n and the pixels of an image.

    Raises:
        ValueError: images outside [0, 1] or of another shape, labels that do not fit, a class of fewer than two
            images, or more components than images or pixels.

    Example:
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 4
        >>> eigen = EigenGenerator(images, labels, components=6)
        >>> latents = eigen.sample_latents(3, classes=2, truncation=0.7)
        >>> latents.shape, eigen.synthesize(latents).shape
        (torch.Size([3, 6]), torch.Size([3, 1, 8, 8]))

    Source: Turk & Pentland, "Eigenfaces for Recognition" (1991), for the components.
    """

    image_range = (0.0, 1.0)
    differentiable = True
    mean: Tensor
    basis: Tensor
    class_means: Tensor
    class_roots: Tensor

    def __init__(self, images: Tensor, labels: Tensor | None = None, components: int = 24) -> None:
        super().__init__()
        rows, groups = _check_images(images, labels, components)
        flat = rows.flatten(1).double()
        mean = flat.mean(0)
        # The sign of a component is arbitrary; the largest entry is made positive, so that all machines agree.
        basis = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:components]
        basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
        latents = (flat - mean) @ basis.T
        chosen = [latents[groups == label] for label in range(int(groups.max()) + 1)]
        self.num_classes = 0 if labels is None else len(chosen)
        self.shape = tuple(images.shape[1:])
        for name, value in (
            ("mean", mean),
            ("basis", basis),
            ("class_means", torch.stack([members.mean(0) for members in chosen])),
            ("class_roots", torch.stack([_root(members) for members in chosen])),
        ):
            self.register_buffer(name, value.to(images.dtype))

    def like(self) -> Tensor:
        """Return the mean image, which has the latents' device and dtype."""
        return self.mean

    def _centre(self, rows: Tensor | None, n: int) -> Tensor:
        """Return the mean of each class, or of all latents."""
        return self.class_means[_zeros_for(rows, n)]

    def _draw(self, rows: Tensor | None, n: int, truncation: float, generator: torch.Generator | None) -> Tensor:
        """Return latents of each class's Gaussian."""
        noise = normal(n, self.basis.shape[0], generator, device=self.mean.device, dtype=self.mean.dtype)
        roots, centre = self.class_roots[_zeros_for(rows, n)], self._centre(rows, n)
        return truncate(centre + torch.einsum("nij,nj->ni", roots, noise), centre, truncation)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents (n, components) whose images are nearest to images (n, C, H, W)."""
        latents: Tensor = (images.flatten(1) - self.mean) @ self.basis.T
        return latents

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, C, H, W) in [0, 1]."""
        flat: Tensor = self.mean + latents @ self.basis
        return flat.clamp(0, 1).reshape(-1, *self.shape)

    def forward(self, latents: Tensor) -> Tensor:
        """As :meth:`synthesize`."""
        return self.synthesize(latents)

    def feature_layers(self) -> list[str]:
        """Return no layers: no activation is a map of image positions."""
        return []


def _zeros_for(rows: Tensor | None, n: int) -> Tensor:
    """Return ``rows``, or class 0 for all ``n`` where there are no classes."""
    return torch.zeros(n, dtype=torch.long) if rows is None else rows


def _check_images(images: Tensor, labels: Tensor | None, components: int) -> tuple[Tensor, Tensor]:
    if images.dim() != 4 or not images.is_floating_point() or len(images) < 2:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats (n, C, H, W), at least 2."
        )
    check_unit_range(images)
    most = min(len(images), images[0].numel())
    if not 1 <= components <= most:
        raise ValueError(f"components is {components}; expected 1 to {most}, from {len(images)} images.")
    if labels is None:
        return images.detach(), torch.zeros(len(images), dtype=torch.long, device=images.device)
    counts = count_labels(labels, len(images))
    if int(counts.min()) < 2:
        raise ValueError(f"class {int(counts.argmin())} has {int(counts.min())} images; expected at least 2 of each.")
    return images.detach(), labels.to(images.device)


def _root(latents: Tensor) -> Tensor:
    """Return the symmetric L with L Lᵀ = Cov, which is unique and also exists if Cov is singular."""
    values, vectors = torch.linalg.eigh(torch.cov(latents.T).reshape(latents.shape[1], -1))
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
