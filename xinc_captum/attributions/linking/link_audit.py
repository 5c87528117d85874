"""LinkAudit: what a link explains, beside what would fool one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ...metrics.bootstrap import Interval
from ...metrics.link_trust import LinkTrust, judged_link
from ...metrics.semantic_order import SemanticOrder
from ...store import bundle, write_tensors
from .ridge import RankReport


@dataclass(frozen=True, eq=False)
class LinkAudit:
    """What :meth:`LatentLink.audit` found on held-out pairs; None where what it needs was not given.

    Attributes:
        pairs: held-out pairs.
        classes: how many classes they are of; of one class, R² within classes is R², and keeping it says nothing.
        r2: of everything, with a bootstrap interval.
        r2_within: against class means: the honest figure.
        class_mean_r2: what a link that knows only the class reaches.
        shuffled_within: R² within classes of a link fitted to pairs shuffled within classes: what the order of the
            classes alone explains, 0 or below where it says nothing of the order within them.
        left_out_r2: R² on the fitted pairs, each left out (PRESS).
        duplicates: share of repeated latents among all pairs seen by the fit.
        leaked: share of held-out latents that the fit had seen.
        generated: share of generated pictures to whose linked picture the model gives the same class.
        real: the same of real pictures.
        class_mean_agreement: the same of class means: agreement alone proves nothing.
        cycle_r2: R² of r' against r, r → w → picture → r', over all units together.
        cycle_cosine: mean cosine of r and r'.
        unit_cycle: (units,) correlation of each unit with itself after the cycle.
        unit_tolerance: (units,) share of each unit's variance that no other unit explains.
        order: congruence of the two spaces.
        mlp_r2_within: R² within classes of a two-layer network: how much the closed form gives up.
        search_cycle_r2: cycle R² of latents searched through generator and classifier, on ``searched`` pairs.
        search_from: cycle R² of the link on the same pairs, where the search began.
        searched: pairs of the search.
        report: how well the pairs determine the map.
        manifest: where the link's pairs came from.
        held_out_duplicates: share of the held-out pairs whose latents repeat those of an earlier one.
    """

    pairs: int
    classes: int
    r2: Interval
    r2_within: Interval | None
    class_mean_r2: float | None
    shuffled_within: float | None
    left_out_r2: float | None
    duplicates: float
    leaked: float
    generated: Interval | None
    real: Interval | None
    class_mean_agreement: float | None
    cycle_r2: float | None
    cycle_cosine: float | None
    unit_cycle: Tensor | None = field(repr=False)
    unit_tolerance: Tensor = field(repr=False)
    order: SemanticOrder | None
    mlp_r2_within: float | None
    search_cycle_r2: float | None
    search_from: float | None
    searched: int
    report: RankReport
    manifest: dict[str, Any] = field(repr=False)
    held_out_duplicates: float = 0.0

    @cached_property
    def trust(self) -> LinkTrust:
        """Holds, weak or fails, and because of what."""
        return judged_link(
            r2=self.r2,
            r2_within=self.r2_within,
            shuffled=self.shuffled_within,
            leaked=self.leaked,
            generated=self.generated,
            real=self.real,
            cycle=self.cycle_r2,
            classes=self.classes,
            pairs=self.report.pairs,
            units=self.report.alive,
            duplicates=self.duplicates,
            held_out_duplicates=self.held_out_duplicates,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, the verdict first; units by number; None for what cannot be told."""
        found: dict[str, Any] = {"trust": {"verdict": self.trust.verdict, "because": self.trust.because}}
        return found | {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def save(self, path: str | Path) -> Path:
        """Write the numbers (manifest.json) and the figures of units into a folder that appears whole or not at all.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        units = {"unit_tolerance": self.unit_tolerance, "unit_cycle": self.unit_cycle}
        note = {name: value for name, value in self.to_dict().items() if name not in units}
        with bundle(path, {"audit": note}) as folder:
            held = {name: value for name, value in units.items() if value is not None}
            write_tensors(folder / "units.safetensors", held, kind="link-audit")
        return Path(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return {name: _plain(number) for name, number in value._asdict().items()}
    if isinstance(value, Tensor):
        return [_plain(number) for number in value.tolist()]
    if isinstance(value, float):  # JSON has no nan: what cannot be told is None
        return value if math.isfinite(value) else None
    return value.to_dict() if isinstance(value, SemanticOrder | RankReport) else value
