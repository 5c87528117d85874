"""``xinc explore``: read a result folder, and write its interactive page."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from typer import Argument, Option

from .. import store
from ..attributions.accentuation.result import opacity
from ..comparison.measures import COLUMNS
from ..images import read_photo
from ..visualizers.explorer import (
    PackedUnits,
    Strip,
    explore_accentuations,
    explore_canvases,
    explore_sweeps,
    explore_table,
)
from ..visualizers.layout import percent, predicate
from .command import UsageError

EXPLORER_FILE = "explorer.safetensors"  # small tensors that a command stores for its page


class Bundle(NamedTuple):
    """A result folder and its manifest."""

    folder: Path
    note: Mapping[str, Any]

    def has(self, file: str) -> bool:
        """Return whether the manifest lists a file."""
        return file in self.note["outputs"]

    def file(self, name: str) -> Path:
        """Return the path of a file after a check of its sha256."""
        path = self.folder / name
        if not self.has(name) or not path.is_file():
            raise UsageError(f"{self.folder} is damaged: {name} is missing. Make the result again.")
        if store.sha256(path) != self.note["outputs"][name]:
            raise UsageError(f"{self.folder} is damaged: {name} was changed. Make the result again.")
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read a file of tensors after a check of its sha256."""
        tensors: dict[str, Tensor] = self._read(name, load_file)
        return tensors

    def json(self, name: str) -> Any:
        """Read a JSON file after a check of its sha256."""
        return self._read(name, lambda path: json.loads(path.read_text(encoding="utf-8")))

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        path = self.file(name)
        try:
            return read(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest of a result folder of this package."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; expected a result folder of an xinc command or of Comparison.save."
        )
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        known = note["format"] == store.FORMAT and isinstance(note["outputs"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UsageError(
            f"{folder} holds no {store.MANIFEST} of xinc-captum; expected a result folder of an xinc command or of "
            "Comparison.save."
        )
    return Bundle(folder, note)


def _verdict(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["verdict"], one["because"]


def photo_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a photo canvas from the maps of all layers."""
    note = bundle.note
    layers, rendered = {}, None
    for layer in note["layers"]:
        tensors = bundle.tensors(f"{layer}.safetensors")
        layers[layer] = tensors["maps"]
        if rendered is None:
            rendered = tensors["maps"].sum(0, dtype=torch.float32) + tensors["rest"].float()
    if rendered is None:
        raise UsageError(f"{bundle.folder} is damaged: its manifest has no layers. Make the result again.")
    name = Path(next(iter(note["inputs"]))).name
    return explore_canvases(
        path,
        rendered.clamp(0, 1),
        layers,
        title=f"What the neurons of a network paint: {name}",
        facts=_canvas_facts(note, "photo", name, note["psnr_db"]),
        verdicts={layer: _verdict(one) for layer, one in note["trust"].items()},
    )


def video_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a video canvas from the small maps and frames that the command stored."""
    note = bundle.note
    if not bundle.has(EXPLORER_FILE):
        raise UsageError(
            f"{bundle.folder} has no tensors for the explorer; run xinc canvas again to make the result again."
        )
    tensors, names = bundle.tensors(EXPLORER_FILE), bundle.json("explorer.json")
    layers = {
        layer: PackedUnits(*(tensors[f"{layer}.{part}"] for part in PackedUnits._fields)) for layer in note["layers"]
    }
    name = names["name"]
    return explore_canvases(
        path,
        tensors["drawn"].float() / 255,
        layers,
        title=f"Contributions of the neurons of a network, frame by frame: {name}",
        facts=_canvas_facts(note, "video", name, sum(note["psnr_db"]) / len(note["psnr_db"])),
        verdicts={layer: _verdict(one) for layer, one in note["trust"].items()},
        names=names["names"],
    )


def _canvas_facts(note: Mapping[str, Any], kind: str, name: str, psnr: float) -> dict[str, str]:
    return {
        "network": str(note["model"]["name"]),
        kind: name,
        f"likeness to the {kind} (PSNR)": f"{psnr:.1f} dB",
        "rule": note["rule"],
    }


def accentuation_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a result of ``xinc accentuate``."""
    tensors, note = bundle.tensors("accentuation.safetensors"), bundle.note
    names = [key.removesuffix(".image") for key in tensors if key.endswith(".image")]
    names.sort(key=lambda name: int(name.partition("_")[0]))  # names begin with a number
    features, network = note["features"], note["model"]["name"]
    where, what = next(iter(note["inputs"].items()))
    photo = str(what) if where.endswith("of the zoo") else Path(where).name
    cams = [tensors[f"{name}.where"] for name in names if f"{name}.where" in tensors]
    layers = _layers(one["layer"] for one in note["asked"])
    return explore_accentuations(
        path,
        tensors["photo"],
        torch.stack([tensors[f"{name}.image"] for name in names]),
        opacity(torch.stack([tensors[f"{name}.mask"] for name in names])),
        torch.stack(cams) if len(cams) == len(names) else None,
        titles=[one["title"] for one in features],
        title=f"What {network} sees in {photo}",
        notes=[_rise(one) for one in features],
        verdicts=[_verdict(one) for one in features],
        facts={"network": network, "photo": photo} | layers,
        cam_name="where the unit is active" if layers else "Grad-CAM: where",
    )


def _rise(one: Mapping[str, Any]) -> str:
    score = one.get("unit", "output")
    rise = f"The network's {score} for it: {one['before']:.3g} → {one['after']:.3g}, after {one['steps']} steps."
    before, after = (one.get("answers") or {}).get("before"), (one.get("answers") or {}).get("after")
    if not before or not after:
        return rise
    still = "still" if after[0][0] == before[0][0] else "now"
    return (
        f"{rise} The network predicts {before[0][0]} ({percent(before[0][1])}) for the photo, and for the accentuation "
        f"{still} {', '.join(f'{name} ({percent(chance)})' for name, chance in after[:2])}."
    )


def _layers(names: Iterable[str | None]) -> dict[str, str]:
    """Return the layers as an entry of the page; None stands for the output of the network."""
    layers = dict.fromkeys(name for name in names if name)
    return {"layer": ", ".join(layers)} if layers else {}


def accentuation_object_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a result of ``Accentuation.save``, whose images share one verdict."""
    tensors, note = bundle.tensors("accentuation.safetensors"), bundle.note
    count = len(tensors["images"])
    return explore_accentuations(
        path,
        tensors["seeds"],
        tensors["images"],
        opacity(tensors["masks"]),
        titles=[note["feature"] if count == 1 else f"{note['feature']}, photo {row}" for row in range(count)],
        title=f"What {note['feature']} sees",
        verdicts=[_verdict(note["trust"])] * count,
        facts=_layers([note["layer"]]),
    )


def link_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a link from the small frames that the command stored."""
    note = bundle.note
    if not bundle.has(EXPLORER_FILE):
        raise UsageError(
            f"{bundle.folder} has no tensors for the explorer; its page is {bundle.folder / 'index.html'}. Run xinc "
            "link again to make both."
        )
    tensors = bundle.tensors(EXPLORER_FILE)
    strips, rows = {}, {}
    for one in note["units"]:
        name, unit = f"unit {one['unit']}", f"unit_{one['unit']}"
        frames = tensors[f"{unit}.frames"].float() / 255
        strips[name] = Strip(tensors[f"{unit}.values"], frames[None], tensors[f"{unit}.measured"][None])
        rows[name] = [one["shown_in"]]
    models = note["ends"]
    return explore_sweeps(
        path,
        strips,
        rows=rows,
        title=f"What units of {models['model']} change in images of {models['generator']}",
        verdicts=_unit_verdicts(note),
        facts=_link_facts(models),
        remark=f"The link between the two {predicate(note['trust'])}.",
    )


def sweep_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a result of ``xinc sweep``."""
    tensors, note = bundle.tensors("sweeps.safetensors"), bundle.note
    strips = {
        f"unit {one['unit']}": Strip(
            *(tensors[f"unit_{one['unit']}.{part}"] for part in ("values", "images", "measured"))
        )
        for one in note["units"]
    }
    return explore_sweeps(
        path,
        strips,
        rows=[one["name"] for one in note["linked"]],
        title=f"Sweeps of units of {note['ends']['model']}",
        verdicts=_unit_verdicts(note),
        facts=_link_facts(note["ends"]),
    )


def _unit_verdicts(note: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {f"unit {one['unit']}": _verdict(one) for one in note["units"]}


def _link_facts(models: Mapping[str, str]) -> dict[str, str]:
    return {"network": models["model"], "layer": f"input of {models['layer']}", "generator": models["generator"]}


def unit_sweep_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a result of ``UnitSweep.save``."""
    tensors, note = bundle.tensors("sweep.safetensors"), bundle.note
    name = f"unit {note['unit']}"
    strip = Strip(tensors["values"], tensors["images"], tensors["representations"][..., note["unit"]])
    return explore_sweeps(
        path,
        {name: strip},
        rows=[f"image {row}" for row in range(len(strip.images))],
        title=f"What {name} shows",
        verdicts={name: _verdict(note["trust"])},
    )


COSTS = {
    "forwards": "forward passes for all images together, each of any batch size",
    "backwards": "backward passes",
    "peak MB": "peak memory beyond the memory in use before",
}
MAX_CLASSES = 8  # classes in the facts of a comparison


def comparison_page(bundle: Bundle, path: Path) -> Path:
    """Write the page of a result of ``Comparison.save``, with the seconds of times.json if it exists."""
    content, note = bundle.json("table.json"), bundle.note
    rows, reference = content["rows"], str(content["reference"])
    measures = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, list)))
    times = _times(bundle.folder)
    known = {column.name: column for column in COLUMNS}
    heads, meanings = [], {}
    for name in measures:
        column = known.get(name)
        title = f"{column.title} {column.better}".rstrip().replace("{reference}", reference) if column else name
        heads.append(title)
        if column and column.meaning:
            meanings[title] = column.meaning
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
        facts=_network(note) | {"reference": reference, "seed": str(note.get("seed", "–"))},
        meanings=meanings | {"seconds": "wall time for all images together"} | COSTS,
        remarks={row["method"]: remark for row in rows if (remark := _remark(row))},
    )  # fmt: skip


def _network(note: Mapping[str, Any]) -> dict[str, str]:
    target = note.get("target", [])
    named = list(dict.fromkeys(target if isinstance(target, list) else [target]))
    labels = note.get("labels", {})
    classes = ", ".join(str(labels.get(str(one), one)) for one in named[:MAX_CLASSES])
    if len(named) > MAX_CLASSES:
        classes += " …"
    return {name: str(value) for name, value in (("network", note.get("network")), ("classes", classes)) if value}


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


Page = Callable[[Bundle, Path], Path]
_CANVAS = {"rule", "layers", "psnr_db", "trust", "model"}
# Keys of each kind of manifest, and the function that writes its page; the first match counts.
KINDS: tuple[tuple[set[str], Page], ...] = (
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
        Argument(
            metavar="RESULT",
            help="Result of xinc canvas, accentuate, sweep, link, or of save() of Comparison, Accentuation, UnitSweep.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, Option(help="HTML file to write. Default: RESULT.html, next to RESULT.", show_default=False)
    ] = None,
) -> None:
    """Write a result as one interactive HTML file: the units behind each pixel, the effect of each unit.

    The page is self-contained: it opens offline in any browser of 2023 or later. It is smaller than 5 MB: larger
    results are shown with smaller maps and images, which the page states.
    """
    bundle = read_bundle(result)
    path = out or result.resolve().with_name(f"{result.resolve().name}.html")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; expected a file, such as {path / 'result.html'}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} for {path.name} does not exist; create it first.")
    if result.resolve() in path.resolve().parents:
        raise UsageError(f"--out {path} is inside the result folder, which must not change; give another path.")
    if path.exists():
        with path.open("rb") as file:
            if file.read(15).lower() != b"<!doctype html>":
                raise UsageError(f"--out {path} is an existing file of another kind; give a new name.")
    page = page_of(bundle)
    try:
        page(bundle, path)
    except UsageError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise UsageError(
            f"{result} is damaged or has the contents of another version ({type(error).__name__}: {error}). Make the "
            "result again."
        ) from error
    except ValueError as error:  # too large for one page
        raise UsageError(f"{result}: {error}") from error
    typer.echo(f"open {path} ({path.stat().st_size / 1e6:.1f} MB); the page is self-contained")


def page_of(bundle: Bundle) -> Page:
    """Return the function that writes the page of a result, selected by the keys of the manifest."""
    for keys, page in KINDS:
        if keys <= set(bundle.note):
            return page
    call = bundle.note.get("call")
    made = f"was made by xinc {call['command']}" if call else "holds another result"
    index = bundle.folder / "index.html"
    hint = f"; see its page {index}" if bundle.has(index.name) else ""
    raise UsageError(
        f"{bundle.folder} {made}, for which there is no interactive page{hint}. Expected a result of xinc canvas, "
        "accentuate, sweep or link, or of Accentuation.save, UnitSweep.save or Comparison.save."
    )
