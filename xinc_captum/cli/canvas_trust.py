"""Rules, memory budget and verdicts of canvases, of photos and of videos."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..attributions import Canvas
from ..metrics.trust import CanvasTrust
from ..visualizers.report import Line

BUDGET = 512 << 20  # bytes of working memory, beside one layer's maps


class RuleName(StrEnum):
    """Rules that answer a colour for every pixel at every layer."""

    secant = "secant"
    tangent = "tangent"
    ablation = "ablation"


@dataclass(frozen=True)
class LayerVerdict:
    """The verdict on one layer.

    Attributes:
        layer: its name.
        trust: of its canvas.
        tangent: of the tangent's canvas, where the secant's does not hold.
    """

    layer: str
    trust: CanvasTrust
    tangent: CanvasTrust | None = None

    @property
    def line(self) -> Line:
        """For the page."""
        return Line(self.layer, self.trust.verdict, f", because {self.trust.because}.{self._advice()}")

    def _advice(self) -> str:
        """What the tangent does at the same layer."""
        if self.tangent is None or self.tangent.agreement is None:
            return ""
        agreement = f"(ρ {self.tangent.agreement:.2f}: {self.tangent.verdict})"
        if self.tangent.verdict == "holds":
            return f" With --rule tangent it ranks as removal does {agreement}, but then the parts do not add up."
        if self.tangent.agreement > (self.trust.agreement or 0):
            return f" With --rule tangent it comes nearer to removal {agreement}, but then the parts do not add up."
        return f" --rule tangent does no better here {agreement}; --rule ablation is removal itself."

    def numbers(self) -> dict[str, Any]:
        """For the manifest."""
        agreement = self.trust.agreement
        return {
            "verdict": self.trust.verdict,
            "because": self.trust.because,
            "agreement": None if agreement is None else round(agreement, 4),
        }


def judge_layer(canvas: Canvas, by_tangent: Callable[[], Canvas]) -> LayerVerdict:
    """Judge a canvas, and where it is the secant's and does not hold, the tangent's too.

    Args:
        canvas: with its network at hand.
        by_tangent: makes the tangent's canvas of the same layer.
    """
    trust = canvas.trust
    doubted = canvas.slots > 0 and trust.verdict != "holds"  # only the secant has slots
    return LayerVerdict(canvas.layer, trust, by_tangent().trust if doubted else None)
