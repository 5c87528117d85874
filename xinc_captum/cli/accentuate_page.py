"""The page of ``xinc accentuate``: pictures, numbers and what to make of them."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..visualizers import accentuation_rows, class_bars, dose_strip, score_curve
from ..visualizers.classes import percent
from ..visualizers.report import Picture, Section, Table, write_report
from .accentuate_story import Feature, Story, keep, signed

DPI = 150


def write_page(folder: Path, story: Story) -> None:
    """Pictures, tensors and ``index.html`` into ``folder``."""
    features, photo = story.features, story.subject.image
    keep(folder, story)
    units = features[0].asked.layer is not None
    where = "where the unit is active" if units else "Grad-CAM: where"
    cams = [f.where for f in features if f.where is not None]
    images = torch.cat([f.result.images.cpu() for f in features])
    rows = accentuation_rows(
        photo[None],
        torch.stack(cams) if len(cams) == len(features) else None,
        images,
        torch.cat([f.opacity() for f in features]),
        titles=[f.asked.title for f in features],
        notes=[f.line for f in features],
        trusts=[(f.result.trust.verdict, f.result.trust.because) for f in features],
        cam_name=where,
        heading=f"What {story.classifier.name} sees in this photo",
    )
    first = [
        _picture(
            folder,
            "accentuated.png",
            rows,
            f"From left to right: the photo; {_explained(units)}; the photo accentuated, changed so that the network "
            "sees more of the feature, and kept close to itself; and the same, faded where the change did not matter. "
            "Below each row, how far to trust it.",
        )
    ]
    sections = [Section("What the network sees", tuple(first), _evidence(story))]
    if features[0].before:
        answers = {"the photo": features[0].before} | {f"more {f.asked.title}": f.after for f in features}
        bars = class_bars(answers, marked=[f.asked.title for f in features])
        caption = "The five likeliest classes of the whole photo, before and after."
        sections.append(Section("What it answers", (_picture(folder, "answers.png", bars, caption),)))
    sections.append(Section("On the way", tuple(_ways(folder, story))))
    write_report(
        folder,
        title=f"What {story.classifier.name} sees in {story.subject.name}",
        lead="A classifier answers with a score. Grad-CAM says where in the photo the score comes from; an "
        "accentuation says what the network looks for there: the photo itself, changed so that the network sees "
        "more of it, and kept close to the photo. Not every rise is honest, so each comes with a verdict.",
        facts=_facts(story),
        sections=sections,
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; images, masks, maps "
        "and scores are in accentuation.safetensors.",
    )


def _explained(units: bool) -> str:
    return (
        "where the unit is active in it, before any change"
        if units
        else "Grad-CAM, which says where the class's score comes from"
    )


def _facts(story: Story) -> dict[str, str]:
    height, width = story.subject.image.shape[1:]
    result = story.features[0].result
    facts = {
        "photo": story.subject.name,
        "pixels": f"{width} x {height}",
        "network": story.classifier.name,
        "steps": f"{result.steps}",
        "natural images": "none" if story.natural is None else story.natural.words,
        "second network": "none" if story.second is None else story.second.name,
    }
    return facts | ({"stopped": "by Ctrl-C"} if any(f.result.interrupted for f in story.features) else {})


def _evidence(story: Story) -> Table:
    """What the verdicts rest on."""
    head = (
        "feature",
        "score",
        "verdict",
        "path",
        "natural",
        "the photo's",
        "kept",
        "shuffled",
        "second network",
        "fine",
    )
    lines = []
    for feature in story.features:
        row = feature.result.trust.rows[0]
        near = [_two(number) for number in (row.path, row.natural, row.seed, row.kept, row.shuffled)]
        gain = "–" if row.transfer is None else signed(row.transfer, plus=True)
        fine = "–" if row.high_frequency is None else percent(row.high_frequency)
        lines.append((feature.asked.title, feature.line, row.verdict, *near, gain, fine))
    compared = (
        "No natural images were at hand, so the path could not be compared: install the zoo's photos or give --natural."
        if story.natural is None
        else f"Path: how alike the way through the layers is to that of the eight natural images that the feature "
        f"answers to most, out of {story.natural.words}; beside it those images among themselves, and the photo before "
        "any change. Kept: how alike it is to the photo's own. Shuffled: the path through a network with shuffled "
        "weights. The natural images need not show the thing: where they agree little among themselves, the comparison "
        "says little."
    )
    caption = (
        f"{compared} Second network: what the same change does to the same class there. Fine: the share of the "
        "change that is finer than four pixels a cycle."
    )
    return Table(head, tuple(lines), caption)


def _ways(folder: Path, story: Story) -> list[Picture]:
    pictures = []
    for number, feature in enumerate(story.features, 1):
        strip, words = _strip(story, feature)
        pictures.append(_picture(folder, f"{feature.file(number)}_way.png", strip, words))
    scores = _together([f.result.scores for f in story.features])
    distances = [f.result.distances for f in story.features]
    known = [d for d in distances if d is not None]
    curve = score_curve(
        scores,
        _together(known) if len(known) == len(distances) else None,
        titles=[f.asked.title for f in story.features],
        unit=story.features[0].asked.unit,
        layer=story.features[0].result.layer,
    )
    words = (
        "Step by step: the score, and the distance to the photo, which is held down. Views differ from step to step."
    )
    return [*pictures, _picture(folder, "steps.png", curve, words)]


def _strip(story: Story, feature: Feature) -> tuple[Figure, str]:
    """Pictures on the way, by dose where there is a scale, else by score."""
    title, doses, reference = feature.asked.title, feature.doses, feature.reference
    said = [f"{feature.asked.unit} {signed(score)}" for score in feature.scores]
    before = feature.ends[0]
    if doses is not None:
        strip = dose_strip(feature.way, doses, seed=story.subject.image, title=title, notes=said)
        return strip, f"The way to {title}. Dose 1 is what only two in a hundred of the natural images exceed."
    rank = [score - before for score in feature.scores]
    strip = dose_strip(feature.way, rank, seed=story.subject.image, title=title, labels=said)
    if reference is None:
        return strip, f"The way to {title}. A scale of doses wants natural images, so scores are said instead."
    hardly = f"two in a hundred of the natural images exceed {signed(reference)}, the photo has {signed(before)}"
    return strip, f"The way to {title}. Natural images give no scale of doses here ({hardly}), so scores are said."


def _together(columns: list[Tensor]) -> Tensor:
    """Columns of different lengths side by side, ended by nan."""
    steps = max(len(column) for column in columns)
    ends = [torch.cat([c.cpu(), torch.full((steps - len(c), c.shape[1]), torch.nan)]) for c in columns]
    return torch.cat(ends, 1)


def _picture(folder: Path, file: str, figure: Figure, caption: str) -> Picture:
    figure.savefig(folder / file, dpi=DPI, metadata={"Software": None})
    return Picture(file, caption)


def _two(number: float | None) -> str:
    return "–" if number is None else signed(number)
