"""NeRN, a network that generates the convolution kernels of another network, and its fit."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...batch import random_generator
from ...hooks import LayerError, exclusive, find_layer, layer_name, no_synchronization, untouched
from ...inr.mlp import arguments_of
from ...inr.training import Validation, architecture_digest, digest, epoch_batches, train, trainable
from ...store import sha256_of_bytes
from .kernel_network import KernelNetwork
from .kernels import target_behind
from .losses import Distillation, check_images, reconstruction_loss
from .size import SizeReport, size_report


class NeRN(KernelNetwork):
    r"""A neural representation of a network's convolutions: it maps the coordinates of a kernel to its weights.

    .. math:: \hat W_l[f, c] = \mathrm{crop}_l\, P(\gamma(l, r_l(f, c)))

    Symbols: γ a :class:`SmoothEmbedding` of (layer, filter, channel), r_l the coordinate of kernel (f, c) under
    the permutation, P a :class:`KernelPredictor`, crop_l from K x K to the layer's kernel size. ``nn.Conv1d``,
    ``nn.Conv2d`` and ``nn.Conv3d`` are represented. In a network of several kinds, a kernel of fewer dims has leading
    sides of 1: (9,) is (1, 9) beside (3, 3), and both are cut out of predicted kernels of (3, 9). Biases, normalisation
    layers, classifiers and convolutions that are not listed are those of the target, and count in :meth:`size_report`.
    In our measurements, int8 rounding of the same weights needs fewer bytes and has smaller errors: use a NeRN for
    analysis. ``print(nern.fit(…))`` shows bytes, weight error and agreement of both.

    Args:
        target: the network, or a function around it; it is not changed.
        layers: modules or dotted names; None takes every convolution that is not transposed, including grouped
            ones.
        base: as for :class:`SmoothEmbedding`, like ``levels`` and ``fusion``; a base below 1 is smooth.
        hidden: units of the predictor's hidden layers; more units are more accurate and need more bytes.
        blocks: Linear layers of the predictor.
        kernel_size: K, or one side for each dim of the predicted kernels; None is the largest side of each dim, or, if
            all layers are ``nn.Conv2d``, the largest side among the layers in both dims.
        permutation: "cross-filter", "in-filter" or "none", as :func:`order_kernels`.
        crop: "center", "average" or "max", as :func:`crop`.
        coordinates: "index", "local" or "global", as :func:`kernel_coordinates`.
        seed: of the predictor's first weights.
        orders: known permutations, one :class:`LayerOrder` a layer; None computes them. A layer of 16,384 kernels
            takes about three seconds, and the time grows with the square of the number.

    Attributes:
        layers: a :class:`Convolution` for each represented layer.
        predictor: the network that is trained and saved.

    Raises:
        LayerError, ValueError: no convolutions, an unknown or unsuitable layer, too large kernels; an invalid setting.

    Example:
        >>> target = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(128, 10))
        >>> nern = NeRN(target, hidden=8)
        >>> nern.fit(torch.rand(20, 1, 8, 8), steps=3, show_progress=False).steps
        3
        >>> nern.rebuild()(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Source: Ashkenazi et al., "NeRN: Learning Neural Representations for Neural Networks" (ICLR 2023).
    """

    @torch.inference_mode(False)
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
            feature_layers: layers whose outputs L_features compares; None takes every batch norm of the same dims as
                a represented convolution (``BatchNorm2d`` for ``Conv2d``), or the represented convolutions where there
                is none.
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

        Raises:
            TypeError, LayerError, ValueError: other images, NaN weights or images, noise without a shape, numbers out
                of range, a float16 target.
            FloatingPointError, CheckpointError: NaN during the fit, which ends with the best weights so far; a
                checkpoint of another run.
        """
        recipe = Recipe(
            **arguments_of(locals(), "images", "validation", "feature_layers", "checkpoint", "show_progress")
        )
        predictor, target = self.predictor, self.target
        parameters = trainable(predictor)
        train_images, val_images = split_validation(images, validation, recipe)
        check_target(self, runs=train_images is not None or val_images is not None)
        sources = image_batches(train_images, recipe)
        options: dict[str, Any] = {"lr": lr, "weight_decay": 1e-3, "betas": (0.9, 0.999)}
        if optimizer == "radam":
            options["decoupled_weight_decay"] = True
        adam = (torch.optim.RAdam if optimizer == "radam" else torch.optim.AdamW)(parameters, **options)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=1e-6)
        losses = torch.zeros(steps, 3, device=parameters[0].device)
        first = copy.deepcopy(predictor.state_dict())
        target_weights = self.target_weights()
        names = [layer.name for layer in self.layers]
        with untouched(target), no_synchronization(target):
            root = target_behind(target)
            root.eval()  # also for other threads that explain the target between two steps
            model = Distillation(target, root, self.layers, feature_layers)
            best = _BestPredictor(self, model, val_images, recipe)
            embedded = torch.cat([self.embedded(layer) for layer in self.layers])
            norms = torch.cat([target_weights[name].flatten(2).norm(dim=2).flatten().float().cpu() for name in names])
            generator = random_generator(seed)
            kernel_choices: Iterator[Tensor | None] = repeat(None)
            if kernels_per_step is not None and kernels_per_step < len(norms):
                kernel_choices = (sample_kernels(norms, kernels_per_step, generator) for _ in repeat(None))

            def loss_of(batch: tuple[Tensor | None, Tensor | None], step: int) -> tuple[Tensor, Tensor]:
                batch_images, kernels = batch
                weights = _generate(self, embedded, kernels)
                a, b, g = loss_weights
                terms = [
                    reconstruction_loss([weights[name] for name in names], [target_weights[name] for name in names])
                ]
                total = a * terms[0]
                if batch_images is not None and step >= warmup and b + g > 0:
                    terms += model.losses(weights, batch_images.to(embedded))
                    total = total + b * terms[1] + g * terms[2]
                unused = [terms[0].new_zeros(())] * (3 - len(terms))
                return total, torch.stack([*(term.detach() for term in terms), *unused])

            try:
                taken, resumed_at = train(
                    predictor,
                    loss_of,
                    zip(sources, kernel_choices, strict=False),
                    adam,
                    schedule,
                    losses,
                    validation=best,
                    every=every,
                    checkpoint=checkpoint,
                    recipe=_record(self, images, validation, recipe, feature_layers),
                    key="predictor",
                    show_progress=show_progress,
                )
            except FloatingPointError:
                predictor.load_state_dict(best.weights or first)
                raise
        assert best.evaluation is not None  # noqa: S101 - the last step is always measured
        predictor.load_state_dict(best.weights)
        noise = isinstance(images, str) and not isinstance(validation, Tensor)
        report = size_report(self, val_images, kind="pictures of noise" if noise else "held-out pictures")
        return NernFit(taken, resumed_at, losses[:taken].cpu(), tuple(best.evaluations), best.evaluation, report)

    def size_report(self, images: Tensor | None = None, *, dtype: torch.dtype | None = None) -> SizeReport:
        """Return the size of the file, the weight error and the agreement, with those of int8 weights.

        Outputs are compared with the target's on ``images``, preferably not those of the fit; None does not measure
        agreement. ``dtype``, as in :meth:`save`, affects only the bytes.
        """
        return size_report(self, images, dtype)


