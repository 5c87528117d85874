"""``xinc accentuate``: command and page."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor
from typer import Argument, Option

from .. import zoo
from ..attributions import Accentuation
from ..attributions.accentuation import Options
from ..attributions.accentuation.evidence import QUANTILE
from ..attributions.accentuation.settings import Settings
from ..attributions.accentuation.transforms import view
from ..visualizers import accentuation_rows, class_bars, dose_strip, score_curve
from ..visualizers.accentuation import percent
from ..visualizers.report import Picture, Section, Table, write_report
from ..zoo.classifiers import CLASSIFIERS, imagenet_labels
from .accentuate_results import (
    AccentuationResults,
    FeatureResult,
    FeatureTarget,
    format_number,
    select_features,
    write_images,
)
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .inputs import load_photo, natural_images
from .models import Network, load_network

_save_picture = partial(save_picture, dpi=150)


def write_page(folder: Path, results: AccentuationResults) -> None:
    """Write figures, tensors and ``index.html`` into ``folder``."""
    features, photo = results.features, results.subject.image
    write_images(folder, results)
    if features[0].target.layer is None:
        where, cam_caption = "Grad-CAM: where", "Grad-CAM, which shows where the score of the class comes from"
    else:
        where, cam_caption = "where the unit is active", "where the unit is active in it, before any change"
    cams = [f.where for f in features if f.where is not None]
    images = torch.cat([f.result.images.cpu() for f in features])
    rows = accentuation_rows(
        photo[None],
        torch.stack(cams) if len(cams) == len(features) else None,
        images,
        torch.cat([f.opacity() for f in features]),
        titles=[f.target.title for f in features],
        notes=[f.line for f in features],
        trusts=[(f.result.trust.verdict, f.result.trust.because) for f in features],
        cam_name=where,
        heading=f"What {results.classifier.name} sees in this photo",
    )
    caption = (
        f"From left to right: the photo; {cam_caption}; the accentuated photo, changed so that the feature's score "
        "rises while the photo stays similar; and the same, faded where the change did not matter. Below each row: "
        "how reliable it is."
    )
    first = _save_picture(folder, "accentuated.png", rows, caption)
    sections = [Section("What the network sees", (first,), _evidence(results))]
    if features[0].before:
        classes = {"the photo": features[0].before} | {f"more {f.target.title}": f.after for f in features}
        bars = class_bars(classes, marked=[f.target.title for f in features])
        caption = "The five most probable classes of the whole photo, before and after."
        sections.append(Section("What the network predicts", (_save_picture(folder, "answers.png", bars, caption),)))
    sections.append(Section("During the optimization", tuple(_step_pictures(folder, results))))
    write_report(
        folder,
        title=f"What {results.classifier.name} sees in {results.subject.name}",
        lead="A classifier outputs scores. Grad-CAM shows where in the photo a score comes from; an accentuation shows "
        "what raises it: the photo, changed so that the score rises while the photo stays similar. A rise can be an "
        "artefact, so each accentuation has a verdict.",
        facts=_facts(results),
        sections=sections,
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; images, masks, maps "
        "and scores are in accentuation.safetensors.",
    )


def _facts(results: AccentuationResults) -> dict[str, str]:
    height, width = results.subject.image.shape[1:]
    facts = {
        "photo": results.subject.name,
        "pixels": f"{width} x {height}",
        "network": results.classifier.name,
        "steps": f"{results.features[0].result.steps}",
        "natural images": "none" if results.natural is None else results.natural.description,
        "second network": "none" if results.second is None else results.second.name,
    }
    return facts | ({"stopped": "by Ctrl-C"} if any(f.result.interrupted for f in results.features) else {})


def _evidence(results: AccentuationResults) -> Table:
    """Return the table of the measurements behind the verdicts."""
    names = "feature, score, verdict, path, natural, the photo's, kept, shuffled, second network, fine"
    lines = []
    for feature in results.features:
        row = feature.result.trust.rows[0]
        near = [
            "–" if number is None else format_number(number)
            for number in (row.path, row.natural, row.seed, row.kept, row.shuffled)
        ]
        gain = "–" if row.transfer is None else format_number(row.transfer, plus=True)
        fine = "–" if row.high_frequency is None else percent(row.high_frequency)
        lines.append((feature.target.title, feature.line, row.verdict, *near, gain, fine))
    compared = (
        "There are no natural images to compare the path with: install the zoo's photos or give --natural."
        if results.natural is None
        else "Path: similarity of the channel contributions (activation x gradient, up to four late layers) to those "
        f"of the eight natural images with the highest score, of {results.natural.description}. Natural: the same "
        "similarity among these images. The photo's: that of the unchanged photo. Kept: similarity to the unchanged "
        "photo. Shuffled: that in a network with shuffled weights. Natural images need not show the feature; if they "
        "are hardly similar to one another, the comparison is not informative."
    )
    caption = (
        f"{compared} Second network: change of the score of the same class there. Fine: share of the change in "
        "frequencies above one cycle per four pixels."
    )
    return Table(tuple(names.split(", ")), tuple(lines), caption)


def _step_pictures(folder: Path, results: AccentuationResults) -> list[Picture]:
    pictures = []
    for number, feature in enumerate(results.features, 1):
        strip, caption = _strip(results, feature)
        pictures.append(_save_picture(folder, f"{feature.file(number)}_way.png", strip, caption))
    scores = _side_by_side([f.result.scores for f in results.features])
    distances = [f.result.distances for f in results.features]
    known = [d for d in distances if d is not None]
    curve = score_curve(
        scores,
        _side_by_side(known) if len(known) == len(distances) else None,
        titles=[f.target.title for f in results.features],
        unit=results.features[0].target.unit,
        layer=results.features[0].result.layer,
    )
    caption = (
        "Score and distance to the photo at each step; the objective includes the distance. Each step uses other "
        "augmentations."
    )
    return [*pictures, _save_picture(folder, "steps.png", curve, caption)]


def _strip(results: AccentuationResults, feature: FeatureResult) -> tuple[Figure, str]:
    """Return a figure of images between photo and end, and its caption: by dose if there is a scale, else by score."""
    title, doses, reference = feature.target.title, feature.doses, feature.reference
    labels = [f"{feature.target.unit} {format_number(score)}" for score in feature.scores]
    before = feature.endpoints[0]
    if doses is not None:
        strip = dose_strip(feature.step_images, doses, seed=results.subject.image, title=title, notes=labels)
        return strip, f"From the photo to {title}. Only 2 % of the natural images exceed dose 1."
    rank = [score - before for score in feature.scores]
    strip = dose_strip(feature.step_images, rank, seed=results.subject.image, title=title, labels=labels)
    if reference is None:
        return strip, f"From the photo to {title}, with scores. Doses need natural images."
    scale = f"2 % of the natural images exceed {format_number(reference)}, the photo has {format_number(before)}"
    return strip, f"From the photo to {title}, with scores. Natural images give no scale of doses here ({scale})."


def _side_by_side(columns: list[Tensor]) -> Tensor:
    """Concatenate columns of different lengths, padded with NaN."""
    steps = max(len(column) for column in columns)
    ends = [torch.cat([c.cpu(), torch.full((steps - len(c), c.shape[1]), torch.nan)]) for c in columns]
    return torch.cat(ends, 1)


SECOND = {"efficientnet_lite1": "efficientnet_lite0"}  # the second network; for all others, efficientnet_lite1
SHARES = (0.25, 0.5, 0.75)  # of the rise of the score, for the images between photo and end


@record_settings("accentuate", "photo")
def accentuate_command(
    photo: Annotated[
        str,
        Argument(help="A photo file, or one of the zoo: chelsea, coffee, foolbox:07 …", show_default=False),
    ],
    out: Out,
    model: Annotated[
        str,
        Option(help=f"{', '.join(CLASSIFIERS)}, or module:function that returns a network or a zoo.Classifier."),
    ] = "efficientnet_lite0",
    targets: Annotated[
        list[str], Option("--target", help="Class to accentuate, by label or number; repeat for several.")
    ] = [],
    layers: Annotated[list[str], Option("--layer", help="Layer of the units, by its dotted name.")] = [],
    units: Annotated[list[int], Option("--unit", help="Unit of the layer to accentuate; repeat for several.")] = [],
    dose: Annotated[
        float | None,
        Option(
            help="Dose at which to stop: 0 is the photo's own score, 1 the 98 % quantile of the scores of the natural "
            "images; < 0 lowers the score. Default: run all steps."
        ),
    ] = None,
    steps: Annotated[int, Option(help="Optimization steps; with --dose at most this many.", min=1)] = Settings.n_steps,
    seed: Seed = 0,
    longer_side: Annotated[
        int, Option("--size", help="Shrink the longer side of the photo to this many pixels.", min=16)
    ] = 336,
    device: Device = "auto",
    natural: Annotated[
        Path | None, Option(help="Folder of photos for the dose and the verdict. Default: the zoo's.")
    ] = None,
) -> None:
    """Show what classes or units respond to in PHOTO, next to Grad-CAM, and how reliable it is."""
    where = find_device(device)
    subject = load_photo(photo, longer_side)
    network = load_network(model, subject.image, where)
    features_to_run = select_features(network, targets, layers, units)
    height, width = subject.image.shape[1:]
    known, second = natural_images(natural, network.size or min(height, width), photo), _second(features_to_run, where)
    options: Options = {
        "n_steps": steps,
        "seed": seed,
        "dose": dose,
        "natural": None if known is None else known.images.to(where),
        "transfer": second,
        "show_progress": True,
    }
    typer.echo(f"{network.classifier.name} on {subject.name}, {width} x {height} pixels, on {where}")
    features: list[FeatureResult] = []
    for number, one in enumerate(features_to_run, 1):
        typer.echo(f"accentuating {one.title} ({number} of {len(features_to_run)}) …")
        features.append(_accentuate(one, subject.image.to(where)[None], options))
        typer.echo(f"  {features[-1].result.trust}")
        if features[-1].result.interrupted:
            typer.echo(f"stopped; writing the results of {number} of {len(features_to_run)} features")
            break
    results = AccentuationResults(subject, network.classifier, features, known, second)
    with result_folder(out, _note(results, seed, features_to_run)) as folder:
        write_page(folder, results)


def _second(features_to_run: list[FeatureTarget], where: torch.device) -> zoo.Classifier | None:
    """Return another network with the same classes, or None if there is none or it is not installed."""
    classifier = features_to_run[0].network.classifier
    if features_to_run[0].layer is not None or classifier.labels != imagenet_labels():
        return None
    try:
        second = zoo.classifier(SECOND.get(classifier.name, "efficientnet_lite1"))
    except zoo.AssetError:
        return None
    second.model.to(where)
    return second


def _accentuate(one: FeatureTarget, photo: Tensor, options: Options) -> FeatureResult:
    """Accentuate one feature; return the result with the images, scores and classes for the page."""
    passed = _StepImages()
    options = {**options, "on_step": passed}
    try:
        result = one.method().accentuate(photo, one.index, **options)
    except (ValueError, IndexError) as error:
        raise UsageError(f"{one.title}: {error}") from error
    before = _network_view(one.network, photo)
    top = _top(one, before), _top(one, _network_view(one.network, result.images))
    where = one.where(before, (photo.shape[-2], photo.shape[-1]))
    images, scores = _images_on_the_way(one, result, before, passed.images)
    reference = None
    if (natural := options["natural"]) is not None:
        reference = float(one.scores(_network_view(one.network, natural)).quantile(QUANTILE))
    return FeatureResult(one, result, where, *top, images, scores, reference)


class _StepImages:
    """Callback that stores the images of every step."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, step: int, images: Tensor, scores: Tensor) -> None:
        self.images.append(images.cpu())


