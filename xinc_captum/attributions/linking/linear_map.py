"""The paper's link: one linear map for all classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .moments import Moments
from .regression import Regression, Ridge, Solved
from .ridge import RankReport


class LinearMap(nn.Module):
    r"""One ridge regression.

    .. math:: \hat w = B r + b

    Attributes:
        weight: B, (latent_dim, units).
        bias: b, (latent_dim,).

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.regression = Regression(r.shape[1], w.shape[1], ridge=ridge, device=r.device)
        self.solved: Solved | None = None
        self.register_buffer("weight", torch.zeros_like(self.moments.rw.T))
        self.register_buffer("bias", torch.zeros_like(self.moments.w_mean))

    @property
    def moments(self) -> Moments:
        """Moments of all pairs."""
        return self.regression.moments

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Take in a chunk of pairs."""
        self.regression.add(r, w)

    def merge(self, other: LinearMap) -> None:
        """Take in what another map has seen."""
        self.regression.merge(other.regression)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Fill in weight and bias; how well determined they are, and the λ that was taken."""
        self.solved = self.regression.solve()
        self.weight, self.bias = self.solved.weight, self.solved.bias
        return self.solved.path.report, {"all": self.solved.ridge}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents of representations, (n, units) → (n, latent_dim)."""
        return nn.functional.linear(r, self.weight.to(r.dtype), self.bias.to(r.dtype))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Change of w when a unit rises by one and no other moves, (k, latent_dim)."""
        return self.weight[:, units].T

    def left_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """PRESS: what each pair is given without itself."""
        return (self.solved or self.regression.solve()).left_out(r, w)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        return self.regression.tensors()

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> LinearMap:
        """A map as :meth:`tensors` gave it."""
        regression = Regression.restored(tensors, ridge)
        own = cls(regression.moments.r_mean[None], regression.moments.w_mean[None], ridge)
        own.regression = regression
        return own
