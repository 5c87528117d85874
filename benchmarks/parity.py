"""Compare rule="xinc" with arrays recorded from XINC's released code: every array within atol 2e-6, rtol 1e-5.

python benchmarks/parity.py FOLDER    (the folder contains xinc_ffn.npz and xinc_ffn_small.npz)
"""

import sys

import numpy as np
import torch
from reference import load, network

from xinc_captum import NeuronCanvas
from xinc_captum.hooks import capture
from xinc_captum.inr import coordinates

ATOL, RTOL = 2e-6, 1e-5


def check(name: str, ours: torch.Tensor, theirs: np.ndarray, worst: dict) -> None:
    theirs = torch.from_numpy(np.array(theirs))
    off = (ours.double() - theirs.double()).abs()
    worst[name] = float((off / (ATOL + RTOL * theirs.double().abs())).max())


def moments(maps: torch.Tensor) -> torch.Tensor:
    """Return sum, Σ|·|, Σ(·)², min and max over the pixels, (…, 5)."""
    flat = maps.double().flatten(-2)
    return torch.stack([flat.sum(-1), flat.abs().sum(-1), flat.square().sum(-1), flat.amin(-1), flat.amax(-1)], -1)


def maps_of(model, x, size) -> dict:
    def canvas(layer, **kwargs):
        return NeuronCanvas(model, layer, rule="xinc", **kwargs).attribute(x, attribute_to_layer_input=True)

    with capture(model, ["encoding", "activation1", "activation2"]) as seen:
        output = model(x)
    found = {
        "encoded": seen[model.encoding],
        "h1": seen[model.activation1],
        "h2": seen[model.activation2],
        "output": output,
        "layer1": canvas("linear1"),
        "layer2": canvas("linear2"),
        "layer3_rgb": canvas("output"),
        "c12": canvas("linear1", unit="pair"),
        "c23": canvas("linear2", unit="pair"),
    }
    found = {k: v.detach() for k, v in found.items()}
    found["layer3"] = found["layer3_rgb"].sum(-1)
    for k in ("layer1", "layer2", "layer3"):
        found[k] = found[k].T.unflatten(1, size)
    found["layer3_rgb"] = found["layer3_rgb"].permute(1, 2, 0).unflatten(2, size)
    return found


def small(folder: str) -> dict:
    recorded, worst = load(folder, "xinc_ffn_small"), {}
    size = tuple(recorded["hw"].tolist())
    model, x = network(recorded), coordinates(size)
    check("coords", x, recorded["coords"], worst)
    found = maps_of(model, x, size)
    for k in ("c12", "c23"):
        found[k] = found[k].permute(1, 2, 0)
    for k, ours in found.items():
        check(k, ours, recorded[k], worst)
    return worst


def full(folder: str) -> dict:
    recorded, worst = load(folder), {}
    size, s = tuple(recorded["hw"].tolist()), int(recorded["stride"])
    model, x = network(recorded), coordinates(size)
    check("coords", x.unflatten(0, size)[::s, ::s], recorded["coords"], worst)
    check("coords_first4", x[:4], recorded["coords_first4"], worst)
    pixels = torch.from_numpy(recorded["pix"])
    for k in ("c12", "c23"):
        pair = NeuronCanvas(model, {"c12": "linear1", "c23": "linear2"}[k], rule="xinc", unit="pair")
        check(
            f"{k}_pix",
            pair.attribute(x[pixels], attribute_to_layer_input=True).permute(1, 2, 0),
            recorded[f"{k}_pix"],
            worst,
        )
    found = maps_of_without_pairs(model, x, size)
    for k, ours in found.items():
        check(k, ours if k == "output" else ours[..., ::s, ::s], recorded[k], worst)
        if f"{k}_moments" in recorded.files:
            check(f"{k}_moments", moments(ours), recorded[f"{k}_moments"], worst)
    return worst


def maps_of_without_pairs(model, x, size) -> dict:
    canvas = {
        k: NeuronCanvas(model, k, rule="xinc").attribute(x, attribute_to_layer_input=True)
        for k in ("linear1", "linear2", "output")
    }
    with capture(model, ["encoding", "activation1", "activation2"]) as seen:
        output = model(x).detach()
    flat = {
        "encoded": seen[model.encoding],
        "h1": seen[model.activation1],
        "h2": seen[model.activation2],
        "layer1": canvas["linear1"],
        "layer2": canvas["linear2"],
        "layer3": canvas["output"].sum(-1),
    }
    found = {k: v.detach().T.unflatten(1, size) for k, v in flat.items()}
    found["layer3_rgb"] = canvas["output"].permute(1, 2, 0).unflatten(2, size)
    return {**found, "output": output.unflatten(0, size)}


if __name__ == "__main__":
    for run in (small, full):
        worst = run(sys.argv[1])
        print(f"{run.__name__}: largest |ours - recorded| / (atol + rtol |recorded|), expected <= 1")
        for name, value in worst.items():
            print(f"  {name:20s} {value:8.3f}")
        if max(worst.values()) > 1:
            sys.exit("not within tolerance")
