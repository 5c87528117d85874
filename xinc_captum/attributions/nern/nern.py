"""NeRN: a network that generates the convolution kernels of another network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import nern_file
from .kernel_network import KernelNetwork
from .size import SizeReport, size_report
from .training import NernFit, Recipe, fit_kernels


class NeRN(KernelNetwork):
    r"""A neural representation of a network's convolutions: it maps the coordinates of a kernel to its weights.

    .. math:: \hat W_l[f, c] = \mathrm{crop}_l\, P(\gamma(l, r_l(f, c)))

    Symbols: γ a :class:`SmoothEmbedding` of (layer, filter, channel), r_l the coordinate of kernel (f, c) under
    the permutation, P a :class:`KernelPredictor`, crop_l from K x K to the layer's kernel size. Biases, normalisation
    layers, classifiers and convolutions that are not listed are those of the target, and count in :meth:`size_report`.
    In our measurements, int8 rounding of the same weights needs fewer bytes and has smaller errors: use a NeRN for
    analysis. ``print(nern.fit(…))`` shows bytes, weight error and agreement of both.

    Args:
        target: the network, or a function around it; it is not changed.
        layers: modules or dotted names; None takes every ``nn.Conv2d``, including grouped ones.
        base: of the embedding; a base below 1 is smooth.
        levels: of the embedding.
        fusion: of the embedding.
        hidden: units of the predictor's hidden layers; more units are more accurate and need more bytes.
        blocks: Linear layers of the predictor.
        kernel_size: K; None is the largest side among the layers.
        permutation: "cross-filter", "in-filter" or "none", as :func:`order_kernels`.
        crop: "center", "average" or "max", as :func:`crop`.
        coordinates: "index", "local" or "global", as :func:`kernel_coordinates`.
        seed: of the predictor's first weights.
        orders: known permutations, one a layer; None computes them. A layer of 16,384 kernels takes about three
            seconds, and the time grows with the square of the number.

    Attributes:
        target: the argument ``target``.
        layers: a :class:`Convolution` for each represented layer.
        predictor: the network that is trained and saved.

    Raises:
        LayerError: no convolutions, an unknown or unsuitable layer, or kernels larger than ``kernel_size``.
        ValueError: another invalid setting.

    Example:
        >>> target = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(128, 10))
        >>> nern = NeRN(target, hidden=8)
        >>> nern.fit(torch.rand(20, 1, 8, 8), steps=3, show_progress=False).steps
        3
        >>> nern.rebuild()(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Source: Ashkenazi et al., "NeRN: Learning Neural Representations for Neural Networks" (ICLR 2023).
    """

    def fit(
        self,
        images: Tensor | Iterable[Any] | str | None = None,
        *,
        steps: int = 1000,
        lr: float = 5e-3,
        batch_size: int = 128,
        loss_weights: tuple[float, float, float] = (1.0, 1e-3, 1e-3),
        warmup: int = 0,
        kernels_per_step: int | None = None,
        optimizer: str = "adamw",
        feature_layers: Sequence[nn.Module | str] | None = None,
        validation: Tensor | float = 0.1,
        patience: int | None = None,
        noise_shape: tuple[int, ...] | None = None,
        noise_range: tuple[float, float] = (-2.0, 2.0),
        seed: int = 0,
        checkpoint: str | Path | None = None,
        every: int = 100,
        show_progress: bool = True,
    ) -> NernFit:
        r"""Train the predictor in place; the target, its gradients and the global random state are restored.

        .. math:: \min\; a\, L_{reconstruction}(\hat W, W) + b\, L_{features} + g\, L_{logits}

        AdamW (betas .9, .999, decay 1e-3) or RAdam under a cosine schedule; both networks in eval mode. No labels
        are used. Every ``every`` steps, and at the end, the rebuilt network is compared with the target on the
        validation images. The result is the predictor with the lowest divergence.

        Args:
            images: (n, …) floats, the input of the target; a loader of such, or of tuples that begin with them;
                ``"noise"``, new in each step (data-free); or None, reconstruction only.
            steps: optimizer steps, the length of the schedule.
            lr: the first learning rate.
            batch_size: images a step, of a tensor or of noise.
            loss_weights: (a, b, g).
            warmup: first steps, with the reconstruction loss only.
            kernels_per_step: number of kernels that get a gradient in a step (:func:`sample_kernels`); None is all.
            optimizer: "adamw" or "radam".
            feature_layers: layers whose outputs L_features compares; None takes every ``BatchNorm2d``, or the
                represented convolutions where there is none.
            validation: validation images, or the share of ``images`` (a tensor) to hold out. With 0 the result is the
                predictor of the last step. Do not give the test set.
            patience: stop after this many measurements without improvement; None never stops early.
            noise_shape: of one image, for "noise".
            noise_range: of its values; each image has a random range within it, and uniform values in its range. The
                default includes images in [0, 1] and normalised ones.
            seed: for batches, noise, kernels and the split.
            checkpoint: a file to write the run to, and to resume it from.
            every: steps between two measurements, each followed by a checkpoint.
            show_progress: a bar, where standard error is a terminal.

        Returns:
            a :class:`NernFit`.

        Raises:
            TypeError: images that are not a float tensor, loader, "noise" or None.
            LayerError, ValueError: NaN weights (also of the predictor) or images, noise without a shape, numbers out of
                range, a float16 target.
            FloatingPointError: NaN during the fit; the predictor has the best weights so far.
            CheckpointError: a checkpoint of another configuration or run.
        """
        recipe = Recipe(
            steps=steps,
            lr=lr,
            batch_size=batch_size,
            loss_weights=loss_weights,
            warmup=warmup,
            kernels_per_step=kernels_per_step,
            optimizer=optimizer,
            patience=patience,
            noise_shape=noise_shape,
            noise_range=noise_range,
            seed=seed,
            every=every,
        )
        return fit_kernels(self, images, recipe, validation, feature_layers, checkpoint, show_progress)

    def size_report(self, images: Tensor | None = None, *, dtype: torch.dtype | None = None) -> SizeReport:
        """Return the size of the file, the weight error and the agreement, with those of int8 weights.

        int8 is reported twice: for the represented weights, which a NeRN replaces, and for all weights.

        Args:
            images: images to compare outputs with the target's, preferably not those of the fit; None does not
                measure agreement.
            dtype: as in :meth:`save`; it affects only the bytes.
        """
        return size_report(self, images, dtype)

    def save(self, path: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write one safetensors file: settings, predictor, permutation, and the rest of the target.

        Args:
            path: the file to write or replace atomically; a missing folder is created.
            dtype: of the predictor's weights in the file; ``torch.float16`` halves their size.

        Raises:
            StoreError: the file cannot be written.
        """
        return nern_file.write(path, self, dtype)

    @classmethod
    def load(cls, path: str | Path, target: nn.Module) -> NeRN:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            target: a module of the same architecture with any weights; a copy of it gets the biases, statistics and
                other tensors of the file. Error maps compare with its convolutions, which are not in the file.

        Raises:
            FileNotFoundError: no such file.
            StoreError: a file of something else or of a newer version, an incomplete or changed file, or a target of
                another architecture; names what differs.
        """
        return nern_file.read(cls, path, target)
