"""The explorer's page of what ``xinc link`` wrote: each unit of the field guide as a filmstrip."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import store
from ..attributions.linking.sweep import UnitSweep
from ..visualizers.explorer import Strip, explore_sweeps
from ..visualizers.explorer.album import smaller
from ..visualizers.words import predicate
from .bundle import Bundle
from .explore_canvases import KEPT
from .failures import UsageError

LONGEST = 128  # pixels of a frame that is kept; of 36 units there are some 200


def reduced(frames: Tensor) -> Tensor:
    """Frames (S, C, H, W) in [0, 1] as they are kept, uint8, no side above 128 pixels."""
    return (torch.stack([smaller(one, LONGEST) for one in frames]) * 255).round().to(torch.uint8)


def keep(folder: Path, sweeps: Sequence[UnitSweep], rows: Sequence[int], films: Sequence[Tensor]) -> None:
    """Write into a link's bundle what its page shows.

    Args:
        folder: of the bundle.
        sweeps: of the units.
        rows: in which of its pictures each is shown.
        films: what :func:`reduced` made of the frames in that picture.
    """
    kept: dict[str, Tensor] = {}
    for one, row, film in zip(sweeps, rows, films, strict=True):
        tensors = {"values": one.values, "frames": film, "measured": one.response[row]}
        kept |= {f"unit_{one.unit}.{name}": tensor.cpu().contiguous() for name, tensor in tensors.items()}
    store.write_tensors(folder / KEPT, kept, kind="link-explorer")


def link_page(bundle: Bundle, path: Path) -> Path:
    """Of a link: what :func:`keep` left in the bundle.

    Raises:
        UsageError: the bundle is from before there was such a page.
    """
    note = bundle.note
    if not bundle.has(KEPT):
        raise UsageError(
            f"{bundle.folder} does not keep what this page shows; its own page is {bundle.folder / 'index.html'}. Run "
            "xinc link again to make both anew."
        )
    kept = bundle.tensors(KEPT)
    strips, rows, verdicts = {}, {}, {}
    for one in note["units"]:
        name, unit = f"unit {one['unit']}", f"unit_{one['unit']}"
        frames = kept[f"{unit}.frames"].float() / 255
        strips[name] = Strip(kept[f"{unit}.values"], frames[None], kept[f"{unit}.measured"][None])
        rows[name], verdicts[name] = [one["shown_in"]], (one["verdict"], one["because"])
    ends = note["ends"]
    return explore_sweeps(
        path,
        strips,
        rows=rows,
        title=f"What units of {ends['model']} mean to {ends['generator']}",
        verdicts=verdicts,
        facts={"network": ends["model"], "layer": f"input of {ends['layer']}", "generator": ends["generator"]},
        remark=f"The link between the two {predicate(note['trust'])}.",
    )
