"""A linear map for each class: within a class, a straight line is often enough where it is not between them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .moments import Moments
from .regression import Regression, Ridge, Solved
from .ridge import RankReport


class PerClassMap(nn.Module):
    r"""One ridge regression a class, each with its own λ.

    .. math:: \hat w = B_c r + b_c

    Attributes:
        weight: B_c, (classes, latent_dim, units).
        bias: b_c, (classes, latent_dim).
        class_ids: which class each row is of, (classes,).
    """

    weight: Tensor
    bias: Tensor
    class_ids: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.ridge = ridge
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.regressions: dict[int, Regression] = {}
        self.solved: dict[int, Solved] = {}
        for name in ("weight", "bias"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64, device=r.device))
        self.register_buffer("class_ids", torch.zeros(0, dtype=torch.long, device=r.device))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Take in a chunk of pairs.

        Raises:
            ValueError: without their classes.
        """
        classes = _wanted(classes)
        self.moments.add(r, w)
        for c in classes.unique().tolist():
            rows = classes == c
            self._of(int(c)).add(r[rows.to(r.device)], w[rows.to(w.device)])

    def merge(self, other: PerClassMap) -> None:
        """Take in what another map has seen."""
        self.moments.merge(other.moments)
        for c, regression in other.regressions.items():
            self._of(c).merge(regression)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Fill in weights and biases; the report of the class that is determined worst, and each λ.

        Raises:
            ValueError: a class with too few pairs, or whose units or latents do not vary.
        """
        self.solved = {}
        for c, regression in sorted(self.regressions.items()):
            try:
                self.solved[c] = regression.solve()
            except ValueError as error:
                raise ValueError(f"class {c} cannot be linked on its own: {error}") from error
        self.weight = torch.stack([s.weight for s in self.solved.values()])
        self.bias = torch.stack([s.bias for s in self.solved.values()])
        self.class_ids = torch.tensor(list(self.solved), device=self.weight.device)
        worst = min(self.solved.values(), key=lambda s: s.path.report.rank / s.path.report.alive)
        return worst.path.report, {str(c): s.ridge for c, s in self.solved.items()}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents of representations and their classes, (n, units) → (n, latent_dim).

        Raises:
            ValueError: no classes, or one that the fit never saw.
        """
        classes = _wanted(classes).to(self.class_ids.device)
        answer = r.new_zeros(len(r), self.weight.shape[1])
        for c in classes.unique().tolist():
            rows, at = (classes == c).to(r.device), self._index(int(c))
            weight, bias = self.weight[at].to(r.dtype), self.bias[at].to(r.dtype)
            answer = torch.where(rows[:, None], nn.functional.linear(r, weight, bias), answer)
        return answer

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Change of w when a unit rises by one within its class and no other moves, (k, latent_dim)."""
        if class_ is None:
            raise ValueError("the link has a map for each class; say of which one with class_=.")
        return self.weight[self._index(class_)][:, units].T

    def left_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """PRESS: what each pair is given without itself, by the map of its own class."""
        classes = _wanted(classes)
        answer = torch.zeros(w.shape, dtype=torch.float64, device=self.moments.rr.device)
        for c in classes.unique().tolist():
            rows = classes == c
            solved = self.solved.get(int(c)) or self.regressions[self._known(int(c))].solve()
            answer[rows.to(answer.device)] = solved.left_out(r[rows.to(r.device)], w[rows.to(w.device)])
        return answer

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        each = {f"class{c}.{k}": v for c, one in self.regressions.items() for k, v in one.tensors().items()}
        return each | {f"all.{k}": v for k, v in self.moments.tensors().items()}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> PerClassMap:
        """A map as :meth:`tensors` gave it."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            owner, _, rest = name.partition(".")
            parts.setdefault(owner, {})[rest] = value
        moments = Moments.restored(parts.pop("all"))
        own = cls(moments.r_mean[None], moments.w_mean[None], ridge)
        own.moments = moments
        own.regressions = {int(k.removeprefix("class")): Regression.restored(v, ridge) for k, v in parts.items()}
        return own

    def _of(self, c: int) -> Regression:
        if c not in self.regressions:
            m = self.moments
            self.regressions[c] = Regression(m.units, m.latent_dim, ridge=self.ridge, device=m.rr.device)
        return self.regressions[c]

    def _known(self, c: int) -> int:
        if c not in self.regressions:
            raise ValueError(f"class {c} is not linked; the fit saw the classes {sorted(self.regressions)}.")
        return c

    def _index(self, c: int) -> int:
        return sorted(self.regressions).index(self._known(c))


def _wanted(classes: Tensor | None) -> Tensor:
    if classes is None:
        raise ValueError(
            "a per_class link wants the class of each row: give classes=, for real pictures what the model predicts."
        )
    return classes
