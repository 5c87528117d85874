"""NeRN: a network that writes the convolution kernels of another."""

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
    r"""A neural representation of a network's convolutions: coordinates of a kernel in, its weights out.

    .. math:: \hat W_l[f, c] = \mathrm{crop}_l\, P(\gamma(l, r_l(f, c)))

    Symbols: γ a :class:`SmoothEmbedding` of (layer, filter, channel), r_l the coordinate that kernel (f, c) gets under
    the permutation, P a :class:`KernelPredictor`, crop_l from K x K to the layer's kernel size. Biases, normalisation
    layers, classifiers and convolutions that are not listed stay the target's own, and count in :meth:`size_report`.
    Rounding the same weights to int8 took fewer bytes and changed less wherever we measured it: a NeRN is for what can
    be seen in it. ``print(nern.fit(…))`` shows bytes, weight error and agreement of both.

    Args:
        target: the network, or a function around it; it is never changed.
        layers: modules or dotted names; None takes every ``nn.Conv2d``, grouped ones among them.
        base: of the embedding; below 1 it is smooth.
        levels: of the embedding.
        fusion: of the embedding.
        hidden: units of the predictor's hidden layers; its size is what trades accuracy for bytes.
        blocks: Linear layers of the predictor.
        kernel_size: K; None is the largest side among the layers.
        permutation: "cross-filter", "in-filter" or "none", as :func:`order_kernels`.
        crop: "center", "average" or "max", as :func:`crop`.
        coordinates: "index", "local" or "global", as :func:`kernel_coordinates`.
        seed: of the predictor's first weights.
        orders: permutations found before, one a layer; None finds them, which takes about three seconds for a layer of
            16,384 kernels and four times as long for twice as many.

    Attributes:
        target: what was given.
        layers: a :class:`Convolution` for each represented layer.
        predictor: the network that is trained and stored.

    Raises:
        LayerError: no convolutions, an unknown or unfit layer, kernels larger than ``kernel_size``.
        ValueError: another setting that cannot be.

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
        r"""Train the predictor in place; the target, its gradients and the global random state stay as found.

        .. math:: \min\; a\, L_{reconstruction}(\hat W, W) + b\, L_{features} + g\, L_{logits}

        AdamW (betas .9, .999, decay 1e-3) or RAdam under a cosine schedule; both networks in eval mode. No labels are
        looked at. Every ``every`` steps, and at the end, the rebuilt network is compared with the target on the
        validation images, and the predictor that agreed best with the target (lowest divergence) is kept.

        Args:
            images: (n, …) floats as the target takes them; a loader of such, or of tuples that begin with them;
                ``"noise"``, drawn anew each step (data-free); or None, reconstruction only.
            steps: optimiser steps, the length of the schedule.
            lr: the first learning rate.
            batch_size: images a step, of a tensor or of noise.
            loss_weights: (a, b, g).
            warmup: steps of reconstruction only before the others join.
            kernels_per_step: how many kernels get a gradient in a step, as :func:`sample_kernels`; None: all.
            optimizer: "adamw" or "radam".
            feature_layers: whose outputs L_features compares; None takes every ``BatchNorm2d``, or the represented
                convolutions where there is none.
            validation: images that are only looked at, or the share of ``images`` (a tensor) to hold out; 0 for none,
                which keeps the last step. Never give the test set.
            patience: stop after so many looks without a better one; None never does.
            noise_shape: of one image, for "noise".
            noise_range: of its values; each picture draws a range of its own within it, and its values uniformly
                from there. The default holds pictures in [0, 1] as well as normalised ones.
            seed: for batches, noise, kernels and the split.
            checkpoint: a file to write the run to, and to take it up from after a kill.
            every: steps from one look, and one checkpoint, to the next.
            show_progress: a bar, where standard error is a terminal.

        Returns:
            a :class:`NernFit`.

        Raises:
            TypeError: images that are no float tensor, loader, "noise" or None.
            LayerError, ValueError: NaN weights (also of the predictor) or images, noise without a shape, numbers out of
                range, a float16 target.
            FloatingPointError: the fit came to NaN; the predictor has the weights of the last good look.
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
        """Return the size of the file, the weight error and the agreement, beside those of int8 weights.

        int8 is reported twice: the represented weights alone, which is what a NeRN replaces, and all weights.

        Args:
            images: pictures, best ones that were not fitted on, to compare answers with the target's; None leaves
                agreement unmeasured, and the report says so.
            dtype: as in :meth:`save`; it counts in the bytes only.
        """
        return size_report(self, images, dtype)

    def save(self, path: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write one safetensors file: settings, predictor, permutation, and all of the target that is not generated.

        Args:
            path: the file to write or replace, whole or not at all; a missing folder is created.
            dtype: what it keeps of the predictor's weights; ``torch.float16`` halves them.

        Raises:
            StoreError: the file cannot be written.
        """
        return nern_file.write(path, self, dtype)

    @classmethod
    def load(cls, path: str | Path, target: nn.Module) -> NeRN:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            target: a module of the same architecture, whatever its weights; a copy of it takes on the biases,
                statistics and so on of the file. Error maps compare with its convolutions, which no file holds.

        Raises:
            FileNotFoundError: no such file.
            StoreError: a file of something else or of a newer version, an incomplete or changed file, or a target of
                another architecture; names what differs.
        """
        return nern_file.read(cls, path, target)
