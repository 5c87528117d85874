"""Masks of the parts of generated images: fixed, by a function of the image, or by the generator's features."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._optional import require
from ..batch import random_generator
from ..metrics.parts import check_parts
from .features import enlarge, images_and_features, stack_maps
from .part_heads import FewShotHead, ProjectionHead, check_map, check_maps
from .protocol import Generator, images_in_unit_range


class Parts(Protocol):
    """Protocol of classes that generate images with part masks: :class:`ImageParts`, :class:`FeatureParts`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each part."""
        ...

    def draw(self, generator: Generator, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W) in [0, 1] and masks (n, parts, H, W) of latents (n, latent_dim)."""
        ...


class ImageParts:
    """Parts by a function of the image, or by the same masks for all images.

    Args:
        masks: a function from images (n, C, H, W) in [0, 1] to masks (n, parts, H, W), bool or weights in [0, 1]; or
            masks (parts, H, W) for all images. None is one part, the whole image.
        names: one for each part.

    Raises:
        ValueError: no names, names that repeat, or fixed masks of another number or shape, or with an empty one.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> bright = ImageParts(lambda images: torch.cat([images, 1 - images], 1), ["ink", "paper"])
        >>> bright.draw(generator, torch.zeros(3, 4))[1].shape
        torch.Size([3, 2, 2, 2])
    """

    def __init__(
        self, masks: Callable[[Tensor], Tensor] | Tensor | None = None, names: Sequence[str] = ("picture",)
    ) -> None:
        self.names = tuple(names)
        self._masks = masks
        check_names(self.names)
        if isinstance(masks, Tensor):
            if masks.dim() != 3 or len(masks) != len(self.names):
                raise ValueError(
                    f"masks have shape {tuple(masks.shape)} for the parts {', '.join(self.names)}; expected "
                    f"({len(self.names)}, H, W)."
                )
            empty = [name for name, mask in zip(self.names, masks, strict=True) if not bool(mask.any())]
            if empty:
                raise ValueError(f"the mask of {empty[0]!r} is empty; leave the part out.")
        elif masks is None and len(self.names) != 1:
            raise ValueError(f"names are {self.names} but no masks are given; the whole image is one part.")

    def draw(self, generator: Generator, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and masks of latents, or raise ValueError for masks that do not match the images or names."""
        images = images_in_unit_range(generator, latents)
        if self._masks is None:
            return images, torch.ones_like(images[:, :1])
        if isinstance(self._masks, Tensor):
            masks = self._masks.to(images.device).expand(len(images), -1, -1, -1)
        else:
            masks = self._masks(images)
        check_parts(images, masks)
        if masks.shape[1] != len(self.names):
            raise ValueError(f"the masks have {masks.shape[1]} parts, the names are {', '.join(self.names)}.")
        return images, masks


def check_names(names: tuple[str, ...]) -> None:
    """Raise ValueError unless every part has a different name."""
    if not names or len(set(names)) != len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"names are {names}; expected a different word for each part.")


LEARNT_FROM = 20_000  # pixels; k-means on more gives the same centres, slower


class FeatureParts:
    r"""Parts by a head on the generator's features, from the forward pass that generates the image.

    .. math:: m_{q} = \mathrm{softmax}_q\, \mathrm{head}(f_1, \dots, f_k)

    Masks are soft: an area is the expected number of pixels, and masks are differentiable, so that units can be
    screened by gradients.

    Args:
        head: a fitted :class:`FewShotHead`, :class:`ProjectionHead` or :class:`FeatureClusters`.
        names: one for each of the head's parts, including the background.
        layers: the generator's layers to which the head was fitted; None is its ``feature_layers()``.

    Raises:
        ValueError: another number of names than the head's parts, or names that repeat.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 2, 2)), torch.nn.ConvTranspose2d(1, 3, 2, 2))
        >>> generator = from_callable(lambda w: net(w).sigmoid(), normal_latents(4))
        >>> parts = FeatureParts(ProjectionHead([1, 3], 2), ["back", "front"], ["0", "1"])
        >>> parts.draw(generator, torch.zeros(1, 4))[1].sum(1).mean()
        tensor(1., ...)
    """

    def __init__(
        self,
        head: "FewShotHead | ProjectionHead | FeatureClusters",
        names: Sequence[str],
        layers: Sequence[nn.Module | str] | None = None,
    ) -> None:
        self.names = tuple(names)
        check_names(self.names)
        if len(self.names) != head.parts:
            raise ValueError(f"names are {', '.join(self.names)}, but the head has {head.parts} parts.")
        self.head, self.layers = head, layers

    def draw(self, generator: Generator, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W) in [0, 1] and masks (n, parts, H, W) that sum to 1 at every pixel."""
        reads = [partial(self.head.project, index) for index in range(len(self.head.channels))]
        images, features = images_and_features(generator, latents, self.layers, reads=reads)
        logits = self.head.logits(features, (int(images.shape[2]), int(images.shape[3])))
        return images, logits.softmax(1)


class FeatureClusters(nn.Module):
    r"""Parts without labels: pixels are assigned to the nearest of k centres in feature space.

    .. math:: \mathrm{logits}_{q,p} = -\tfrac12\, \beta\, \|z_p - c_q\|^2

    Symbols: z the pixel's features, smoothed over 3×3 pixels (transposed convolutions leave a checkerboard pattern that
    would dominate k-means), each channel minus its mean, divided by its standard deviation and by the root of the
    number of channels; c the centres; β the sharpness. :func:`cluster_features` returns it.
    """

    mean: Tensor
    scale: Tensor
    centres: Tensor

    def __init__(
        self, mean: Tensor, scale: Tensor, centres: Tensor, channels: Sequence[int], sharpness: float = 20.0
    ) -> None:
        super().__init__()
        self.channels, self.parts, self.sharpness = tuple(channels), len(centres), sharpness
        for name, value in (("mean", mean), ("scale", scale), ("centres", centres)):
            self.register_buffer(name, value)

    def project(self, index: int, feature: Tensor) -> Tensor:
        """Return the contribution of map ``index`` to the logit of each centre, the input of :meth:`logits`."""
        check_map(index, feature, self.channels)
        # |z - c|² without |z|², which cancels in the softmax, is linear in the features: a 1×1 convolution for each
        # map, at its own resolution, as in ProjectionHead
        part = (self.sharpness * self.centres / self.scale).split(self.channels, 1)[index]
        return even((part.to(feature) @ feature.flatten(2)).unflatten(2, feature.shape[2:]))

    def logits(self, projected: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (n, k, H, W) of projected maps."""
        weight = self.sharpness * self.centres / self.scale
        bias = -weight @ self.mean - 0.5 * self.sharpness * self.centres.square().sum(1)
        total = bias.view(1, -1, 1, 1).to(projected[0])
        for feature in projected:
            total = total + enlarge(feature, size)
        return total

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits (n, k, H, W) of maps (n, channels, h, w); other channels raise a ValueError."""
        check_maps(maps, self.channels)
        return self.logits([self.project(index, feature) for index, feature in enumerate(maps)], size)


def even(maps: Tensor) -> Tensor:
    """Return maps smoothed by weights 1, 2, 1 along rows and columns, with the edge repeated."""
    wide = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    down = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]
    return (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 16


def cluster_features(
    maps: Sequence[Tensor], clusters: int, *, seed: int = 0, sharpness: float = 20.0
) -> FeatureClusters:
    """Return a head for :class:`FeatureParts` by k-means on pixels' features (scikit-learn, extra ``analysis``).

    Args:
        maps: of :func:`images_and_features`, (n, channels, h, w) each.
        clusters: number of clusters, k.
        seed: of the sampled pixels, and of the first centres.
        sharpness: of the soft masks.

    Raises:
        ValueError: fewer than two clusters, fewer pixels than clusters, or features that are not finite.
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> maps = [torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)]
        >>> cluster_features(maps, 2)(maps, (4, 4)).argmax(1).unique(return_counts=True)[1].sort().values.tolist()
        [8, 8]

    Source: Collins et al., "Editing in Style" (CVPR 2020), clusters a generator's features likewise.
    """
    size = max((feature.shape[2:] for feature in maps), key=lambda s: s[0] * s[1])
    everything = [even(feature.detach()) for feature in maps]
    rows, pixels = len(maps[0]), size[0] * size[1]
    if not 2 <= clusters <= rows * pixels:
        raise ValueError(
            f"clusters is {clusters} for {rows * pixels} pixels; expected at least 2, and at most one for each pixel."
        )
    chosen = torch.randperm(rows * pixels, generator=random_generator(seed))[:LEARNT_FROM]
    image, place = chosen // pixels, chosen % pixels
    taken = torch.cat(
        [
            stack_maps([feature[row : row + 1] for feature in everything], (size[0], size[1])).flatten(2)[0][
                :, place[image == row]
            ]
            for row in range(rows)
        ],
        1,
    ).T.double()
    if not taken.isfinite().all():
        raise ValueError("the features hold NaN or infinity; expected finite values for k-means.")
    mean, spread = taken.mean(0), taken.std(0, correction=0)
    scale = spread.where(spread > 1e-12, 1.0) * taken.shape[1] ** 0.5
    cluster = require("sklearn.cluster", purpose="k-means", extra="analysis")
    means = cluster.KMeans(clusters, n_init=4, random_state=seed).fit(((taken - mean) / scale).cpu().numpy())
    centres = torch.from_numpy(means.cluster_centers_).to(maps[0])
    channels = [feature.shape[1] for feature in maps]
    return FeatureClusters(mean.to(maps[0]), scale.to(maps[0]), centres, channels, sharpness)
