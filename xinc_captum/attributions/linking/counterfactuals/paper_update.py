"""Counterfactuals as Linking in Style makes them: gradient steps on a loss of the head and the link alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..latent_link import LatentLink
from .linear_head import LinearHead
from .search import Found, Task
from .verdicts import lead, says

WEIGHTS = (1.0, 0.6, 10.0)


def shift_losses(
    link: LatentLink,
    head: LinearHead,
    r: Tensor,
    shift: Tensor,
    origin: Tensor,
    target: Tensor,
    weights: tuple[float, float, float] = WEIGHTS,
    classes: Tensor | None = None,
) -> Tensor:
    r"""The loss of the paper's update, one number a row.

    .. math:: L(s) = -a f_t(r - s) + b f_o(r - s) - c \cos\bigl(w(r), w(r - s)\bigr)

    Args:
        link: w.
        head: f.
        r: (n, units).
        shift: s, (n, units).
        origin: o, (n,).
        target: t, (n,).
        weights: a, b, c.
        classes: of the rows, for links that want them.

    Returns:
        (n,).

    Source: the released code of Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """
    moved = r - shift
    scores = head(moved)
    toward, away = (scores.gather(1, c[:, None])[:, 0] for c in (target, origin))
    alike = torch.cosine_similarity(link(r, classes), link(moved, classes), dim=1)
    return -weights[0] * toward + weights[1] * away - weights[2] * alike


@dataclass(frozen=True)
class LinkingInStyle:
    r"""The paper's update: plain gradient descent on a shift of the representation, a look at the picture each step.

    .. math:: s \leftarrow s - \eta\, \partial L / \partial s, \qquad \text{picture } G(w(\max(r - s, 0)))

    It never asks the generator for a gradient; that its loss has no lower bound, and that its constants fit the
    ResNet-50 they were chosen for, is why it often fails elsewhere (:class:`Ray` is the measured alternative).

    Args:
        lr: η.
        steps: at most so many; the paper's code goes on to 2,000.
        weights: a, b, c of :func:`shift_losses`.
        seed: of s at the start, uniform in [0, 1).
        start: s at the start instead, (n, units).

    Raises:
        ValueError: no steps or no learning rate; a layer that is not followed by a linear head.

    Source: as :func:`shift_losses`.
    """

    lr: float = 0.5
    steps: int = 300
    weights: tuple[float, float, float] = WEIGHTS
    seed: int = 0
    start: Tensor | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0:
            raise ValueError(f"steps is {self.steps} and lr is {self.lr}; wanted at least 1 and above 0.")

    def __call__(self, task: Task) -> Found:
        """``steps`` pictures a row at most."""
        head = task.needed_head("linking_in_style")
        r = task.r.to(task.loop.link.r_sd)
        shift = self._begin(r, task.rows)
        reached = torch.zeros_like(task.target, dtype=torch.bool)
        steps, shown = torch.zeros_like(task.target), task.base
        best, kept_shift = torch.full_like(task.gap, -torch.inf), torch.zeros_like(shift)
        for _ in range(self.steps):
            index = (~reached).nonzero()[:, 0]
            if not len(index):
                break
            shift[index] = self._step(task, head, r[index], shift[index], index)
            with torch.no_grad():
                latents = task.loop.latents((r[index] - shift[index]).clamp_min(0), task.rows[index])
            seen = task.loop.shown(latents, task.rows[index])
            steps[index] += 1
            hit = says(seen.scores, task.target[index], task.confidence, task.probability)
            ahead = lead(seen.scores, task.target[index])
            kept = hit | (ahead > best[index])
            shown = shown.put(index[kept], seen.take(kept))
            best[index[kept]] = ahead[kept].to(best)
            kept_shift[index[kept]] = shift[index[kept]]
            reached[index[hit]] = True
        moved = torch.where(torch.isfinite(best)[:, None], (r - kept_shift).clamp_min(0) - r, 0.0)
        return Found(shown, moved, steps, reached, torch.full_like(task.gap, torch.nan))

    def _begin(self, r: Tensor, rows: Tensor) -> Tensor:
        if self.start is not None:
            if self.start.shape[-1] != r.shape[1] or self.start.dim() != 2 or int(rows.max()) >= len(self.start):
                raise ValueError(
                    f"start has shape {tuple(self.start.shape)}; wanted one shift a row, (rows, {r.shape[1]})."
                )
            return self.start[rows.to(self.start.device)].detach().to(r).clone()
        # One stream a row, so that a row's answer does not depend on the rows beside it.
        seeds = [torch.Generator().manual_seed(self.seed * 1_000_003 + row) for row in rows.tolist()]
        return torch.stack([torch.rand(r.shape[1], generator=g) for g in seeds]).to(r)

    def _step(self, task: Task, head: LinearHead, r: Tensor, shift: Tensor, index: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = shift.detach().requires_grad_()
            classes = task.loop.classes_of(task.rows[index])
            link, weights = task.loop.link, self.weights
            loss = shift_losses(link, head, r, leaf, task.origin[index], task.target[index], weights, classes)
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        return shift - self.lr * slope
