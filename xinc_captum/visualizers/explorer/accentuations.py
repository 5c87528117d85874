"""A page on which a reader slides from a photo to what a network looks for in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..heat import heat_over, no_heat
from ..verdict import check_verdicts
from .album import album, masks_of
from .page import ROOM, Said, write_page

_CARD = 2_000  # bytes of the words of one accentuation
_MASKS = 0.2  # of the room for pictures


def explore_accentuations(
    path: str | Path,
    photo: Tensor,
    images: Tensor,
    masks: Tensor | None = None,
    cams: Tensor | None = None,
    *,
    titles: Sequence[str],
    title: str,
    cam_name: str = "Grad-CAM: where",
    notes: Sequence[str] | None = None,
    verdicts: Sequence[tuple[str, str]] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file with an opacity slider from a photo to each accentuation of it, beside Grad-CAM, below 5 MB.

    Pictures are kept as they are where they fit, else compressed, else made smaller; the page says so.

    Args:
        path: of the file to make or to replace.
        photo: (C, H, W) in [0, 1], 1 or 3 channels; or (N, C, H, W), one for each image.
        images: (N, C, H, W) in [0, 1].
        masks: (N, 1, H, W) in [0, 1], where the change mattered, or None.
        cams: (N, H, W), large where important before any change, or None for no such pictures.
        titles: of the features.
        title: what the page is about.
        cam_name: what stands above ``cams``.
        notes: a line each, such as the score before and after.
        verdicts: "holds", "weak" or "fails" each, and because of what.
        facts: short labelled values.

    Returns:
        the path.

    Raises:
        ValueError: shapes or numbers of words that do not fit, a verdict that is not known, or more pictures than fit
            into 5 MB at 32 pixels.

    Example:
        >>> photo, images = torch.rand(3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> explore_accentuations("lion.html", photo, images, titles="ab", title="A lion")  # doctest: +SKIP
    """
    counts = {
        name: len(given)
        for name, given in {
            "titles": titles, "notes": notes, "verdicts": verdicts, "masks": masks, "cams": cams
        }.items()
        if given is not None
    }  # fmt: skip
    check_verdicts(*(word for word, _ in verdicts or ()))
    photos = photo[None] if photo.dim() == 3 else photo
    fits = images.dim() == photos.dim() == 4 and images.shape[2:] == photos.shape[2:]
    fits &= cams is None or cams.shape[1:] == images.shape[2:]
    if not fits or not len(images) or len(photos) not in (1, len(images)) or set(counts.values()) != {len(images)}:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, the photo {tuple(photo.shape)}, and {counts}; wanted "
            "(N, C, H, W) of the photo's size, at least one, one photo or N, and N of each, cams (N, H, W)."
        )
    room = ROOM - _CARD * len(images)
    seen = None if masks is None else masks_of(list(masks), int(_MASKS * room))
    left = room - sum(map(len, seen or ()))
    warm = [] if cams is None else [_warm(photos[i % len(photos)], cam) for i, cam in enumerate(cams)]
    held = album([*photos, *images, *warm], max(left, 1))
    before, after = held.addresses[: len(photos)], held.addresses[len(photos) :]
    shown = [
        {
            "title": titles[i],
            "photo": before[i] if i < len(before) else None,
            "image": after[i],
            "mask": seen[i] if seen else None,
            "cam": after[len(images) + i] if warm else None,
            "no_cam": "" if cams is None else no_heat(cams[i]),
            "note": notes[i] if notes else "",
            "said": Said(titles[i], *verdicts[i]) if verdicts else None,
        }
        for i in range(len(images))
    ]
    return write_page(
        path, "accentuations.html.j2", ["accentuations.js"], title=title, facts=facts or {},
        verdicts=[], reduced=held.said, shown=shown, cam_name=cam_name,
    )  # fmt: skip


def _warm(photo: Tensor, cam: Tensor) -> Tensor:
    return torch.as_tensor(heat_over(photo.detach().cpu().float(), cam.detach().cpu().float())).permute(2, 0, 1)