@dataclass(frozen=True)
class Recipe:
    """The settings of :meth:`NeRN.fit`, with the same names."""

    steps: int = 1000
    lr: float = 5e-3
    batch_size: int = 128
    loss_weights: tuple[float, float, float] = (1.0, 1e-3, 1e-3)
    warmup: int = 0
    kernels_per_step: int | None = None
    optimizer: str = "adamw"
    patience: int | None = None
    noise_shape: tuple[int, ...] | None = None
    noise_range: tuple[float, float] = (-2.0, 2.0)
    seed: int = 0
    every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every", "kernels_per_step", "patience"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; expected at least 1.")
        if not self.lr > 0 or self.warmup < 0:
            raise ValueError(f"lr is {self.lr} and warmup is {self.warmup}; expected lr > 0 and warmup >= 0.")
        if len(self.loss_weights) != 3 or min(self.loss_weights) < 0 or not max(self.loss_weights) > 0:
            raise ValueError(
                f"loss_weights are {self.loss_weights}; expected three numbers >= 0 (reconstruction, features, "
                "logits), not all 0."
            )
        if self.optimizer not in ("adamw", "radam"):
            raise ValueError(f"optimizer is {self.optimizer!r}; expected 'adamw' or 'radam'.")
        if not self.noise_range[0] < self.noise_range[1]:
            raise ValueError(f"noise_range is {self.noise_range}; expected the lower end first.")


