"""Ray, LatentWalk, MinimalShift, LinkingInStyle."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..latent_link import LatentLink
from ..loop import Shown
from .search import Found, LinearHead, Task, lead, says

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
                f"margin={self.margin}; expected at least one step, a positive lr, and nothing negative."
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


_ITERATIONS, _LOOK = 4000, 25
_GAP = 1e-3  # relative distance of answer and bound at which the iteration ends
_BEYOND = 1e-4  # share of the way by which the answer lies behind the boundary, so that rounding does not undo it


class Shortest(NamedTuple):
    """The shift, (n, units), its length, (n,), and a length that no such shift falls short of, (n,)."""

    shift: Tensor
    length: Tensor
    bound: Tensor


def shortest_shift(head: LinearHead, r: Tensor, target: Tensor, confidence: float = 0.0) -> Shortest:
    r"""Project a representation onto the region where a linear head says the target.

    .. math:: \min_\delta \tfrac12 \lVert\delta\rVert^2 \;\text{ s.t. }\;
              (W_t - W_k)^\top \delta \ge m - (f_t - f_k) \;\;\forall k \ne t

    The dual, over one multiplier a class, is climbed by accelerated projected gradient; each of its values bounds every
    such shift from below (weak duality), whether the climb has converged or not. With one competing class both are
    the distance to a hyperplane.

    Args:
        head: f = W r + b.
        r: (n, units).
        target: t, (n,).
        confidence: p, of the softmax: the shift takes m = log(p (K−1) / (1−p)), which suffices; the bound takes
            log(p / (1−p)), which is necessary. m >= 0.

    Returns:
        float64; zeros for rows where the target leads by m as it is. Where no shift can do it (the target's weights are
        a mean of other classes') or none was found, the shift is zero and its length infinite; the bound stays proven.

    Example:
        >>> head = LinearHead(torch.eye(2), torch.zeros(2))
        >>> found = shortest_shift(head, torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
        >>> round(float(found.length), 3), round(float(found.bound), 3)
        (0.707, 0.707)

    Source: Boyd & Vandenberghe, "Convex Optimization", §5 (duality); Beck & Teboulle 2009 (acceleration).
    """
    weight, scores = head.weight.double(), head(r.double())
    classes = scores.shape[1]
    enough = max(0.0, _logit(confidence) + math.log(classes - 1)) if confidence and classes > 1 else 0.0
    needed = max(0.0, _logit(confidence)) if confidence else 0.0
    other = torch.arange(classes, device=r.device) != target[:, None]
    short = torch.where(other, scores - scores.gather(1, target[:, None]), -torch.inf)
    shift, bound = _climb(weight, target, short + enough, other)
    if needed != enough:
        bound = _climb(weight, target, short + needed, other)[1]
    shift, possible = _made_feasible(weight, target, shift, short + enough)
    length = torch.where(possible, shift.norm(dim=1), torch.inf)
    return Shortest(shift, length, torch.minimum(bound, length))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _ahead(weight: Tensor, target: Tensor, shift: Tensor) -> Tensor:
    """(W_t − W_k)ᵀ δ, (n, K)."""
    moved = shift @ weight.T
    return moved.gather(1, target[:, None]) - moved


def _climb(weight: Tensor, target: Tensor, expected: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """δ of the best multipliers, (n, units), and the bound √(2 dual), (n,)."""
    expected = torch.where(other, expected, 0.0)
    gram = weight @ weight.T
    step = torch.empty_like(expected[:, 0])
    for t in target.unique():
        differences = gram[t, t] - gram[t][None] - gram[t][:, None] + gram
        step[target == t] = 1 / torch.linalg.eigvalsh(differences)[-1].clamp_min(_tiny(gram))
    aim = torch.where(other, expected + _BEYOND * expected.amax(1, keepdim=True).clamp_min(0), 0.0)
    multipliers = torch.zeros_like(expected)
    ahead, momentum = multipliers, torch.ones_like(step)
    best = torch.zeros_like(step)
    for i in range(_ITERATIONS):
        slope = aim - _pushed(gram, target, ahead)
        new = torch.where(other, (ahead + step[:, None] * slope).clamp_min(0), 0.0)
        turned = ((ahead - new) * (new - multipliers)).sum(1) > 0  # start again where it went too far
        following = torch.where(turned, 1.0, (1 + (1 + 4 * momentum**2).sqrt()) / 2)
        push = torch.where(turned, 0.0, (momentum - 1) / following)
        ahead, multipliers, momentum = new + push[:, None] * (new - multipliers), new, following
        if i % _LOOK == _LOOK - 1:
            pushed = _pushed(gram, target, multipliers)
            length = (multipliers * pushed).sum(1).clamp_min(0).sqrt()
            gain = (multipliers * expected).sum(1)
            best = torch.maximum(best, gain / length.clamp_min(_tiny(gram)))  # at the best scale of λ
            if bool((((pushed >= expected) | ~other).all(1) & (length <= best * (1 + _GAP))).all()):
                break
    total = multipliers.sum(1)[:, None]
    shift = total * weight[target] - multipliers @ weight
    return shift, best


def _pushed(gram: Tensor, target: Tensor, multipliers: Tensor) -> Tensor:
    """(W_t − W_k)ᵀ Σ_j λ_j (W_t − W_j), (n, K), from W Wᵀ alone."""
    moved = multipliers.sum(1)[:, None] * gram[target] - multipliers @ gram
    pushed: Tensor = moved.gather(1, target[:, None]) - moved
    return pushed


def _made_feasible(weight: Tensor, target: Tensor, shift: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Stretched, if need be, until every class is behind the target, and whether it then is; else zero."""
    ahead = _ahead(weight, target, shift)
    short = expected > 0
    stretch = (expected / ahead.where(ahead > 0, 1)).where(short, 1.0).amax(1).clamp_min(1)
    shift = shift * torch.where(short.any(1), stretch, 0)[:, None]
    possible = ((_ahead(weight, target, shift) >= expected) | (expected == -torch.inf)).all(1)
    return torch.where(possible[:, None], shift, 0.0), possible


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


@dataclass(frozen=True)
class MinimalShift:
    r"""The shortest shift after which the linear head says the target, drawn once.

    Whether the *picture* is given the target is another question, which ``reached`` answers: the shift ends at the
    head's boundary, and the generator draws only what it can.

    Args:
        beyond: how many times the shortest shift is taken.

    Raises:
        ValueError: ``beyond`` below 1; a layer that is not followed by a linear head.

    Source: :func:`shortest_shift`.
    """

    beyond: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.beyond < math.inf:
            raise ValueError(f"beyond is {self.beyond}; expected at least 1.")

    def __call__(self, task: Task) -> Found:
        """One picture a row."""
        head = task.needed_head("minimal")
        if task.confidence and task.probability != "softmax":
            raise ValueError(
                "method 'minimal' computes the shift for the probability of a softmax, and the scores are "
                f"{task.probability!r} here; leave confidence at 0, or take method='ray' or 'latent'."
            )
        shortest = shortest_shift(head, task.r, task.target, task.confidence)
        shift = self.beyond * shortest.shift
        with torch.no_grad():
            latents = task.loop.latents(task.r.double() + shift, task.rows)
        shown = task.loop.shown(latents, task.rows)
        reached = says(shown.scores, task.target, task.confidence, task.probability)
        nowhere = torch.full_like(task.gap, torch.nan)
        return Found(shown, shift, torch.ones_like(task.target), reached, nowhere, shortest.bound)


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
            raise ValueError(f"steps is {self.steps} and lr is {self.lr}; expected at least 1 and above 0.")

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
                    f"start has shape {tuple(self.start.shape)}; expected one shift a row, (rows, {r.shape[1]})."
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
            raise ValueError(f"grid is {self.grid}; expected ascending numbers above 0.")
        if self.halvings < 0 or (self.top is not None and self.top < 1):
            raise ValueError(f"halvings is {self.halvings} and top is {self.top}; expected at least 0 and at least 1.")

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
