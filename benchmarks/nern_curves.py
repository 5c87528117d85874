"""Compute four curves of a NeRN of a small network for digits: noise, size, pruning and compression.

    python benchmarks/nern_curves.py [--seeds 0 1] [--out curves.png]      about two CPU minutes per seed

The target and the test images are those of benchmarks/nern.py. The paper's two applications, filters ranked by
reconstruction error and the NeRN pruned and rounded, are our reading: no code was released for either, and nothing is
fitted again after pruning or rounding. Random orders and noise are drawn five times; mean, lowest and highest are
printed.
"""

import argparse
import time

import torch
from nern import accuracy, digits_split, digits_target

from xinc_captum.attributions.nern import NeRN, compress, filter_ranking, quantize, with_noise, without_filters

DRAWS = range(5)
NOISE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
HIDDEN = (20, 28, 40, 52)
PRUNED = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
SQUEEZED = ((1.0, 8), (1.0, 6), (1.0, 5), (1.0, 4), (0.9, 8), (0.8, 8), (0.7, 8), (0.6, 8), (0.8, 6), (0.7, 6))


def of_draws(found):
    return sum(found) / len(found), min(found), max(found)


def measured(seed, steps):
    """Compute the four curves of one target, and return the values for the figure."""
    seen, shown, x, y = digits_split()
    target = digits_target(seen, shown, seed)
    own = accuracy(target, x, y)
    print(f"\ndigits, target of seed {seed}: {own:.2f} on {len(x)} test images")
    found = {"own": own, "sizes": [], "noise": [], "pruned": [], "nern": [], "rounded": []}
    print(f"\n{'hidden':>8}{'share':>8}  distilled: accuracy, error    reconstruction only: accuracy, error")
    orders = NeRN(target).orders
    for hidden in HIDDEN:
        row = []
        for images in (seen, None):
            nern = NeRN(target, hidden=hidden, seed=seed, orders=orders)
            nern.fit(images, steps=steps, seed=seed, show_progress=False)
            row += [accuracy(nern.rebuild(), x, y), nern.relative_error()]
            if hidden == 40 and images is not None:
                kept = nern
        share = nern.size_report().share
        found["sizes"].append((share, *row))
        print(f"{hidden:8}{share:8.1%}{row[0]:22.2f}{row[1]:7.3f}{row[2]:30.2f}{row[3]:7.3f}", flush=True)
    print(f"\n{'noise':>8}  accuracy: mean, least, most of {len(DRAWS)}")
    for relative in NOISE:
        right = of_draws([accuracy(with_noise(target, relative, seed=draw), x, y) for draw in DRAWS])
        found["noise"].append((relative, *right))
        print(f"{relative:8.1f}{right[0]:10.2f}{right[1]:8.2f}{right[2]:8.2f}", flush=True)
    found["point"] = kept.relative_error(), accuracy(kept.rebuild(), x, y)
    print(f"the NeRN with 40 hidden units: error {found['point'][0]:.3f}, accuracy {found['point'][1]:.2f}")
    print(f"\n{'pruned':>8}{'by error':>10}{'magnitude':>11}  random: mean, least, most")
    orders = {by: filter_ranking(kept, by) for by in ("error", "magnitude")}
    drawn = [filter_ranking(kept, "random", seed=draw) for draw in DRAWS]
    for share in PRUNED:
        count = round(share * len(drawn[0]))
        one, two, *several = (
            accuracy(without_filters(target, order[:count]), x, y) for order in (*orders.values(), *drawn)
        )
        found["pruned"].append((share, one, two, *of_draws(several)))
        print("{:8.0%}{:10.2f}{:11.2f}{:12.2f}{:8.2f}{:8.2f}".format(*found["pruned"][-1]), flush=True)
    whole = kept.size_report().target
    print(f"\n{'':32}{'bytes':>8}{'of target':>11}{'accuracy':>10}{'error':>8}")
    rows = [("NeRN", kept, kept.size_report().total, kept.relative_error())]
    rows += [(f"NeRN, {keep:.0%} kept, {bits} bits", *compress(kept, keep=keep, bits=bits)) for keep, bits in SQUEEZED]
    rows += [(f"weights in {bits} bits", *quantize(target, bits=bits)) for bits in (8, 6, 5, 4, 3, 2)]
    for name, model, size, error in rows:
        right = accuracy(model.rebuild() if isinstance(model, NeRN) else model, x, y)
        found["nern" if isinstance(model, NeRN) else "rounded"].append((size / whole, right))
        print(f"{name:32}{size:8,}{size / whole:11.1%}{right:10.2f}{error:8.3f}", flush=True)
    return found


def drawn(results, path):
    """Draw the figure, with one line style per target and one colour per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.6), layout="constrained")
    axes = figure.subplots(2, 2)
    styles = ["-", "--", ":", "-."]
    for found, style in zip(results.values(), styles, strict=False):
        first = style == "-"

        def line(axis, rows, column, colour, label, marker="o", style=style, first=first):
            xs, ys = [row[0] for row in rows], [row[column] for row in rows]
            axis.plot(xs, ys, style, color=colour, marker=marker, ms=3.5, lw=1.3, label=label if first else None)

        a, b, c, d = axes.flat
        for axis in axes.flat:
            axis.axhline(found["own"], color="grey", ls=style, lw=0.8, label="the network itself" if first else None)
        line(a, found["noise"], 1, "C0", "noise, mean of 5")
        a.fill_between(*zip(*[(r[0], r[2], r[3]) for r in found["noise"]], strict=True), color="C0", alpha=0.15, lw=0)
        a.plot(*found["point"], "*", color="C3", ms=12, label="NeRN, hidden 40" if first else None)
        line(b, found["sizes"], 1, "C3", "distilled")
        line(b, found["sizes"], 3, "C2", "reconstruction only")
        line(c, found["pruned"], 1, "C3", "reconstruction error")
        line(c, found["pruned"], 2, "C0", "magnitude")
        line(c, found["pruned"], 3, "C7", "random, mean of 5")
        whole, dropped = found["nern"][:5], [found["nern"][1], *found["nern"][5:9]]
        line(d, whole, 1, "C3", "NeRN: floats, then 8 to 4 bits")
        line(d, dropped, 1, "C1", "NeRN: 100 to 60 % kept, 8 bits")
        line(d, found["rounded"], 1, "C0", "weights in 8 to 2 bits")
    names = (
        ("Weights with noise", "relative weight error"),
        ("Size of the predictor", "parameters per represented weight"),
        ("Removed filters, in three orders", "share of filters"),
        ("A compressed NeRN", "bytes, relative to the target"),
    )
    for axis, (title, below) in zip(axes.flat, names, strict=True):
        axis.set(title=title, xlabel=below, ylabel="accuracy (%)")
        axis.legend(fontsize=7.5, loc="upper right" if axis in (a, c) else "lower right")
        axis.grid(alpha=0.25)
    kinds = ("solid", "dashed", "dotted", "dash-dot")
    figure.suptitle(", ".join(f"target {seed} {kind}" for seed, kind in zip(results, kinds, strict=False)), fontsize=9)
    figure.savefig(path, dpi=90)
    print(f"wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", help="file for the figure of all four curves")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    results = {seed: measured(seed, given.steps) for seed in given.seeds}
    print(f"\n{time.process_time() - start:.0f} CPU seconds")
    if given.out:
        drawn(results, given.out)
