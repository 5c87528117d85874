"""Class TransINR, patch tokens."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import chunks
from ...images import check_images
from ...inr import HypoNet, pixel_centres
from ...inr.mlp import seeded
from ...inr.training import check_finite, digest
from .training import TransFit, fit_model, load_model, mean_psnr, random_mask, save_model, split_validation
from .writer import Groups, Modulations, Weights, WeightWriter, as_module, at_least_one, run_networks


class PatchTokens(nn.Module):
    r"""One token a patch: its pixels through a Linear, plus a learned vector for its place.

    .. math:: t_p = W\, [x_p, m_p] + b + E_p

    Symbols: x_p the pixels of all C channels of patch p (channel-major), zeros in the padding; m_p, with
    ``pixel_mask``, one number a pixel, 1 where it is seen; E the table of places, (1, dim, rows, columns), drawn
    from N(0, init_std²). For a picture of another size E is interpolated bilinearly between the places' centres.

    Args:
        channels: C.
        size: (H, W) that the table is made for.
        patch: side of a patch in pixels, or its (height, width); patches do not overlap.
        dim: numbers a token.
        padding: pixels of zeros on every side.
        pixel_mask: whether single pixels can be unseen; the mask is then part of what is read.
        init_std: standard deviation of the first table.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: sizes that do not tile, now or of a later picture.

    Example:
        >>> tokens, seen = PatchTokens(1, (8, 8), 2, 24)(torch.rand(5, 1, 8, 12))
        >>> tokens.shape, seen
        (torch.Size([5, 24, 24]), None)

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), sec. 3.2;
    interpolated places as in Dosovitskiy et al. (ICLR 2021), sec. 3.2; the mask of pixels is ours.
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
        """Rows and columns of patches in a picture of (H, W) pixels; errors as for :meth:`tiled`."""
        return self.tiled(size, self.patch, self.padding)

    @staticmethod
    def tiled(size: tuple[int, ...], patch: int | tuple[int, int], padding: int) -> tuple[int, int]:
        """Rows and columns of patches in a padded picture of (H, W) pixels.

        Raises:
            ValueError: it does not tile, a patch below 1 or of another form, or a padding below 0.
        """
        sides = sides_of(patch)
        if padding < 0:
            raise ValueError(f"padding is {padding}; expected at least 0.")
        whole = [side + 2 * padding for side in size]
        if len(size) != 2 or any(side < step or side % step for side, step in zip(whole, sides, strict=True)):
            pairs = zip(whole, sides, strict=False)
            good = tuple(max(round(side / step), 1) * step - 2 * padding for side, step in pairs)
            raise ValueError(
                f"a picture of {tuple(size)} pixels with padding {padding} does not tile into patches of {sides[0]} x "
                f"{sides[1]}; expected sides that do, such as {good}: crop, pad or resize it."
            )
        return whole[0] // sides[0], whole[1] // sides[1]

    def forward(self, images: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, C, H, W) to tokens (B, patches, dim), row by row, and which of them are seen (None: all).

        Args:
            images: pictures, all of one size.
            seen: bool; of patches, (patches,) or (B, patches); with ``pixel_mask`` of pixels, (H, W) or (B, H, W).
                Values of what is not seen are not looked at.

        Raises:
            ValueError: images of other channels or a size that does not tile, or ``seen`` of another shape or dtype.
        """
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, {self.channels}, H, W).")
        if images.dtype != self.linear.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            kind = self.linear.weight.dtype
            raise ValueError(f"images are {images.dtype} and the weights {kind}; give images.to({kind}), in [0, 1].")
        rows, columns = self.grid(tuple(images.shape[2:]))
        patches = seen = None if seen is None else self.mask(seen, images)
        if seen is not None and self.pixel_mask:
            patches = self._unfolded(seen[:, None].to(images)).any(-1)
        if self.pixel_mask:
            mask = torch.ones_like(images[:, :1]) if seen is None else seen[:, None].to(images)
            images = torch.cat([images.where(mask > 0, 0), mask], 1)
        tokens = self.linear(self._unfolded(images)) + self._placed((rows, columns))
        return tokens, patches

    def _unfolded(self, images: Tensor) -> Tensor:
        return F.unfold(images, self.patch, padding=self.padding, stride=self.patch).mT

    def _placed(self, grid: tuple[int, int]) -> Tensor:
        table: Tensor = self.places
        if tuple(table.shape[2:]) != grid:
            table = F.interpolate(table, grid, mode="bilinear", align_corners=False)
        return table.flatten(2).mT

    def mask(self, seen: Tensor, images: Tensor) -> Tensor:
        """What is seen of each of ``images``: (B, patches), or (B, H, W) with ``pixel_mask``.

        Raises:
            ValueError: ``seen`` of another shape or dtype.
        """
        rows, columns = self.grid(tuple(images.shape[2:]))
        shape = (len(images), *(images.shape[2:] if self.pixel_mask else (rows * columns,)))
        if seen.dtype != torch.bool or tuple(seen.shape) not in (shape, shape[1:]):
            what = "pixels" if self.pixel_mask else "patches; pixel_mask=True makes a model that can miss single pixels"
            raise ValueError(
                f"seen is {seen.dtype} of shape {tuple(seen.shape)}; expected torch.bool of shape {shape[1:]} or "
                f"{shape}:"
                f" one for each of the {what}."
            )
        return seen.expand(shape)


def sides_of(patch: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a patch.

    Raises:
        ValueError: neither a number nor two, or below 1.

    Example:
        >>> sides_of(3), sides_of((2, 5))
        ((3, 3), (2, 5))
    """
    sides = (patch, patch) if isinstance(patch, int) else tuple(patch) if isinstance(patch, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"patch is {patch!r}; expected a side in pixels, at least 1, or (height, width).")
    return sides[0], sides[1]


