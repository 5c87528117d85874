"""Measure the effect of parameterization, crops and feature distance on accentuations of equal gain.

    python benchmarks/accentuation_ablation.py [--photos 3] [--steps 60] [--threads 2]

Every combination stops at the same gain of the optimised logit in the random crops. ``resampled`` is the gain that
remains when the image is downsampled in another way, ``transfer`` the gain of a second network.
"""

import argparse
import warnings
from statistics import median

import torch
from accentuation_cases import LAYER, PHOTOS, TARGETS, Bench

from xinc_captum.attributions.accentuation import Crops, FeatureDistance, Fourier, Phase, Pixel

GAIN = 8.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    bench = Bench()
    warnings.simplefilter("ignore")
    names = ("parameterization", "crops", "regulariser", "reached", "gain", "resampled", "transfer", "SSIM to seed")
    print("| " + " | ".join((*names, "energy > .25 c/px", "drift")) + " |\n" + "|---" * (len(names) + 2) + "|")
    for parameterization, lr in ((Pixel(), 0.1), (Fourier(decay=0.75), 0.03), (Phase(), 0.03)):
        for transforms in ((Crops(),), ()):
            for regularizer in (FeatureDistance(LAYER), None):
                options = {
                    "parameterization": parameterization,
                    "transforms": transforms,
                    "regularizer": regularizer,
                    "n_steps": chosen.steps,
                }
                cases = [
                    gained(bench, bench.photo(photo), bench.lite0.find(text), lr, options)
                    for photo in PHOTOS[: chosen.photos]
                    for text in TARGETS
                ]
                reached = sum(gain > 0.95 * GAIN for gain, _ in cases)
                gain = median(gain for gain, _ in cases)
                m = type(cases[0][1])(*(median(values) for values in zip(*(case for _, case in cases), strict=True)))
                print(
                    f"| {type(parameterization).__name__} | {'yes' if transforms else 'no'} | "
                    f"{'yes' if regularizer else 'no'} | {reached}/{len(cases)} | {gain:+.1f} | {m.rise:+.1f} | "
                    f"{m.transfer:+.2f} | {m.ssim:.3f} | {m.fine:.3f} | {m.drift:.2f} |",
                    flush=True,
                )


def gained(bench, seed, target, lr, options):
    """Return gain and case for the first of a few step lengths that reaches the gain: without crops, long steps overshoot."""
    tried = []
    for shorter in (1, 8):
        found = bench.method.accentuate(seed, target, activation=level(bench, seed, target), lr=lr / shorter, **options)
        gain = float(found.after - found.before)
        tried.append((gain, bench.measure(seed, found.images, target)))
        if gain > 0.95 * GAIN:
            break
    return max(tried, key=lambda pair: pair[0])


def level(bench, seed, target):
    """Return the score at which to stop: the score of the seed image in the random crops, plus the gain."""
    return float(bench.method.accentuate(seed, target, dose=0.0).before) + GAIN


if __name__ == "__main__":
    main()