def check_target(nern: KernelNetwork, runs: bool) -> None:
    """Check that the target is finite: the represented weights; if it ``runs`` on images, also its other parts."""
    bad = [name for name, weight in nern.target_weights().items() if not bool(torch.isfinite(weight).all())]
    if bad:
        raise LayerError(
            f"the weights of {', '.join(map(repr, bad))} hold NaN or infinite values, which cannot be approximated; "
            "load another network, or leave these layers out with layers=."
        )
    if not runs:
        return
    root = target_behind(nern.target)
    with exclusive():
        bad = [n for n, p in root.named_parameters() if not bool(torch.isfinite(p.detach()).all())]
        bad += [n for n, b in root.named_buffers() if bool(b.isnan().any())]  # a mask may hold infinity
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"{', '.join(map(repr, bad[:3]))}{more} of the target hold NaN or infinite values, with which its outputs "
            "cannot be compared; load another network."
        )


def split_validation(images: Any, validation: Tensor | float, recipe: Recipe) -> tuple[Any, Tensor | None]:
    """Return training and validation images; the latter are given, a share of a tensor, noise, or None."""
    if isinstance(images, Tensor):
        check_images(images)
    if isinstance(validation, Tensor):
        return images, check_images(validation)
    if not 0 <= validation < 1:
        raise ValueError(f"validation is {validation}; expected images, or a share of them in [0, 1).")
    if isinstance(images, str) and images == "noise" and validation > 0:
        return images, _noise(recipe, random_generator(recipe.seed + 1))
    count = round(len(images) * validation) if isinstance(images, Tensor) else 0
    if count == 0:
        return images, None
    order = torch.randperm(len(images), generator=random_generator(recipe.seed)).to(images.device)
    return images[order[count:].sort().values], images[order[:count].sort().values]


def image_batches(images: Tensor | Iterable[Any] | str | None, recipe: Recipe) -> Iterator[Tensor | None]:
    """Yield one batch a step, without end; None without images."""
    generator = random_generator(recipe.seed)
    if images is None:
        return repeat(None)
    if isinstance(images, Tensor):
        size = min(recipe.batch_size, len(images))
        return (images[index.to(images.device)] for index in epoch_batches(len(images), size, generator))
    if isinstance(images, str):
        if images != "noise":
            raise ValueError(f"images is {images!r}; expected a tensor, a loader, 'noise' or None.")
        _noise(recipe, torch.Generator().manual_seed(0))  # raise errors now, not in the first step
        return (_noise(recipe, generator) for _ in repeat(None))
    if not isinstance(images, Iterable):
        raise TypeError(f"images is a {type(images).__name__}; expected a tensor, a loader, 'noise' or None.")
    return _of_loader(images)


def _of_loader(loader: Iterable[Any]) -> Iterator[Tensor]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield check_images(batch[0] if isinstance(batch, list | tuple) else batch)
        if empty:
            raise ValueError(
                "the loader of images is empty, or can be read only once; give a DataLoader, a list or another "
                "iterable that can be read again."
            )


