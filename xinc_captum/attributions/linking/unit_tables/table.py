"""Class UnitTable: changes by unit, class, part and measure, and queries for units against a null of shuffled pairs."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...._optional import require
from ....batch import chunks
from ....metrics.statistics import chance_of, false_discovery_rate
from ....store import bundle
from ..sweep import none_for_nan


class Discoveries(NamedTuple):
    """Units selected by a query, the strongest first.

    Attributes:
        units: (k,).
        change: of the query's part and measure, (k,).
        strength: absolute change in root mean squares of the null, (k,).
        p: probability of at least this strength under the null, (k,).
        q: smallest false discovery rate at which the unit is selected, (k,).
        asked: number of units tested.
    """

    units: Tensor
    change: Tensor
    strength: Tensor
    p: Tensor
    q: Tensor
    asked: int

    def __repr__(self) -> str:
        """Return the number of units and the first of them."""
        if not len(self.units):
            return f"Discoveries(none of {self.asked} units)"
        first = ", ".join(str(unit) for unit in self.units[:8].tolist())
        more = ", …" if len(self.units) > 8 else ""
        return f"Discoveries({len(self.units)} of {self.asked} units: {first}{more})"


COLUMNS = ("link", "unit", "class", "part", "measure", "change", "sd", "bases", "base_value")


@dataclass(frozen=True, eq=False, repr=False)
class UnitTable:
    """Result of :func:`quantify` and :func:`screen`; tensors are detached and on the CPU.

    Attributes:
        units: (units,).
        classes: of the bases; a single None without classes.
        parts: names of the parts.
        measures: names of the columns of the measures.
        change: mean over bases of the change from the lower to the upper frame, (units, classes, parts, measures),
            float32; nan if no base of the class has the part.
        spread: standard deviation of the change over bases, in the same shape.
        bases: number of bases that count, in the same shape, int32.
        base_value: mean of the measure over the base images, (classes, parts, measures); nan for motion.
        null: ``change`` of the null's units, (null units, classes, parts, measures), or None.
        note: settings, for the manifest.
    """

    units: Tensor
    classes: tuple[int | None, ...]
    parts: tuple[str, ...]
    measures: tuple[str, ...]
    change: Tensor
    spread: Tensor
    bases: Tensor
    base_value: Tensor
    null: Tensor | None = None
    note: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return sizes and names instead of all numbers."""
        null = "no null" if self.null is None else f"a null of {len(self.null)} units"
        return (
            f"UnitTable({len(self.units)} units, {len(self.classes)} classes, parts: {', '.join(self.parts)}; "
            f"measures: {', '.join(self.measures)}; {null})"
        )

    def column(self, part: str, measure: str, *, classes: Sequence[int] | None = None) -> Tensor:
        """Return the change of one measure of one part, (units,), as a mean over the given classes (None: all)."""
        at, column = _index(part, self.parts, "part"), _index(measure, self.measures, "measure")
        return self._over_classes(self.change, classes)[:, at, column]

    def strongest(self, part: str, measure: str, count: int, *, classes: Sequence[int] | None = None) -> Tensor:
        """Return the ``count`` units that change a measure of a part most, up or down: candidates for a full sweep."""
        values = self.column(part, measure, classes=classes).abs().nan_to_num(nan=-1.0)
        return self.units[values.argsort(descending=True, stable=True)[:count]]

    def where(
        self,
        part: str,
        measure: str,
        *,
        only: bool = False,
        leak: float = 0.5,
        sign: Literal["up", "down", "either"] = "either",
        ignoring: Sequence[str] = (),
        classes: Sequence[int] | None = None,
        fdr: float = 0.05,
    ) -> Discoveries:
        r"""Return units that change a measure of a part more than the null does, at a bounded false discovery rate.

        .. math:: T_u = |z_{u,q}| \;[\,\text{sign}\,]\;
                  \bigl[\,\max_{q' \ne q} |z_{u,q'}| \le \lambda\, |z_{u,q}|\,\bigr], \qquad
                  z = \Delta / \mathrm{rms}(\Delta^0)

        Symbols: Δ the change (mean over ``classes``; None: all), Δ⁰ that of the null's units, q the part, λ = ``leak``.
        A bracket is 1 if its condition holds, else 0. The last applies only with ``only``, and to no part of
        ``ignoring``, such as the background, which shrinks if anything grows. p-values are the rank of T among the
        null's; q-values are those of Benjamini and Hochberg, at most ``fdr``.

        Raises:
            ValueError: a part, measure or class that the table does not have, a table without a null or with one that
                does not change this measure, or an invalid sign, leak or rate.
        """
        at, column = _index(part, self.parts, "part"), _index(measure, self.measures, "measure")
        ignored = {_index(name, self.parts, "part") for name in ignoring}
        if self.null is None:
            raise ValueError(
                "this table has no null, so changes cannot be compared with chance; give quantify() the directions of "
                "shuffled pairs, null=shuffled_directions(…)."
            )
        if sign not in ("up", "down", "either") or not leak >= 0 or not 0 < fdr <= 1:
            raise ValueError(
                f"sign is {sign!r}, leak {leak} and fdr {fdr}; expected 'up', 'down' or 'either', at least 0, and "
                "(0, 1]."
            )
        other_parts = [i for i in range(len(self.parts)) if i != at and i not in ignored] if only else []
        change, null = (self._over_classes(t, classes)[:, :, column] for t in (self.change, self.null))
        scale = null.double().square().nanmean(0).sqrt()
        if not scale[at] > 0:
            raise ValueError(
                "the null does not change this measure of this part, so it cannot be tested (fixed masks have a "
                "constant area, for example). Choose another measure."
            )

        def statistic(values: Tensor) -> Tensor:
            z = values.double() / scale.where(scale > 0, torch.inf)
            strength = z[:, at].abs()
            selected = strength.isfinite()
            if sign != "either":
                selected &= (z[:, at] > 0) if sign == "up" else (z[:, at] < 0)
            if other_parts:
                selected &= z[:, other_parts].abs().nan_to_num(nan=0.0).amax(1) <= leak * strength
            return strength.where(selected, 0.0)

        strength = statistic(change)
        p = chance_of(strength, statistic(null))
        q = false_discovery_rate(p)
        selected = ((q <= fdr) & (strength > 0)).nonzero()[:, 0]
        order = selected[strength[selected].argsort(descending=True, stable=True)]
        return Discoveries(self.units[order], change[order, at], strength[order], p[order], q[order], len(self.units))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the long form, one number per row, with the columns ``COLUMNS``; the null's units are last."""
        base = self.base_value.tolist()
        groups: list[tuple[str, Sequence[int], tuple[Tensor | None, ...]]] = [
            ("fitted", self.units.tolist(), (self.change, self.spread, self.bases))
        ]
        if self.null is not None:
            groups.append(("shuffled", range(len(self.null)), (self.null, None, None)))
        for link, units, tensors in groups:
            for u, unit in enumerate(units):
                values = [None if t is None else t[u].tolist() for t in tensors]
                cells = product(enumerate(self.classes), enumerate(self.parts), enumerate(self.measures))
                for (k, label), (q, part), (m, measure) in cells:
                    numbers = [None if t is None else none_for_nan(t[k][q][m]) for t in values]
                    yield (link, unit, label, part, measure, *numbers, none_for_nan(base[k][q][m]))

    def save(self, path: str | Path, *, format: Literal["csv", "parquet"] = "csv") -> Path:  # noqa: A002
        """Write the long form, ``units.csv`` or ``units.parquet`` (extra ``table``), into a folder, atomically.

        Raises:
            StoreError: the folder cannot be written, or has other content.
            ModuleNotFoundError: pyarrow is missing.
            ValueError: another format.
        """
        if format not in ("csv", "parquet"):
            raise ValueError(f"format is {format!r}; expected 'csv' or 'parquet'.")
        arrow = require("pyarrow", purpose="Parquet", extra="table") if format == "parquet" else None
        with bundle(path, self.note) as folder:
            if arrow is not None:
                columns = dict(zip(COLUMNS, zip(*self.rows(), strict=True), strict=True))
                writer = require("pyarrow.parquet", purpose="Parquet", extra="table")
                writer.write_table(arrow.table({k: list(v) for k, v in columns.items()}), folder / "units.parquet")
            else:
                with (folder / "units.csv").open("w", newline="", encoding="utf-8") as file:
                    lines = csv.writer(file)
                    lines.writerow(COLUMNS)
                    lines.writerows(self.rows())
        return Path(path)

    def _over_classes(self, values: Tensor, classes: Sequence[int] | None) -> Tensor:
        if classes is None:
            return values.nanmean(1)
        return values[:, [_index(label, self.classes, "class") for label in classes]].nanmean(1)


