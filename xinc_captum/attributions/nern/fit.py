"""Train a NeRN's predictor, and go on where a run was killed."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ...hooks import (
    exclusive,
    find_layer,
    layer_name,
    unsynchronised,
    untouched,
)
from ...inr.resume import (
    described,
    digest,
    load_run,
    save_run,
)
from ...inr.trainable import trainable
from ...progress import progress
from .convolutions import target_behind
from .distillation import Distillation
from .finite_values import check_look, check_target
from .images import batches, held_out
from .losses import reconstruction_loss
from .recipe import Recipe
from .sampling import sampled_kernels
from .size_report import SizeReport, size_report

if TYPE_CHECKING:
    from .nern import NeRN


class Look(NamedTuple):
    """The validation images, seen after a step.

    Attributes:
        step: how many steps were taken.
        relative_error: ‖Ŵ − W‖ / ‖W‖.
        agreement: share of images put into the target's class; None without validation images.
        divergence: KL(p ‖ p̂), mean; None without.
    """

    step: int
    relative_error: float
    agreement: float | None
    divergence: float | None


@dataclass(frozen=True)
class NernFit:
    """How a fit went.

    Attributes:
        steps: optimiser steps taken, those before a resumption among them.
        resumed_at: the step that a checkpoint was found at; 0 where none was.
        losses: (steps, 3): reconstruction, feature and logit loss of each step, unweighted, CPU.
        looks: what was seen on the way.
        kept: the look whose predictor was kept: the lowest divergence, or the last without validation images.
        report: bytes, weight error and agreement on the validation images, of the kept predictor and of int8 weights;
            what ``print(fit)`` shows. Those images chose the step, so other pictures may agree a little less.
    """

    steps: int
    resumed_at: int
    losses: Tensor
    looks: tuple[Look, ...]
    kept: Look
    report: SizeReport

    def __str__(self) -> str:
        """The kept step, and the report in three lines."""
        return f"kept the predictor of step {self.kept.step} of {self.steps}\n{self.report}"


class _Run:
    """The state of a fit, as a checkpoint holds it."""

    def __init__(self, nern: NeRN, recipe: Recipe) -> None:
        kinds = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}
        decay: dict[str, Any] = {} if recipe.optimizer == "adamw" else {"decoupled_weight_decay": True}
        self.predictor = nern.predictor
        self.optimizer = kinds[recipe.optimizer](
            nern.predictor.parameters(), lr=recipe.lr, weight_decay=1e-3, betas=(0.9, 0.999), **decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, recipe.steps, eta_min=1e-6)
        self.losses = torch.zeros(recipe.steps, 3, device=next(nern.predictor.parameters()).device)
        self.looks: list[Look] = []
        self.best: Look | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.since = 0
        self.step = 0

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "predictor": self.predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": self.losses,
            "looks": [list(look) for look in self.looks],
            "best": None if self.best is None else list(self.best),
            "best_weights": self.best_weights,
            "since": self.since,
        }

    def take_up(self, state: dict[str, Any]) -> None:
        self.predictor.load_state_dict(state["predictor"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.losses.copy_(state["losses"])
        self.looks = [Look(*look) for look in state["looks"]]
        self.best = None if state["best"] is None else Look(*state["best"])
        device = next(self.predictor.parameters()).device
        self.best_weights = {name: value.to(device) for name, value in state["best_weights"].items()}
        self.since, self.step = state["since"], state["step"]

    def seen(self, look: Look) -> None:
        """Keep the predictor where it is the best so far."""
        self.looks.append(look)
        self.since += 1
        better = self.best is None or look.divergence is None or look.divergence < (self.best.divergence or 0.0)
        if better:
            self.best, self.since = look, 0
            self.best_weights = copy.deepcopy(self.predictor.state_dict())


def fit_nern(
    nern: NeRN,
    images: Tensor | Iterable[Any] | str | None,
    recipe: Recipe,
    validation: Tensor | float = 0.1,
    feature_layers: Sequence[nn.Module | str] | None = None,
    checkpoint: str | Path | None = None,
    show_progress: bool = True,
) -> NernFit:
    """Train ``nern`` in place: what :meth:`NeRN.fit` documents."""
    with torch.inference_mode(False):
        return _fitted(nern, images, recipe, validation, feature_layers, checkpoint, show_progress)


def _fitted(
    nern: NeRN,
    images: Tensor | Iterable[Any] | str | None,
    recipe: Recipe,
    validation: Tensor | float,
    feature_layers: Sequence[nn.Module | str] | None,
    checkpoint: str | Path | None,
    show_progress: bool,
) -> NernFit:
    trainable(nern.predictor)
    training, looked_at = held_out(images, validation, recipe)
    check_target(nern, runs=training is not None or looked_at is not None)
    source = batches(training, recipe)
    run = _Run(nern, recipe)
    recorded = _recorded(nern, images, validation, recipe, feature_layers)
    if checkpoint is not None and (state := load_run(checkpoint, recorded)) is not None:
        run.take_up(state)
    resumed_at = run.step
    generator = torch.Generator().manual_seed(recipe.seed)
    own = nern.target_weights()
    norms = torch.cat([own[one.name].flatten(2).norm(dim=2).flatten().float().cpu() for one in nern.layers])
    root = target_behind(nern.target)
    gradients = [p.grad for p in nern.predictor.parameters()]
    first = copy.deepcopy(nern.predictor.state_dict())
    try:
        with untouched(nern.target), unsynchronised(nern.target), torch.enable_grad():
            root.eval()  # other threads may explain the target between two steps, and see it in this mode
            model = Distillation(nern.target, root, nern.layers, feature_layers)
            embedded = torch.cat([nern.embedded(one) for one in nern.layers])
            for _ in range(run.step):  # the generators are where they were
                next(source)
                _kernels(recipe, norms, generator)
            for step in progress(range(run.step, recipe.steps), "fit", show=show_progress):
                if _finished(run, recipe):
                    break
                chosen = _kernels(recipe, norms, generator)
                run.losses[step] = _stepped(nern, run, recipe, model, own, embedded, next(source), chosen)
                run.step = step + 1
                if run.step % recipe.every == 0 or run.step == recipe.steps:
                    look = _look(nern, model, looked_at, run.step)
                    check_look(look, run.losses, run.best, recipe)
                    run.seen(look)
                    if checkpoint is not None:
                        save_run(checkpoint, recorded, run.state())
    except FloatingPointError:
        nern.predictor.load_state_dict(run.best_weights or first)
        raise
    finally:
        for p, gradient in zip(nern.predictor.parameters(), gradients, strict=True):
            p.grad = gradient
    assert run.best is not None  # noqa: S101 - the last step is always looked at
    nern.predictor.load_state_dict(run.best_weights)
    noise = isinstance(images, str) and not isinstance(validation, Tensor)
    report = size_report(nern, looked_at, kind="pictures of noise" if noise else "held-out pictures")
    return NernFit(run.step, resumed_at, run.losses[: run.step].cpu(), tuple(run.looks), run.best, report)


@exclusive()
def _stepped(
    nern: NeRN,
    run: _Run,
    recipe: Recipe,
    model: Distillation,
    own: dict[str, Tensor],
    embedded: Tensor,
    images: Tensor | None,
    chosen: Tensor | None,
) -> Tensor:
    """One step; the three losses before it."""
    weights = _generated(nern, embedded, chosen)
    found, wanted = [weights[one.name] for one in nern.layers], [own[one.name] for one in nern.layers]
    losses = [reconstruction_loss(found, wanted)]
    a, b, g = recipe.loss_weights
    total = a * losses[0]
    if images is not None and run.step >= recipe.warmup and b + g > 0:
        losses += model.losses(weights, images.to(embedded))
        total = total + b * losses[1] + g * losses[2]
    parameters = list(run.predictor.parameters())
    for p, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
        p.grad = gradient
    run.optimizer.step()
    run.schedule.step()
    return torch.stack([*(loss.detach() for loss in losses), *[losses[0].new_zeros(())] * (3 - len(losses))])


def _generated(nern: NeRN, embedded: Tensor, chosen: Tensor | None) -> dict[str, Tensor]:
    """Ŵ by name; only the chosen kernels carry gradients."""
    if chosen is None:
        predicted = nern.predictor(embedded)
    else:
        index = chosen.to(embedded.device)
        with torch.no_grad():
            predicted = nern.predictor(embedded)
        predicted = predicted.index_copy(0, index, nern.predictor(embedded[index]))
    side = nern.kernel_size
    parts = predicted.unflatten(-1, (side, side)).split([one.kernels for one in nern.layers])
    return {one.name: nern.cut(part, one) for one, part in zip(nern.layers, parts, strict=True)}


def _kernels(recipe: Recipe, norms: Tensor, generator: torch.Generator) -> Tensor | None:
    if recipe.kernels_per_step is None or recipe.kernels_per_step >= len(norms):
        return None
    return sampled_kernels(norms, recipe.kernels_per_step, generator)


@exclusive()
def _look(nern: NeRN, model: Distillation, images: Tensor | None, step: int) -> Look:
    error = nern.relative_error()
    if images is None:
        return Look(step, error, None, None)
    with torch.no_grad():
        weights = nern.weights()
        share, divergence = model.agreement(weights, images.to(next(iter(weights.values()))))
    return Look(step, error, share, divergence)


def _finished(run: _Run, recipe: Recipe) -> bool:
    return recipe.patience is not None and run.since >= recipe.patience


def _recorded(
    nern: NeRN, images: Any, validation: Tensor | float, recipe: Recipe, feature_layers: Sequence[Any] | None
) -> dict[str, Any]:
    """What decides how the run ends; a loader's content is its owner's to keep the same."""
    settings = {name: json.dumps(value) for name, value in asdict(recipe).items()}
    names = [layer_name(nern.target, find_layer(nern.target, layer)) for layer in feature_layers or ()]
    weights = hashlib.sha256("".join(digest(weight) for weight in nern.target_weights().values()).encode())
    return settings | {
        "nern": json.dumps(nern.config, sort_keys=True),
        "target": described(target_behind(nern.target)),
        "target weights": weights.hexdigest(),
        "images": digest(images)
        if isinstance(images, Tensor)
        else str(images)
        if images in (None, "noise")
        else "loader",
        "validation": digest(validation) if isinstance(validation, Tensor) else str(validation),
        "feature_layers": json.dumps(names),
    }
