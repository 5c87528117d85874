"""``xinc transinr``: write a network for each of some pictures, and show which token painted what in it."""

import json
import time
from pathlib import Path
from typing import Any

import typer

from .. import store
from .device import device_called
from .failures import UsageError
from .recorded import recorded
from .small_pictures import small_called
from .trans_inr_model import FIT, written_called
from .trans_inr_page import write_page
from .trans_inr_story import Story, story_of

MODEL = "model.safetensors"


@recorded("transinr", "sources", "model")
def trans_inr_command(
    sources: list[str],
    out: Path,
    model: str | None,
    size: int | None,
    patch: int | None,
    steps: int | None,
    seed: int,
    device: str,
) -> None:
    """Everything ``xinc transinr`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    place_ = device_called(device)
    if size is not None and size < 8:
        raise UsageError(f"--size is {size}; wanted at least 8 pixels.")
    pictures = small_called(sources, size)
    typer.echo(f"{pictures.name}: {len(pictures.images):,} pictures, {' x '.join(map(str, pictures.images.shape[1:]))}")
    written = written_called(pictures, model, patch, steps, seed, place_)
    story = story_of(written, pictures.name, seed)
    for name, (dB, count) in story.decibels.items():
        typer.echo(f"{name}: {dB:.1f} dB over {count:,} pictures")
    with store.bundle(out, {"pictures": pictures.origin, **noted(story, seed)}) as folder:
        if written.name == FIT:
            written.model.save(folder / MODEL)
        write_page(folder, story)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (folder / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def noted(story: Story, seed: int) -> dict[str, Any]:
    """Every figure of the page, for the manifest."""
    written = story.written
    return {
        "model": written.name,
        "trans_inr": written.model.config,
        "seed": seed,
        "steps": None if written.fit is None else written.fit.steps,
        "shown": [written.names[row] for row in story.rows],
        "decibels": {name: [round(dB, 3), count] for name, (dB, count) in story.decibels.items()},
        "gaps": {
            "token": story.token.gap,
            "modulation": story.modulation.gap,
            "patch": story.patch.gap,
            "route": story.route.gap,
        },
        "correspondence": {name: one._asdict() for name, one in story.found.items()},
    }