def _index(name: Any, known: Sequence[Any], what: str) -> int:
    if name not in known:
        raise ValueError(f"{what} {name!r} is not in this table; it has {', '.join(map(str, known))}.")
    return known.index(name)


NULL_BLOCK = 64  # units whose permuted pairs are in memory at a time


def shuffled_directions(
    representations: Tensor,
    latents: Tensor,
    units: Tensor | list[int] | range,
    *,
    classes: Tensor | None = None,
    repeats: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""Return directions of k units whose values are permuted between pairs (of the same class), for ``null=``.

    .. math:: d^0_u = \frac{\mathrm{Cov}(w,\, r_{\pi(u)})}{\mathrm{Var}(r_u)}

    Symbols: r (n, units) and w (n, latent_dim) the pairs that the link was fitted to; π a permutation of these, new for
    every unit and repeat, so the directions, (repeats · k, latent_dim) in float64, are independent even if the units
    are correlated. Covariance and variance are those within classes if classes, (n,), are given. :func:`quantify`
    scales each to the length of a unit's own direction. The smallest p-value of a query is 1 / (1 + k · repeats).

    Raises:
        ValueError: other shapes, a unit that does not vary (within classes), or no repeats.

    Example:
        >>> r, w = torch.rand(50, 3), torch.rand(50, 2)
        >>> shuffled_directions(r, w, [0, 2], repeats=10, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([20, 2])
    """
    if representations.dim() != 2 or latents.dim() != 2 or len(representations) != len(latents) or repeats < 1:
        raise ValueError(
            f"representations have shape {tuple(representations.shape)} and latents {tuple(latents.shape)}, with "
            f"{repeats} repeats; expected (n, units) and (n, latent_dim) of the same pairs, at least once."
        )
    labels = torch.zeros(len(latents)) if classes is None else classes.cpu()
    if labels.shape != (len(latents),):
        raise ValueError(f"classes have shape {tuple(labels.shape)} for {len(latents)} pairs; expected one for each.")
    group = labels.unique(return_inverse=True)[1]
    index = torch.as_tensor(list(units) if not isinstance(units, Tensor) else units).cpu().long()
    values = _centre(representations.double().cpu()[:, index], group)
    centred = _centre(latents.double().cpu(), group)
    square = values.square().sum(0)
    rounding = torch.finfo(torch.float64).eps * len(values) * representations.double().cpu()[:, index].abs().amax(0)
    constant = (square <= len(values) * rounding.square()).nonzero()[:, 0]
    if len(constant):
        raise ValueError(f"unit {int(index[constant[0]])} does not vary within classes; leave it out.")
    directions = []
    by_group = group.argsort(stable=True)
    for _ in range(repeats):
        for start, stop in chunks(len(index), NULL_BLOCK):
            size, device = (len(group), stop - start), generator.device
            keys = torch.rand(size, generator=generator, dtype=torch.float64, device=device).cpu() + group[:, None]
            order = keys.argsort(0)  # a permutation within each group
            permuted = torch.empty_like(keys)
            permuted[by_group] = values[:, start:stop].gather(0, order)
            directions.append(permuted.T @ centred / square[start:stop, None])
    return torch.cat(directions)


def _centre(rows: Tensor, group: Tensor) -> Tensor:
    """Return each row minus the mean of its group."""
    count = group.bincount().to(rows)
    means = torch.zeros(len(count), rows.shape[1], dtype=rows.dtype).index_add_(0, group, rows) / count[:, None]
    return rows - means[group]
