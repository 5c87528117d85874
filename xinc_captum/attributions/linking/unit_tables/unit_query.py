"""Which units change one part, beyond what a shuffled link does."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ....metrics.discoveries import chance_of, false_discovery_rate


class Found(NamedTuple):
    """Units that a query keeps, the strongest first.

    Attributes:
        units: (kept,).
        change: of the part and measure asked for, (kept,).
        strength: of it, in root mean squares of the null, (kept,).
        p: chance of as much under the null, (kept,).
        q: smallest rate of false discoveries at which the unit is kept, (kept,).
        asked: how many units were asked about.
    """

    units: Tensor
    change: Tensor
    strength: Tensor
    p: Tensor
    q: Tensor
    asked: int

    def __repr__(self) -> str:
        """How many, and the first of them."""
        if not len(self.units):
            return f"Found(none of {self.asked} units)"
        first = ", ".join(str(unit) for unit in self.units[:8].tolist())
        more = ", …" if len(self.units) > 8 else ""
        return f"Found({len(self.units)} of {self.asked} units: {first}{more})"


def discoveries(
    units: Tensor,
    change: Tensor,
    null: Tensor,
    part: int,
    others: Sequence[int],
    *,
    leak: float,
    sign: Literal["up", "down", "either"],
    fdr: float,
) -> Found:
    """The query behind :meth:`UnitTable.where`: changes (units, parts) beside the null's (null units, parts).

    Raises:
        ValueError: a sign, leak or rate that makes no sense, or a part that no unit of the null changes.
    """
    if sign not in ("up", "down", "either") or not leak >= 0 or not 0 < fdr <= 1:
        raise ValueError(
            f"sign is {sign!r}, leak {leak} and fdr {fdr}; wanted 'up', 'down' or 'either', at least 0, and (0, 1]."
        )
    scale = null.double().square().nanmean(0).sqrt()
    if not scale[part] > 0:
        raise ValueError(
            "the null changes this measure of this part not at all, so any change would pass; fixed masks have a fixed "
            "area, for one. Ask for another measure."
        )

    def statistic(values: Tensor) -> Tensor:
        z = values.double() / scale.where(scale > 0, torch.inf)
        strength = z[:, part].abs()
        kept = strength.isfinite()
        if sign != "either":
            kept &= (z[:, part] > 0) if sign == "up" else (z[:, part] < 0)
        if others:
            kept &= z[:, list(others)].abs().nan_to_num(nan=0.0).amax(1) <= leak * strength
        return strength.where(kept, 0.0)

    found = statistic(change)
    p = chance_of(found, statistic(null))
    q = false_discovery_rate(p)
    kept = ((q <= fdr) & (found > 0)).nonzero()[:, 0]
    order = kept[found[kept].argsort(descending=True, stable=True)]
    return Found(units[order], change[order, part], found[order], p[order], q[order], len(units))
