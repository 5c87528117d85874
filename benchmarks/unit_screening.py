"""Measure whether screening by gradients selects the units that a full sweep selects, and the time it saves.

    python benchmarks/unit_screening.py [--generator digits|mnist|eigen] [--seed 0] [--bases 20]

CPU seconds of this process, one thread. "digits" first trains a style generator on scikit-learn's digits at 16 x 16
(about two minutes) and stores it under --cache.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from xinc_captum.attributions.linking import LatentLink, make_pairs
from xinc_captum.attributions.linking.unit_tables import quantify, screen
from xinc_captum.generators import (
    EigenGenerator,
    ImageParts,
    Recipe,
    load_style_generator,
    save_style_generator,
    train_style_generator,
)
from xinc_captum.metrics import Measure, spearman


def cpu(function, *args, **settings):
    start = time.process_time()
    result = function(*args, **settings)
    return result, time.process_time() - start


def digits(size):
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    return F.interpolate(images, (size, size), mode="bilinear").clamp(0, 1), torch.from_numpy(data.target).long()


def of_digits(name, seed, cache):
    """Return a generator of digits and a classifier."""
    from xinc_captum.zoo import mnist_convnet, mnist_generator, train_small_convnet

    if name == "mnist":
        return mnist_generator().generator, mnist_convnet().model
    images, labels = digits(16)
    model = train_small_convnet(images[::2], labels[::2], seed=seed)
    if name == "eigen":
        return EigenGenerator(images, labels), model
    kept = cache / f"digits16_{seed}.safetensors"
    if not kept.exists():
        recipe = Recipe(steps=1000, seed=seed)
        cache.mkdir(parents=True, exist_ok=True)
        save_style_generator(train_style_generator(images, labels, recipe=recipe), kept, recipe={"seed": seed})
    return load_style_generator(kept).generator, model


def edges(pictures, masks):
    across, down = (pictures.diff(dim=d).square().mean((1, 2, 3)) for d in (3, 2))
    return (across + down)[:, None, None].expand(-1, masks.shape[1], 1)


EIGHT = ["area", "luminance", "smooth_entropy", "centroid", "ellipse", Measure(("edges",), edges)]


def screening(args):
    generator, model = of_digits(args.generator, args.seed, args.cache)
    pairs = make_pairs(model, "head", generator, args.pairs, truncation=0.7, rng=args.seed)
    link = LatentLink().fit(pairs.representations, pairs.latents, pairs.classes, manifest=pairs.manifest)
    order = torch.Generator().manual_seed(args.seed + 1)
    bases = generator.sample_latents(
        args.bases, torch.arange(args.bases) % generator.num_classes, truncation=0.7, generator=order
    )
    ink = ImageParts(lambda p: torch.sigmoid(10 * (p.mean(1, keepdim=True) - 0.5)), ["ink"])
    print(
        f"{args.generator}, seed {args.seed}: {int(link.alive.sum())} active units of {len(link.alive)}, {args.bases} bases"
    )
    for reach in args.reach:
        settings = {"parts": ink, "measures": EIGHT, "reach": reach}
        (
            screen(generator, link, bases[:2], **settings),
            quantify(generator, link, bases[:2], [int(link.alive.nonzero()[0])], **settings),
        )
        slow, fast = [], []
        for _ in range(args.repeats):
            full, seconds = cpu(quantify, generator, link, bases, **settings)
            slow.append(seconds)
            first, seconds = cpu(screen, generator, link, bases, **settings)
            fast.append(seconds)
        ranks = {m: float(spearman(*(t.column("ink", m)[None] for t in (first, full))).values) for m in full.measures}
        size = {
            m: float(spearman(*(t.column("ink", m).abs()[None] for t in (first, full))).values) for m in full.measures
        }
        tops = [
            len(set(first.strongest("ink", m, 10).tolist()) & set(full.strongest("ink", m, 10).tolist())) / 10
            for m in full.measures
        ]
        print(
            f"  ±{reach} sd: sweep {min(slow):.2f} s, screening {min(fast):.3f} s of CPU: {min(slow) / min(fast):.1f}x less; "
            f"Spearman, with signs, worst {min(ranks.values()):.3f} of {len(ranks)} measures; of sizes worst "
            f"{min(size.values()):.3f}; shared top ten {sum(tops) / len(tops):.2f}"
        )
        print("   ", "  ".join(f"{m} {ranks[m]:.3f}/{size[m]:.3f}" for m in ranks))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", choices=["digits", "mnist", "eigen"], default="digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("XDG_CACHE_HOME", ".bench-cache")))
    parser.add_argument("--bases", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--reach", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    screening(chosen)


if __name__ == "__main__":
    main()
