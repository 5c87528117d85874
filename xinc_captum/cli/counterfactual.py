"""``xinc counterfactual``: how images must change for another predicted class."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor
from typer import Option

from .. import store
from ..attributions.linking.counterfactuals.counterfactual import Counterfactual
from ..visualizers import counterfactual_rows
from ..visualizers.layout import number, predicate
from ..visualizers.report import Section, Table, write_report
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .models import LinkFolder, LoadedLink, StartCount, StartImages, StartPhotos, load_link, load_start_images

BEYOND, POINTS = 1.5, 25  # end of the path (1 is the counterfactual), and its number of points


class Method(StrEnum):
    """Methods of the search."""

    ray = "ray"
    latent = "latent"
    minimal = "minimal"
    linking_in_style = "linking_in_style"


@record_settings("counterfactual")
def counterfactual_command(
    folder: LinkFolder,
    out: Out,
    target: Annotated[str, Option(help="Class to reach, by label or number.")],
    photos: StartPhotos = [],
    method: Annotated[
        Method,
        Option(
            help="ray: line search; latent: gradient through both networks; minimal: shortest shift for a linear head; "
            "linking_in_style: the paper's method."
        ),
    ] = Method.ray,
    confidence: Annotated[
        float, Option(help="Stop when the target has this probability; 0: when it is the predicted class.")
    ] = 0.0,
    count: StartCount = 6,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Show how images must change for another predicted class."""
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
        **linked.note(starts, seed),
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
    """Search the counterfactuals of all start images whose predicted class is not the target."""
    eligible = starts.predictions != target
    if not eligible.any():
        raise UsageError(
            f"the predicted class of every image is {linked.models.label(target)} already; give another --target."
        )
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
    """Return a sentence on the start images whose predicted class is the target already; empty if there are none."""
    omitted = [name for name, one in zip(starts.names, starts.predictions.tolist(), strict=True) if one == target]
    label = linked.models.label(target)
    return f"left out, because their predicted class is {label} already: {', '.join(omitted)}" if omitted else ""


def path_probabilities(linked: LoadedLink, result: Counterfactual) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities on the straight path from the reconstruction (0) to the counterfactual (1) and beyond.

    They are the positions, (P,); the probabilities of the original class and the target, (N, P, 2); and the first
    position at which the target is predicted with the confidence of the search, (N,), NaN if there is none.
    """
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
    return path, probabilities, flips


def counterfactual_figure(linked: LoadedLink, result: Counterfactual) -> Figure:
    """Return the figure of counterfactuals."""
    models = linked.models
    path, path_chances, flips = path_probabilities(linked, result)
    both = torch.stack([result.origin.cpu(), result.target.cpu()], 1)
    stages = [result.inputs.cpu(), result.linked.cpu(), result.images.cpu()]
    predictions = result.answers.cpu()
    classes = [torch.cat([both, predictions[:, k : k + 1]], 1) for k in range(len(stages))]
    chances = [models.predict(part).gather(1, index) for part, index in zip(stages, classes, strict=True)]
    moved = zip(result.length.tolist(), result.sparsity.tolist(), strict=True)
    return counterfactual_rows(
        *stages,
        chances=torch.stack(chances, 1),
        predictions=[[models.label(c) for c in row] for row in predictions.tolist()],
        origins=[models.label(c) for c in both[:, 0].tolist()],
        targets=[models.label(c) for c in both[:, 1].tolist()],
        reached=result.reached.cpu(),
        confidence=float(result.method["confidence"]),
        path=path,
        path_chances=path_chances,
        flips=flips,
        notes=[f"moved by {number(length, 1)}, by about {units:.0f} units" for length, units in moved],
        title=f"What must change for {models.classifier.name} to predict {models.label(int(both[0, 1]))}",
    )


def _write(folder: Path, linked: LoadedLink, starts: StartImages, result: Counterfactual, method: Method) -> None:
    models = linked.models
    index, sure = int(result.target[0]), float(result.method["confidence"])
    target = models.label(index)
    names = [name for name, one in zip(starts.names, starts.predictions.tolist(), strict=True) if one != index]
    parts = ("inputs", "linked", "images", "shift", "latents", "scores")
    tensors: dict[str, Tensor] = {part: getattr(result, part) for part in parts}
    store.write_tensors(folder / "counterfactuals.safetensors", tensors, kind="counterfactuals")
    head = ("image", "from", "to", "reached", "prediction at the end", "probability", "steps")
    columns = (result.origin, result.target, result.reached, result.answers[:, 2], result.confidence, result.steps)
    lines = tuple(
        (name, *(models.label(c) for c in (a, b)), "yes" if ok else "no", models.label(now), f"{100 * p:.0f} %", str(n))
        for name, a, b, ok, now, p, n in zip(names, *(column.tolist() for column in columns), strict=True)
    )
    goal = f"predicted as {target}" + (f" with at least {100 * sure:g} %" if sure else "")
    caption = (
        "From left to right: the image; its reconstruction through the link, where the search starts; the nearest "
        f"image that is {goal}, or, if it was not reached, the nearest image of the search with its predicted class; "
        "and the change between the last two. Right: the probabilities of both classes on the straight path from the "
        "reconstruction (0) to the last image (1) and beyond."
    )
    picture = save_picture(folder, "counterfactuals.png", counterfactual_figure(linked, result), caption, dpi=120)
    steps = "Probability: of the target. Steps: images that the search evaluated."
    if omitted := omission_text(linked, starts, index):
        steps += f" {omitted[0].upper()}{omitted[1:]}."
    table = Table(head, lines, steps)
    write_report(
        folder,
        title=f"What must change for the class {target}",
        lead=f"The representation of each image is changed until the generated image is {goal}: {result.trust}. "
        f"Images for which this was not reached are shown and marked. The link itself {predicate(linked.trust)}.",
        facts={
            **models.facts,
            "method": method.value,
            "reached": f"{int(result.reached.sum())} of {len(result.reached)}",
        },
        sections=[Section("To another class", (picture,), table)],
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; images, shifts, "
        "latents and scores are in counterfactuals.safetensors.",
    )
