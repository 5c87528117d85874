"""The counterfactual methods: Ray, LatentWalk, MinimalShift, LinkingInStyle."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ....batch import python_index, random_generator
from ..link import Link
from ..loop import RoundTrip
from .search import Best, LinearHead, SearchResult, Task, lead

_BETAS, _EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class LatentWalk:
    r"""Optimize the latent by Adam until the image reaches the target, then bisect the segment back to the flip point.

    .. math:: L(w) = \bigl[m - \bigl(f_t - \max_{k \ne t} f_k\bigr)\bigr]_+ + \mu \lVert (w - w_0) / \sigma \rVert^2

    Symbols: f the scores of the image of w, t the target, w_0 the linked latent, σ the standard deviation of the link's
    latents.

    Args:
        lr: learning rate of Adam, in σ.
        pull: μ, the weight of the distance to w_0.
        margin: m, in scores; the optimization ends as soon as the image reaches the target.
        steps: maximum number of steps.
        halvings: number of bisections of the segment from w_0 to the optimized w, towards the change of class.

    Raises:
        ValueError: numbers out of range; when called, a generator without gradients.

    Source: latent optimization as in Abdal et al. 2019, "Image2StyleGAN"; Adam as in Kingma & Ba 2015.
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
                f"margin={self.margin}; expected at least one step, a positive lr, and no negative numbers."
            )

    def __call__(self, task: Task) -> SearchResult:
        """Search with at most ``steps`` + ``halvings`` images per sample."""
        loop = task.loop
        if not getattr(loop.generator, "differentiable", True):
            raise ValueError("method 'latent' needs a differentiable generator; use method='ray' instead.")
        start, moments = loop.linked.latents, loop.link.moments
        sd = (moments.ww / max(moments.n - 1, 1)).sqrt().to(start)
        least = sd.max().clamp_min(torch.finfo(sd.dtype).tiny)
        scale = torch.where(~moments.latent_constant.to(sd.device), sd, least)  # σ, (latent_dim,)
        u = torch.zeros_like(start)  # (w − w_0) / σ
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        best = Best(task)
        for step, index in best.rounds(range(1, self.steps + 1)):
            gradient, trip = self._gradient(task, start[index], scale, u[index], index)
            best.update(index, trip)
            first[index] = _BETAS[0] * first[index] + (1 - _BETAS[0]) * gradient
            second[index] = _BETAS[1] * second[index] + (1 - _BETAS[1]) * gradient.square()
            size = self.lr / (1 - _BETAS[0] ** step)
            u[index] -= size * first[index] / ((second[index] / (1 - _BETAS[1] ** step)).sqrt() + _EPS)
        end = best.trip.latents
        moved = best.reached & (end != start).any(1)
        below, above = torch.zeros_like(end[:, 0]), torch.where(best.reached, moved.to(end), torch.nan)

        def evaluate(fraction: Tensor, index: Tensor) -> RoundTrip:
            return loop.run(start[index] + fraction[:, None] * (end[index] - start[index]), index)

        best.bisect(below, above, self.halvings, evaluate)
        shift = best.trip.representations - loop.linked.representations
        return SearchResult(best.trip, shift, best.steps, best.reached, above)

    def _gradient(self, task: Task, start: Tensor, scale: Tensor, u: Tensor, index: Tensor) -> tuple[Tensor, RoundTrip]:
        gradients, trips, loop = [], [], task.loop
        for part in torch.arange(len(index), device=index.device).split(loop.limit):
            with torch.enable_grad():
                leaf = u[part].detach().requires_grad_()
                latents = start[part] + leaf * scale
                images = loop.generate(latents)
                representations, scores = loop.encode(images, index[part])
                hinge = (self.margin - lead(scores, task.target[index[part]])).clamp_min(0)
                (gradient,) = torch.autograd.grad((hinge + self.pull * leaf.square().sum(1).to(hinge)).sum(), leaf)
            gradients.append(gradient)
            trips.append(RoundTrip(*(t.detach() for t in (latents, images, representations, scores))))
        return torch.cat(gradients), RoundTrip.cat(trips)


