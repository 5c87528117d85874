"""Pictures of accentuations: what a feature sees in a photo, where, and how far to trust it."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .figure import QUIET, bare, draw_photo
from .heat import draw_heat
from .sheet import MARGIN, PAGE, Sheet
from .verdict import check_verdicts, verdict_line

GAP = 0.07  # inches between pictures
TALLEST = 3.0  # inches of one picture
PAPER = 0.94  # what shows where nothing mattered


def accentuation_rows(
    photos: Tensor,
    cams: Tensor | None,
    images: Tensor,
    opacities: Tensor,
    *,
    titles: Sequence[str],
    notes: Sequence[str] | None = None,
    trusts: Sequence[tuple[str, str]] | None = None,
    cam_name: str = "Grad-CAM: where",
    heading: str = "What a feature sees in this photo",
) -> Figure:
    """One row a feature: the photo, where the feature is found in it, accentuated, and accentuated through its mask.

    Args:
        photos: (N, C, H, W) in [0, 1], one for all rows or one a row.
        cams: (N, H, W), large where important, or None for no such column.
        images: (N, C, H, W), accentuated.
        opacities: (N, 1, H, W) in [0, 1]: the rest is paper.
        titles: each row's feature.
        notes: a line below each title, for example the score before and after.
        trusts: each row's verdict ("holds", "weak" or "fails") and the reason, said below the row.
        cam_name: the column of ``cams``.
        heading: above everything.

    Raises:
        ValueError: shapes that do not fit, a wrong number of titles, notes or trusts, or an unknown verdict.

    Example:
        >>> photo, images = torch.rand(1, 3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> masks = torch.rand(2, 1, 8, 12)
        >>> figure = accentuation_rows(photo, masks[:, 0], images, masks, titles=["lion", "lynx"])
        >>> figure.savefig("accentuated.png")  # doctest: +SKIP
    """
    _check(photos, cams, images, opacities, {"titles": titles, "notes": notes, "trusts": trusts})
    check_verdicts(*(verdict for verdict, _ in trusts or ()))
    columns = ["the photo", *([] if cams is None else [cam_name]), "accentuated: what", "what, where it mattered"]
    cell = (PAGE - 2 * MARGIN - (len(columns) - 1) * GAP) / len(columns)
    height, width = images.shape[-2:]
    tall = min(cell * height / width, TALLEST)
    shown = tall * width / height
    sheet = Sheet()
    top = sheet.heading(
        heading,
        "accentuated: changed so that the network sees more of the feature, and kept close to the photo",
    )
    lefts = [MARGIN + i * (cell + GAP) for i in range(len(columns))]
    for row, title in enumerate(titles):
        top = sheet.paragraph(MARGIN, top, title, PAGE - 2 * MARGIN, size=11, bold=True)
        if notes is not None:
            top = sheet.paragraph(MARGIN, top, notes[row], PAGE - 2 * MARGIN, size=8.5, colour=QUIET)
        top += 0.04
        below = [
            sheet.paragraph(left + cell / 2, top, name, cell, size=8.5, align="center")
            for left, name in zip(lefts, columns, strict=True)
        ]
        top = max(below) + 0.02
        places = [sheet.axes(left + (cell - shown) / 2, top, shown, tall) for left in lefts]
        photo = photos[row if len(photos) > 1 else 0]
        draw_photo(places[0], photo)
        if cams is not None:
            draw_heat(places[1], photo, cams[row])
        draw_photo(places[-2], images[row])
        draw_photo(places[-1], _on_paper(images[row], opacities[row]))
        for place in places:
            bare(place)
        top += tall + 0.08
        if trusts is not None:
            top = verdict_line(sheet, top, *trusts[row])
        top += 0.16
    return sheet.done(top - 0.06)


def _on_paper(image: Tensor, opacity: Tensor) -> Tensor:
    image = image.clamp(0, 1).float().cpu()
    opacity = opacity.float().cpu()
    return opacity * image + (1 - opacity) * PAPER


def _check(
    photos: Tensor,
    cams: Tensor | None,
    images: Tensor,
    opacities: Tensor,
    words: dict[str, Sequence[object] | None],
) -> None:
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)}; wanted (N, C, H, W), one a feature.")
    rows, size = len(images), tuple(images.shape[2:])
    if photos.dim() != 4 or len(photos) not in {1, rows} or tuple(photos.shape[2:]) != size:
        raise ValueError(
            f"photos have shape {tuple(photos.shape)} for images of shape {tuple(images.shape)}; wanted one for all "
            "rows, or one a row, of the same height and width."
        )
    for name, maps, wanted in (("cams", cams, (rows, *size)), ("opacities", opacities, (rows, 1, *size))):
        if maps is not None and tuple(maps.shape) != wanted:
            raise ValueError(f"{name} have shape {tuple(maps.shape)}; wanted {wanted}.")
    for name, said in words.items():
        if said is not None and len(said) != rows:
            raise ValueError(f"{len(said)} {name} for {rows} rows; wanted one a row.")
