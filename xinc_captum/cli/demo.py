"""``xinc demo``: run the main commands on real input, offline."""

import json
import shutil
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from .. import store
from .accentuate import accentuate_command
from .canvas import Model, photo_canvas
from .canvas_trust import RuleName
from .command import Seed
from .counterfactual import counterfactual_command
from .errors import UsageError
from .link import link_command
from .nern import SHIPPED, nern_command
from .sweep import sweep_command
from .trans_inr import trans_inr_command
from .video import video_canvas
from .video_files import FITTED, SPRITE


class Part(StrEnum):
    """Parts of the demo."""

    accentuate = "accentuate"
    canvas = "canvas"
    video = "video"
    linked = "linked"
    nern = "nern"
    transinr = "transinr"


def demo_command(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/demo"),
    only: Annotated[list[Part] | None, typer.Option(help="Run one part; repeat for several. Default: all.")] = None,
    seed: Seed = 0,
) -> None:
    """Run the main commands on sample photos, digits and a video."""
    parts = only or list(Part)
    if Part.accentuate in parts:
        accentuate_command("foolbox:00", out / "accentuate", targets=["dalmatian", "292"], seed=seed)
    if Part.canvas in parts:
        photo = _photo("chelsea.png", out)  # xinc replay reads it again
        photo_canvas(photo, out / "canvas", Model.siren, None, RuleName.secant, 192, 800, seed, "auto")
    if Part.video in parts:
        for clip, steps in ((FITTED, None), (SPRITE, 400)):
            place = out / "video" / clip
            video_canvas(clip, place, None, None, RuleName.secant, None, steps, 24, None, seed, "auto")
    if Part.linked in parts:
        _run_link(out / "linked", seed)
    if Part.nern in parts:
        nern_command("mnist_convnet", out / "nern", "mnist_generator", fitted=SHIPPED, seed=seed, device="cpu")
    if Part.transinr in parts:
        trans_inr_command(["mnist_digits"], out / "transinr", seed=seed, device="cpu")
    folders = {
        Part.video: [f"video/{clip}" for clip in (FITTED, SPRITE)],
        Part.linked: [f"linked/{name}" for name in ("link", "units", "another_answer")],
    }
    pages = [str(out / name / "index.html") for part in Part if part in parts for name in folders.get(part, [part])]
    typer.echo("\n".join(["", "Now open", *(f"  {page}" for page in pages)]))


def _run_link(out: Path, seed: int) -> None:
    """Link the shipped digit classifier to the shipped digit generator, and use the link."""
    link_command(out / "link", pairs=2000, seed=seed, device="cpu")
    sweep_command(out / "link", out / "units", _select_units(out / "link"), seed=seed, device="cpu")
    counterfactual_command(out / "link", out / "another_answer", "8", seed=seed, device="cpu")


def _select_units(folder: Path) -> list[int]:
    """Return two units with the verdict "holds" and the one with the worst verdict."""
    units = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["units"]
    holds, weak, fails = ([u for u in units if u["verdict"] == verdict] for verdict in ("holds", "weak", "fails"))
    two = [holds[0], holds[len(holds) // 2]][: len(holds)] if holds else []
    least = sorted(fails or weak, key=lambda u: -u["rank"])[:1]
    return [u["unit"] for u in [*two, *least]]


def _photo(name: str, folder: Path) -> Path:
    """Copy a photo of the scikit-image package to ``folder``."""
    try:
        packaged = resources.files("skimage.data").joinpath(name)
        folder.mkdir(parents=True, exist_ok=True)
        with resources.as_file(packaged) as file:
            return Path(shutil.copy(file, folder / name))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UsageError(
            "the demo needs a photo of scikit-image, which is not installed; run: pip install 'xinc-captum[demo]'"
        ) from error
