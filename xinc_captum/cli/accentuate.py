"""``xinc accentuate``: features, results, page and command."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typer import Argument, Option

from .. import store, zoo
from ..attributions import Accentuation, FeatureAccentuation, NeuronFeatureAccentuation
from ..attributions.accentuation import Options
from ..attributions.accentuation.activations import ModelInputs
from ..attributions.accentuation.evidence import QUANTILE
from ..attributions.accentuation.settings import Settings
from ..attributions.accentuation.transforms import view
from ..comparison import as_maps, grad_cam, last_map
from ..hooks import find_layer
from ..image_model import ImageModel
from ..images import to_hwc
from ..visualizers import accentuation_rows, class_bars, dose_strip, score_curve
from ..visualizers.layout import percent
from ..visualizers.report import Picture, Section, Table, write_report
from ..zoo.classifiers import imagenet_labels
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .inputs import ImageSet, InputPhoto, load_photo, natural_images
from .models import MODEL_HELP, Network, Weights, load_network


@dataclass(frozen=True, eq=False)
class FeatureTarget:
    """A class or unit to accentuate."""

    network: Network = field(repr=False)
    title: str
    index: int  # of the class or unit
    layer: str | None = None  # of the unit, or None for a class

    @property
    def unit(self) -> str:
        """Name of its score."""
        return "logit" if self.layer is None else "mean activation"

    def method(self) -> FeatureAccentuation | NeuronFeatureAccentuation:
        """Return the attribution object that accentuates it."""
        classifier, size = self.network
        if self.layer is None:
            return FeatureAccentuation(classifier, size=size)
        return NeuronFeatureAccentuation(classifier, self.layer, size=size)

    def scores(self, views: Tensor, batch_size: int = 16) -> Tensor:
        """Return the score of each image (N, C, h, w) at the network's input size: (N,), on the CPU."""
        scores = []
        with torch.no_grad():
            for part in views.split(batch_size):
                output = self.network.classifier(part) if self.layer is None else self._activation(self.layer, part)
                value = output[:, self.index]
                scores.append((value.flatten(1).mean(1) if value.dim() > 1 else value).float().cpu())
        return torch.cat(scores)

    def _activation(self, layer: str, views: Tensor) -> Tensor:
        """Return the activation of a layer with its units on axis 1; patch tokens are laid out as a map."""
        image_model, module = ModelInputs(self.network.classifier), find_layer(self.network.classifier, layer)
        return image_model.run(views, (), [module], to_output=False).grid(module)

    def where(self, view: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Return a map of where it is in one image (1, C, h, w): (H, W), on the CPU, or None if there is none.

        For a class, Grad-CAM at the network's last feature map; for a unit, its activation.
        """
        classifier = self.network.classifier
        if self.layer is None:
            layer = last_map(classifier, view)
            if layer is None:
                return None
            attribution = grad_cam(classifier, layer)(view, self.index)
        else:
            with torch.no_grad():
                value = self._activation(self.layer, view)
            if value.dim() != 4:
                return None
            attribution = value[:, self.index : self.index + 1]
        return as_maps(attribution, view, size)[0].cpu()


def select_features(
    network: Network, targets: Sequence[str], layers: Sequence[str], units: Sequence[int]
) -> list[FeatureTarget]:
    """Return the features of the options --target, or --layer and --unit."""
    classifier = network.classifier
    if targets and (layers or units):
        raise UsageError("--target and --layer/--unit are both given; expected one of the two: run the command twice.")
    if targets:
        if not classifier.labels:
            raise UsageError(
                f"the output of {classifier.name} is not (images, classes), so --target cannot select a class; give "
                "--layer and --unit."
            )
        try:
            indices = [classifier.find(text) for text in targets]
        except ValueError as error:
            raise UsageError(f"--target: {error}") from error
        return [FeatureTarget(network, classifier.label(index), index) for index in indices]
    if not layers or not units:
        raise UsageError(
            "nothing to accentuate; expected --target with a label or a class number, or --layer with --unit, each "
            "once or several times."
        )
    if len(layers) not in {1, len(units)}:
        raise UsageError(
            f"--layer is given {len(layers)} times and --unit {len(units)} times; expected one layer for all units, "
            "or one per unit."
        )
    pairs = zip([*layers] * len(units) if len(layers) == 1 else layers, units, strict=True)
    for layer in layers:
        find_layer(classifier, layer)
    return [FeatureTarget(network, f"{layer}, unit {unit}", unit, layer) for layer, unit in pairs]


MOST = 10.0  # doses; beyond this the scale is too short


@dataclass(frozen=True, eq=False)
class FeatureResult:
    """One accentuated feature and what the page shows of it."""

    target: FeatureTarget
    result: Accentuation  # of one image
    where: Tensor | None  # (H, W), where the feature is in the photo
    before: list[tuple[str, float]]  # the most probable classes of the photo
    after: list[tuple[str, float]]  # those of the accentuated photo
    step_images: Tensor  # (K, C, H, W), images between the photo and the end
    scores: list[float]  # of the step images
    reference: float | None  # the score of dose 1, or None without natural images

    @property
    def line(self) -> str:
        """Score before and after, as text."""
        before, after = self.endpoints
        return f"{self.target.unit} {format_number(before)} → {format_number(after)}"

    @property
    def endpoints(self) -> tuple[float, float]:
        """Scores of the photo and of the accentuated photo."""
        before = self.result.before
        return float("nan") if before is None else float(before[0]), float(self.result.after[0])

    @property
    def doses(self) -> list[float] | None:
        """Doses of the step images, or None if there are no natural images or their scores give no scale."""
        before, after = self.endpoints
        if self.reference is None or abs(after - before) > MOST * (self.reference - before):
            return None
        return [(score - before) / (self.reference - before) for score in self.scores]

    def file(self, number: int) -> str:
        """Return the beginning of its file names: a number and the title in ASCII letters."""
        return f"{number}_{re.sub(r'[^a-z0-9]+', '_', self.target.title.lower()).strip('_')[:40]}"

    def numbers(self) -> dict[str, Any]:
        """Return the entries of the manifest."""
        before, after = self.endpoints
        trust = self.result.trust
        return {
            "title": self.target.title,
            "unit": self.target.unit,
            "before": round(before, 4),
            "after": round(after, 4),
            "steps": self.result.steps,
            "interrupted": self.result.interrupted,
            "answers": {
                when: [[name, round(chance, 4)] for name, chance in classes[:3]]
                for when, classes in (("before", self.before), ("after", self.after))
            },
            "verdict": trust.verdict,
            "because": trust.because,
        }


@dataclass(frozen=True, eq=False)
class AccentuationResults:
    """Everything that the page shows."""

    subject: InputPhoto
    classifier: ImageModel
    features: list[FeatureResult]
    natural: ImageSet | None
    second: ImageModel | None


def write_images(folder: Path, results: AccentuationResults) -> None:
    """Write the images as PNG, and all arrays into one safetensors file."""
    tensors = {"photo": results.subject.image.contiguous()}
    for number, feature in enumerate(results.features, 1):
        name, result = feature.file(number), feature.result
        _write(folder / f"{name}.png", result.images[0])
        _write(folder / f"{name}_through_mask.png", torch.cat([result.images[0].float(), result.opacity()[0]]).cpu())
        arrays = {"image": result.images[0], "mask": result.masks[0], "scores": result.scores, "where": feature.where}
        arrays["distances"] = result.distances
        tensors |= {f"{name}.{key}": value.cpu().contiguous() for key, value in arrays.items() if value is not None}
    store.write_tensors(folder / "accentuation.safetensors", tensors, kind="accentuation-page")


def _write(file: Path, picture: Tensor) -> None:
    Image.fromarray(np.round(to_hwc(picture.clamp(0, 1)) * 255).astype(np.uint8)).save(file)


def format_number(number: float | None, *, plus: bool = False) -> str:
    """Format a number with at most two decimals and a typographic minus sign; None is a dash."""
    if number is None:
        return "–"
    text = f"{number:+.3g}" if plus else f"{number:.3g}" if abs(number) >= 1 else f"{number:.2f}"
    return text.replace("-", "−")


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
    rows = accentuation_rows(
        photo[None],
        torch.stack(cams) if len(cams) == len(features) else None,
        torch.cat([f.result.images.cpu() for f in features]),
        torch.cat([f.result.opacity().cpu() for f in features]),
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
    height, width = photo.shape[1:]
    facts = {
        "photo": results.subject.name,
        "pixels": f"{width} x {height}",
        "network": results.classifier.name,
        "steps": f"{features[0].result.steps}",
        "natural images": "none" if results.natural is None else results.natural.description,
        "second network": "none" if results.second is None else results.second.name,
    }
    if any(f.result.interrupted for f in features):
        facts["stopped"] = "by Ctrl-C"
    write_report(
        folder,
        title=f"What {results.classifier.name} sees in {results.subject.name}",
        lead="A classifier outputs scores. Grad-CAM shows where in the photo a score comes from; an accentuation shows "
        "what raises it: the photo, changed so that the score rises while the photo stays similar. A rise can be an "
        "artefact, so each accentuation has a verdict.",
        facts=facts,
        sections=sections,
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; images, masks, maps "
        "and scores are in accentuation.safetensors.",
    )


def _evidence(results: AccentuationResults) -> Table:
    """Return the table of the measurements behind the verdicts."""
    names = "feature, score, verdict, path, natural, the photo's, kept, shuffled, second network, fine"
    lines = []
    for feature in results.features:
        row = feature.result.trust.rows[0]
        near = [format_number(number) for number in (row.path, row.natural, row.seed, row.kept, row.shuffled)]
        gain = format_number(row.transfer, plus=True)
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
    return pad_sequence([column.cpu() for column in columns], padding_value=torch.nan).flatten(1)


@record_settings("accentuate", "photo", "weights")
def accentuate_command(
    photo: Annotated[
        str, Argument(help="A photo file, or one of the zoo: chelsea, coffee, foolbox:07 …", show_default=False)
    ],
    out: Out = Path("out/accentuate"),
    model: Annotated[str, Option(help=MODEL_HELP)] = "efficientnet_lite0",
    targets: Annotated[
        list[str],
        Option(
            "--target",
            help="Class to accentuate, by label or number; repeat for several. Default: the class with the highest "
            "output for the photo.",
        ),
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
    weights: Weights = None,
) -> None:
    """Show what classes or units respond to in PHOTO, next to Grad-CAM, and how reliable it is."""
    where = find_device(device)
    subject = load_photo(photo, longer_side)
    network = load_network(model, subject.image, where, weights=weights)
    if not targets and not layers and not units:
        targets = _highest_class(network, subject.image.to(where)[None])
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
    settings = features[0].result.settings
    note = {
        "seed": seed,
        "inputs": subject.origin,
        "model": {"name": network.classifier.name, "weights_sha256": _weights_sha256(network.classifier)},
        "natural": None if known is None else known.description,
        "second_network": None if second is None else second.name,
        "asked": [{"title": one.title, "index": one.index, "layer": one.layer} for one in features_to_run],
        "settings": {k: v for k, v in settings.items() if k not in {"natural", "transfer", "seed"}},
        "features": [feature.numbers() for feature in features],
    }
    results = AccentuationResults(subject, network.classifier, features, known, second)
    with result_folder(out, note) as folder:
        write_page(folder, results)


def _highest_class(network: Network, photo: Tensor) -> list[str]:
    """Return the number of the class with the highest output for the photo; nothing if the outputs are no classes."""
    with torch.no_grad():
        output = network.classifier(_network_view(network, photo))
    if not network.classifier.labels or output.dim() != 2:
        return []
    index = int(output[0].argmax())
    typer.echo(f"no --target is given; the highest output is that of {network.classifier.label(index)}")
    return [str(index)]


def _weights_sha256(classifier: ImageModel) -> str:
    digest = hashlib.sha256()
    for name, weight in classifier.model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _second(features_to_run: list[FeatureTarget], where: torch.device) -> ImageModel | None:
    """Return another network with the same classes, or None if there is none or it is not installed."""
    classifier = features_to_run[0].network.classifier
    if features_to_run[0].layer is not None or classifier.labels != imagenet_labels():
        return None
    other = "efficientnet_lite0" if classifier.name == "efficientnet_lite1" else "efficientnet_lite1"
    try:
        second = zoo.classifier(other)
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
    near = {int((scores - start - share * (end - start)).abs().argmin()) for share in (0.25, 0.5, 0.75)}
    chosen = sorted(near | {len(every) - 1})
    return every[chosen], scores[chosen].tolist()


def _network_view(network: Network, images: Tensor) -> Tensor:
    """Return whole images at the input size of the network."""
    size = (images.shape[-2], images.shape[-1]) if network.size is None else (network.size, network.size)
    return view([], (images.shape[-2], images.shape[-1]), size, generator=torch.Generator())(images)[0]