def _top(one: FeatureTarget, view: Tensor) -> list[tuple[str, float]]:
    """Return the most probable classes of an image (1, C, h, w); none if the network has no labels."""
    classifier = one.network.classifier
    if not classifier.labels or classifier.probability == "none":
        return []
    try:
        return classifier.top(view.clamp(0, 1))[0]
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _images_on_the_way(
    one: FeatureTarget, result: Accentuation, before: Tensor, passed: list[Tensor]
) -> tuple[Tensor, list[float]]:
    """Return images between photo and end, and their scores."""
    every = torch.cat([*passed[1:], result.images.cpu()])
    scores = torch.cat([one.scores(_network_view(one.network, image[None].to(before.device))) for image in every])
    start, end = float(one.scores(before)), float(scores[-1])
    near = {int((scores - start - share * (end - start)).abs().argmin()) for share in SHARES}
    chosen = sorted(near | {len(every) - 1})
    return every[chosen], scores[chosen].tolist()


def _network_view(network: Network, images: Tensor) -> Tensor:
    """Return whole images at the input size of the network."""
    size = (images.shape[-2], images.shape[-1]) if network.size is None else (network.size, network.size)
    return view([], (images.shape[-2], images.shape[-1]), size, generator=torch.Generator())(images)[0]


def _note(results: AccentuationResults, seed: int, features_to_run: list[FeatureTarget]) -> dict[str, Any]:
    """Return the entries of the manifest."""
    digest = hashlib.sha256()
    for name, weight in results.classifier.model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "seed": seed,
        "inputs": results.subject.origin,
        "model": {"name": results.classifier.name, "weights_sha256": digest.hexdigest()},
        "natural": None if results.natural is None else results.natural.description,
        "second_network": None if results.second is None else results.second.name,
        "asked": [{"title": one.title, "index": one.index, "layer": one.layer} for one in features_to_run],
        "settings": {
            k: v for k, v in results.features[0].result.settings.items() if k not in {"natural", "transfer", "seed"}
        },
        "features": [feature.numbers() for feature in results.features],
    }
