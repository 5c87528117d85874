"""When a picture counts as the target: the highest score, and enough of the probability."""

import torch
from torch import Tensor

from ....metrics.probability import Probability, as_probabilities


def says(scores: Tensor, target: Tensor, confidence: float = 0.0, kind: Probability = "softmax") -> Tensor:
    """Whether the target has the highest score and at least this probability, (n,) bool.

    Args:
        scores: (n, K).
        target: (n,).
        confidence: in [0, 1).
        kind: what the scores are, see :func:`xinc_captum.metrics.probabilities`; not "auto".

    Example:
        >>> says(torch.tensor([[0.0, 1.0]]), torch.tensor([1]), 0.7)
        tensor([True])
    """
    return (scores.argmax(1) == target) & (probability(scores, target, kind) >= confidence)


def probability(scores: Tensor, target: Tensor, kind: Probability = "softmax") -> Tensor:
    """Return the target's probability, (n,)."""
    return as_probabilities(scores, kind).gather(1, target[:, None])[:, 0]


def lead(scores: Tensor, target: Tensor) -> Tensor:
    """How far the target's score is above the best of the others, (n,); negative where it is not the highest."""
    others = scores.scatter(1, target[:, None], -torch.inf)
    return scores.gather(1, target[:, None])[:, 0] - others.amax(1)
