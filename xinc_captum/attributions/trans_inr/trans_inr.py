"""TransINR, a transformer that generates one coordinate network for each image, and its patch tokens."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import chunks, python_index
from ...images import check_images
from ...inr.coordinates import pixel_centres
from ...inr.mlp import HypoNet, arguments_of, seeded
from ...inr.training import check_at_least_one, check_finite, digest
from .training import TransFit, WeightGenerator, fit_model, mean_psnr, random_mask, split_validation
from .writer import Groups, Modulations, Weights, WeightWriter, as_module, run_networks


class PatchTokens(nn.Module):
    r"""One token for each patch: a Linear of its pixels, plus a learned position embedding.

    .. math:: t_p = W\, [x_p, m_p] + b + E_p

    Symbols: x_p the pixels of all C channels of patch p (channel-major), zeros in the padding; m_p, with
    ``pixel_mask``, one number a pixel, 1 where it is visible; E the position embeddings, (1, dim, rows, columns),
    initially from N(0, init_std²). For an image of another size, E is interpolated bilinearly.

    Args:
        channels: C.
        size: (H, W) of the images to which the stored position embeddings belong.
        patch: side of a patch in pixels, or its (height, width); patches do not overlap.
        dim: width of a token.
        padding: pixels of zeros on every side.
        pixel_mask: whether single pixels can be masked; the mask is then part of the input.
        init_std: standard deviation of the initial position embeddings.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: a size that the patches do not tile, here or in a call; images or masks of another shape or dtype.

    Example:
        >>> tokens, seen = PatchTokens(1, (8, 8), 2, 24)(torch.rand(5, 1, 8, 12))
        >>> tokens.shape, seen
        (torch.Size([5, 24, 24]), None)

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), sec. 3.2;
    interpolated embeddings as in Dosovitskiy et al. (ICLR 2021), sec. 3.2; the pixel mask is ours.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        patch: int | tuple[int, int],
        dim: int,
        *,
        padding: int = 0,
        pixel_mask: bool = False,
        init_std: float = 0.3,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.patch, self.padding, self.pixel_mask = channels, sides_of(patch), padding, pixel_mask
        rows, columns = self.grid(size)
        height, width = self.patch
        with seeded(seed):
            self.linear = nn.Linear(height * width * (channels + pixel_mask), dim)
            self.places = nn.Parameter(torch.randn(1, dim, rows, columns) * init_std)

    def grid(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Return rows and columns of patches in an image of (H, W) pixels."""
        return self.count_patches(size, self.patch, self.padding)

    @staticmethod
    def count_patches(size: tuple[int, ...], patch: int | tuple[int, int], padding: int) -> tuple[int, int]:
        """Return rows and columns of patches in a padded image of (H, W) pixels."""
        sides = sides_of(patch)
        if padding < 0:
            raise ValueError(f"padding is {padding}; expected at least 0.")
        padded = [side + 2 * padding for side in size]
        if len(size) != 2 or any(side < step or side % step for side, step in zip(padded, sides, strict=True)):
            pairs = zip(padded, sides, strict=False)
            nearest = tuple(max(round(side / step), 1) * step - 2 * padding for side, step in pairs)
            raise ValueError(
                f"an image of {tuple(size)} pixels with padding {padding} does not tile into patches of {sides[0]} x "
                f"{sides[1]}; expected sides that do, such as {nearest}: crop, pad or resize it."
            )
        return padded[0] // sides[0], padded[1] // sides[1]

    def forward(self, images: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, patches, dim) of images (B, C, H, W), row by row, and the mask of visible ones or None.

        ``seen`` is bool, True for visible patches, (patches,) or (B, patches); with ``pixel_mask`` for visible pixels,
        (H, W) or (B, H, W). Masked values have no effect.
        """
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, {self.channels}, H, W).")
        if images.dtype != self.linear.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            kind = self.linear.weight.dtype
            raise ValueError(f"images are {images.dtype} and the weights {kind}; give images.to({kind}), in [0, 1].")
        grid = self.grid(tuple(images.shape[2:]))
        seen = None if seen is None else self.mask(seen, images)
        patches = seen
        if seen is not None and self.pixel_mask:
            patches = self._unfold(seen[:, None].to(images)).any(-1)
        if self.pixel_mask:
            mask = torch.ones_like(images[:, :1]) if seen is None else seen[:, None].to(images)
            images = torch.cat([images.where(mask > 0, 0), mask], 1)
        places: Tensor = self.places
        if tuple(places.shape[2:]) != grid:
            places = F.interpolate(places, grid, mode="bilinear", align_corners=False)
        return self.linear(self._unfold(images)) + places.flatten(2).mT, patches

    def _unfold(self, images: Tensor) -> Tensor:
        return F.unfold(images, self.patch, padding=self.padding, stride=self.patch).mT

    def mask(self, seen: Tensor, images: Tensor) -> Tensor:
        """Return the mask of each image: (B, patches), or (B, H, W) with ``pixel_mask``."""
        patches = math.prod(self.grid(tuple(images.shape[2:])))
        shape = (len(images), *(images.shape[2:] if self.pixel_mask else (patches,)))
        if seen.dtype != torch.bool or tuple(seen.shape) not in (shape, shape[1:]):
            what = "pixels" if self.pixel_mask else "patches; pixel_mask=True builds a model with masks of pixels"
            raise ValueError(
                f"seen is {seen.dtype} of shape {tuple(seen.shape)}; expected torch.bool of shape {shape[1:]} or "
                f"{shape}: one for each of the {what}."
            )
        return seen.expand(shape)


