"""What a link says of single units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from .class_means import ClassMeans
from .link_checks import checked_units
from .moments import Moments
from .reservoir import Reservoir
from .unit_moves import Bounds, bounds, marginal, within_class


class UnitReadings:
    """The part of :class:`LatentLink` that reads units off its moments."""

    class_means: ClassMeans | None
    reservoir: Reservoir

    @property
    def moments(self) -> Moments:
        """Moments of all pairs seen."""
        raise NotImplementedError

    def partial(self, units: Tensor, class_: int | None) -> Tensor:
        """Columns of the map."""
        raise NotImplementedError

    def direction(
        self,
        units: int | Sequence[int] | Tensor,
        kind: Literal["marginal", "partial", "within_class"] = "marginal",
        *,
        class_: int | None = None,
    ) -> Tensor:
        r"""Change of w per unit change of r_u.

        .. math:: \text{marginal: } \frac{\mathrm{Cov}(w, r_u)}{\mathrm{Var}(r_u)}, \quad
            \text{within class: the same of } r - \bar r_c, w - \bar w_c, \quad \text{partial: } B_{\cdot u}

        The marginal direction is where w goes when r_u rises *and the other units go along as they usually do*; the
        partial one holds them still, which pictures mostly cannot.

        Args:
            units: one or several.
            kind: one of the three.
            class_: whose map, for ``"partial"`` of a ``"per_class"`` link.

        Returns:
            (k, latent_dim), float64.

        Raises:
            IndexError: a unit out of range.
            ValueError: a dead unit, an unknown kind, or directions within classes without classes.
        """
        index = checked_units(units, self.moments)
        if kind == "marginal":
            return marginal(self.moments, index)
        if kind == "within_class":
            return within_class(self.moments, self.class_means, index)
        if kind != "partial":
            raise ValueError(f"kind is {kind!r}; wanted 'marginal', 'partial' or 'within_class'.")
        return self.partial(index, class_)

    def bounds(
        self,
        units: int | Sequence[int] | Tensor,
        kind: Bounds = "minmax",
        *,
        tail: float = 0.05,
        sds: float = 2.0,
    ) -> Tensor:
        """Lowest and highest value that a unit takes over the pairs.

        Args:
            units: one or several.
            kind: ``"minmax"``, exact; ``"quantile"``, from ``tail`` to 1 − ``tail`` of the reservoir; ``"sd"``, the
                mean ± ``sds`` standard deviations, within minmax.
            tail: share left out on each side.
            sds: standard deviations.

        Returns:
            (k, 2), float64.

        Raises:
            IndexError: a unit out of range.
            ValueError: a dead unit, an unknown kind, or a ``tail`` or ``sds`` that cannot be.
        """
        return bounds(self.moments, self.reservoir, checked_units(units, self.moments), kind, tail, sds)

    @property
    def r_mean(self) -> Tensor:
        """(units,) mean of each unit."""
        return self.moments.r_mean

    @property
    def r_sd(self) -> Tensor:
        """(units,) standard deviation of each unit."""
        return self.moments.r_sd

    @property
    def alive(self) -> Tensor:
        """(units,) bool: whether each unit varies over the pairs."""
        return self.moments.alive

    @property
    def covariance(self) -> Tensor:
        """(units, units) covariance of the representations."""
        return self.moments.rr / max(self.moments.n - 1, 1)
