"""Explorer command and pages."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .. import store
from ..attributions.accentuation.result import opacity
from ..comparison.measures import COLUMNS, Column
from ..images import read_photo
from ..visualizers.accentuation import percent
from ..visualizers.explorer import Strip, explore_accentuations, explore_sweeps, explore_table
from .errors import UsageError
from .link_results import link_page
from .results import Bundle, photo_page, read_bundle, video_page

COSTS = {
    "forwards": "runs of the network for all pictures together, each of any number of rows",
    "backwards": "gradients that came back through it",
    "peak MB": "memory at most, beyond what was there before",
}
MAX_CLASSES = 8  # classes
SECONDS = "on the clock of the machine that measured, for all pictures together"


def accentuation_page(bundle: Bundle, path: Path) -> Path:
    """Of what ``xinc accentuate`` wrote."""
    tensors, note = bundle.tensors("accentuation.safetensors"), bundle.note
    names = [key.removesuffix(".image") for key in tensors if key.endswith(".image")]
    names.sort(key=lambda name: int(name.partition("_")[0]))  # each begins with its number
    features = note["features"]
    cams = [tensors[f"{name}.where"] for name in names if f"{name}.where" in tensors]
    layers = _layers(one["layer"] for one in note["asked"])
    return explore_accentuations(
        path,
        tensors["photo"],
        torch.stack([tensors[f"{name}.image"] for name in names]),
        opacity(torch.stack([tensors[f"{name}.mask"] for name in names])),
        torch.stack(cams) if len(cams) == len(names) else None,
        titles=[one["title"] for one in features],
        title=f"What {note['model']['name']} sees in {_input(note)}",
        notes=[_rise(one) for one in features],
        verdicts=[(one["verdict"], one["because"]) for one in features],
        facts={"network": note["model"]["name"], "photo": _input(note)} | layers,
        cam_name="where the unit is active" if layers else "Grad-CAM: where",
    )


def _rise(one: Mapping[str, Any]) -> str:
    score = one.get("unit", "answer")
    rise = f"The network's {score} for it: {one['before']:.3g} → {one['after']:.3g}, after {one['steps']} steps."
    before, after = (one.get("answers") or {}).get("before"), (one.get("answers") or {}).get("after")
    if not before or not after:
        return rise
    still = "still says" if after[0][0] == before[0][0] else "says"
    return (
        f"{rise} It calls the photo {before[0][0]} ({percent(before[0][1])}); of the accentuation it {still} "
        f"{', '.join(f'{name} ({percent(chance)})' for name, chance in after[:2])}."
    )


def accentuation_object_page(bundle: Bundle, path: Path) -> Path:
    """Of what ``Accentuation.save`` wrote; the verdict is one for all of its rows."""
    tensors, note = bundle.tensors("accentuation.safetensors"), bundle.note
    count = len(tensors["images"])
    titles = [note["feature"] if count == 1 else f"{note['feature']}, photo {row}" for row in range(count)]
    return explore_accentuations(
        path,
        tensors["seeds"],
        tensors["images"],
        opacity(tensors["masks"]),
        titles=titles,
        title=f"What {note['feature']} sees",
        verdicts=[(note["trust"]["verdict"], note["trust"]["because"])] * count,
        facts=_layers([note["layer"]]),
    )


def sweep_page(bundle: Bundle, path: Path) -> Path:
    """Of what ``xinc sweep`` wrote."""
    tensors, note = bundle.tensors("sweeps.safetensors"), bundle.note
    strips, verdicts = {}, {}
    for one in note["units"]:
        unit = one["unit"]
        strips[f"unit {unit}"] = Strip(*(tensors[f"unit_{unit}.{part}"] for part in ("values", "images", "measured")))
        verdicts[f"unit {unit}"] = one["verdict"], one["because"]
    models = note["ends"]
    return explore_sweeps(
        path,
        strips,
        rows=[one["name"] for one in note["linked"]],
        title=f"What units of {models['model']} show",
        verdicts=verdicts,
        facts={"network": models["model"], "layer": f"input of {models['layer']}", "generator": models["generator"]},
    )


def unit_sweep_page(bundle: Bundle, path: Path) -> Path:
    """Of what ``UnitSweep.save`` wrote."""
    tensors, note = bundle.tensors("sweep.safetensors"), bundle.note
    name = f"unit {note['unit']}"
    strip = Strip(tensors["values"], tensors["images"], tensors["representations"][..., note["unit"]])
    return explore_sweeps(
        path,
        {name: strip},
        rows=[f"picture {row}" for row in range(len(strip.images))],
        title=f"What {name} shows",
        verdicts={name: (note["trust"]["verdict"], note["trust"]["because"])},
    )


def comparison_page(bundle: Bundle, path: Path) -> Path:
    """Of what ``Comparison.save`` wrote; seconds come from times.json where it is there."""
    content = bundle.json("table.json")
    rows = content["rows"]
    measures = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, list)))
    times = _times(bundle.folder)
    known = {column.name: column for column in COLUMNS}
    heads = {_head(known.get(name), name, str(content["reference"])): known.get(name) for name in measures}
    meanings = {head: column.meaning for head, column in heads.items() if column and column.meaning}
    remarks = {row["method"]: remark for row in rows if (remark := _remark(row))}
    has_figure = not all(row["error"] for row in rows)
    return explore_table(
        path,
        [*heads, "seconds", *COSTS],
        {
            row["method"]: [
                *(row.get(name) for name in measures), times.get(row["method"], {}).get("seconds"),
                *(None if row["error"] else row[name] for name in COSTS),
            ]
            for row in rows
        },
        title="Attribution methods side by side",
        images=len(content["images"]),
        figure=read_photo(bundle.file("figure.png"), longer_side=2400) if has_figure else None,
        facts=_network(bundle.note)
        | {"reference": str(content["reference"]), "seed": str(bundle.note.get("seed", "–"))},
        meanings=meanings | {"seconds": SECONDS} | COSTS,
        remarks=remarks,
    )  # fmt: skip


def _network(note: Mapping[str, Any]) -> dict[str, str]:
    target = note.get("target", [])
    named = list(dict.fromkeys(target if isinstance(target, list) else [target]))
    labels = note.get("labels", {})
    classes = ", ".join(str(labels.get(str(one), one)) for one in named[:MAX_CLASSES]) + (
        " …" if len(named) > MAX_CLASSES else ""
    )
    return {name: str(value) for name, value in (("network", note.get("network")), ("classes", classes)) if value}


def _head(column: Column | None, name: str, reference: str) -> str:
    return name if column is None else f"{column.title} {column.better}".rstrip().replace("{reference}", reference)


def _times(folder: Path) -> Mapping[str, Any]:
    try:
        times = json.loads((folder / store.TIMES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return times if isinstance(times, dict) else {}


def _remark(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    return f"{row['left_out']} left out ({row['fault']})" if row["left_out"] else ""


def _layers(names: Iterable[str | None]) -> dict[str, str]:
    """None stands for the answer of the whole network."""
    layers = dict.fromkeys(name for name in names if name)
    return {"layer": ", ".join(layers)} if layers else {}


def _input(note: Mapping[str, Any]) -> str:
    where, what = next(iter(note["inputs"].items()))
    return str(what) if where.endswith("of the zoo") else Path(where).name


Page = Callable[[Bundle, Path], Path]
_CANVAS = {"rule", "layers", "psnr_db", "trust", "model"}
KINDS: tuple[tuple[set[str], Page], ...] = (  # what only such a manifest says, and who makes its page; first match
    (_CANVAS | {"steps"}, video_page),
    (_CANVAS, photo_page),
    ({"asked", "features", "second_network"}, accentuation_page),
    ({"feature", "layer", "interrupted", "trust"}, accentuation_object_page),
    ({"variant", "audit", "units"}, link_page),
    ({"units", "linked", "judged_in"}, sweep_page),
    ({"unit", "fidelity", "agreement"}, unit_sweep_page),
    ({"methods", "reference", "rounds"}, comparison_page),
)


def explore_command(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT",
            help="What xinc canvas, accentuate, sweep or link wrote, or save of Comparison, Accentuation, UnitSweep.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: beside RESULT, RESULT.html.", show_default=False)
    ] = None,
) -> None:
    """Write one HTML file in which a reader asks a result: who paints this pixel, what does this unit do.

    It opens from disk in any browser of 2023 or later, and needs no network and no other file. It takes less than
    5 MB, so that it goes by e-mail: the more there is to show, the smaller its maps and pictures, and the page says so.
    """
    bundle = read_bundle(result)
    path = out or result.resolve().with_name(f"{result.resolve().name}.html")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; expected a file, such as {path / 'result.html'}.")
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
    index = bundle.folder / "index.html"
    hint = f"; its own page shows it already: {index}" if bundle.has(index.name) else ""
    raise UsageError(
        f"{bundle.folder} {made}, and there is no page to explore of such{hint}. Wanted a result of xinc canvas, "
        "accentuate, sweep or link, or of Accentuation.save, UnitSweep.save or Comparison.save."
    )
