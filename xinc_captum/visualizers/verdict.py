"""How a verdict looks under a picture: a mark, a word and a reason."""

from .figure import INK
from .sheet import MARGIN, Sheet, wide

VERDICTS = {"holds": ("✓", "#1a6e33"), "weak": ("≈", "#8a5a00"), "fails": ("✗", "#a8201a")}


def check_verdicts(*verdicts: str) -> None:
    """Only what :data:`VERDICTS` knows.

    Raises:
        ValueError: an unknown verdict.
    """
    unknown = set(verdicts) - set(VERDICTS)
    if unknown:
        raise ValueError(f"verdict {min(unknown)!r} is not known; wanted {', '.join(VERDICTS)}.")


def verdict_line(sheet: Sheet, top: float, verdict: str, because: str) -> float:
    """A mark, a word and a reason; colour only repeats what they say. Answers where the next line may begin."""
    mark, colour = VERDICTS[verdict]
    word = f"{mark} {verdict}"
    indent = wide(word, 9.5, bold=True) + 0.1
    sheet.line(MARGIN, top, word, size=9.5, colour=colour, bold=True)
    return sheet.paragraph(
        MARGIN + indent, top + 0.01, f"because {because}", sheet.width - 2 * MARGIN - indent, size=9, colour=INK
    )
