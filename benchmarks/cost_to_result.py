"""Compare time and result with the paper's setting (16 crops, 40 steps, lr .05, plain norm).

    python benchmarks/cost_to_result.py [--photos 6] [--seeds 2] [--threads 2]

xinc_captum runs twice: with the defaults, and stopped at the gain of the logit that the paper's setting reached.
EfficientNet-Lite0 is optimised, Lite1 never; medians over photos x targets x seeds. The defaults were tuned on these
photos, the paper's setting was not.
"""

import argparse
from statistics import median

import torch
from accentuation_cases import LAYER, PHOTOS, TARGETS, Bench, Measures

from xinc_captum.attributions.accentuation import FeatureDistance, faccent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=len(PHOTOS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    bench = Bench()
    theirs = faccent(LAYER) | {"n_steps": 40, "n_draws": 40}
    ours = {"regularizer": FeatureDistance(LAYER)}
    found = {"paper's setting": [], "same rise": [], "defaults": []}
    for photo in PHOTOS[: chosen.photos]:
        image = bench.photo(photo)
        for text in TARGETS:
            target = bench.lite0.find(text)
            with torch.no_grad():
                before = float(bench.lite0(bench.shrunk(image))[0, target])
            for seed in range(chosen.seeds):
                paper = bench.run(image, target, seed=seed, **theirs)
                same = bench.run(image, target, seed=seed, n_steps=60, activation=before + paper.rise, **ours)
                cases = (paper, same, bench.run(image, target, seed=seed, **ours))
                for (name, rows), case in zip(found.items(), cases, strict=True):
                    rows.append(case)
                    print(
                        photo, text, seed, name, " ".join(f"{k} {v:.3g}" for k, v in case._asdict().items()), flush=True
                    )
    print(
        f"\n| median of {len(found['defaults'])} | {' | '.join(Measures._fields)} |\n|---|"
        + "---|" * len(Measures._fields)
    )
    for name, cases in found.items():
        print(f"| {name} | " + " | ".join(f"{median(values):.3g}" for values in zip(*cases, strict=True)) + " |")
    for name in ("same rise", "defaults"):
        pairs = list(zip(found[name], found["paper's setting"], strict=True))
        ratios = {field: median(getattr(a, field) / getattr(b, field) for a, b in pairs) for field in Measures._fields}
        print(f"{name}, over the paper's setting, median: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()))


if __name__ == "__main__":
    main()
