"""A picture of what clusters are about: shares of variance explained, beside shuffled labels."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, bare
from .sheet import MARGIN, PAGE, Sheet

ROW = 0.52


def explained_bars(found: Mapping[str, tuple[float, Tensor]], verdict: str, *, claim: str = "motion") -> Figure:
    """One bar a response: the share of its variance that clusters explain, and what shuffled labels explain.

    Args:
        found: by response, η² and the same with shuffled labels, (repeats,): an ``Explained`` without its last item.
        verdict: one sentence, said below.
        claim: the response whose bar stands out.

    Raises:
        ValueError: no response.

    Example:
        >>> import torch
        >>> figure = explained_bars({"motion": (0.4, torch.rand(9) / 9)}, "not supported here: …")
        >>> figure.savefig("explained.png")  # doctest: +SKIP
    """
    if not found:
        raise ValueError("found is empty; give at least one response: {'motion': (share, shuffled)}.")
    sheet = Sheet()
    top = sheet.heading(
        f"Are the clusters dominated by {claim}?",
        "share of the variance between units that their cluster explains; grey: shuffled labels, the line their 95 %",
    )
    left, across = MARGIN + 1.1, PAGE - 2 * MARGIN - 1.1
    axes = sheet.axes(left, top, across, ROW * len(found))
    furthest = min(1.0, 1.3 * max(share for share, _ in found.values()) + 0.02)
    for i, (name, (share, shuffled)) in enumerate(found.items()):
        chance, high = float(shuffled.mean()), float(shuffled.double().quantile(0.95))
        axes.barh(i - 0.17, share, height=0.4, color="#c4561a" if name == claim else "#1f5fa8")
        axes.barh(i + 0.2, chance, height=0.24, color="#b5b5bd")
        axes.plot([chance, high], [i + 0.2, i + 0.2], color=INK, linewidth=1.1)
        axes.text(share + 0.008 * furthest, i - 0.17, f"{100 * share:.0f} %", fontsize=9, va="center", color=INK)
        words = f"{100 * chance:.0f} % by chance"
        axes.text(max(high, chance) + 0.008 * furthest, i + 0.22, words, fontsize=7.5, va="center", color=QUIET)
        sheet.line(left - 0.1, top + ROW * i + 0.1, name, size=10, bold=name == claim, align="right")
    axes.set_xlim(0, furthest)
    axes.set_ylim(len(found) - 0.5, -0.5)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=1)
    bottom = top + ROW * len(found) + 0.1
    answer, _, because = verdict.partition(": ")
    bottom = sheet.line(PAGE / 2, bottom, answer, size=11, bold=True, align="center")
    return sheet.done(sheet.paragraph(PAGE / 2, bottom, because, PAGE - 4 * MARGIN, size=9, align="center") + 0.08)
