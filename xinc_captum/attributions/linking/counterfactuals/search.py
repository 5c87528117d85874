"""What a search for a counterfactual is given, and what it answers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ....metrics.probability import Probability
from ..loop import Loop, Shown
from .linear_head import LinearHead


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
