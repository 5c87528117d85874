"""A page on which a reader slides from a photo to what a network looks for in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..verdict import check_verdicts
from .embedded import pictures, through
from .page import Said, write_page

MOST = 3_500_000  # bytes of pictures without loss


def explore_accentuations(
    path: str | Path,
    photo: Tensor,
    images: Tensor,
    masks: Tensor | None = None,
    *,
    titles: Sequence[str],
    title: str,
    notes: Sequence[str] | None = None,
    verdicts: Sequence[tuple[str, str]] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file with an opacity slider between a photo and each accentuation of it.

    Args:
        path: of the file to make or to replace.
        photo: (C, H, W) in [0, 1], 1 or 3 channels; or (N, C, H, W), one for each image.
        images: (N, C, H, W) in [0, 1].
        masks: (N, 1, H, W) in [0, 1], where the features felt the change, or None.
        titles: of the features.
        title: what the page is about.
        notes: a line each, such as the score before and after.
        verdicts: "holds", "weak" or "fails" each, and because of what.
        facts: short labelled values.

    Returns:
        the path.

    Raises:
        ValueError: shapes or numbers of words that do not fit, or a verdict that is not known.

    Example:
        >>> photo, images = torch.rand(3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> explore_accentuations("lion.html", photo, images, titles="ab", title="A lion")  # doctest: +SKIP
    """
    counts = {
        name: len(given)
        for name, given in {"titles": titles, "notes": notes, "verdicts": verdicts, "masks": masks}.items()
        if given is not None
    }
    check_verdicts(*(word for word, _ in verdicts or ()))
    photos = photo[None] if photo.dim() == 3 else photo
    fits = images.dim() == photos.dim() == 4 and images.shape[2:] == photos.shape[2:]
    if not fits or len(photos) not in (1, len(images)) or set(counts.values()) != {len(images)}:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, the photo {tuple(photo.shape)}, and {counts}; wanted "
            "(N, C, H, W) of the photo's size, one photo or N, and N of each."
        )
    same = torch.cat([one.cpu().float().expand(-1, 3, -1, -1) for one in (photos, images)])
    held = pictures(same, most=MOST)
    before, after = held[: len(photos)], held[len(photos) :]
    shown = [
        {
            "title": titles[i],
            "photo": before[i % len(before)],
            "image": after[i],
            "through": None if masks is None else through(images[i], masks[i]),
            "note": notes[i] if notes else "",
            "said": Said(titles[i], *verdicts[i]) if verdicts else None,
        }
        for i in range(len(images))
    ]
    scripts = ["accentuations.js"]
    return write_page(
        path, "accentuations.html.j2", scripts, title=title, facts=facts or {},
        verdicts=[], shown=shown,
    )  # fmt: skip