def sides_of(patch: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a patch."""
    patch = python_index(patch)
    sides = (patch, patch) if isinstance(patch, int) else tuple(patch) if isinstance(patch, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"patch is {patch!r}; expected a side in pixels, at least 1, or (height, width).")
    return sides[0], sides[1]


OUT_BIAS = 0.5  # mid grey


class Routing(NamedTuple):
    """Attention weights of the weight tokens; they are not contributions of patches.

    Attributes:
        to_patches: (B, depth, heads, weight tokens, patches).
        to_tokens: (B, depth, heads, weight tokens, weight tokens); together with ``to_patches`` a row adds up to 1.
    """

    to_patches: Tensor
    to_tokens: Tensor


class TransINR(WeightGenerator):
    r"""A transformer that maps the patches of an image to the weights of a small coordinate network of the image.

    .. math:: \hat x_b(p) = f_{W(x_b)}(\gamma(p)) + 0.5

    Symbols: f a :class:`~xinc_captum.inr.HypoNet` with ReLU, γ its frequencies, p a pixel's centre
    (:func:`~xinc_captum.inr.pixel_centres`); W(x) as in :class:`.WeightWriter`. The defaults are
    for images of 8 x 8; the paper's are size (178, 178), patch 9, padding 1, dim 768, depth 6, heads 12, head_dim 64,
    ff 3072, hidden 256, layers 5, count 64, highest 1024, groups 64, init_std 1.

    Args:
        channels: C; also ``size``, ``patch``, ``padding`` and ``pixel_mask`` as for :class:`PatchTokens`.
        dim: width of a token; also ``depth``, ``heads``, ``head_dim``, ``ff`` and ``groups`` as for
            :class:`WeightWriter`.
        hidden: units of the generated network's hidden layers; ``layers`` counts its Linear layers with the output
            layer, and ``count`` and ``highest`` are those of :class:`~xinc_captum.inr.HypoNet`.
        init_std: of the initial tokens and position embeddings.
        seed: for the weights; None takes torch's global generator.

    Attributes:
        mean_image: (C, H, W), the mean of the training images; mid grey before a fit.
        config: the arguments, without the seed.

    Raises:
        ValueError: a size that the patches do not tile, groups that do not divide a layer's outputs, or heads that do
            not divide dim without a ``head_dim``.

    Example:
        >>> model = TransINR(1, (8, 8), patch=2, seed=0)
        >>> inrs = model.generate(torch.rand(5, 1, 8, 8))
        >>> len(inrs), inrs[0]
        (5, HypoNet(...))

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022).
    """

    mean_image: Tensor

    def __init__(
        self,
        channels: int = 1,
        size: tuple[int, int] = (8, 8),
        patch: int | tuple[int, int] = 2,
        *,
        padding: int = 0,
        dim: int = 48,
        depth: int = 2,
        heads: int = 4,
        head_dim: int | None = None,
        ff: int = 96,
        hidden: int = 32,
        layers: int = 3,
        count: int = 4,
        highest: float = 4.0,
        groups: Groups = 32,
        pixel_mask: bool = False,
        init_std: float = 0.3,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.config = arguments_of(locals(), "seed")
        if isinstance(size, int) or len(size) != 2:
            raise ValueError(f"size is {size}; expected (height, width), for example (8, 8).")
        self.config["size"] = size = (size[0], size[1])
        check_at_least_one(channels=channels, hidden=hidden)
        seeds = (None, None, None) if seed is None else (seed, seed + 1, seed + 2)
        base = HypoNet(2, channels, hidden, layers, count, highest, seed=seeds[0])
        self.tokens = PatchTokens(
            channels, size, patch, dim, padding=padding, pixel_mask=pixel_mask, init_std=init_std, seed=seeds[1]
        )
        self.writer = WeightWriter(
            base, dim, depth, heads, ff, groups, head_dim=head_dim, init_std=init_std, seed=seeds[2]
        )
        self.register_buffer("mean_image", torch.full((channels, *size), OUT_BIAS))
        for i, (rows, linear) in enumerate(zip(self.writer.rows, base.linears().values(), strict=True)):
            self.register_buffer(f"mean_modulation{i}", torch.ones(rows, linear.in_features))

    @property
    def mean_modulations(self) -> Modulations:
        """Mean over the training images, one (rows, in) a layer; before a fit all 1, which gives the base network."""
        return tuple(self.get_buffer(f"mean_modulation{i}") for i in range(len(self.writer.rows)))

    def forward(self, images: Tensor, seen: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """Return the reconstructions of ``images``, in [0, 1], by their generated networks: (B, C, H, W), not clamped.

        ``seen`` is the mask of visible patches or pixels (:meth:`PatchTokens.forward`). The output has the ``size``, or
        that of ``images``.
        """
        output_size = size or (images.shape[-2], images.shape[-1])
        return self.paint(self.weights(self.modulations(images, seen)), output_size)

    def modulations(self, images: Tensor, seen: Tensor | None = None) -> Modulations:
        """Return the modulations of images: one (B, rows, in) a layer."""
        return self.writer.modulations(*self.tokens(images, seen))

    def weights(self, modulations: Modulations) -> Weights:
        """Return the networks' weights: (B, out, in) a layer, and biases that all images share."""
        return self.writer.weights(modulations)

    def paint(self, weights: Weights, size: tuple[int, int]) -> Tensor:
        """Return the images of networks: (B, C, H, W)."""
        outputs = run_networks(self.encoded(size), weights, OUT_BIAS)
        return outputs.mT.reshape(*outputs.mT.shape[:-1], *size)

    def encoded(self, size: tuple[int, int]) -> Tensor:
        """Return γ at every pixel's centre: (H · W, in)."""
        like = self.tokens.places
        encode = self.writer.base.get_submodule("encoding")
        encoded: Tensor = encode(pixel_centres(size, dtype=like.dtype, device=like.device))
        return encoded

    def generate(self, images: Tensor, seen: Tensor | None = None) -> list[HypoNet]:
        """Return one network for each image: ordinary modules that share no memory with each other or this model.

        Arguments as for :meth:`forward`. :func:`xinc_captum.inr.save` writes a network to a file; its grid is
        :func:`~xinc_captum.inr.pixel_centres`.

        Raises:
            ValueError: images or parameters that are not finite, or images of another shape.
        """
        images = check_images(images).to(self.tokens.places)
        check_finite(self)
        networks: list[HypoNet] = []
        mask_dims = 3 if self.tokens.pixel_mask else 2
        with torch.no_grad():
            for start, stop in self._chunks(images):
                part = seen[start:stop] if seen is not None and len(seen.shape) == mask_dims else seen
                weights = self.weights(self.modulations(images[start:stop], part))
                networks += [as_module(self.writer.base, weights, i, OUT_BIAS) for i in range(stop - start)]
        return networks

    def routing(self, images: Tensor, seen: Tensor | None = None) -> Routing:
        """Return the attention weights of the weight tokens, for each block and head.

        Attention weights are not contributions: contributions also depend on the values and on later layers. Use
        :class:`xinc_captum.TokenContribution` with level="patch" for contributions.
        """
        check_finite(self)
        tokens, mask = self.tokens(check_images(images).to(self.tokens.places), seen)
        with torch.no_grad():
            weights = self.writer.read(tokens, mask).routing[..., tokens.shape[1] :, :]
        return Routing(weights[..., : tokens.shape[1]], weights[..., tokens.shape[1] :])

    @torch.inference_mode(False)
    def fit(
        self,
        images: Tensor,
        *,
        validation: float | Tensor | None = 0.1,
        steps: int = 1500,
        lr: float = 6e-3,
        batch_size: int = 64,
        warmup: int = 50,
        keep: float = 1.0,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        every: int = 100,
        show_progress: bool = True,
    ) -> TransFit:
        r"""Train in place so that each image's network reconstructs it.

        .. math:: \min \; \mathrm{mean}_{b, c, p} \, (\hat x_b(p) - x_b(p))^2

        Adam; the rate rises over ``warmup`` steps and is divided by 10 after 80 % of all steps. Training flags,
        gradients and the global random state are restored. At the end the means of images and modulations are stored:
        the baselines of :class:`xinc_captum.TokenContribution`.

        Args:
            images: (N, C, H, W), floats in [0, 1], N >= 2.
            validation: validation images: a share of ``images``, a tensor, or None.
            steps: optimizer steps.
            lr: the highest rate.
            batch_size: images a step.
            warmup: steps over which the rate rises.
            keep: the smallest share of visible patches (or pixels); each image has a random share in [keep, 1].
            seed: for the split, the batches and the masks.
            checkpoint: a file to write the run to, and to resume it from; on the same CPU with as many threads a
                killed run ends with bit-identical parameters.
            every: steps between two validations, each followed by a checkpoint.
            show_progress: a bar with the validation PSNR, where standard error is a terminal.

        Raises:
            ValueError: images that are not finite, out of range or of another shape; numbers out of range.
            CheckpointError: a checkpoint of another configuration or other images, or a damaged one.

        Example:
            >>> fit = TransINR(seed=0).fit(torch.rand(20, 1, 8, 8), steps=3, show_progress=False)
            >>> len(fit.curve), len(fit.validation)
            (3, 1)
        """
        if batch_size < 1 or not 0 < keep <= 1:
            raise ValueError(
                f"batch_size is {batch_size} and keep is {keep}; expected at least 1, and a share in (0, 1]."
            )
        train_images, val_images = split_validation(check_images(images).to(self.tokens.places), validation, seed)
        recipe = self.config | {"images": digest(images), "batch_size": batch_size, "keep": keep}
        recipe["validation"] = digest(validation) if isinstance(validation, Tensor) else validation
        size = (train_images.shape[2], train_images.shape[3])
        grid = self.tokens.grid(size)
        shape = size if self.tokens.pixel_mask else (grid[0] * grid[1],)
        self(train_images[:1])  # a wrong number of channels fails before the first step

        def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor | None]]:
            count = min(batch_size, len(train_images))
            while True:
                index = torch.randint(len(train_images), (count,), generator=generator)
                yield index, None if keep == 1 else random_mask((count, *shape), keep, generator)

        def loss_of(batch: tuple[Tensor, Tensor | None], _: int) -> Tensor:
            index, mask = batch
            target = train_images[index.to(train_images.device)]
            return F.mse_loss(self(target, None if mask is None else mask.to(target.device)), target)

        validate = None if val_images is None else partial(self._mean_psnr, val_images)
        options: dict[str, Any] = {"steps": steps, "lr": lr, "warmup": warmup, "seed": seed, "checkpoint": checkpoint}
        options |= {"every": every, "show_progress": show_progress}
        result = fit_model(self, loss_of, batches, validate, recipe, **options)
        self._store_means(train_images)
        return result

    def _mean_psnr(self, images: Tensor) -> float:
        size = (images.shape[2], images.shape[3])
        return mean_psnr(torch.cat([self(images[a:b]) for a, b in self._chunks(images, size)]), images)

    @torch.no_grad()
    def _store_means(self, images: Tensor) -> None:
        """Store the mean modulations and the mean image as buffers."""
        totals = [torch.zeros_like(mean) for mean in self.mean_modulations]
        for start, stop in self._chunks(images):
            for total, part in zip(totals, self.modulations(images[start:stop]), strict=True):
                total += part.sum(0)
        for mean, total in zip(self.mean_modulations, totals, strict=True):
            mean.copy_(total / len(images))
        image = images.mean(0, keepdim=True)
        if image.shape[1:] != self.mean_image.shape:
            image = F.interpolate(image, self.mean_image.shape[1:], mode="bilinear", antialias=True)
        self.mean_image.copy_(image[0])

    def _chunks(self, images: Tensor, size: tuple[int, int] = (1, 1)) -> list[tuple[int, int]]:
        """Return ranges of images, each small enough for one pass with outputs of ``size``."""
        patches = math.prod(self.tokens.grid(tuple(images.shape[2:])))
        return chunks(len(images), self.writer.max_batch_size(size, None, patches))
