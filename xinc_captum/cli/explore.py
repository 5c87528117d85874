"""``xinc explore``: one HTML file of an earlier result, which a reader asks questions."""

from collections.abc import Callable
from pathlib import Path

import typer

from .bundle import Bundle, bundle_at
from .explore_canvases import photo_page, video_page
from .explore_link import link_page
from .explore_others import (
    accentuation_page,
    comparison_page,
    saved_accentuation_page,
    sweep_page,
    unit_sweep_page,
)
from .failures import UsageError

Page = Callable[[Bundle, Path], Path]
_CANVAS = {"rule", "layers", "psnr_db", "trust", "model"}
KINDS: tuple[tuple[set[str], Page], ...] = (  # what only such a manifest says, and who makes its page; first match
    (_CANVAS | {"steps"}, video_page),
    (_CANVAS, photo_page),
    ({"asked", "features", "second_network"}, accentuation_page),
    ({"feature", "layer", "interrupted", "trust"}, saved_accentuation_page),
    ({"variant", "audit", "units"}, link_page),
    ({"units", "linked", "judged_in"}, sweep_page),
    ({"unit", "fidelity", "agreement"}, unit_sweep_page),
    ({"methods", "reference", "rounds"}, comparison_page),
)


def explore_command(result: Path, out: Path | None) -> None:
    """Everything ``xinc explore`` does; the file appears whole or not at all.

    Raises:
        FileNotFoundError: no such folder, or none to write to.
        UsageError: the folder holds no result, a damaged one, or one without such a page.
    """
    bundle = bundle_at(result)
    path = out or result.resolve().with_name(f"{result.resolve().name}.html")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; wanted a file, such as {path / 'result.html'}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first.")
    if result.resolve() in path.resolve().parents:
        raise UsageError(f"--out {path} lies in the result itself, which would count as damaged; give another place.")
    if path.exists() and not _is_page(path):
        raise UsageError(f"--out {path} is a file of another kind and would be lost; give a name that is new.")
    page = page_of(bundle)
    try:
        page(bundle, path)
    except UsageError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise UsageError(
            f"{result} is damaged, or of a version that kept other things ({type(error).__name__}: {error}). Make the "
            "result again."
        ) from error
    except ValueError as error:  # too much for one page
        raise UsageError(f"{result}: {error}") from error
    typer.echo(f"open {path} ({path.stat().st_size / 1e6:.1f} MB); it needs no other file and no network")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"


def page_of(bundle: Bundle) -> Page:
    """Who makes the page of a bundle, by what its manifest says.

    Raises:
        UsageError: nobody.
    """
    for keys, page in KINDS:
        if keys <= set(bundle.note):
            return page
    call = bundle.note.get("call")
    made = f"was made by xinc {call['command']}" if call else "holds another result"
    own = bundle.folder / "index.html"
    shown = f"; its own page shows it already: {own}" if bundle.has(own.name) else ""
    raise UsageError(
        f"{bundle.folder} {made}, and there is no page to explore of such{shown}. Wanted a result of xinc canvas, "
        "accentuate, sweep or link, or of Accentuation.save, UnitSweep.save or Comparison.save."
    )
