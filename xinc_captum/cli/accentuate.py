"""``xinc accentuate``: what features see in a photo, beside where they are found in it."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import typer
from torch import Tensor

from .. import store, zoo
from ..attributions import Accentuation
from ..attributions.accentuation import Options
from ..attributions.accentuation.level import QUANTILE
from ..attributions.accentuation.transforms import view
from ..zoo.classifiers import imagenet_labels
from .accentuate_page import write_page
from .accentuate_story import Feature, Story
from .device import device_called
from .failures import UsageError
from .features import Asked, features_called
from .network import Network, network_called
from .photos import Natural, natural_images, subject_called
from .recorded import recorded

SECOND = {"efficientnet_lite1": "efficientnet_lite0"}  # who else is asked; for all others, efficientnet_lite1
WAY = (0.25, 0.5, 0.75)  # of the rise: pictures between the photo and the end


class Plan(NamedTuple):
    """Everything but the photo and the features that one run is about."""

    steps: int
    seed: int
    dose: float | None
    natural: Natural | None
    second: zoo.Classifier | None


@recorded("accentuate", "photo")
def accentuate_command(
    photo: str,
    out: Path,
    model: str,
    targets: list[str],
    layers: list[str],
    units: list[int],
    dose: float | None,
    steps: int,
    seed: int,
    longer_side: int,
    device: str,
    natural: Path | None,
) -> None:
    """Everything ``xinc accentuate`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    where = device_called(device)
    subject = subject_called(photo, longer_side)
    network = network_called(model, subject.image, where)
    asked = features_called(network, targets, layers, units)
    side = network.size or min(subject.image.shape[1:])
    plan = Plan(steps, seed, dose, natural_images(natural, side, photo), _second(network, asked, where))
    height, width = subject.image.shape[1:]
    typer.echo(f"{network.classifier.name} looks at {subject.name}, {width} x {height} pixels, on {where}")
    features: list[Feature] = []
    for number, one in enumerate(asked, 1):
        typer.echo(f"accentuating {one.title} ({number} of {len(asked)}) …")
        features.append(_accentuated(one, subject.image.to(where)[None], plan))
        typer.echo(f"  {features[-1].result.trust}")
        if features[-1].result.interrupted:
            typer.echo(f"stopped; writing what there is of {number} of {len(asked)} features")
            break
    story = Story(subject, network.classifier, features, plan.natural, plan.second)
    with store.bundle(out, _note(story, plan, asked)) as folder:
        write_page(folder, story)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (folder / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def _second(network: Network, asked: list[Asked], where: torch.device) -> zoo.Classifier | None:
    """Another network that knows the same classes, where it is installed."""
    mine = network.classifier
    if asked[0].layer is not None or mine.labels != imagenet_labels():
        return None
    try:
        found = zoo.classifier(SECOND.get(mine.name, "efficientnet_lite1"))
    except zoo.AssetError:
        return None
    found.model.to(where)
    return found


def _accentuated(one: Asked, photo: Tensor, plan: Plan) -> Feature:
    """Climb, remember pictures on the way, and look at everything as the network sees it."""
    passed = _Passed()
    options: Options = {
        "n_steps": plan.steps,
        "seed": plan.seed,
        "dose": plan.dose,
        "natural": None if plan.natural is None else plan.natural.images.to(photo),
        "transfer": plan.second,
        "on_step": passed,
        "show_progress": True,
    }
    try:
        result = one.method().accentuate(photo, one.index, **options)
    except (ValueError, IndexError) as error:
        raise UsageError(f"{one.title}: {error}") from error
    before = _seen(one.network, photo)
    top = [classes[0] for classes in (_top(one, before), _top(one, _seen(one.network, result.images)))]
    where = one.where(before, (photo.shape[-2], photo.shape[-1]))
    images, scores, reference = _way(one, result, before, passed.images, plan)
    return Feature(one, result, where, top[0], top[1], images, scores, reference)


class _Passed:
    """Remembers the images that an ascent passes."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, step: int, images: Tensor, scores: Tensor) -> None:
        self.images.append(images.cpu())


def _top(one: Asked, views: Tensor) -> list[list[tuple[str, float]]]:
    classifier = one.network.classifier
    if not classifier.labels or classifier.probability == "none":
        return [[]]
    try:
        return classifier.top(views.clamp(0, 1))
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def _way(
    one: Asked, result: Accentuation, before: Tensor, passed: list[Tensor], plan: Plan
) -> tuple[Tensor, list[float], float | None]:
    """Pictures between the photo and the end, their scores, and the score of dose 1, where natural images say it."""
    every = torch.cat([*passed[1:], result.images.cpu()])
    device = result.images.device
    scores = torch.cat([one.scores(_seen(one.network, image[None].to(device))) for image in every])
    start, end = float(one.scores(before)), float(scores[-1])
    chosen = sorted({int((scores - start - share * (end - start)).abs().argmin()) for share in WAY} | {len(every) - 1})
    reference = None
    if plan.natural is not None:
        reference = float(one.scores(_seen(one.network, plan.natural.images.to(device))).quantile(QUANTILE))
    return every[chosen], scores[chosen].tolist(), reference


def _seen(network: Network, images: Tensor) -> Tensor:
    """Whole images at the size at which the network looks at them."""
    size = (images.shape[-2], images.shape[-1]) if network.size is None else (network.size, network.size)
    return view([], (images.shape[-2], images.shape[-1]), size, generator=torch.Generator())(images)[0]


def _note(story: Story, plan: Plan, asked: list[Asked]) -> dict[str, Any]:
    """What the manifest says."""
    digest = hashlib.sha256()
    for name, weight in story.classifier.model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "seed": plan.seed,
        "inputs": story.subject.origin,
        "model": {"name": story.classifier.name, "weights_sha256": digest.hexdigest()},
        "natural": None if plan.natural is None else plan.natural.words,
        "second_network": None if plan.second is None else plan.second.name,
        "asked": [{"title": one.title, "index": one.index, "layer": one.layer} for one in asked],
        "settings": {
            k: v for k, v in story.features[0].result.settings.items() if k not in {"natural", "transfer", "seed"}
        },
        "features": [feature.numbers() for feature in story.features],
    }