_ITERATIONS, _CHECK_EVERY = 4000, 25
_GAP = 1e-3  # relative distance of shift and bound at which the iteration ends
_BEYOND = 1e-4  # fraction by which the shift goes beyond the boundary, so that rounding does not undo it


class Shortest(NamedTuple):
    """The shift, (n, units), its length, (n,), and a lower bound of the length of every such shift, (n,); float64."""

    shift: Tensor
    length: Tensor
    bound: Tensor


def shortest_shift(head: LinearHead, r: Tensor, target: Tensor, confidence: float = 0.0) -> Shortest:
    r"""Project representations, (n, units), onto the region where a linear head predicts the targets, (n,).

    .. math:: \min_\delta \tfrac12 \lVert\delta\rVert^2 \;\text{ s.t. }\;
              (W_t - W_k)^\top \delta \ge m - (f_t - f_k) \;\;\forall k \ne t

    Symbols: f = W r + b the head, t the target, δ the shift. For a ``confidence`` p of the softmax over K classes, the
    shift uses m = log(p (K−1) / (1−p)), which is sufficient, and the bound log(p / (1−p)), which is necessary; m >= 0.

    The dual, with one multiplier per class, is maximised by accelerated projected gradient. Each of its values bounds
    every such shift from below (weak duality), whether the iteration has converged or not. If the target leads by m
    already, the shift is zero. If no shift exists (the target's weights are a mean of other classes') or none was
    found, it is zero and its length infinite; the bound remains proven.

    Example:
        >>> head = LinearHead(torch.eye(2), torch.zeros(2))
        >>> shortest = shortest_shift(head, torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
        >>> round(float(shortest.length), 3), round(float(shortest.bound), 3)
        (0.707, 0.707)

    Source: Boyd & Vandenberghe, "Convex Optimization", §5 (duality); Beck & Teboulle 2009 (acceleration).
    """
    weight, scores = head.weight.double(), head(r.double())
    classes = scores.shape[1]
    logit = math.log(confidence / (1 - confidence)) if confidence else -math.inf
    sufficient = max(0.0, logit + math.log(classes - 1)) if classes > 1 else 0.0
    necessary = max(0.0, logit)
    other = torch.arange(classes, device=r.device) != target[:, None]
    short = torch.where(other, scores - scores.gather(1, target[:, None]), -torch.inf)
    shift, bound = _maximize_dual(weight, target, short + sufficient, other)
    if necessary != sufficient:
        bound = _maximize_dual(weight, target, short + necessary, other)[1]
    shift, possible = _make_feasible(weight, target, shift, short + sufficient)
    length = torch.where(possible, shift.norm(dim=1), torch.inf)
    return Shortest(shift, length, torch.minimum(bound, length))


def _gain(change: Tensor, target: Tensor) -> Tensor:
    """Return by how much more the target's score changes than each other, (n, K), from the changes of all scores."""
    return change.gather(1, target[:, None]) - change


