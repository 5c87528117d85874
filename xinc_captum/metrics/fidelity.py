"""Whether pictures made to move one unit move it: told by showing them to the network again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .rank import rank_vectors
from .trust import Verdict

FOLLOWS = 0.8  # Spearman from which the unit is said to follow
WEAKLY = 0.5
AMONG_FIRST = 0.05  # share of the units among which the named one must be, or the sweep is said to be of others
FEW = 5  # of a small layer so many, if they are a tenth of it at most


@dataclass(frozen=True)
class Fidelity:
    """How faithfully a sweep moved the unit it names.

    Attributes:
        rank: place of the named unit among the changes of all live units, 1 for the unit that moves most.
        ranks: likewise row by row, (N,).
        alive: units that were compared.
        moved: root mean square change of every unit, in its standard deviations, (units,); 0 for dead units.
        rho: mean over rows of Spearman's correlation of the value set with the value re-encoded; a row in which the
            unit never changes counts as 0; nan for fewer than two values.
        rhos: likewise row by row, (N,).
        gain: re-encoded change per change set, by least squares; 1 is obeyed to the letter.
        flips: share of frames whose class is not that of the row's base picture; nan without classes.
    """

    rank: int
    ranks: Tensor
    alive: int
    moved: Tensor
    rho: float
    rhos: Tensor
    gain: float
    flips: float

    @property
    def moves_most(self) -> bool:
        """Whether no other unit changes more."""
        return self.rank == 1

    @property
    def verdict(self) -> tuple[Verdict, str]:
        """Holds, weak or fails, and why."""
        seen = f"it moves {'most' if self.rank == 1 else f'as no. {self.rank}'} of {self.alive} units"
        follows = f"follows what is set with Spearman {self.rho:.2f}"
        if self.rho != self.rho:
            return "weak", f"{seen}, but one value alone cannot show whether it follows"
        if self.rho < WEAKLY:
            return "fails", f"re-encoded, the unit hardly {follows}; {seen}"
        if self.rank > last_place(self.alive):
            return "fails", f"the pictures are of other units: re-encoded, {seen} and {follows}"
        if self.rank > 1 or self.rho < FOLLOWS:
            return "weak", f"re-encoded, {seen} and {follows}"
        return "holds", f"re-encoded, {seen} and {follows}"


def last_place(alive: int) -> float:
    """The last place among so many units at which a sweep is still of the unit it names.

    Example:
        >>> [last_place(alive) for alive in (4, 20, 69, 1280)]
        [1.0, 2.0, 5.0, 64.0]
    """
    return max(1.0, min(FEW, alive / 10), AMONG_FIRST * alive)


def fidelity(
    representations: Tensor,
    base: Tensor,
    values: Tensor,
    unit: int,
    *,
    sd: Tensor,
    alive: Tensor | None = None,
    scores: Tensor | None = None,
    base_scores: Tensor | None = None,
) -> Fidelity:
    r"""Compare what a sweep set with what the network sees in its frames.

    .. math:: m_j = \sqrt{\mathrm{mean}_{ns} (r'_{nsj} - b_{nj})^2} \,/\, \sigma_j, \qquad
              \mathrm{rank}(u) = 1 + \#\{j : m_j > m_u\}

    Args:
        representations: r', of every frame, (N, S, units).
        base: b, of each row's base picture, (N, units).
        values: what unit u was set to, (S,) or (N, S).
        unit: u.
        sd: σ, (units,).
        alive: units to compare with, (units,) bool; None takes those with sd > 0.
        scores: class scores of every frame, (N, S, K).
        base_scores: of the base pictures, (N, K).

    Returns:
        a :class:`Fidelity`.

    Raises:
        ValueError: shapes that do not fit, a unit out of range, or one that is not alive.

    Example:
        >>> frames = torch.tensor([[[0.0, 1.0], [2.0, 1.1]]])
        >>> found = fidelity(frames, frames[:, 0], torch.tensor([0.0, 4.0]), 0, sd=torch.ones(2))
        >>> found.rank, round(found.rho, 6), found.gain
        (1, 1.0, 0.5)
    """
    _check(representations, base, values, unit, sd)
    wide, start, scale = (t.detach().double().cpu() for t in (representations, base, sd))
    live = scale > 0 if alive is None else alive.detach().cpu() & (scale > 0)
    if not live[unit]:
        raise ValueError(f"unit {unit} is dead (its standard deviation is 0), so there is no scale to judge it by.")
    square = ((wide - start[:, None]) / torch.where(live, scale, 1)).square().where(live, torch.zeros(()).double())
    moved, by_row = square.mean((0, 1)).sqrt(), square.mean(1)
    told = values.detach().double().cpu().expand(wide.shape[:2])
    got = wide[..., unit]
    rhos = _rhos(told, got)
    away = told - told.mean(1, keepdim=True)
    length = float(away.square().sum())
    gain = float((away * (got - got.mean(1, keepdim=True))).sum()) / length if length else float("nan")
    flips = float("nan")
    if scores is not None and base_scores is not None and scores.shape[-1] > 1:
        flips = float((scores.argmax(-1) != base_scores.argmax(-1)[:, None]).double().mean())
    return Fidelity(
        rank=1 + int((moved > moved[unit]).sum()),
        ranks=1 + (by_row > by_row[:, unit : unit + 1]).sum(1),
        alive=int(live.sum()),
        moved=moved,
        rho=float(rhos.mean()),
        rhos=rhos,
        gain=gain,
        flips=flips,
    )


def _rhos(told: Tensor, got: Tensor) -> Tensor:
    if told.shape[1] < 2:
        return torch.full(told.shape[:1], float("nan"), dtype=torch.float64)
    return (rank_vectors(told) * rank_vectors(got)).sum(1).nan_to_num(0.0)


def _check(representations: Tensor, base: Tensor, values: Tensor, unit: int, sd: Tensor) -> None:
    shape = tuple(representations.shape)
    if len(shape) != 3 or tuple(base.shape) != (shape[0], shape[2]) or tuple(sd.shape) != shape[2:]:
        raise ValueError(
            f"representations have shape {shape}, base {tuple(base.shape)} and sd {tuple(sd.shape)}; wanted "
            "(N, S, units), (N, units) and (units,)."
        )
    if tuple(values.shape) not in ((shape[1],), shape[:2]):
        raise ValueError(f"values have shape {tuple(values.shape)}; wanted ({shape[1]},) or {shape[:2]}.")
    if not 0 <= unit < shape[2]:
        raise ValueError(f"unit is {unit}; wanted 0 to {shape[2] - 1}.")
