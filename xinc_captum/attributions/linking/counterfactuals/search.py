"""Search protocol, task and result records."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ....metrics.probability import Probability, as_probabilities
from ..loop import Loop, Shown


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
        """(n, units) to (n, K)."""
        return r @ self.weight.T.to(r) + self.bias.to(r)

    def explains(self, r: Tensor, scores: Tensor) -> bool:
        """Whether these scores are those of these representations, within rounding."""
        if r.shape[1] != self.weight.shape[1] or scores.dim() != 2 or scores.shape[1] != len(self.weight):
            return False
        mine, theirs = self(r.double()), scores.double()
        size = r.double().abs() @ self.weight.double().abs().T + self.bias.double().abs()
        slack = 64 * torch.finfo(scores.dtype).eps * size
        return bool(((mine - theirs).abs() <= slack).all())


@dataclass(frozen=True)
class Task:
    """Rows to be moved to another class.

    Attributes:
        loop: link, generator and classifier.
        r: representations of the inputs, (n, units).
        base: their linked pictures, and what the classifier sees in them.
        origin: classes to leave, (n,).
        target: classes to reach, (n,).
        slope: ∂(f_target − f_origin)/∂r at the inputs, (n, units).
        gap: f_target − f_origin there, (n,).
        head: the linear layer between representation and scores, None where there is none.
        confidence: probability the target must reach, in [0, 1).
        rows: places of the rows in the call, (n,).
        probability: what the scores are, see :func:`xinc_captum.metrics.probabilities`.
    """

    loop: Loop
    r: Tensor
    base: Shown
    origin: Tensor
    target: Tensor
    slope: Tensor
    gap: Tensor
    head: LinearHead | None
    confidence: float
    rows: Tensor
    probability: Probability = "softmax"

    def needed_head(self, method: str) -> LinearHead:
        """The head, for methods that cannot do without.

        Raises:
            ValueError: the scores are not linear in the representation.
        """
        if self.head is None:
            raise ValueError(
                f"method {method!r} wants class scores that are linear in the linked representation, and here they are "
                "not; link the input of the last Linear layer, or take method='ray' or 'latent'."
            )
        return self.head


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Attributes:
        shown: last latents, pictures and what the classifier sees in them.
        shift: what was added to r, (n, units).
        steps: pictures looked at for each row, or updates made, (n,).
        reached: whether the classifier gives the picture the target, (n,).
        flip: how far along the row's own path the class changes, (n,); nan where it was not looked for or not found.
        bound: no shift shorter than this makes the head say target, (n,); None where it was not computed.
    """

    shown: Shown
    shift: Tensor
    steps: Tensor
    reached: Tensor
    flip: Tensor
    bound: Tensor | None = None


class Search(Protocol):
    """A way to find counterfactuals, with its options."""

    def __call__(self, task: Task) -> Found:
        """Search for all rows at once, in a bounded number of steps."""
        ...


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
