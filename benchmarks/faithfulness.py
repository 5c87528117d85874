"""Compare the ranking of pixels and units by each rule with ablation, for zero, mean and resample baselines.

    python benchmarks/faithfulness.py FOLDER    (the folder contains xinc_ffn.npz, the paper's trained network)

Maps are Σ_channel |c|, divided by their largest value and rounded to 1e-6; Spearman with average ranks in float64;
constant maps are left out and counted. spatial: mean over units of the correlation over pixels; total: correlation
over units of the maps' sums. "x − baseline" is gradient x (activation − baseline), the appropriate alternative for a
baseline.
"""

import sys

import torch
from reference import load, network

from xinc_captum import Ablation, LayerContribution, NeuronCanvas, capture
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.batch import Batch
from xinc_captum.inr import coordinates
from xinc_captum.metrics import canvas_agreement, completeness_error, condition_number

SIZE = (128, 256)
SITES = (
    ("hidden 2", "activation2", "output"),
    ("hidden 1", "activation1", "linear2"),
    ("Fourier features", "encoding", "linear1"),
)


def units_first(shares):
    """Permute (pixels, units, channels) or (pixels, units) to (units, channels, pixels)."""
    shares = shares if shares.dim() == 3 else shares[..., None]
    return shares.permute(1, 2, 0).contiguous()


def against_baseline(model, layer, x, baselines):
    """Compute ∂y/∂a · (a − b), (units, channels, pixels)."""
    bare = LayerContribution(model, layer, multiply_by_inputs=False)
    slope = torch.stack([bare.attribute(x, target=c) for c in range(3)], -1)
    tail, batch = Tail(model, model.get_submodule(layer)), Batch.of(x)
    with capture(model, layer) as seen:
        model(x)
    activation = seen[model.get_submodule(layer)].detach()
    baseline = Ablation(baselines).prepare(tail, batch, batch.rows).baseline(tail, batch, activation)
    return units_first((activation - baseline)[..., None] * slope)


def main(folder):
    model, x = network(load(folder)).double(), coordinates(SIZE, dtype=torch.float64)  # float32 would split ties
    print("Spearman against ablation, spatial / total (constant maps left out)\n")
    print(f"{'layer':18s} {'baseline':10s} {'tangent':>18s} {'x - baseline':>18s} {'secant':>18s} {'the paper':>18s}")
    answers = {}
    for name, site, linear in SITES:
        rules = {
            "tangent": units_first(NeuronCanvas(model, site).attribute(x)),
            "secant": units_first(NeuronCanvas(model, site, rule="secant").attribute(x)[:, :-1]),
            "the paper": units_first(
                NeuronCanvas(model, linear, rule="xinc").attribute(x, attribute_to_layer_input=True)
            ),
        }
        for baselines in (0.0, "mean", "resample"):
            truth = units_first(NeuronCanvas(model, site, rule=Ablation(baselines)).attribute(x))
            maps = {**rules, "x - baseline": against_baseline(model, site, x, baselines)}
            row = {k: canvas_agreement(v, truth) for k, v in maps.items()}
            answers[name, str(baselines)] = row
            cells = [
                f"{a.spatial:6.3f} / {a.total:5.3f} ({a.left_out})"
                for a in (row[k] for k in ("tangent", "x - baseline", "secant", "the paper"))
            ]
            print(f"{name:18s} {baselines!s:10s} " + " ".join(f"{c:>18s}" for c in cells), flush=True)
    print(
        "\nsecant: error of the sum of contributions and bias term, and cancellation (condition number, median / 99 %)"
    )
    for name, site, _ in SITES:
        shares, output = NeuronCanvas(model, site, rule="secant").attribute(x), model(x).detach()
        cancelled = condition_number(shares, output).flatten()
        print(
            f"{name:18s} {completeness_error(shares, output):.1e}   {cancelled.median():.1f} / {cancelled.quantile(0.99):.1f}"
        )
    expected = {"hidden 2": (0.995, 0.995), "hidden 1": (0.99, 0.93), "Fourier features": (0.90, 0.99)}
    missed = [
        n
        for n, (s, t) in expected.items()
        if answers[n, "0.0"]["tangent"].spatial < s or answers[n, "0.0"]["tangent"].total < t
    ]
    print(
        "\nexpected of tangent with the zero baseline: hidden 2 1.00/1.00, hidden 1 >= .99/.93, Fourier features >= .90/.99:",
        "missed " + ", ".join(missed) if missed else "met",
    )


if __name__ == "__main__":
    main(sys.argv[1])
