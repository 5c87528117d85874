"""Counterfactual: pictures that a classifier gives another class, how far that was, and whether it succeeded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....store import bundle, write_tensors
from ..sweep import SweepTrust, strip


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What :meth:`LinkedUnitVisualization.counterfactual` found; tensors are plain and detached.

    Attributes:
        images: as the generator drew them, (N, C, H, W) in [0, 1]; where a row was not reached, the nearest it came.
        linked: the inputs as link and generator draw them, on which nothing was moved, (N, C, H, W).
        inputs: (N, C, H, W).
        shift: what was added to the representation, (N, units); for ``"latent"``, what came of it in the pictures.
        latents: (N, latent_dim).
        steps: pictures looked at for each row, (N,).
        reached: whether the classifier gives the picture the target, with the confidence asked for, (N,).
        already: whether the classifier gives the *input* the target, with the confidence asked for, (N,); such rows
            have nothing to reach, and neither ``success`` nor ``trust`` counts them.
        origin: class left, (N,): the input's own, or its second choice where that is the target.
        target: class asked for, (N,).
        answers: classes given to input, linked picture and picture, (N, 3).
        scores: of the pictures, (N, K).
        confidence: the target's probability in the picture, (N,).
        representations: of the pictures, looked at again, (N, units).
        flip: where on its own path the row changes class (in the method's own scale), (N,); nan where it was not looked
            for or not found.
        length: ‖shift‖, (N,).
        sparsity: how many units carry the shift, (Σ s²)² / Σ s⁴ in standard deviations, (N,).
        bound: no shorter shift makes the linear head say the target, (N,); None for other methods.
        head: whether the linear head says the target of the shifted representation, (N,); None without such a head.
        agreement: share of rows whose linked picture has the class of the input.
        method: how they were searched for.
    """

    images: Tensor
    linked: Tensor
    inputs: Tensor
    shift: Tensor
    latents: Tensor
    steps: Tensor
    reached: Tensor
    already: Tensor
    origin: Tensor
    target: Tensor
    answers: Tensor
    scores: Tensor
    confidence: Tensor
    representations: Tensor
    flip: Tensor
    length: Tensor
    sparsity: Tensor
    bound: Tensor | None
    head: Tensor | None
    agreement: float
    method: dict[str, Any]

    @property
    def success(self) -> float:
        """Share of rows that were reached, of those not there already; nan where all were."""
        return float(self.reached[~self.already].double().mean())

    @property
    def counted(self) -> str:
        """How many rows were reached, and how many need not have been asked about, in words."""
        asked = ~self.already
        there, sure = asked & (self.answers[:, 2] == self.target), float(self.method["confidence"])
        count = f"{int(self.reached[asked].sum())} of {int(asked.sum())} pictures "
        if sure:
            count += f"reach {100 * sure:g} % for the class asked for"
            count += (
                f", which {int(there.sum())} are given" if int(there.sum()) > int(self.reached[asked].sum()) else ""
            )
        else:
            count += "are given the class asked for"
        own = int(self.already.sum())
        return count + (f"; {own} more {'was' if own == 1 else 'were'} of it already" if own else "")

    @property
    def trust(self) -> SweepTrust:
        """Holds where nine rows in ten were reached, fails where fewer than half were, else weak.

        It is weak at best where half of the inputs or more change class by being linked alone, and fails where every
        input is of the target already, since nothing was asked.
        """
        if bool(self.already.all()):
            return SweepTrust("fails", f"nothing was asked: all {len(self.already)} pictures are of the class already")
        count = self.counted
        if self.success < 0.5:
            return SweepTrust("fails", f"only {count}")
        if self.agreement <= 0.5:
            lost = f"{1 - self.agreement:.0%} of the inputs are of another class once linked, before any step"
            return SweepTrust("weak", f"{lost}; {count}")
        return SweepTrust("weak" if self.success < 0.9 else "holds", count)

    def save(self, path: str | Path) -> Path:
        """Write pictures and numbers into a folder that appears whole or not at all.

        Each row's picture shows input, linked and flipped side by side, where these are of one size.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        note = {
            "method": self.method,
            "success": None if bool(self.already.all()) else self.success,
            "agreement": self.agreement,
            "trust": {"verdict": self.trust.verdict, "because": self.trust.because},
        }
        held = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        with bundle(path, note) as folder:
            write_tensors(folder / "counterfactual.safetensors", held, kind="counterfactual")
            if self.images.shape[1] in (1, 3):
                for row in range(len(self.images)):
                    shown = [self.linked[row], self.images[row]]
                    if self.inputs.shape == self.images.shape:
                        shown.insert(0, self.inputs[row].to(self.images))
                    strip(torch.stack(shown)).save(folder / f"row{row}.png")
        return Path(path)


def sparsity(shift: Tensor, sd: Tensor) -> Tensor:
    r"""How many units carry a shift.

    .. math:: \Bigl(\sum_u z_u^2\Bigr)^2 \Big/ \sum_u z_u^4, \qquad z_u = s_u / \sigma_u

    Args:
        shift: s, (n, units).
        sd: σ, (units,); units with σ = 0 are left out.

    Returns:
        (n,), 1 to the number of units; 0 where nothing was shifted.

    Example:
        >>> sparsity(torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.ones(2))
        tensor([1., 2.])
    """
    scale = sd.to(shift)
    square = torch.where(scale > 0, shift / scale.where(scale > 0, 1), 0).square()
    fourth = square.square().sum(1)
    return torch.where(fourth > 0, square.sum(1).square() / fourth.where(fourth > 0, 1), 0)