def _noise(recipe: Recipe, generator: torch.Generator) -> Tensor:
    if recipe.noise_shape is None:
        raise ValueError("images='noise' needs noise_shape=, the shape of one image, for example (3, 32, 32).")
    low, high = recipe.noise_range
    shape = (recipe.batch_size, *recipe.noise_shape)
    # Each image has a separate range. With one range, a network that pools gives nearly equal outputs for all images,
    # and nothing can be learnt from them.
    ends = torch.rand(2, recipe.batch_size, *[1] * len(recipe.noise_shape), generator=generator) * (high - low) + low
    bottom, top = ends.amin(0), ends.amax(0)
    return bottom + (top - bottom) * torch.rand(shape, generator=generator)


def sample_kernels(norms: Tensor, count: int, generator: torch.Generator, *, by_norm: float = 0.2) -> Tensor:
    r"""Return the indices of the kernels of one step.

    .. math:: P(k) = \begin{cases} \text{uniform, without replacement} & \text{with probability } 1 - q \\
        \lVert w_k \rVert / \sum \lVert w \rVert, \text{ with replacement} & \text{with probability } q \end{cases}

    Symbols: w_k a kernel, with L2 norms (kernels,) on the CPU, like the generator, so that every device gets the same
    indices; q, ``by_norm``. The indices are sorted and distinct; with replacement they may be fewer than ``count``. The
    other kernels are predicted without gradients, so the rebuilt network is always complete.

    Raises:
        ValueError: a count below 1 or q outside [0, 1].

    Example:
        >>> sample_kernels(torch.ones(10), 4, torch.Generator().manual_seed(0), by_norm=0.0).shape
        torch.Size([4])

    Source: the released code of Ashkenazi et al. (ICLR 2023), "random weighted batch": q = .2, count 4096.
    """
    if count < 1 or not 0 <= by_norm <= 1:
        raise ValueError(
            f"count is {count} and by_norm is {by_norm}; expected at least 1 kernel and a share in [0, 1]."
        )
    # Both are drawn in every step, so that the generator's state does not depend on the outcome.
    coin = torch.rand((), generator=generator)
    uniform = torch.randperm(len(norms), generator=generator)[:count]
    if not coin < by_norm or not norms.sum() > 0:
        return uniform.sort().values
    total = norms.double().cumsum(0)  # torch.multinomial is limited to 2^24 kernels
    indices = torch.searchsorted(total, torch.rand(count, generator=generator, dtype=torch.float64) * total[-1])
    distinct: Tensor = indices.clamp(max=len(norms) - 1).unique()
    return distinct


class Evaluation(NamedTuple):
    """Measurements after a step: ‖Ŵ − W‖ / ‖W‖, the share of images with the target's class, and the mean KL(p ‖ p̂).

    The last two are None without validation images.
    """

    step: int
    relative_error: float
    agreement: float | None
    divergence: float | None


@dataclass(frozen=True)
class NernFit:
    """Result of a fit.

    Attributes:
        steps: optimizer steps taken, including those before a resumption.
        resumed_at: step of the checkpoint that the run was resumed from; 0 without one.
        losses: (steps, 3): reconstruction, feature and logit loss of each step, unweighted, CPU.
        looks: the measurements during the fit.
        kept: the measurement of the resulting predictor: the lowest divergence, or the last without validation images.
        report: bytes, weight error and agreement on the validation images, of the resulting predictor and of int8
            weights; ``print(fit)`` shows it. These images selected the step, so agreement on others may be lower.
    """

    steps: int
    resumed_at: int
    losses: Tensor
    looks: tuple[Evaluation, ...]
    kept: Evaluation
    report: SizeReport

    def __str__(self) -> str:
        return f"kept the predictor of step {self.kept.step} of {self.steps}\n{self.report}"


