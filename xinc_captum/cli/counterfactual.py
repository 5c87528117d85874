"""``xinc counterfactual``: what would have to change in a picture for another answer."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from .. import store
from ..attributions.linking.counterfactuals.counterfactual import Counterfactual
from ..visualizers import counterfactual_rows
from ..visualizers.layout import number, predicate
from ..visualizers.report import Picture, Section, Table, write_report
from .errors import UsageError, device_called
from .models import Linked, described, linked_called
from .photos import Starts, starts_called
from .recorded import recorded

DPI = 120
BEYOND, POINTS = 1.5, 25  # how far past the flipped picture the way is followed, and at how many points


class Method(StrEnum):
    """Ways to another answer."""

    ray = "ray"
    latent = "latent"
    minimal = "minimal"
    linking_in_style = "linking_in_style"


class Passage(NamedTuple):
    """The straight way from the linked picture to the flipped one, and past it.

    Attributes:
        path: (P,), 0 the linked picture and 1 the flipped one.
        chances: (N, P, 2), probabilities of origin and target.
        flips: (N,), where the answer first is the target, with the confidence asked for; nan where it never is.
    """

    path: Tensor
    chances: Tensor
    flips: Tensor


@recorded("counterfactual")
def counterfactual_command(
    folder: Path,
    out: Path,
    target: str,
    photos: list[Path],
    method: Method,
    confidence: float,
    count: int,
    seed: int,
    device: str,
) -> None:
    """Everything ``xinc counterfactual`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    linked = linked_called(folder, device_called(device))
    try:
        expected = linked.ends.classifier.find(target)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    starts = starts_called(linked.ends, photos, count, linked.truncation, seed)
    found = flipped(linked, starts, expected, method, confidence)
    typer.echo(str(found.trust))
    if own := left_out(linked, starts, expected):
        typer.echo(own)
    note = {
        "seed": seed,
        "ends": described(linked.ends),
        "link": {"folder": str(folder), "trust": linked.trust},
        "inputs": starts.inputs,
        "target": expected,
        "method": method.value,
        "confidence": confidence,
        "reached": found.reached.tolist(),
    }
    with store.bundle(out, note) as place:
        _write(place, linked, starts, found, method)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (place / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def flipped(linked: Linked, starts: Starts, target: int, method: Method, confidence: float = 0.0) -> Counterfactual:
    """The counterfactuals of all starts that are not of the target already.

    Raises:
        UsageError: every start is of the target already, or an option that the method refuses.
    """
    others = starts.answers != target
    if not others.any():
        raise UsageError(f"every picture is answered {linked.ends.label(target)} already; give another --target.")
    pictures = starts.pictures[others].to(linked.ends.device)
    try:
        return linked.ends.method(linked.link).counterfactual(
            pictures,
            target,
            method.value,
            attribute_to_neuron_input=True,
            confidence=confidence,
            probability=linked.ends.probability,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def left_out(linked: Linked, starts: Starts, target: int) -> str:
    """Which starts are of the target already, in words; nothing where none is."""
    own = [name for name, answer in zip(starts.names, starts.answers.tolist(), strict=True) if answer == target]
    label = linked.ends.label(target)
    return f"left out, being answered {label} already: {', '.join(own)}" if own else ""


def passage(linked: Linked, found: Counterfactual) -> Passage:
    """Draw and ask at points of the straight way between the two latents."""
    ends = linked.ends
    with torch.no_grad():
        start = linked.link(ends.encoder()(found.inputs.to(ends.device)), found.origin.to(ends.device))
    start, end = start.cpu().double(), found.latents.cpu().double()
    path = torch.linspace(0, BEYOND, POINTS, dtype=torch.float64)
    ways = start[:, None] + path[:, None] * (end - start)[:, None]
    chances = ends.answers(ends.draw(ways.flatten(0, 1))).unflatten(0, (len(start), len(path)))
    both = torch.stack([found.origin.cpu(), found.target.cpu()], 1)
    followed = chances.gather(2, both[:, None].expand(-1, len(path), -1))
    hit = (chances.argmax(-1) == both[:, 1:]) & (followed[..., 1] >= found.method["confidence"])
    flips = torch.where(hit.any(1), path[hit.int().argmax(1)], torch.nan)
    return Passage(path, followed, flips)


def rows(linked: Linked, found: Counterfactual) -> Figure:
    """The picture of counterfactuals."""
    ends, way = linked.ends, passage(linked, found)
    both = torch.stack([found.origin.cpu(), found.target.cpu()], 1)
    seen = [found.inputs.cpu(), found.linked.cpu(), found.images.cpu()]
    answers = found.answers.cpu()
    chances = torch.stack(
        [ends.answers(part).gather(1, torch.cat([both, answers[:, k : k + 1]], 1)) for k, part in enumerate(seen)], 1
    )
    lengths = found.length.cpu().tolist()
    few = found.sparsity.cpu().tolist()
    return counterfactual_rows(
        *seen,
        chances=chances,
        predictions=[[ends.label(c) for c in row] for row in answers.tolist()],
        origins=[ends.label(c) for c in both[:, 0].tolist()],
        targets=[ends.label(c) for c in both[:, 1].tolist()],
        reached=found.reached.cpu(),
        confidence=float(found.method["confidence"]),
        path=way.path,
        path_chances=way.chances,
        flips=way.flips,
        notes=[f"moved by {number(a, 1)}, by about {b:.0f} units" for a, b in zip(lengths, few, strict=True)],
        title=f"What would have to change for {ends.classifier.name} to answer {ends.label(int(both[0, 1]))}",
    )


def _write(place: Path, linked: Linked, starts: Starts, found: Counterfactual, method: Method) -> None:
    ends = linked.ends
    rows(linked, found).savefig(place / "counterfactuals.png", dpi=DPI, metadata={"Software": None})
    names = [name for name, answer in zip(starts.names, starts.answers, strict=True) if answer != found.target[0].cpu()]
    kept = {"inputs": found.inputs, "linked": found.linked, "images": found.images, "shift": found.shift}
    kept |= {"latents": found.latents, "scores": found.scores}
    store.write_tensors(place / "counterfactuals.safetensors", kept, kind="counterfactuals")
    target, sure = ends.label(int(found.target[0])), float(found.method["confidence"])
    head = ("picture", "from", "to", "reached", "answered in the end", "probability", "steps")
    columns = (found.origin, found.target, found.reached, found.answers[:, 2], found.confidence, found.steps)
    lines = tuple(
        (name, *(ends.label(c) for c in (a, b)), "yes" if ok else "no", ends.label(now), f"{100 * p:.0f} %", str(n))
        for name, a, b, ok, now, p, n in zip(names, *(column.tolist() for column in columns), strict=True)
    )
    expected = f"answered {target}" + (f" with at least {100 * sure:g} %" if sure else "")
    said = (
        "From left to right: the picture; what the link makes of it, which is where the search begins; the nearest "
        f"picture found that is {expected}, or in rows said not to be reached the nearest the search came, with what "
        "the network does answer to it; and what changed between the two. At the right, both classes' probabilities "
        "on the straight way from the linked picture (0) to the one at the end (1) and past it."
    )
    steps = "Probability: of the class asked for. Steps: pictures that the search looked at."
    if own := left_out(linked, starts, int(found.target[0])):
        steps += f" {own[0].upper()}{own[1:]}."
    table = Table(head, lines, steps)
    write_report(
        place,
        title=f"What would have to change for the answer {target}",
        lead=f"The representation of each picture is moved until the generator's picture of it is {expected}: "
        f"{found.trust}. Rows that were not reached are shown and said to be so. The link itself "
        f"{predicate(linked.trust)}.",
        facts={
            "network": ends.model_name,
            "layer": f"input of {ends.layer}",
            "generator": ends.generator_name,
            "method": method.value,
            "reached": f"{int(found.reached.sum())} of {len(found.reached)}",
        },
        sections=[Section("To another answer", (Picture("counterfactuals.png", said),), table)],
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; pictures, shifts, "
        "latents and scores are in counterfactuals.safetensors.",
    )
