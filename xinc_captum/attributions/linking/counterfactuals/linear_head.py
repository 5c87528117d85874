"""The linear layer between a representation and the class scores, found by what it computes."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