OUT_BIAS = 0.5  # what every picture starts from, mid grey


class Routing(NamedTuple):
    """Attention of the weight tokens: where they *looked*, not what a patch contributed.

    Attributes:
        to_patches: (B, depth, heads, weight tokens, patches).
        to_tokens: (B, depth, heads, weight tokens, weight tokens); with ``to_patches`` a row adds up to 1.
    """

    to_patches: Tensor
    to_tokens: Tensor


class TransINR(nn.Module):
    r"""Reads a picture as patches and writes, in one pass, the weights of a small network that draws it.

    .. math:: \hat x_b(p) = f_{W(x_b)}(\gamma(p)) + 0.5

    Symbols: f a :class:`~xinc_captum.inr.HypoNet` with ReLU, γ its frequencies, p a pixel's centre
    (:func:`~xinc_captum.inr.pixel_centres`); W(x) as in :class:`.WeightWriter`. The defaults are
    for pictures of 8 x 8; the paper's are size (178, 178), patch 9, padding 1, dim 768, depth 6, heads 12, head_dim 64,
    ff 3072, hidden 256, layers 5, count 64, highest 1024, groups 64, init_std 1.

    Args:
        channels: C of a picture.
        size: (H, W) that places are learned for; other sizes interpolate them.
        patch: side of a patch in pixels, or its (height, width).
        padding: pixels of zeros around a picture.
        dim: numbers a token.
        depth: blocks of the transformer.
        heads: of each block.
        head_dim: numbers of each head; None is dim / heads.
        ff: width of the blocks' two-layer networks.
        hidden: units of the written network's hidden layers.
        layers: its Linear layers, the output among them.
        count: its frequencies of each coordinate.
        highest: the last of these.
        groups: weight tokens of each layer, or "vector" for a single-vector hypernetwork.
        pixel_mask: whether single pixels can be unseen, not only patches.
        init_std: of tokens and places.
        seed: for the weights; None takes torch's global generator.

    Attributes:
        mean_image: (C, H, W), the mean of the pictures it was fitted to; mid grey before.
        config: the arguments, without the seed.

    Raises:
        ValueError: a size that does not tile, groups that do not divide a layer's outputs, heads that do not divide
            dim without a ``head_dim``.

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
        self.config: dict[str, Any] = {
            name: value for name, value in locals().items() if name not in ("self", "seed", "__class__")
        }
        self.config["size"] = size = _pair(size)
        at_least_one(channels=channels, hidden=hidden)
        base = HypoNet(2, channels, hidden, layers, count, highest, seed=seed)
        later = None if seed is None else seed + 1
        self.tokens = PatchTokens(
            channels, size, patch, dim, padding=padding, pixel_mask=pixel_mask, init_std=init_std, seed=later
        )
        self.writer = WeightWriter(
            base,
            dim,
            depth,
            heads,
            ff,
            groups,
            head_dim=head_dim,
            init_std=init_std,
            seed=None if seed is None else seed + 2,
        )
        self.register_buffer("mean_image", torch.full((channels, *size), OUT_BIAS))
        for i, (rows, linear) in enumerate(zip(self.writer.rows, base.linears().values(), strict=True)):
            self.register_buffer(f"mean_modulation{i}", torch.ones(rows, linear.in_features))

    @property
    def mean_modulations(self) -> Modulations:
        """The mean over the pictures it was fitted to, one (rows, in) a layer; ones, the bare base network, before."""
        return tuple(self.get_buffer(f"mean_modulation{i}") for i in range(len(self.writer.rows)))

    def forward(self, images: Tensor, seen: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """Pictures drawn by the networks written for ``images``: (B, C, H, W), not clamped.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            seen: which patches (or pixels) may be looked at (:class:`~xinc_captum.attributions.trans_inr.PatchTokens`).
            size: what to draw; None is the size of ``images``.
        """
        drawn = size or (images.shape[-2], images.shape[-1])
        return self.paint(self.weights(self.modulations(images, seen)), drawn)

    def modulations(self, images: Tensor, seen: Tensor | None = None) -> Modulations:
        """What the transformer writes: one (B, rows, in) a layer."""
        return self.writer.modulations(*self.tokens(images, seen))

    def weights(self, modulations: Modulations) -> Weights:
        """The networks' weights: (B, out, in) a layer, and biases that all pictures share."""
        return self.writer.weights(modulations)

    def paint(self, weights: Weights, size: tuple[int, int]) -> Tensor:
        """What networks draw: (B, C, H, W)."""
        drawn = run_networks(self.encoded(size), weights, OUT_BIAS)
        return drawn.mT.reshape(*drawn.mT.shape[:-1], *size)

    def encoded(self, size: tuple[int, int]) -> Tensor:
        """γ at every pixel's centre: (H · W, in)."""
        like = self.tokens.places
        encode = self.writer.base.get_submodule("encoding")
        encoded: Tensor = encode(pixel_centres(size, dtype=like.dtype, device=like.device))
        return encoded

    def generate(self, images: Tensor, seen: Tensor | None = None) -> list[HypoNet]:
        """One network a picture, each an ordinary module that shares nothing with the others or with this model.

        :func:`xinc_captum.inr.save` keeps one in a file; it draws at :func:`~xinc_captum.inr.pixel_centres`.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            seen: as for :meth:`forward`.

        Raises:
            ValueError: images that are not finite, or of another shape; parameters that are not finite.
        """
        images = check_images(images).to(self.tokens.places)
        check_finite(self)
        found: list[HypoNet] = []
        with torch.no_grad():
            for start, stop in self._chunks(images):
                part = seen[start:stop] if seen is not None and len(seen.shape) == self._seen_dims else seen
                weights = self.weights(self.modulations(images[start:stop], part))
                found += [as_module(self.writer.base, weights, i, OUT_BIAS) for i in range(stop - start)]
        return found

    @property
    def _seen_dims(self) -> int:
        return 3 if self.tokens.pixel_mask else 2

    def routing(self, images: Tensor, seen: Tensor | None = None) -> Routing:
        """Where the weight tokens looked, block by block and head by head.

        These are weights of routing: what is carried along them, and what later layers make of it, decide what a patch
        contributes. For contributions ask :class:`xinc_captum.TokenContribution` with level="patch".
        """
        check_finite(self)
        tokens, mask = self.tokens(check_images(images).to(self.tokens.places), seen)
        with torch.no_grad():
            found = self.writer.read(tokens, mask).routing[..., tokens.shape[1] :, :]
        return Routing(found[..., : tokens.shape[1]], found[..., tokens.shape[1] :])

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
        r"""Train in place so that every picture's network draws it.

        .. math:: \min \; \mathrm{mean}_{b, c, p} \, (\hat x_b(p) - x_b(p))^2

        Adam; the rate rises over ``warmup`` steps and is a tenth after 80 % of all. Train flags, gradients and the
        global random state are left as found. At the end the means of pictures and modulations are kept, the baselines
        of :class:`xinc_captum.TokenContribution`.

        Args:
            images: (N, C, H, W), floats in [0, 1], N >= 2.
            validation: pictures to look at, never trained on: a share of ``images``, a tensor, or None.
            steps: optimiser steps.
            lr: the highest rate.
            batch_size: pictures a step.
            warmup: steps.
            keep: the least share of patches (or pixels) that is seen; each picture's own is drawn from [keep, 1].
            seed: for the split, the batches and what is seen.
            checkpoint: a file to write the run to, and to take it up from; on the same CPU with as many threads a
                killed run ends with bit-identical parameters.
            every: steps from one look and checkpoint to the next.
            show_progress: a bar with the validation PSNR, where standard error is a terminal.

        Raises:
            ValueError: images that are not finite, out of range or of another shape; numbers out of range.
            CheckpointError: a checkpoint of another configuration, other pictures, or damaged.

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
        """Ranges of images that one pass reads, where it draws images of ``size``."""
        patches = math.prod(self.tokens.grid(tuple(images.shape[2:])))
        return chunks(len(images), self.writer.max_batch_size(size, None, patches))

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file: arguments, weights, means. It appears whole or not at all."""
        save_model(self, self.config, path)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> "TransINR":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file, not one of a TransINR, or weights of another configuration.
        """
        return load_model(cls, path, device)

    def extra_repr(self) -> str:
        """The arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())


def _pair(size: tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, int) or len(size) != 2:
        raise ValueError(f"size is {size}; expected (height, width), for example (8, 8).")
    return size[0], size[1]
