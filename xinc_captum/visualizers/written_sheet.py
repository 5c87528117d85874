"""Pictures, and what the network that was written for each of them draws."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .figure import QUIET, bare, draw_photo
from .sheet import MARGIN, PAGE, Sheet

LABEL, GAP = 1.3, 0.05  # inches left of the pictures, and between them


def written_sheet(
    images: Tensor,
    rows: Mapping[str, tuple[Tensor, Sequence[float]]],
    *,
    title: str = "Pictures and their own networks",
) -> Figure:
    """One column a picture: itself, and below it what each kind of network draws, with its decibels.

    Args:
        images: (pictures, C, H, W) in [0, 1].
        rows: by name, what is drawn, (pictures, C, H', W'), and each picture's PSNR.
        title: above everything.

    Raises:
        ValueError: another number of drawn pictures or of decibels than of images.

    Example:
        >>> x = torch.rand(3, 1, 8, 8)
        >>> len(written_sheet(x, {"as drawn": (0.9 * x, [20.0, 21.0, 19.5])}).axes)
        6
    """
    for name, (drawn, decibels) in rows.items():
        if len(drawn) != len(images) or len(decibels) != len(images):
            raise ValueError(
                f"{name!r} has {len(drawn)} pictures and {len(decibels)} decibels for {len(images)} images; wanted one "
                "of each."
            )
    sheet = Sheet()
    line = sheet.heading(title, "under each its decibels (PSNR): 20 is an error of a tenth of white, 26 of a twentieth")
    cell = min((PAGE - 2 * MARGIN - LABEL) / len(images), 1.3)
    for name, (drawn, decibels) in {"the picture": (images, ()), **rows}.items():
        high = (cell - GAP) * drawn.shape[-2] / drawn.shape[-1]
        sheet.paragraph(MARGIN, line + high / 2 - 0.1, name, LABEL - 0.1, bold=True)
        for b, picture in enumerate(drawn):
            axes = sheet.axes(MARGIN + LABEL + b * cell, line, cell - GAP, high)
            draw_photo(axes, picture)
            bare(axes)
        line += high + 0.02
        for b, dB in enumerate(decibels):
            middle = MARGIN + LABEL + (b + 0.5) * cell - GAP / 2
            sheet.line(middle, line, f"{dB:.1f}", size=8, colour=QUIET, align="center")
        line += 0.23 if decibels else 0.03
    return sheet.done(line + 0.05)
