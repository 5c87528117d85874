"""Check ``.trust`` of accentuations: planted fooling circuits must be flagged, honest features must not; print similarities.

    python benchmarks/trust.py [--cases 100] [--side 96] [--steps 16] [--seed 1] [--threads 2]

A planted circuit (after Geirhos et al. 2024) predicts exactly as the feature on every reference image. Above the
highest score of the reference images, only another unit, the decoy, raises it further.
"""

import argparse
import random
import warnings
from statistics import median

import torch
from accentuation_cases import PHOTOS, TARGETS, Bench

from xinc_captum import FeatureAccentuation, zoo
from xinc_captum.attributions.accentuation import Crops
from xinc_captum.attributions.accentuation.settings import Settings
from xinc_captum.images import centre_crop

HIDDEN = "blocks.5"


def pool(side):
    """Return crops of every photo: the square in the centre, and two corners."""
    pictures = [photo.image for photo in zoo.foolbox_photos()]
    pictures += [zoo.photo(name).image for name in zoo.photo_names() if not name.startswith(("foolbox", "motorcycle"))]
    crops = []
    for picture in pictures:
        height, width = picture.shape[-2:]
        square = centre_crop(picture, min(height, width, 2 * side), crop=1.0)
        half = square.shape[-1] * 5 // 8
        parts = [square, square[:, :half, :half], square[:, -half:, -half:]]
        crops += [centre_crop(part, side, crop=1.0) for part in parts]
    return torch.stack(crops)


def logit(index):
    return lambda seen: seen("labels")[:, index]


def channel(index):
    return lambda seen: seen(HIDDEN)[:, index].mean((1, 2))


def planted(feature, decoy, ceiling, floor, slope):
    """Combine the feature up to its highest score with the decoy above its lowest."""

    def fooled(seen):
        own = feature(seen)
        beyond = (own > ceiling).to(own) * slope * (decoy(seen) - floor)
        return torch.minimum(own, torch.as_tensor(ceiling).to(own)) + beyond.clamp_min(0)

    return fooled


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    net = zoo.efficientnet_lite0()
    method = FeatureAccentuation(net.model, preprocess=net.preprocess)
    natural = pool(chosen.side)
    with torch.no_grad():
        parts = [read(method, piece) for piece in natural.split(32)]
    outputs, hidden = (torch.cat(side) for side in zip(*parts, strict=True))
    options = {"n_steps": chosen.steps, "transforms": (Crops(3),), "natural": natural}

    dice = random.Random(chosen.seed)
    flagged = alarms = cases = drawn = 0
    while cases < chosen.cases:
        drawn += 1
        photo = natural[3 * dice.randrange(len(natural) // 3)][None]
        make, values = ((channel, hidden), (logit, outputs))[drawn % 2]
        unit, decoy = dice.sample(range(values.shape[1]), 2)
        ceiling, floor = float(values[:, unit].max()), float(values[:, decoy].median())
        slope = float(values[:, unit].std() / values[:, decoy].std())
        honest = method.accentuate(photo, make(unit), seed=drawn, **options)
        if honest.after <= ceiling:
            continue  # never gets where the circuit would be
        fooled = method.accentuate(
            photo, planted(make(unit), make(decoy), ceiling, floor, slope), seed=drawn, **options
        )
        if fooled.after <= ceiling:
            continue  # the circuit is silent in this image too, so nothing is there to flag
        cases += 1
        flagged += fooled.trust.verdict == "fails"
        alarms += honest.trust.verdict == "fails"
        numbers = [f"{r.path:.2f} {r.kept:.2f} / {r.natural:.2f}" for r in (honest.trust.rows[0], fooled.trust.rows[0])]
        print(
            f"{cases} of {drawn} drawn: {make.__name__} {unit}, decoy {decoy}: honest {honest.trust.verdict} ({numbers[0]}), "
            f"planted {fooled.trust.verdict} ({numbers[1]}); flagged {flagged}, alarms {alarms}",
            flush=True,
        )

    if cases:
        print(f"flagged {flagged}/{cases}, false alarms {alarms}/{cases}", flush=True)
    for steps in (Settings.n_steps // 2, Settings.n_steps):
        pairs(steps)


def pairs(steps, seeds=3):
    """Print path similarities of photos x classes, medians over seeds; the reference images are the other photos, one view each."""
    bench = Bench()
    others = {name: bench.photo(name) for name in zoo.photo_names() if name != "motorcycle_right"}
    print(
        f"\n{steps} steps\n| photo | feature | path | reference images leave-one-out, median | seed | shuffled weights | verdicts |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name in PHOTOS[:4]:
        natural = torch.cat([image for other, image in others.items() if other != name])
        for text in TARGETS:
            options = {"target": bench.lite0.find(text), "natural": natural, "n_steps": steps}
            found = [
                bench.method.accentuate(bench.photo(name), seed=seed, **options).trust.rows[0] for seed in range(seeds)
            ]
            rows.append([median(getattr(r, field) for r in found) for field in ("path", "natural", "seed", "shuffled")])
            numbers = " | ".join(f"{value:.2f}" for value in rows[-1])
            print(f"| {name} | {text} | {numbers} | {', '.join(r.verdict for r in found)} |", flush=True)
    medians = zip(
        ("path", "natural", "seed", "shuffled weights"), (median(v) for v in zip(*rows, strict=True)), strict=True
    )
    print(
        f"path at or above the natural median on {sum(row[0] >= row[1] for row in rows)}/{len(rows)} pairs; medians: "
        + ", ".join(f"{name} {value:.2f}" for name, value in medians)
    )


def read(method, images):
    layer = method.model.module(HIDDEN)
    seen = method.model.run(images, (), [layer], to_output=True)
    return seen("labels").detach(), seen(HIDDEN).mean((2, 3)).detach()


if __name__ == "__main__":
    main()
