"""The ``xinc`` command: its sub-commands, errors in one line, and the demo."""

import io
import json
import shutil
import sys
import warnings
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from .. import store
from ..attributions.canvas.rules.secant_tensor import CarryError
from ..hooks import LayerError
from ..images import PhotoError
from ..inr.training import CheckpointError
from ..videos import VideoError
from ..zoo.assets import AssetError
from .accentuate import accentuate_command
from .canvas import canvas_command, photo_canvas
from .canvas_results import NetworkName, RuleName
from .command import Seed, UsageError, app
from .counterfactual import counterfactual_command
from .explore import explore_command
from .inputs import FITTED, SPRITE
from .link import link_command
from .list_models import layers_command, models_command
from .nern import SHIPPED, nern_command
from .replay import replay_command
from .sweep import sweep_command
from .trans_inr import trans_inr_command
from .video import video_canvas

app.command("canvas")(canvas_command)
app.command("accentuate")(accentuate_command)
app.command("link")(link_command)
app.command("sweep")(sweep_command)
app.command("counterfactual")(counterfactual_command)
app.command("nern")(nern_command)
app.command("transinr")(trans_inr_command)
app.command("explore")(explore_command)
app.command("replay")(replay_command)
app.command("models")(models_command)
app.command("layers")(layers_command)

FAILURES = (  # errors of the user
    UsageError,
    PhotoError,
    VideoError,
    store.StoreError,
    CheckpointError,
    LayerError,
    CarryError,
    AssetError,
    FileNotFoundError,
)


def main() -> None:
    """Run the command line; a foreseeable failure prints one line on standard error and exits with status 1."""
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")  # torch itself calls it for derivatives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # terminals and file names are not always UTF-8
    try:
        app()
    except (*FAILURES, OSError) as error:
        if (line := error_text(error)) is None:
            raise
        typer.secho(f"xinc: {line}", err=True, fg=typer.colors.RED)
        sys.exit(1)


def error_text(error: Exception) -> str | None:
    """Return one line for the user, or None if the error is a bug of this package, which keeps its traceback.

    Operating-system errors with an error number (no permission, a name that is too long) are errors of the user.
    """
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    elif isinstance(error, FAILURES):
        text = str(error)
    else:
        return None
    return " ".join(text.split("\n"))


class Part(StrEnum):
    """Parts of the demo."""

    accentuate = "accentuate"
    canvas = "canvas"
    video = "video"
    linked = "linked"
    nern = "nern"
    transinr = "transinr"


@app.command("demo")
def demo_command(
    out: Annotated[Path, Option(help="Output folder.")] = Path("out/demo"),
    only: Annotated[list[Part] | None, Option(help="Run one part; repeat for several. Default: all.")] = None,
    seed: Seed = 0,
) -> None:
    """Run the main commands on sample photos, digits and a video."""
    parts = only or list(Part)
    if Part.accentuate in parts:
        accentuate_command("foolbox:00", out / "accentuate", targets=["dalmatian", "292"], seed=seed)
    if Part.canvas in parts:
        photo = _photo("chelsea.png", out)  # xinc replay reads it again
        photo_canvas(photo, out / "canvas", NetworkName.siren, None, RuleName.secant, 192, 800, seed, "auto")
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
