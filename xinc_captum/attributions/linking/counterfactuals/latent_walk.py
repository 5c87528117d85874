"""Counterfactuals by the latent's own gradient, through generator and classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..loop import Shown
from .search import Found, Task
from .verdicts import lead, says

_BETAS, _EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class LatentWalk:
    r"""Walk in the latent until the picture is given the target, then go straight back to the flip point.

    .. math:: L(w) = \bigl[m - \bigl(f_t - \max_{k \ne t} f_k\bigr)\bigr]_+ + \mu \lVert (w - w_0) / \sigma \rVert^2

    by Adam. Symbols: w_0 the linked latent, σ the standard deviation of the link's latents. Then the segment from w_0
    to the w that was found is halved towards the point where the class changes.

    Args:
        lr: of Adam, in σ.
        pull: μ.
        margin: m, by how much the target wants to lead; the search ends as soon as the picture is given the target.
        steps: at most so many.
        halvings: of the segment.

    Raises:
        ValueError: no steps, or numbers out of range; a generator that no gradient goes through.

    Source: latent optimisation as in Abdal et al. 2019, "Image2StyleGAN"; Adam as in Kingma & Ba 2015.
    """

    lr: float = 0.05
    pull: float = 0.05
    margin: float = 1.0
    steps: int = 200
    halvings: int = 7

    def __post_init__(self) -> None:
        if self.steps < 1 or self.halvings < 0 or not self.lr > 0 or not self.pull >= 0 or not self.margin >= 0:
            raise ValueError(
                f"got steps={self.steps}, halvings={self.halvings}, lr={self.lr}, pull={self.pull} and "
                f"margin={self.margin}; wanted at least one step, a positive lr, and nothing negative."
            )

    def __call__(self, task: Task) -> Found:
        """``steps`` + ``halvings`` pictures a row at most."""
        if not getattr(task.loop.generator, "differentiable", True):
            raise ValueError("method 'latent' wants a generator that gradients go through; take method='ray'.")
        start, scale = task.base.latents, self._scale(task)
        u = torch.zeros_like(start)  # (w − w_0) / σ
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        reached = says(task.base.scores, task.target, task.confidence, task.probability)
        best, steps, shown = lead(task.base.scores, task.target), torch.zeros_like(task.target), task.base
        for step in range(1, self.steps + 1):
            index = (~reached).nonzero()[:, 0]
            if not len(index):
                break
            slope, seen = self._slope(task, start[index], scale, u[index], index)
            hit = says(seen.scores, task.target[index], task.confidence, task.probability)
            ahead = lead(seen.scores, task.target[index])
            kept = hit | (ahead > best[index])
            shown = shown.put(index[kept], seen.take(kept))
            best[index[kept]] = ahead[kept]
            reached[index[hit]] = True
            steps[index] += 1
            first[index] = _BETAS[0] * first[index] + (1 - _BETAS[0]) * slope
            second[index] = _BETAS[1] * second[index] + (1 - _BETAS[1]) * slope.square()
            size = self.lr / (1 - _BETAS[0] ** step)
            u[index] -= size * first[index] / ((second[index] / (1 - _BETAS[1] ** step)).sqrt() + _EPS)
        shown, flip, more = self._back(task, shown, reached)
        shift = shown.representations - task.base.representations
        return Found(shown, shift, steps + more, reached, flip)

    def _scale(self, task: Task) -> Tensor:
        """σ of each latent over the link's pairs, (latent_dim,)."""
        moments = task.loop.link.moments
        sd = (moments.ww / max(moments.n - 1, 1)).sqrt().to(task.base.latents)
        return torch.where(~moments.latent_constant.to(sd.device), sd, sd.max().clamp_min(torch.finfo(sd.dtype).tiny))

    def _slope(self, task: Task, start: Tensor, scale: Tensor, u: Tensor, index: Tensor) -> tuple[Tensor, Shown]:
        slopes, parts = [], []
        for at in torch.arange(len(index), device=index.device).split(task.loop.limit):
            with torch.enable_grad():
                leaf = u[at].detach().requires_grad_()
                latents = start[at] + leaf * scale
                pictures = task.loop.draw(latents)
                representations, scores = task.loop.look(pictures, task.rows[index[at]])
                short = (self.margin - lead(scores, task.target[index[at]])).clamp_min(0)
                (slope,) = torch.autograd.grad((short + self.pull * leaf.square().sum(1).to(short)).sum(), leaf)
            slopes.append(slope)
            parts.append(Shown(*(t.detach() for t in (latents, pictures, representations, scores))))
        return torch.cat(slopes), Shown.joined(parts)

    def _back(self, task: Task, shown: Shown, reached: Tensor) -> tuple[Shown, Tensor, Tensor]:
        """The flip point on the straight way from the linked latent, as a share of that way."""
        start, end = task.base.latents, shown.latents
        gone = reached & (end != start).any(1)
        below, above = torch.zeros_like(end[:, 0]), torch.where(reached, gone.to(end), torch.nan)
        index = gone.nonzero()[:, 0]
        if len(index):
            for _ in range(self.halvings):
                middle = (below[index] + above[index]) / 2
                latents = start[index] + middle[:, None] * (end[index] - start[index])
                seen = task.loop.shown(latents, task.rows[index])
                hit = says(seen.scores, task.target[index], task.confidence, task.probability)
                shown = shown.put(index[hit], seen.take(hit))
                above[index[hit]], below[index[~hit]] = middle[hit], middle[~hit]
        return shown, above, gone * self.halvings
