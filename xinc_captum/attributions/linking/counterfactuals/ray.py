"""Counterfactuals along one line: the way the representation itself would go, searched on the picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..loop import Shown
from .search import Found, Task
from .verdicts import lead, says

GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
CLOSER = 4  # times that the neighbourhood of the nearest miss is halved


@dataclass(frozen=True)
class Ray:
    r"""Go along the covariance-weighted difference of two classes' scores until the picture flips.

    .. math:: \delta = \alpha\, \frac{f_o - f_t}{g^\top \Sigma g}\, \Sigma g, \qquad
        g = \partial (f_t - f_o) / \partial r

    Symbols: Σ the covariance of the representations, f_o and f_t the scores of the class to leave and of the target. Of
    all shifts that make the scores equal to first order (α = 1) δ is the likeliest under N(0, Σ). The smallest α of
    ``grid`` whose *picture* is given the target is halved towards the flip point; where none is, the nearest it came is
    looked at more closely, since a class may be passed between two values. No gradient goes through the generator; a
    linear head needs none at all.

    Args:
        grid: values of α, ascending.
        halvings: of the interval in which the picture flips.
        top: keep only the so many largest units of Σ g, in standard deviations; None keeps all.

    Raises:
        ValueError: a grid that does not ascend from above 0, negative halvings, top below 1.

    Source: the linking card's comparison of searches; Wehrheim et al. (arXiv 2409.16865) for the task.
    """

    grid: tuple[float, ...] = GRID
    halvings: int = 7
    top: int | None = None

    def __post_init__(self) -> None:
        if not self.grid or min(self.grid) <= 0 or list(self.grid) != sorted(set(self.grid)):
            raise ValueError(f"grid is {self.grid}; wanted ascending numbers above 0.")
        if self.halvings < 0 or (self.top is not None and self.top < 1):
            raise ValueError(f"halvings is {self.halvings} and top is {self.top}; wanted at least 0 and at least 1.")

    def __call__(self, task: Task) -> Found:
        """Look at ``len(grid) + 8 + halvings`` pictures a row at most."""
        way = self._way(task)
        n = len(way)
        alpha = torch.zeros(n, dtype=way.dtype, device=way.device)
        reached = says(task.base.scores, task.target, task.confidence, task.probability)
        best, steps, shown = lead(task.base.scores, task.target), torch.zeros_like(task.target), task.base
        below, above = torch.zeros_like(alpha), torch.where(reached, 0.0, torch.nan).to(alpha)
        for a in self.grid:
            index = (~reached).nonzero()[:, 0]
            if not len(index):
                break
            seen = self._at(task, way, alpha.new_full((len(index),), a), index)
            steps[index] += 1
            hit = says(seen.scores, task.target[index], task.confidence, task.probability)
            ahead = lead(seen.scores, task.target[index])
            kept = hit | (ahead > best[index])  # where it never flips: the nearest it came
            shown = shown.put(index[kept], seen.take(kept))
            alpha[index[kept]], best[index[kept]] = a, ahead[kept]
            above[index[hit]] = a
            below[index[~hit]] = a
            reached[index[hit]] = True
        width = self._spacing(alpha)
        for _ in range(CLOSER):
            for side in (-1, 1):
                index = (~reached).nonzero()[:, 0]
                if not len(index):
                    break
                near = (alpha[index] + side * width[index]).clamp_min(0)
                seen = self._at(task, way, near, index)
                steps[index] += 1
                hit = says(seen.scores, task.target[index], task.confidence, task.probability)
                ahead = lead(seen.scores, task.target[index])
                kept = hit | (ahead > best[index])
                shown = shown.put(index[kept], seen.take(kept))
                alpha[index[kept]], best[index[kept]] = near[kept], ahead[kept]
                above[index[hit]], below[index[hit]] = near[hit], (near - width[index])[hit]
                reached[index[hit]] = True
            width = width / 2
        for _ in range(self.halvings):
            index = (reached & (above > 0)).nonzero()[:, 0]
            if not len(index):
                break
            middle = (below[index] + above[index]) / 2
            seen = self._at(task, way, middle, index)
            steps[index] += 1
            hit = says(seen.scores, task.target[index], task.confidence, task.probability)
            shown = shown.put(index[hit], seen.take(hit))
            alpha[index[hit]] = above[index[hit]] = middle[hit]
            below[index[~hit]] = middle[~hit]
        return Found(shown, alpha[:, None] * way, steps, reached, above)

    def _spacing(self, alpha: Tensor) -> Tensor:
        """Half the way from each α to the next smaller one of the grid."""
        grid = alpha.new_tensor((0.0, *self.grid))
        gaps = torch.cat([grid[1:2], grid.diff()])
        return gaps[torch.searchsorted(grid, alpha).clamp_max(len(grid) - 1)] / 2

    def _way(self, task: Task) -> Tensor:
        """δ for α = 1, (n, units)."""
        slope = task.slope.double()
        covariance = task.loop.link.covariance.to(slope)
        way = slope @ covariance
        if self.top is not None and self.top < way.shape[1]:
            sd = covariance.diagonal().clamp_min(torch.finfo(slope.dtype).tiny).sqrt()
            least = (way / sd).abs().topk(self.top, 1).values[:, -1:]
            way = torch.where((way / sd).abs() >= least, way, 0.0)
        gained = (way * slope).sum(1, keepdim=True)
        if bool((gained <= 0).any()):
            row = int((gained <= 0).nonzero()[0, 0])
            raise ValueError(
                f"row {row}: no shift of the representation raises class {int(task.target[row])} above "
                f"{int(task.origin[row])} to first order (the gradient of the difference is zero where units vary). "
                "Choose a later layer, or another target."
            )
        # A row that is at the target already still has a line to go along: one standard deviation of the difference.
        gap = torch.where(task.gap < 0, -task.gap.double(), gained[:, 0].sqrt())
        return gap[:, None] / gained * way

    def _at(self, task: Task, way: Tensor, alpha: Tensor, index: Tensor) -> Shown:
        rows = task.rows[index]
        with torch.no_grad():
            latents = task.loop.latents(task.r[index].to(way) + alpha[:, None] * way[index], rows)
        return task.loop.shown(latents, rows)
