"""What the counterfactual methods share: task, result, linear head, and the best round trip so far."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ....metrics.statistics import Probability, as_probabilities
from ..loop import Loop, RoundTrip

Step = TypeVar("Step")


@dataclass(frozen=True)
class LinearHead:
    r"""Scores that are linear in the representation.

    .. math:: f = W r + b

    Attributes:
        weight: W, (K, units).
        bias: b, (K,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, r: Tensor) -> Tensor:
        """Return the scores, (n, units) → (n, K)."""
        return r @ self.weight.T.to(r) + self.bias.to(r)

    def explains(self, r: Tensor, scores: Tensor) -> bool:
        """Return whether the head computes these scores from these representations, within rounding."""
        if r.shape[1] != self.weight.shape[1] or scores.dim() != 2 or scores.shape[1] != len(self.weight):
            return False
        size = r.double().abs() @ self.weight.double().abs().T + self.bias.double().abs()
        tolerance = 64 * torch.finfo(scores.dtype).eps * size
        return bool(((self(r.double()) - scores.double()).abs() <= tolerance).all())


@dataclass(frozen=True)
class Task:
    """Samples to move from the classes ``origin`` to the classes ``target``, (n,); f are the scores.

    Attributes:
        slope: ∂(f_target − f_origin)/∂r at the inputs, (n, units).
        gap: f_target − f_origin there, (n,).
        confidence: probability that the target must reach, in [0, 1).
        probability: what the scores are, see :func:`xinc_captum.metrics.probabilities`.
    """

    loop: Loop
    origin: Tensor
    target: Tensor
    slope: Tensor
    gap: Tensor
    head: LinearHead | None  # between representation and scores
    confidence: float
    probability: Probability = "softmax"

    def reaches(self, scores: Tensor, index: Tensor | None = None) -> Tensor:
        """Return whether scores of the samples ``index`` (all: None) reach the target with the confidence, (n,)."""
        target = self.target if index is None else self.target[index]
        return (scores.argmax(1) == target) & (probability(scores, target, self.probability) >= self.confidence)

    def require_head(self, method: str) -> LinearHead:
        """Return the head; raise ValueError if there is none, because the scores are not linear."""
        if self.head is None:
            raise ValueError(
                f"method {method!r} needs class scores that are linear in the linked representation, and these are "
                "not; link the input of the last Linear layer, or use method='ray' or 'latent'."
            )
        return self.head


@dataclass(frozen=True)
class SearchResult:
    """Result of a search: the best round trip of each sample.

    Attributes:
        trip: latents, images, representations and scores of the result.
        shift: what was added to r, (n, units).
        steps: images encoded for each sample, or updates made, (n,).
        reached: whether the classifier predicts the target for the image, (n,).
        flip: position on the sample's path where the class changes, (n,); None if not searched, nan if not reached.
        bound: no shorter shift changes the head's prediction to the target, (n,); None if not computed.
    """

    trip: RoundTrip
    shift: Tensor
    steps: Tensor
    reached: Tensor
    flip: Tensor | None = None
    bound: Tensor | None = None


Search = Callable[[Task], SearchResult]  # a method with its options: it searches for all samples at once


class Best:
    """The best round trip of each sample so far: one that reaches the target, or else the one nearest to it.

    It starts with the linked images; ``from_linked=False`` accepts any first round trip instead.

    Attributes:
        lead: the target's score minus the best other one in ``trip``, (n,); −inf before the first round trip.
        steps: images encoded for each sample, (n,).
        reached: whether ``trip`` reaches the target, (n,).
    """

    def __init__(self, task: Task, *, from_linked: bool = True) -> None:
        self.task, self.trip = task, task.loop.linked
        self.lead, self.reached = lead(self.trip.scores, task.target), task.reaches(self.trip.scores)
        if not from_linked:
            self.lead, self.reached = torch.full_like(self.lead, -torch.inf), torch.zeros_like(self.reached)
        self.steps = torch.zeros_like(task.target)

    def rounds(self, steps: Iterable[Step]) -> Iterator[tuple[Step, Tensor]]:
        """Yield each step with the index of the samples that have not reached the target, until none is left."""
        for step in steps:
            index = (~self.reached).nonzero()[:, 0]
            if not len(index):
                return
            yield step, index

    def update(self, index: Tensor, trip: RoundTrip) -> tuple[Tensor, Tensor]:
        """Count one step and store the round trips of the samples ``index`` that are better.

        Return two masks over ``index``: which reach the target, and which were stored.
        """
        hit = self.task.reaches(trip.scores, index)
        leads = lead(trip.scores, self.task.target[index])
        better = hit | (leads > self.lead[index])
        self.trip = self.trip.replace(index[better], trip.take(better))
        self.lead[index[better]] = leads[better]
        self.reached[index[hit]] = True
        self.steps[index] += 1
        return hit, better

    def bisect(
        self, below: Tensor, above: Tensor, halvings: int, evaluate: Callable[[Tensor, Tensor], RoundTrip]
    ) -> None:
        """Halve the intervals in which the class changes, in place; store the round trips that reach the target.

        ``below`` and ``above``, (n,), are positions on each sample's path that do not and do reach the target; samples
        whose ``above`` is nan or 0 are skipped. ``evaluate`` maps positions and their samples' index to round trips.
        """
        for _ in range(halvings):
            index = (above > 0).nonzero()[:, 0]
            if not len(index):
                break
            middle = (below[index] + above[index]) / 2
            trip = evaluate(middle, index)
            hit = self.task.reaches(trip.scores, index)
            self.trip = self.trip.replace(index[hit], trip.take(hit))
            self.steps[index] += 1
            above[index[hit]], below[index[~hit]] = middle[hit], middle[~hit]


def probability(scores: Tensor, target: Tensor, kind: Probability = "softmax") -> Tensor:
    """Return the target's probability, (n,)."""
    return as_probabilities(scores, kind).gather(1, target[:, None])[:, 0]


def lead(scores: Tensor, target: Tensor) -> Tensor:
    """Return the target's score minus the best other score, (n,); negative if the target is not the highest."""
    rivals = scores.scatter(1, target[:, None], -torch.inf)
    return scores.gather(1, target[:, None])[:, 0] - rivals.amax(1)
