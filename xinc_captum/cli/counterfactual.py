"""``xinc counterfactual``: what would have to change in a picture for another answer."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from .. import store
from ..attributions.linking.counterfactuals.counterfactual import Counterfactual
from ..visualizers import counterfactual_rows
from ..visualizers.layout import number, predicate
from ..visualizers.report import Section, Table, write_report
from .command import Device, Out, Seed, find_device, record_settings, result_folder, save_picture
from .errors import UsageError
from .models import LoadedLink, load_link, model_names
from .photos import StartImages, load_start_images

BEYOND, POINTS = 1.5, 25  # how far past the flipped picture the way is followed, and at how many points


class Method(StrEnum):
    """Ways to another answer."""

    ray = "ray"
    latent = "latent"
    minimal = "minimal"
    linking_in_style = "linking_in_style"


class PathProbabilities(NamedTuple):
    """The straight way from the linked picture to the flipped one, and past it.

    Attributes:
        path: (P,), 0 the linked picture and 1 the flipped one.
        chances: (N, P, 2), probabilities of origin and target.
        flips: (N,), where the answer first is the target, with the confidence asked for; nan where it never is.
    """

    path: Tensor
    chances: Tensor
    flips: Tensor


@record_settings("counterfactual")
def counterfactual_command(
    folder: Annotated[Path, typer.Argument(help="What xinc link wrote.", show_default=False)],
    out: Out,
    target: Annotated[str, typer.Option(help="Class to reach, by label or number.")],
    photos: Annotated[
        list[Path], typer.Option("--photo", help="Picture to start from; repeat. Default: drawn ones.")
    ] = [],
    method: Annotated[
        Method, typer.Option(help="ray: a line search; latent: through both networks; linking_in_style: the paper's.")
    ] = Method.ray,
    confidence: Annotated[
        float, typer.Option(help="Go on until the target has this probability; 0: until it is the answer.")
    ] = 0.0,
    count: Annotated[int, typer.Option(help="Pictures to draw where no --photo is given.", min=1)] = 6,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Show what would have to change in pictures for another answer."""
    linked = load_link(folder, find_device(device))
    try:
        target_class = linked.models.classifier.find(target)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    starts = load_start_images(linked.models, photos, count, linked.truncation, seed)
    result = find_counterfactuals(linked, starts, target_class, method, confidence)
    typer.echo(str(result.trust))
    if omitted := omission_text(linked, starts, target_class):
        typer.echo(omitted)
    note = {
        "seed": seed,
        "ends": model_names(linked.models),
        "link": {"folder": str(folder), "trust": linked.trust},
        "inputs": starts.inputs,
        "target": target_class,
        "method": method.value,
        "confidence": confidence,
        "reached": result.reached.tolist(),
    }
    with result_folder(out, note) as result_path:
        _write(result_path, linked, starts, result, method)