def _maximize_dual(weight: Tensor, target: Tensor, margin: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return δ of the best multipliers, (n, units), and the bound √(2 dual), (n,)."""
    margin = torch.where(other, margin, 0.0)
    gram, tiny = weight @ weight.T, torch.finfo(weight.dtype).tiny
    step = torch.empty_like(margin[:, 0])
    for t in target.unique():
        differences = gram[t, t] - gram[t][None] - gram[t][:, None] + gram
        step[target == t] = 1 / torch.linalg.eigvalsh(differences)[-1].clamp_min(tiny)
    goal = torch.where(other, margin + _BEYOND * margin.amax(1, keepdim=True).clamp_min(0), 0.0)
    multipliers = torch.zeros_like(margin)
    ahead, momentum = multipliers, torch.ones_like(step)
    best = torch.zeros_like(step)
    for i in range(_ITERATIONS):
        slope = goal - _dual_gain(gram, target, ahead)
        new = torch.where(other, (ahead + step[:, None] * slope).clamp_min(0), 0.0)
        restart = ((ahead - new) * (new - multipliers)).sum(1) > 0  # the momentum points away from the gradient
        following = torch.where(restart, 1.0, (1 + (1 + 4 * momentum**2).sqrt()) / 2)
        push = torch.where(restart, 0.0, (momentum - 1) / following)
        ahead, multipliers, momentum = new + push[:, None] * (new - multipliers), new, following
        if i % _CHECK_EVERY == _CHECK_EVERY - 1:
            gain = _dual_gain(gram, target, multipliers)
            length = (multipliers * gain).sum(1).clamp_min(0).sqrt()
            total = (multipliers * margin).sum(1)
            best = torch.maximum(best, total / length.clamp_min(tiny))  # at the best scale of λ
            if bool((((gain >= margin) | ~other).all(1) & (length <= best * (1 + _GAP))).all()):
                break
    shift = multipliers.sum(1)[:, None] * weight[target] - multipliers @ weight
    return shift, best


def _dual_gain(gram: Tensor, target: Tensor, multipliers: Tensor) -> Tensor:
    """Return (W_t − W_k)ᵀ Σ_j λ_j (W_t − W_j), (n, K), from W Wᵀ alone."""
    return _gain(multipliers.sum(1)[:, None] * gram[target] - multipliers @ gram, target)


def _make_feasible(weight: Tensor, target: Tensor, shift: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch shifts until the target leads every class by the margin; return them (else zero), and if it does."""
    gain = _gain(shift @ weight.T, target)
    short = margin > 0
    stretch = (margin / gain.where(gain > 0, 1)).where(short, 1.0).amax(1).clamp_min(1)
    shift = shift * torch.where(short.any(1), stretch, 0)[:, None]
    possible = ((_gain(shift @ weight.T, target) >= margin) | (margin == -torch.inf)).all(1)
    return torch.where(possible[:, None], shift, 0.0), possible


@dataclass(frozen=True)
class MinimalShift:
    r"""Apply the shortest shift for which the linear head predicts the target, in one step.

    The *image* may still have another class (see ``reached``): the shift ends at the head's boundary, and the generator
    cannot show every representation.

    Args:
        beyond: factor by which the shortest shift is multiplied, at least 1.

    Raises:
        ValueError: ``beyond`` below 1; when called, a layer that is not followed by a linear head.

    Source: :func:`shortest_shift`.
    """

    beyond: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.beyond < math.inf:
            raise ValueError(f"beyond is {self.beyond}; expected a finite number of at least 1.")

    def __call__(self, task: Task) -> SearchResult:
        """Return the result of one image per sample."""
        head, loop = task.require_head("minimal"), task.loop
        if task.confidence and task.probability != "softmax":
            raise ValueError(
                "method 'minimal' computes the shift for a softmax probability, and the scores are "
                f"{task.probability!r} here; leave confidence at 0, or use method='ray' or 'latent'."
            )
        shortest = shortest_shift(head, loop.r, task.target, task.confidence)
        shift = self.beyond * shortest.shift
        with torch.no_grad():
            latents = loop.latents(loop.r.double() + shift, loop.index)
        trip = loop.run(latents, loop.index)
        return SearchResult(trip, shift, torch.ones_like(task.target), task.reaches(trip.scores), bound=shortest.bound)


WEIGHTS = (1.0, 0.6, 10.0)


def shift_losses(
    link: Link,
    head: LinearHead,
    r: Tensor,
    shift: Tensor,
    origin: Tensor,
    target: Tensor,
    weights: tuple[float, float, float] = WEIGHTS,
    classes: Tensor | None = None,
) -> Tensor:
    r"""Return the loss of the paper's update for each sample, (n,).

    .. math:: L(s) = -a f_t(r - s) + b f_o(r - s) - c \cos\bigl(w(r), w(r - s)\bigr)

    Symbols: w the link, f the head, r and s = ``shift`` (n, units), o = ``origin`` and t = ``target`` (n,), and a, b, c
    the weights. ``classes``, (n,), are those of the samples, if the link needs them.

    Source: the released code of Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """
    shifted = r - shift
    scores = head(shifted)
    target_score, origin_score = (scores.gather(1, c[:, None])[:, 0] for c in (target, origin))
    similarity = torch.cosine_similarity(link(r, classes), link(shifted, classes), dim=1)
    return -weights[0] * target_score + weights[1] * origin_score - weights[2] * similarity


@dataclass(frozen=True)
class LinkingInStyle:
    r"""The paper's update: gradient descent on a shift of the representation, with one image per step.

    .. math:: s \leftarrow s - \eta\, \partial L / \partial s, \qquad \text{image } G(w(\max(r - s, 0)))

    Symbols: s the shift, L its loss (:func:`shift_losses`), w the link, G the generator, whose gradient is not needed.
    L has no lower bound and its constants were chosen for one ResNet-50, so it often fails for other models; use
    :class:`Ray` there.

    Args:
        lr: η, the learning rate.
        steps: maximum number of steps; the paper's code takes up to 2,000.
        weights: a, b, c of :func:`shift_losses`.
        seed: random seed of the initial s, uniform in [0, 1).
        start: the initial s instead, (n, units).

    Raises:
        ValueError: numbers out of range; when called, a layer that is not followed by a linear head.

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

    def __call__(self, task: Task) -> SearchResult:
        """Search with at most ``steps`` images per sample."""
        head, loop = task.require_head("linking_in_style"), task.loop
        r = loop.r.to(loop.link.r_sd)
        shift = self._initial_shift(r, loop.index)
        best, best_shift = Best(task, from_linked=False), torch.zeros_like(shift)
        for _, index in best.rounds(range(self.steps)):
            with torch.enable_grad():
                leaf, classes = shift[index].requires_grad_(), loop.classes_of(index)
                origin, target = task.origin[index], task.target[index]
                loss = shift_losses(loop.link, head, r[index], leaf, origin, target, self.weights, classes)
                (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            shift[index] -= self.lr * gradient
            with torch.no_grad():
                latents = loop.latents((r[index] - shift[index]).clamp_min(0), index)
            _, better = best.update(index, loop.run(latents, index))
            best_shift[index[better]] = shift[index[better]]
        change = torch.where(torch.isfinite(best.lead)[:, None], (r - best_shift).clamp_min(0) - r, 0.0)
        return SearchResult(best.trip, change, best.steps, best.reached)

    def _initial_shift(self, r: Tensor, index: Tensor) -> Tensor:
        if self.start is not None:
            if self.start.shape[-1] != r.shape[1] or self.start.dim() != 2 or int(index.max()) >= len(self.start):
                raise ValueError(
                    f"start has shape {tuple(self.start.shape)}; expected one shift per sample, (n, {r.shape[1]})."
                )
            return self.start[index.to(self.start.device)].detach().to(r).clone()
        # One random stream per sample, so that results do not depend on the other samples.
        streams = [random_generator(python_index(self.seed) * 1_000_003 + i) for i in index.tolist()]
        return torch.stack([torch.rand(r.shape[1], generator=g) for g in streams]).to(r)


GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)
REFINEMENTS = 4  # number of times that the interval around the nearest miss is halved


@dataclass(frozen=True)
class Ray:
    r"""Search along the covariance-weighted gradient of a score difference until the image changes class.

    .. math:: \delta = \alpha\, \frac{f_o - f_t}{g^\top \Sigma g}\, \Sigma g, \qquad
        g = \partial (f_t - f_o) / \partial r

    Symbols: Σ the covariance of the representations, f_o and f_t the scores of the class to leave and of the target. Of
    all shifts that make the scores equal to first order (α = 1), δ is the likeliest under N(0, Σ). The generator needs
    no gradient.

    The smallest α of ``grid`` whose *image* reaches the target is bisected towards the flip point. If none does, the
    values around the nearest miss are searched, because a class may lie between two values of the grid.

    Args:
        grid: values of α, ascending.
        halvings: number of bisections of the interval in which the class changes.
        top: number of units of Σ g to use, the largest in standard deviations; None uses all.

    Raises:
        ValueError: numbers out of range, or a grid that does not ascend.

    Source: Wehrheim et al. (arXiv 2409.16865) for the task; docs/benchmarks.md compares the searches.
    """

    grid: tuple[float, ...] = GRID
    halvings: int = 7
    top: int | None = None

    def __post_init__(self) -> None:
        if not self.grid or min(self.grid) <= 0 or list(self.grid) != sorted(set(self.grid)):
            raise ValueError(f"grid is {self.grid}; expected ascending numbers above 0.")
        if self.halvings < 0 or (self.top is not None and self.top < 1):
            raise ValueError(f"halvings is {self.halvings} and top is {self.top}; expected at least 0 and at least 1.")

    def __call__(self, task: Task) -> SearchResult:
        """Search with at most ``len(grid) + 8 + halvings`` images per sample."""
        ray, best = self._ray(task), Best(task)
        alpha = torch.zeros(len(ray), dtype=ray.dtype, device=ray.device)
        below, above = torch.zeros_like(alpha), torch.where(best.reached, 0.0, torch.nan).to(alpha)

        def evaluate(position: Tensor, index: Tensor) -> RoundTrip:
            with torch.no_grad():
                latents = task.loop.latents(task.loop.r[index].to(ray) + position[:, None] * ray[index], index)
            return task.loop.run(latents, index)

        def probe(position: Tensor, index: Tensor) -> Tensor:
            """Encode the images at these positions, track the best, and return which reach the target."""
            hit, better = best.update(index, evaluate(position, index))
            alpha[index[better]], above[index[hit]] = position[better], position[hit]
            return hit

        for a, index in best.rounds(self.grid):
            below[index[~probe(alpha.new_full((len(index),), a), index)]] = a
        grid = alpha.new_tensor((0.0, *self.grid))
        gaps = torch.cat([grid[1:2], grid.diff()])
        width = (
            gaps[torch.searchsorted(grid, alpha).clamp_max(len(grid) - 1)] / 2
        )  # half the distance to the next smaller value of the grid
        for _ in range(REFINEMENTS):
            for side, index in best.rounds((-1, 1)):
                near = (alpha[index] + side * width[index]).clamp_min(0)
                hit = probe(near, index)
                below[index[hit]] = (near - width[index])[hit]
            width = width / 2
        best.bisect(below, above, self.halvings, evaluate)
        alpha = torch.where(best.reached, above, alpha)
        return SearchResult(best.trip, alpha[:, None] * ray, best.steps, best.reached, above)

    def _ray(self, task: Task) -> Tensor:
        """Return δ for α = 1, (n, units)."""
        slope = task.slope.double()
        covariance = task.loop.link.covariance.to(slope)
        ray = slope @ covariance
        if self.top is not None and self.top < ray.shape[1]:
            sd = covariance.diagonal().clamp_min(torch.finfo(slope.dtype).tiny).sqrt()
            least = (ray / sd).abs().topk(self.top, 1).values[:, -1:]
            ray = torch.where((ray / sd).abs() >= least, ray, 0.0)
        gain = (ray * slope).sum(1, keepdim=True)
        if bool((gain <= 0).any()):
            row = int((gain <= 0).nonzero()[0, 0])
            raise ValueError(
                f"sample {row}: no shift of the representation raises class {int(task.target[row])} above "
                f"{int(task.origin[row])} to first order (the gradient of the difference is zero for all units that "
                "vary). Choose a later layer, or another target."
            )
        # For samples that have the target already, the gap is one standard deviation of the difference.
        gap = torch.where(task.gap < 0, -task.gap.double(), gain[:, 0].sqrt())
        return gap[:, None] / gain * ray
