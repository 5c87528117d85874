"""The shortest shift of a representation that makes a linear head say another class, and a bound that proves it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .linear_head import LinearHead
from .search import Found, Task
from .verdicts import says

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


def _climb(weight: Tensor, target: Tensor, wanted: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """δ of the best multipliers, (n, units), and the bound √(2 dual), (n,)."""
    wanted = torch.where(other, wanted, 0.0)
    gram = weight @ weight.T
    step = torch.empty_like(wanted[:, 0])
    for t in target.unique():
        differences = gram[t, t] - gram[t][None] - gram[t][:, None] + gram
        step[target == t] = 1 / torch.linalg.eigvalsh(differences)[-1].clamp_min(_tiny(gram))
    aim = torch.where(other, wanted + _BEYOND * wanted.amax(1, keepdim=True).clamp_min(0), 0.0)
    multipliers = torch.zeros_like(wanted)
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
            gain = (multipliers * wanted).sum(1)
            best = torch.maximum(best, gain / length.clamp_min(_tiny(gram)))  # at the best scale of λ
            if bool((((pushed >= wanted) | ~other).all(1) & (length <= best * (1 + _GAP))).all()):
                break
    total = multipliers.sum(1)[:, None]
    shift = total * weight[target] - multipliers @ weight
    return shift, best


def _pushed(gram: Tensor, target: Tensor, multipliers: Tensor) -> Tensor:
    """(W_t − W_k)ᵀ Σ_j λ_j (W_t − W_j), (n, K), from W Wᵀ alone."""
    moved = multipliers.sum(1)[:, None] * gram[target] - multipliers @ gram
    pushed: Tensor = moved.gather(1, target[:, None]) - moved
    return pushed


def _made_feasible(weight: Tensor, target: Tensor, shift: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Stretched, if need be, until every class is behind the target, and whether it then is; else zero."""
    ahead = _ahead(weight, target, shift)
    short = wanted > 0
    stretch = (wanted / ahead.where(ahead > 0, 1)).where(short, 1.0).amax(1).clamp_min(1)
    shift = shift * torch.where(short.any(1), stretch, 0)[:, None]
    possible = ((_ahead(weight, target, shift) >= wanted) | (wanted == -torch.inf)).all(1)
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
            raise ValueError(f"beyond is {self.beyond}; wanted at least 1.")

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
