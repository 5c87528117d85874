"""How far a canvas can be trusted: what goes missing when its units are removed, and whether its parts add up."""

from dataclasses import dataclass

from torch import Tensor

from .rank import spearman
from .trust import Verdict

CLOSE, FAR = 0.8, 0.5
GAP = 1e-3


@dataclass(frozen=True)
class CanvasTrust:
    """The evidence on a canvas; numbers are None where they do not apply.

    Attributes:
        verdict: holds, weak or fails.
        because: one clause.
        agreement: Spearman's ρ of contributions with what goes missing when units are set to zero.
        gap: how far the parts miss the output, as a fraction of it, where the rule promises that they add up.
    """

    verdict: Verdict
    because: str
    agreement: float | None = None
    gap: float | None = None

    def __str__(self) -> str:
        return f"{self.verdict}, because {self.because}"


def ablation_agreement(shares: Tensor, missing: Tensor) -> float | None:
    r"""Whether a canvas ranks units and places as removing the units does.

    .. math:: \rho = \mathrm{spearman}_{u, o}(c_{u o},\; y_o(a) - y_o(a_u := 0))

    Args:
        shares: (units, *outputs).
        missing: likewise; with other outputs, magnitudes Σ_channel |c| of (units, channels, places) are compared.

    Returns:
        ρ; 0 where one side is the same everywhere, None where both are.

    Example:
        >>> ablation_agreement(torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 30.0]]))
        1.0
    """
    if shares.shape != missing.shape:
        shares, missing = shares.abs().sum(1), missing.abs().sum(1)
    found = spearman(shares.reshape(1, -1), missing.reshape(1, -1)).values
    if len(found):
        return round(float(found[0]), 12)
    level = all(bool((side == side.flatten()[0]).all()) for side in (shares, missing))
    return None if level else 0.0


def judged_canvas(*, agreement: float | None = None, gap: float | None = None) -> CanvasTrust:
    """Weigh the evidence on a canvas.

    It *fails* when it ranks units and places unlike their removal (ρ < .5), or when parts that should add up miss the
    output by more than a thousandth. It *holds* from ρ = .8 on, and is *weak* between, or when nothing was compared.

    Example:
        >>> str(judged_canvas(agreement=0.97))
        'holds, because it ranks units and places as setting them to zero does (ρ 0.97)'
    """
    if gap is not None and not gap <= GAP:
        return CanvasTrust("fails", f"its parts miss the output by {gap:.2g} of it", agreement, gap)
    if agreement is None:
        return CanvasTrust("weak", "neither it nor setting units to zero tells units and places apart", agreement, gap)
    sums = "" if gap is None else ", and its parts add up to the output"
    if agreement >= CLOSE:
        said = f"it ranks units and places as setting them to zero does (ρ {agreement:.2f}){sums}"
        return CanvasTrust("holds", said, agreement, gap)
    verdict: Verdict = "weak" if agreement >= FAR else "fails"
    only = "only roughly as" if verdict == "weak" else "unlike what"
    though = "" if gap is None else ", though its parts add up to the output"
    return CanvasTrust(
        verdict,
        f"it ranks units and places {only} setting them to zero does (ρ {agreement:.2f}){though}",
        agreement,
        gap,
    )
