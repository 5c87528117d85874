"""NeRN: a network that writes the convolution kernels of another."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import ForwardFunc, exclusive
from . import nern_file
from .kernels import (
    Convolution,
    Crop,
    Scale,
    convolutions,
    crop,
    kernel_coordinates,
    kernel_size_for,
    parameter_name,
    represented,
    target_behind,
)
from .permutation import Kind, LayerOrder, ordered
from .predictor import Fusion, KernelPredictor, SmoothEmbedding
from .size import SizeReport, size_report
from .training import NernFit, Recipe, fit_nern


class NeRN(nn.Module):
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
        permutation: "cross-filter", "in-filter" or "none", as :func:`ordered`.
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

    target: ForwardFunc
    predictor: KernelPredictor

    def __init__(
        self,
        target: ForwardFunc,
        layers: Sequence[nn.Module | str] | None = None,
        *,
        base: float = 0.85,
        levels: int = 20,
        fusion: Fusion = "concat",
        hidden: int = 40,
        blocks: int = 5,
        kernel_size: int | None = None,
        permutation: Kind = "cross-filter",
        crop: Crop = "center",
        coordinates: Scale = "index",
        seed: int = 0,
        orders: Sequence[LayerOrder] | None = None,
    ) -> None:
        super().__init__()
        with exclusive(), torch.inference_mode(False):  # the predictor is trained whatever mode the caller is in
            self.layers = convolutions(target, layers)
            self.crop, self.permutation = crop, permutation
            self.kernel_size = kernel_size_for(self.layers, kernel_size)
            object.__setattr__(self, "target", target)  # not a submodule: its weights are not this network's
            self.config: dict[str, Any] = {
                "base": base,
                "levels": levels,
                "fusion": fusion,
                "hidden": hidden,
                "blocks": blocks,
                "kernel_size": self.kernel_size,
                "permutation": permutation,
                "crop": crop,
                "coordinates": coordinates,
                "seed": seed,
            }
            _checked_crop(crop, self.kernel_size)
            own = self.target_weights()
            self.orders = tuple(orders or (ordered(own[layer.name], permutation) for layer in self.layers))
            rows = kernel_coordinates([layer.shape for layer in self.layers], coordinates)
            parts = rows.split([layer.kernels for layer in self.layers])
            each = zip(self.layers, self.orders, parts, strict=True)
            self._coordinates = {one.name: part[order.ranks(one.shape)] for one, order, part in each}
            weight = own[self.layers[0].name]
            self.embedding = SmoothEmbedding(base, levels, fusion)
            self.predictor = KernelPredictor(self.embedding.out_features, hidden, blocks, self.kernel_size, seed)
            self.to(weight.device)
            self.predictor.to(weight.dtype)

    def layer(self, layer: nn.Module | str | Convolution) -> Convolution:
        """The represented layer that is meant by a module or a dotted name.

        Raises:
            LayerError: not in the target, or not represented.
        """
        return layer if isinstance(layer, Convolution) else represented(self.target, self.layers, layer)

    def coordinates(self, layer: nn.Module | str | Convolution) -> Tensor:
        """(kernels, 3) float64: which coordinate each kernel of a layer gets, in the order of its weight."""
        rows: Tensor = self._coordinates[self.layer(layer).name]
        return rows

    def embedded(self, layer: nn.Module | str | Convolution, piece: slice = slice(None)) -> Tensor:
        """(kernels, in_features): what the predictor reads for a layer, or for a piece of it, as it wants it."""
        weight = next(self.predictor.parameters())
        places = self.coordinates(layer)[piece].float().to(self.embedding.frequencies.device)
        rows: Tensor = self.embedding(places).to(weight)
        return rows

    def predicted(self, layer: nn.Module | str | Convolution) -> Tensor:
        """(kernels, K, K): what the predictor writes for a layer, not yet cut to its size."""
        kernels: Tensor = self.predictor(self.embedded(layer)).unflatten(-1, (self.kernel_size, self.kernel_size))
        return kernels

    def weights(self) -> dict[str, Tensor]:
        """Ŵ: the generated weight of every represented layer, by name; differentiable where gradients are on."""
        return {layer.name: self.cut(self.predicted(layer), layer) for layer in self.layers}

    forward = weights

    def cut(self, predicted: Tensor, layer: Convolution, *, chosen_by: Tensor | None = None) -> Tensor:
        """(…, kernels, K, K) predictions as weights of a layer, (…, F, C, h, w); ``chosen_by`` as in :func:`crop`."""
        kernels = crop(predicted, layer.size, self.crop, chosen_by=chosen_by)
        weight: Tensor = kernels.unflatten(-3, layer.shape[:2])
        return weight

    @exclusive()  # a call in another thread may have other weights in their places
    def target_weights(self) -> dict[str, Tensor]:
        """W: the target's own weight of every represented layer, by name, detached."""
        root = target_behind(self.target)
        return {layer.name: root.get_parameter(parameter_name(layer.name)).detach() for layer in self.layers}

    def relative_error(self) -> float:
        r"""‖Ŵ − W‖ / ‖W‖ over all represented weights together."""
        with torch.no_grad():
            found, expected = self.weights(), self.target_weights()
            error = sum((found[name] - expected[name].to(found[name])).double().square().sum() for name in expected)
            return float((error / sum(w.double().square().sum() for w in expected.values())) ** 0.5)

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
            kernels_per_step: how many kernels get a gradient in a step, as :func:`sampled_kernels`; None: all.
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
        return fit_nern(self, images, recipe, validation, feature_layers, checkpoint, show_progress)

    def rebuild(self) -> nn.Module:
        """A copy of the target with the generated weights in it: a plain module, independent of this one."""
        with exclusive(), torch.no_grad():
            model = copy.deepcopy(target_behind(self.target))
            for name, weight in self.weights().items():
                model.get_parameter(parameter_name(name)).copy_(weight)
        return model

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


def _checked_crop(how: str, side: int) -> None:
    """Raise where :func:`crop` would."""
    crop(torch.zeros(1, side, side), (side, side), how)  # type: ignore[arg-type]
