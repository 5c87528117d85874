"""Shared by the canvases of photos and videos: rules, memory budget and verdicts."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..attributions import Canvas
from ..metrics.trust import CanvasTrust
from ..visualizers.report import Line

BUDGET = 512 << 20  # bytes of working memory besides the maps of one layer


class RuleName(StrEnum):
    """Rules that apply to every layer of these networks."""

    secant = "secant"
    tangent = "tangent"
    ablation = "ablation"


@dataclass(frozen=True)
class LayerVerdict:
    """The verdict on one layer.

    Attributes:
        layer: name of the layer.
        trust: verdict on its canvas.
        tangent: verdict on the canvas of the tangent rule, if the verdict on the secant's is not "holds".
    """

    layer: str
    trust: CanvasTrust
    tangent: CanvasTrust | None = None

    @property
    def line(self) -> Line:
        """Verdict, reason and advice for the page."""
        return Line(self.layer, self.trust.verdict, f", because {self.trust.because}.{self._advice()}")

    def _advice(self) -> str:
        """Return how the tangent rule compares at the same layer."""
        if self.tangent is None or self.tangent.agreement is None:
            return ""
        agreement = f"(ρ {self.tangent.agreement:.2f}: {self.tangent.verdict})"
        effect, but = "the effect of setting them to zero", "but the contributions do not sum to the output."
        if self.tangent.verdict == "holds":
            return f" With --rule tangent the ranks of neurons agree with {effect} {agreement}, {but}"
        if self.tangent.agreement > (self.trust.agreement or 0):
            return f" With --rule tangent the ranks of neurons agree better with {effect} {agreement}, {but}"
        no_better = f" With --rule tangent the ranks of neurons do not agree better with {effect} {agreement}."
        return f"{no_better} --rule ablation computes that effect directly."

    def numbers(self) -> dict[str, Any]:
        """Entries of the manifest."""
        agreement = self.trust.agreement
        return {
            "verdict": self.trust.verdict,
            "because": self.trust.because,
            "agreement": None if agreement is None else round(agreement, 4),
        }


def judge_layer(canvas: Canvas, by_tangent: Callable[[], Canvas]) -> LayerVerdict:
    """Return the verdict on a canvas; if a secant canvas does not hold, also the verdict on the tangent canvas.

    Args:
        canvas: a canvas whose network is in memory.
        by_tangent: returns the tangent canvas of the same layer.
    """
    trust = canvas.trust
    compare = canvas.slots > 0 and trust.verdict != "holds"  # only the secant has a bias remainder
    return LayerVerdict(canvas.layer, trust, by_tangent().trust if compare else None)
