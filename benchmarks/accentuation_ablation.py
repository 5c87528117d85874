"""Which part does what: parameterization x crops x regulariser, all stopped at the same gain in the optimised logit."""

import argparse
import warnings
from statistics import median

import torch
from accentuation_cases import LAYER, PHOTOS, TARGETS, Bench

from xinc_captum.ascent import Crops, FeatureDistance, Fourier, Phase, Pixel

GAIN = 12.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    bench = Bench()
    warnings.simplefilter("ignore")
    print("| parameterization | crops | regulariser | reached | transfer | SSIM to seed | energy > .25 c/px | drift |")
    print("|---|---|---|---|---|---|---|---|")
    for parameterization, lr in ((Pixel(), 0.1), (Fourier(decay=0.75), 0.03), (Phase(), 0.03)):  # all reach the gain
        for transforms in ((Crops(),), ()):
            for regularizer in (FeatureDistance(LAYER), None):
                cases = []
                for photo in PHOTOS[: chosen.photos]:
                    seed = bench.photo(photo)
                    for text in TARGETS:
                        target = bench.lite0.find(text)
                        with torch.no_grad():
                            level = float(bench.lite0(bench.shrunk(seed))[0, target]) + GAIN
                        cases.append(
                            bench.run(
                                seed,
                                target,
                                activation=level,
                                n_steps=chosen.steps,
                                lr=lr,
                                parameterization=parameterization,
                                transforms=transforms,
                                regularizer=regularizer,
                            )
                        )
                reached = sum(case.rise > 0.95 * GAIN for case in cases)
                m = type(cases[0])(*(median(values) for values in zip(*cases, strict=True)))
                print(
                    f"| {type(parameterization).__name__} | {'yes' if transforms else 'no'} | "
                    f"{'yes' if regularizer else 'no'} | {reached}/{len(cases)} | {m.transfer:+.2f} | {m.ssim:.3f} | "
                    f"{m.fine:.3f} | {m.drift:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