class _BestPredictor(Validation):
    """Compares the rebuilt network with the target, and copies the best predictor so far."""

    def __init__(self, network: KernelNetwork, model: Distillation, images: Tensor | None, recipe: Recipe) -> None:
        self.network, self.model, self.images, self.recipe = network, model, images, recipe
        self.evaluations: list[Evaluation] = []
        self.evaluation: Evaluation | None = None
        self.weights: dict[str, Tensor] = {}
        self.since_best = 0

    @exclusive()
    def measure(self, step: int, losses: Tensor) -> str:
        share = divergence = None
        if self.images is not None:
            weights = self.network.weights()
            share, divergence = self.model.agreement(weights, self.images.to(next(iter(weights.values()))))
        evaluation = Evaluation(step, self.network.relative_error(), share, divergence)
        self._check_finite(evaluation, losses)
        self.evaluations.append(evaluation)
        self.since_best += 1
        if self.evaluation is None or divergence is None or divergence < (self.evaluation.divergence or 0.0):
            self.evaluation, self.since_best = evaluation, 0
            self.weights = copy.deepcopy(self.network.predictor.state_dict())
        self._check_patience()
        return f"weight error {evaluation.relative_error:.4f}"

    def _check_finite(self, evaluation: Evaluation, losses: Tensor) -> None:
        if all(math.isfinite(number) for number in evaluation[1:] if number is not None):
            return
        bad_steps = (~losses.isfinite().all(1)).nonzero().flatten().tolist()
        origin = f"the loss of step {bad_steps[0] + 1}" if bad_steps else f"the weights after step {evaluation.step}"
        best = self.evaluation
        restored = f"its weights of step {best.step}" if best is not None else "its weights from before the fit"
        raise FloatingPointError(
            f"the fit has NaN or infinite values, first in {origin} (lr={self.recipe.lr:g}, "
            f"loss_weights={self.recipe.loss_weights}). The predictor has {restored} again. Use a smaller lr, smaller "
            "weights of the feature and logit losses, or images in the range that the target was trained on."
        )

    def _check_patience(self) -> None:
        self.stop = self.recipe.patience is not None and self.since_best >= self.recipe.patience

    def state_dict(self) -> dict[str, Any]:
        return {
            "looks": [list(one) for one in self.evaluations],
            "best": None if self.evaluation is None else list(self.evaluation),
            "best_weights": self.weights,
            "since": self.since_best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.evaluations = [Evaluation(*one) for one in state["looks"]]
        self.evaluation = None if state["best"] is None else Evaluation(*state["best"])
        device = next(self.network.predictor.parameters()).device
        self.weights = {name: value.to(device) for name, value in state["best_weights"].items()}
        self.since_best = state["since"]
        self._check_patience()


def _generate(nern: KernelNetwork, embedded: Tensor, kernels: Tensor | None) -> dict[str, Tensor]:
    """Return Ŵ by name; only the sampled kernels have gradients."""
    if kernels is None:
        predicted = nern.predictor(embedded)
    else:
        index = kernels.to(embedded.device)
        with torch.no_grad():
            predicted = nern.predictor(embedded)
        predicted = predicted.index_copy(0, index, nern.predictor(embedded[index]))
    parts = predicted.unflatten(-1, nern.predicted_size).split([one.kernels for one in nern.layers])
    return {one.name: nern.cut(part, one) for one, part in zip(nern.layers, parts, strict=True)}


def _record(
    nern: KernelNetwork, images: Any, validation: Tensor | float, recipe: Recipe, feature_layers: Sequence[Any] | None
) -> dict[str, Any]:
    """Return what determines the result of a run, without the content of a loader."""
    settings = {name: json.dumps(value) for name, value in asdict(recipe).items()}
    names = [layer_name(nern.target, find_layer(nern.target, layer)) for layer in feature_layers or ()]
    weights = "".join(digest(weight) for weight in nern.target_weights().values())
    return settings | {
        "nern": json.dumps(nern.config, sort_keys=True),
        "target": architecture_digest(target_behind(nern.target)),
        "target weights": sha256_of_bytes(weights.encode()),
        "images": _digest_or_text(images) if isinstance(images, Tensor | str | None) else "loader",
        "validation": _digest_or_text(validation),
        "feature_layers": json.dumps(names),
    }


def _digest_or_text(value: object) -> str:
    return digest(value) if isinstance(value, Tensor) else str(value)