def find_counterfactuals(
    linked: LoadedLink, starts: StartImages, target: int, method: Method, confidence: float = 0.0
) -> Counterfactual:
    """The counterfactuals of all starts that are not of the target already.

    Raises:
        UsageError: every start is of the target already, or an option that the method refuses.
    """
    eligible = starts.predictions != target
    if not eligible.any():
        raise UsageError(f"every picture is answered {linked.models.label(target)} already; give another --target.")
    images = starts.images[eligible].to(linked.models.device)
    try:
        return linked.models.visualization(linked.link).counterfactual(
            images,
            target,
            method.value,
            attribute_to_neuron_input=True,
            confidence=confidence,
            probability=linked.models.probability,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def omission_text(linked: LoadedLink, starts: StartImages, target: int) -> str:
    """Which starts are of the target already, in words; nothing where none is."""
    omitted = [
        name for name, prediction in zip(starts.names, starts.predictions.tolist(), strict=True) if prediction == target
    ]
    label = linked.models.label(target)
    return f"left out, being answered {label} already: {', '.join(omitted)}" if omitted else ""


def path_probabilities(linked: LoadedLink, result: Counterfactual) -> PathProbabilities:
    """Draw and ask at points of the straight way between the two latents."""
    models = linked.models
    with torch.no_grad():
        start = linked.link(models.encoder()(result.inputs.to(models.device)), result.origin.to(models.device))
    start, end = start.cpu().double(), result.latents.cpu().double()
    path = torch.linspace(0, BEYOND, POINTS, dtype=torch.float64)
    points = start[:, None] + path[:, None] * (end - start)[:, None]
    chances = models.predict(models.generate(points.flatten(0, 1))).unflatten(0, (len(start), len(path)))
    both = torch.stack([result.origin.cpu(), result.target.cpu()], 1)
    probabilities = chances.gather(2, both[:, None].expand(-1, len(path), -1))
    hit = (chances.argmax(-1) == both[:, 1:]) & (probabilities[..., 1] >= result.method["confidence"])
    flips = torch.where(hit.any(1), path[hit.int().argmax(1)], torch.nan)
    return PathProbabilities(path, probabilities, flips)


def counterfactual_figure(linked: LoadedLink, result: Counterfactual) -> Figure:
    """The picture of counterfactuals."""
    models, passage = linked.models, path_probabilities(linked, result)
    both = torch.stack([result.origin.cpu(), result.target.cpu()], 1)
    stages = [result.inputs.cpu(), result.linked.cpu(), result.images.cpu()]
    predictions = result.answers.cpu()
    chances = torch.stack(
        [
            models.predict(part).gather(1, torch.cat([both, predictions[:, k : k + 1]], 1))
            for k, part in enumerate(stages)
        ],
        1,
    )
    lengths = result.length.cpu().tolist()
    few = result.sparsity.cpu().tolist()
    return counterfactual_rows(
        *stages,
        chances=chances,
        answers=[[models.label(c) for c in row] for row in predictions.tolist()],
        origins=[models.label(c) for c in both[:, 0].tolist()],
        targets=[models.label(c) for c in both[:, 1].tolist()],
        reached=result.reached.cpu(),
        confidence=float(result.method["confidence"]),
        path=passage.path,
        path_chances=passage.chances,
        flips=passage.flips,
        notes=[f"moved by {number(a, 1)}, by about {b:.0f} units" for a, b in zip(lengths, few, strict=True)],
        title=f"What would have to change for {models.classifier.name} to answer {models.label(int(both[0, 1]))}",
    )


def _write(folder: Path, linked: LoadedLink, starts: StartImages, result: Counterfactual, method: Method) -> None:
    models = linked.models
    names = [
        name
        for name, prediction in zip(starts.names, starts.predictions, strict=True)
        if prediction != result.target[0].cpu()
    ]
    tensors = {"inputs": result.inputs, "linked": result.linked, "images": result.images, "shift": result.shift}
    tensors |= {"latents": result.latents, "scores": result.scores}
    store.write_tensors(folder / "counterfactuals.safetensors", tensors, kind="counterfactuals")
    target, sure = models.label(int(result.target[0])), float(result.method["confidence"])
    head = ("picture", "from", "to", "reached", "answered in the end", "probability", "steps")
    columns = (result.origin, result.target, result.reached, result.answers[:, 2], result.confidence, result.steps)
    lines = tuple(
        (name, *(models.label(c) for c in (a, b)), "yes" if ok else "no", models.label(now), f"{100 * p:.0f} %", str(n))
        for name, a, b, ok, now, p, n in zip(names, *(column.tolist() for column in columns), strict=True)
    )
    goal = f"answered {target}" + (f" with at least {100 * sure:g} %" if sure else "")
    caption = (
        "From left to right: the picture; what the link makes of it, which is where the search begins; the nearest "
        f"picture found that is {goal}, or in rows said not to be reached the nearest the search came, with what "
        "the network does answer to it; and what changed between the two. At the right, both classes' probabilities "
        "on the straight way from the linked picture (0) to the one at the end (1) and past it."
    )
    picture = save_picture(folder, "counterfactuals.png", counterfactual_figure(linked, result), caption, dpi=120)
    steps = "Probability: of the class asked for. Steps: pictures that the search looked at."
    if omitted := omission_text(linked, starts, int(result.target[0])):
        steps += f" {omitted[0].upper()}{omitted[1:]}."
    table = Table(head, lines, steps)
    write_report(
        folder,
        title=f"What would have to change for the answer {target}",
        lead=f"The representation of each picture is moved until the generator's picture of it is {goal}: "
        f"{result.trust}. Rows that were not reached are shown and said to be so. The link itself "
        f"{predicate(linked.trust)}.",
        facts={
            "network": models.model_name,
            "layer": f"input of {models.layer}",
            "generator": models.generator_name,
            "method": method.value,
            "reached": f"{int(result.reached.sum())} of {len(result.reached)}",
        },
        sections=[Section("To another answer", (picture,), table)],
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; pictures, shifts, "
        "latents and scores are in counterfactuals.safetensors.",
    )
