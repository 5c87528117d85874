"""Compare the ranking of pixels and kernels of a video network by each rule with setting kernels to zero.

    python benchmarks/faithfulness_video.py [STEPS]    (a few minutes; STEPS trains the second network)

Two NeRVs of the same real clip: the one that ships with the package, and one of another seed trained here. In each,
200 random kernels of each block, at two frames. Measured as in faithfulness.py: maps are Σ_channel |c|, divided by
their largest value and rounded to 1e-6; Spearman with average ranks in float64; constant maps are left out and counted.
spatial: mean over kernels of the correlation over pixels; total: correlation over kernels of the maps' sums. Where a
goal is missed, a second line compares with kernels reduced by 1 % instead of set to zero. What the tangent regains
there was lost to the curvature of the activations behind the kernel; what the secant does not regain was lost to its
slope.
"""

import sys

import torch

from xinc_captum import Ablation, NeuronCanvas, capture
from xinc_captum.inr import NeRV, fit_video, psnr, render_video, times
from xinc_captum.metrics import canvas_agreement
from xinc_captum.zoo import carphone_nerv, video

KERNELS, FRAMES = 200, (5, 18)
WANTED = {"tangent": (0.95, 0.95), "secant": (0.80, 0.85)}
RULES = {"tangent": "tangent", "secant": "secant", "the paper": "xinc"}


def networks(steps):
    """Yield name and network: the one in the package, and one from another seed."""
    kept, size = carphone_nerv()
    frames = video("carphone_pristine", size[0], size[1:]).frames
    yield f"seed 0, {psnr(render_video(kept, size[0]), frames):.1f} dB", kept, size
    model = NeRV(size[1:], seed=1)
    result = fit_video(model, frames, steps=steps, seed=1, show_progress=False)
    yield f"seed 1, {result.psnr:.1f} dB", model, size


def some_kernels(layer, seed):
    """Return (in, out) of random kernels, without repetition."""
    ins, outs = layer.in_channels, layer.out_channels
    order = torch.randperm(ins * outs, generator=torch.Generator().manual_seed(seed))[:KERNELS]
    return [divmod(int(k), outs) for k in order]


def maps(model, layer, rule, x, kernels):
    """Return maps (kernels, channels, pixels) of one frame."""
    method = NeuronCanvas(model, layer, rule=rule, unit="pair")
    found = method.attribute(x, kernels, attribute_to_layer_input=rule == "xinc")[0]
    return found.reshape(len(kernels), -1, found.shape[-2] * found.shape[-1])


def turned_down(model, layer, x, by):
    """Ablate only a part of a kernel's input: the smaller the part, the closer to linear the network behind it."""
    with capture(model, layer, at_input=True) as seen:
        model(x)
    return Ablation((1 - by) * seen[layer].detach())


def short(agreement, goal):
    return agreement.spatial < goal[0] or agreement.total < goal[1]


def main(steps=1000):
    torch.set_num_threads(1)
    print(f"Spearman against setting to zero, spatial / total (constant maps left out); {KERNELS} kernels per block\n")
    print(f"{'network':18s} {'block':5s} {'frame':5s} " + " ".join(f"{name:>18s}" for name in RULES), flush=True)
    missed = []
    for seed, (name, network, size) in enumerate(networks(steps)):
        model = network.double()
        for block in range(len(model.blocks)):
            layer = model.blocks[block].conv
            kernels = some_kernels(layer, seed)
            for frame in FRAMES:
                x = times(size[0]).double()[frame : frame + 1]
                truth = maps(model, layer, "ablation", x, kernels)
                row = {n: canvas_agreement(maps(model, layer, rule, x, kernels), truth) for n, rule in RULES.items()}
                cells = [f"{a.spatial:6.3f} / {a.total:5.3f} ({a.left_out})" for a in row.values()]
                line = " ".join(f"{c:>18s}" for c in cells)
                print(f"{name:18s} {block + 1:5d} {frame:5d} {line}", flush=True)
                if any(short(row[n], goal) for n, goal in WANTED.items()):
                    slight = maps(model, layer, turned_down(model, layer, x, 0.01), x, kernels)
                    again = {n: canvas_agreement(maps(model, layer, RULES[n], x, kernels), slight) for n in WANTED}
                    cells = [f"{a.spatial:6.3f} / {a.total:5.3f} ({a.left_out})" for a in again.values()]
                    print(f"{'':18s} reduced by 1 %", *(f"{c:>17s}" for c in cells), flush=True)
                missed += [
                    f"{n} at block {block + 1}, frame {frame}, {name} ({row[n].spatial:.3f} / {row[n].total:.3f})"
                    for n, goal in WANTED.items()
                    if short(row[n], goal)
                ]
    goals = ", ".join(f"{n} >= {s:.2f} / {t:.2f}" for n, (s, t) in WANTED.items())
    print(f"\nexpected: {goals}:", "missed by " + "; ".join(missed) if missed else "met")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
