"""What a result costs: our defaults against the paper's setting (16 crops, 40 steps, lr .05, plain norm).

EfficientNet-Lite0 is optimised, Lite1 never; median over photos x targets x seeds.
"""

import argparse
from statistics import median

import torch
from accentuation_cases import LAYER, PHOTOS, TARGETS, Bench

from xinc_captum.ascent import FeatureDistance, faccent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=len(PHOTOS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    bench = Bench()
    settings = {
        "paper's setting": faccent(LAYER) | {"n_steps": 40, "n_draws": 40},
        "default": {"regularizer": FeatureDistance(LAYER)},
    }
    found = {name: [] for name in settings}
    for photo in PHOTOS[: chosen.photos]:
        for text in TARGETS:
            for seed in range(chosen.seeds):
                for name, options in settings.items():
                    case = bench.run(bench.photo(photo), bench.lite0.find(text), seed=seed, **options)
                    found[name].append(case)
                    print(
                        photo, text, seed, name, " ".join(f"{k} {v:.3g}" for k, v in case._asdict().items()), flush=True
                    )
    print(f"\n| | {' | '.join(found['default'][0]._fields)} |\n|---|" + "---|" * len(found["default"][0]))
    for name, cases in found.items():
        print(f"| {name} | " + " | ".join(f"{median(values):.3g}" for values in zip(*cases, strict=True)) + " |")
    pairs = list(zip(found["default"], found["paper's setting"], strict=True))
    for field in ("cpu", "rise", "transfer", "drift"):
        ratios = [getattr(ours, field) / getattr(theirs, field) for ours, theirs in pairs]
        print(f"median of {field}, ours over theirs: {median(ratios):.3f}")


if __name__ == "__main__":
    main()
