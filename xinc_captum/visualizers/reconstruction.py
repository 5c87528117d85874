"""A picture of how well a network draws a clip: frames, what it draws, what is missing, and decibels of every frame."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .figure import INK, QUIET, array, bare, draw_photo, draw_signed, limit_of
from .sheet import MARGIN, Sheet

PAGE = 11.0  # inches
LABEL = 1.35  # inches left of the frames
CURVE = 0.95  # inches of the curve


def frames_beside_drawn(frames: Tensor, drawn: Tensor, decibels: Sequence[float], *, columns: int = 8) -> Figure:
    """Rows of frames, of what the network draws, and of the difference; below, the decibels of every frame.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        drawn: the same shape, what the network draws.
        decibels: PSNR of each frame.
        columns: at most so many frames; of more, evenly spaced ones.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> clip = torch.rand(3, 3, 8, 12)
        >>> frames_beside_drawn(clip, clip * 0.9, [20.0, 21.0, 19.5]).savefig("drawn.png")  # doctest: +SKIP
    """
    if frames.shape != drawn.shape or len(decibels) != len(frames):
        raise ValueError(
            f"frames have shape {tuple(frames.shape)}, drawn {tuple(drawn.shape)}, and there are {len(decibels)} "
            "decibels; wanted one shape and one number a frame."
        )
    kept = torch.linspace(0, len(frames) - 1, min(len(frames), columns)).round().long().tolist()
    cell = (PAGE - 2 * MARGIN - LABEL) / len(kept)
    tall = (cell - 0.04) * frames.shape[-2] / frames.shape[-1]
    missing = (frames - drawn).mean(1)
    limit = limit_of(missing[kept])
    sheet = Sheet(PAGE)
    top = sheet.heading(
        "How well the network draws the clip",
        "what is explained below is what the network draws, so it should look like the frames",
    )
    for i, t in enumerate(kept):
        sheet.line(MARGIN + LABEL + (i + 0.5) * cell, top, f"frame {t}", size=8, colour=QUIET, align="center")
    top += 0.17
    percent = 100 * limit
    for row, name in enumerate(("the clip", "as drawn", "what is missing")):
        below = sheet.paragraph(MARGIN, top, name, LABEL - 0.1, bold=True)
        if row == 2:
            words = f"red: drawn too dark, blue: too bright; full colour at {percent:.1f} % of white"
            sheet.paragraph(MARGIN, below, words, LABEL - 0.15, size=7.5, colour=QUIET)
        for i, t in enumerate(kept):
            axes = sheet.axes(MARGIN + LABEL + i * cell + 0.02, top, cell - 0.04, tall)
            bare(axes)
            if row == 2:
                draw_signed(axes, missing[t], limit)
            else:
                draw_photo(axes, (frames, drawn)[row][t])
        top += tall + 0.06
    return sheet.done(_curve(sheet, top + 0.14, torch.tensor(list(decibels)), PAGE - 2 * MARGIN - LABEL) + 0.1)


def _curve(sheet: Sheet, top: float, decibels: Tensor, across: float) -> float:
    below = sheet.paragraph(MARGIN, top, "decibels (PSNR)", LABEL - 0.1, bold=True)
    words = f"every frame; mean {float(decibels.mean()):.1f}, worst {float(decibels.min()):.1f}"
    sheet.paragraph(MARGIN, below, words, LABEL - 0.45, size=7.5, colour=QUIET)
    axes = sheet.axes(MARGIN + LABEL + 0.02, top, across - 0.04, CURVE)
    axes.plot(range(len(decibels)), array(decibels), "o-", color="#1f5fa8", markersize=3, linewidth=1.2)
    low, high = float(decibels.min()), float(decibels.max())
    axes.set_ylim(low - 1 - 0.1 * (high - low), high + 1 + 0.1 * (high - low))
    axes.set_xlim(-0.5, len(decibels) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    sheet.line(MARGIN + LABEL + across / 2, top + CURVE + 0.2, "frame", size=8, colour=QUIET, align="center")
    return top + CURVE + 0.36
