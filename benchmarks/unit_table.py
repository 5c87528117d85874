"""Measure time and memory of quantifying thousands of units, relative to calls of the generator alone.

    python benchmarks/unit_table.py scale [--units 2048] [--bases 4] [--batch 64]
    python benchmarks/unit_table.py faces [--units 1280] [--bases 2] [--pairs 3000] [--parts 4] [--batch 16]
    python benchmarks/unit_table.py memory scale|faces [--counts 128 512 2048] [further arguments of that part]

CPU seconds of this process, one thread. "Bare" is the same generator called with as many latents in batches of the same
size, in turns with the table, so that both run under the same load. "digits" first trains a style generator on
scikit-learn's digits at 16 x 16 (about two minutes) and stores it, with the pairs of faces, under --cache.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from xinc_captum.attributions.linking import LatentLink, make_pairs
from xinc_captum.attributions.linking.unit_tables import quantify, shuffled_directions
from xinc_captum.generators import (
    FeatureClusters,
    FeatureParts,
    ImageParts,
    cluster_features,
    images_and_features,
)


def cpu(function, *args, **settings):
    start = time.process_time()
    result = function(*args, **settings)
    return result, time.process_time() - start


def resident(reset=False):
    """Return the peak of this process since the last reset, MiB (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def against_bare(generator, bases, link, units, args, **settings):
    """Time the table of all units, and the generator alone on as many latents, in turns of ``args.turns`` pieces."""
    frames = 1 + 2 * len(units)
    pieces = units.chunk(args.turns)
    drawn = torch.cat([bases] * (args.batch // len(bases) + 1))[: args.batch]
    quantify(generator, link, bases, units[:4], batch_size=args.batch, **settings)  # first calls choose kernels
    before, table_s, bare_s, wall = resident(reset=True), 0.0, 0.0, 0.0
    for piece in pieces:
        start = time.perf_counter()
        table, seconds = cpu(quantify, generator, link, bases, piece, batch_size=args.batch, **settings)
        wall += time.perf_counter() - start
        table_s += seconds
        own = table.note["frames"]

        def bare(own=own):
            with torch.no_grad():
                for start in range(0, own, args.batch):
                    generator.synthesize(drawn[: min(args.batch, own - start)])

        bare_s += cpu(bare)[1]
    print(
        json.dumps(
            {
                "units": len(units),
                "bases": len(bases),
                "columns": len(table.measures),
                "parts": len(table.parts),
                "frames": frames * len(bases),
                "table_cpu_s": round(table_s, 2),
                "bare_cpu_s": round(bare_s, 2),
                "overhead": round(table_s / bare_s, 3),
                "wall_s": round(wall, 2),
                "peak_before_MiB": round(before),
                "peak_MiB": round(resident()),
            }
        )
    )


def whole(generator, bases, link, units, args, **settings):
    """Run all units once, with the null if requested, and measure wall time and memory."""
    before, start = resident(reset=True), time.perf_counter()
    table = quantify(generator, link, bases, units, batch_size=args.batch, **settings)
    print(
        f"one run: {len(units)} units x {len(bases)} bases x {len(table.parts)} parts x {len(table.measures)} numbers, "
        f"{table.note['frames']} frames: {time.perf_counter() - start:.1f} s; peak {resident():.0f} MiB, {before:.0f} before"
    )
    return table


def scale(args):
    """Quantify units of a convolution of the digit CNN, linked to the shipped style generator of digits."""
    from xinc_captum.zoo import mnist_cnn, mnist_generator

    generator, network = mnist_generator().generator, mnist_cnn()

    def wide(pictures):  # 16 x 16 to 28 x 28, as the digits were made small
        return network.preprocess(F.interpolate(pictures, (32, 32), mode="bilinear")[..., 2:-2, 2:-2])

    pairs = make_pairs(
        network.model,
        "5",
        generator,
        args.pairs,
        rng=args.seed,
        attribute_to_neuron_input=False,
        pool="flatten",
        keep_class=False,
        preprocess=wide,
    )
    link = LatentLink(ridge=1.0).fit(pairs.representations, pairs.latents)
    units = link.alive.nonzero()[:, 0]
    print(f"digits: {len(units)} active of {len(link.alive)} units; the first {args.units} are used")
    bases = pairs.latents[: args.bases]
    ink = ImageParts(
        lambda p: torch.cat([torch.sigmoid(10 * (p - 0.5)), torch.sigmoid(10 * (0.5 - p))], 1), ["ink", "paper"]
    )
    settings = {"parts": ink, "measures": ["area", "luminance", "centroid", "ellipse"]}
    if not args.once:
        against_bare(generator, bases, link, units[: args.units], args, **settings)
    whole(generator, bases, link, units[: args.units], args, **settings)


def faces(args):
    """Quantify the penultimate units of EfficientNet-Lite0, linked to a DCGAN of faces; parts are clusters of its features."""
    from xinc_captum.zoo import dcgan_faces, efficientnet_lite0

    generator, network = dcgan_faces(), efficientnet_lite0()
    kept = args.cache / f"faces_{args.pairs}_{args.seed}.pt"
    if kept.exists():
        held = torch.load(kept, weights_only=True)
    else:

        def wide(pictures):
            return network.preprocess(F.interpolate(pictures, (224, 224), mode="bilinear", antialias=True))

        pairs = make_pairs(
            network.model,
            "classifier",
            generator,
            args.pairs,
            rng=args.seed,
            truncation=1.0,
            preprocess=wide,
            show_progress=True,
        )
        held = {"r": pairs.representations, "w": pairs.latents}
        args.cache.mkdir(parents=True, exist_ok=True)
        torch.save(held, kept)
    link = LatentLink().fit(held["r"], held["w"])
    units = link.alive.nonzero()[:, 0][: args.units]
    print(f"faces: {int(link.alive.sum())} active of {len(link.alive)} units")
    bases, layers = held["w"][: args.bases], generator.feature_layers()[-2:]
    with torch.no_grad():
        maps = images_and_features(generator, held["w"][:48], layers)[1]
        found = cluster_features(maps, args.parts, seed=args.seed)
        here = found(images_and_features(generator, bases, layers)[1], (64, 64)).softmax(1).mean((2, 3))
    kept = (here > 0.01).any(0)  # a black edge that only some faces have is a cluster of its own
    found = FeatureClusters(found.mean, found.scale, found.centres[kept], found.channels)
    names = [f"cluster {i}" for i in kept.nonzero()[:, 0].tolist()]
    parts = FeatureParts(found, names, layers)
    settings = {"parts": parts, "measures": [*"area luminance rgb centroid ellipse".split(), *["lab"] * args.lab]}
    if not args.once:
        against_bare(generator, bases, link, units, args, **settings)
    if args.null:
        random = torch.Generator().manual_seed(args.seed)
        settings["null"] = shuffled_directions(held["r"], held["w"], units, repeats=args.null, generator=random)
    table = whole(generator, bases, link, units, args, **settings)
    if args.null:
        for part in names:
            for measure in ("area", "luminance", "red"):
                print(f"  {part}, {measure} only: {len(table.where(part, measure, only=True).units)} units at q <= .05")


def memory(args, rest):
    """Run each number of units in a separate process; the two values should not depend on it."""
    for count in args.counts:
        line = [sys.executable, __file__, args.of, "--units", str(count), "--once", *rest]
        print(subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    what = parser.add_subparsers(dest="part", required=True)
    for name in ("scale", "faces"):
        one = what.add_parser(name)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--cache", type=Path, default=Path(os.environ.get("XDG_CACHE_HOME", ".bench-cache")))
        one.add_argument("--units", type=int, default=2048 if name == "scale" else 1280)
        one.add_argument("--bases", type=int, default=4 if name == "scale" else 2)
        one.add_argument("--pairs", type=int, default=3000)
        one.add_argument("--parts", type=int, default=4)
        one.add_argument("--batch", type=int, default=64 if name == "scale" else 16)
        one.add_argument("--turns", type=int, default=8)
        one.add_argument("--lab", action="store_true", help="measure Lab too (faces): a tenth of the generator's time")
        one.add_argument("--null", type=int, default=0, help="shuffled directions for each unit (faces)")
        one.add_argument("--once", action="store_true", help="one run only, without the bare generator")
    one = what.add_parser("memory")
    one.add_argument("of", choices=["scale", "faces"])
    one.add_argument("--counts", type=int, nargs="+", default=[128, 512, 2048])
    args, rest = parser.parse_known_args()
    if rest and args.part != "memory":
        parser.error(f"unknown arguments {rest}")
    torch.set_num_threads(1)
    if args.part == "memory":
        memory(args, rest)
    else:
        {"scale": scale, "faces": faces}[args.part](args)


if __name__ == "__main__":
    main()
