"""Measure how close eleven doses come to the requested level, and whether scores increase with the dose.

python benchmarks/doses.py [--steps 80] [--cases 6] [--threads 2]
"""

import argparse

import torch
from accentuation_cases import LAYER, Bench

from xinc_captum.attributions.accentuation import FeatureDistance

CASES = [(photo, text) for photo in ("chelsea", "coffee", "foolbox:05") for text in ("lion", "ladybug")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--cases", type=int, default=len(CASES))
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    bench = Bench()
    doses = torch.linspace(-0.25, 1.5, 11)
    print("| photo | feature | largest |reached - asked|, share of the range | strictly monotone |\n|---|---|---|---|")
    for photo, text in CASES[: chosen.cases]:
        rows = bench.photo(photo).expand(len(doses), -1, -1, -1)
        found = bench.method.accentuate(
            rows, bench.lite0.find(text), dose=doses, n_steps=chosen.steps, regularizer=FeatureDistance(LAYER),
            internal_batch_size=1,
        )  # fmt: skip
        error = float((found.dose - doses).abs().max())
        print(f"| {photo} | {text} | {error:.4f} | {bool((found.after.diff() > 0).all())} |", flush=True)


if __name__ == "__main__":
    main()
