"""Measure the time of each method on each kind of model, as in the first tables of docs/benchmarks.md.

    python benchmarks/latency.py [--rounds 5] [--device cpu] [--threads N]        (some minutes; extras demo and peers)

Wall time, the median over rounds in which the methods run in turns, after one run that is not counted. A method whose
first run takes over five seconds is not run again, and that run is its time. Weights are random except for those that
ship in packages: the time does not depend on them.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import nn

from xinc_captum import (
    FeatureAccentuation,
    FeatureActivationMap,
    LayerContribution,
    LinkedUnitVisualization,
    NeRN,
    NeuronCanvas,
    TokenContribution,
    WeightContribution,
    layer_to_grid,
)
from xinc_captum.comparison import last_map
from xinc_captum.comparison.compare import bind_method
from xinc_captum.comparison.registry import by_name

PHOTO, VIDEO, TARGET = 224, (128, 256), 1
LONG = 5.0  # seconds, of a run that is not repeated
NAMED = ("Grad-CAM", "Guided Grad-CAM", "grad-cam", "torchcam", "Integrated Gradients")
Jobs = dict[str, Callable[[], object]]


def classifiers():
    """Return by name the network, and the layer of its maps."""
    from torchvision.models import resnet18, resnet50, vit_b_16

    from xinc_captum.zoo import efficientnet_lite0, squeezenet1_1

    vit = vit_b_16(weights=None)
    nn.init.normal_(vit.heads.head.weight, std=0.02)  # torchvision leaves it at zero, where no class has a gradient
    return {
        "SqueezeNet 1.1": (squeezenet1_1().model, None),
        "EfficientNet-Lite0": (efficientnet_lite0().model, None),
        "ResNet-18": (resnet18(weights=None), "layer4"),
        "ResNet-50": (resnet50(weights=None), "layer4"),
        "ViT-B/16": (vit, "encoder.layers.encoder_layer_10"),
    }


def on_a_photo(model: nn.Module, layer: str | None, device: str) -> Jobs:
    x = torch.rand(1, 3, PHOTO, PHOTO, generator=torch.Generator().manual_seed(0)).to(device)
    place = last_map(model, x) if layer is None else layer
    tokens = isinstance(layer, str) and "encoder" in layer
    grid = {"layer_to_grid": layer_to_grid} if tokens else {}
    names = [name for name in NAMED if not tokens or name == "Integrated Gradients"]
    found = by_name(names, model, x, None, place, 0)
    jobs: Jobs = {"forward pass": partial(_forward, model, x)}
    jobs |= {name: partial(bind_method(one, model, None, (PHOTO, PHOTO), 0), x, TARGET) for name, one in found.items()}
    layered = LayerContribution(model, place)
    alike = FeatureActivationMap(model, place, x, **grid)
    accentuation = FeatureAccentuation(model)
    jobs["LayerContribution"] = partial(layered.attribute, x, target=TARGET)
    jobs["FeatureActivationMap"] = partial(alike.attribute, x)
    jobs["FeatureAccentuation"] = partial(accentuation.attribute, x, target=TARGET)
    return jobs


def canvases(device: str) -> dict[str, Jobs]:
    from xinc_captum.inr import FourierMLP, HNeRV, NeRV, Siren, coordinates

    pixels = coordinates(VIDEO).to(device)
    frame = torch.zeros(1, 1, device=device)
    hnerv = HNeRV(VIDEO, seed=0).to(device).eval()
    with torch.no_grad():
        code = hnerv.encoder(torch.rand(1, 3, *VIDEO, device=device))
    cases = {
        "SIREN, 104 wide": (Siren(seed=0), "activation2", pixels),
        "SIREN, 256 wide": (Siren(hidden=256, seed=0), "activation2", pixels),
        "Fourier MLP, 104 wide": (FourierMLP(seed=0), "activation2", pixels),
        "NeRV, a frame": (NeRV(VIDEO, seed=0), "blocks.1", frame),
        "HNeRV, a frame": (hnerv.decoder, "blocks.1", code),
    }
    found = {}
    for name, (model, layer, inputs) in cases.items():
        canvas = NeuronCanvas(model.to(device).eval(), layer)
        drawn = canvas.canvas(inputs, VIDEO)
        units = drawn.units
        found[f"{name} ({units} units)"] = {
            "forward pass": partial(_forward, model, inputs),
            "every unit's map": partial(canvas.attribute, inputs),
            "one unit's map": partial(drawn.map, 3),
            "a pixel's five units": partial(drawn.top_units, 5, (40, 80)),
            "every unit's total": drawn.totals,
        }
    return found


def the_rest() -> Jobs:
    from xinc_captum.attributions.linking import LatentLink, make_pairs
    from xinc_captum.generators import images_in_unit_range
    from xinc_captum.zoo import mnist_convnet, mnist_digits, mnist_generator, mnist_trans_inr

    net, generator, trans_inr = mnist_convnet(), mnist_generator().generator, mnist_trans_inr()
    pairs = make_pairs(net.model, "head", generator, 500)
    link = LatentLink().fit(pairs.representations, pairs.latents, manifest=pairs.manifest)
    digits = images_in_unit_range(generator, pairs.latents[:1]).detach()
    units = LinkedUnitVisualization(net.model, "head", generator, link)
    nern, drawn = NeRN(net.model, hidden=52, seed=0), mnist_digits().images[:1]
    tokens = TokenContribution(trans_inr, "token")
    return {
        "LinkedUnitVisualization.sweep, a digit, five values": partial(units.sweep, digits, 18),
        "LinkedUnitVisualization.counterfactual, a digit": partial(units.counterfactual, digits, target=8),
        "WeightContribution, kernel": WeightContribution(nern, "conv2").attribute,
        "WeightContribution, gradient, a digit": partial(
            WeightContribution(nern, mode="gradient").attribute, digits, target=8
        ),
        "WeightContribution, removal, a digit": partial(
            WeightContribution(nern, mode="removal").attribute, digits, target=8
        ),
        "TokenContribution, token, a digit": partial(tokens.attribute, drawn, layer="linear2"),
        "TokenContribution, modulation, a digit": partial(
            TokenContribution(trans_inr, "modulation").attribute, drawn, n_steps=8
        ),
    }


def _forward(model, x):
    with torch.no_grad():
        return model(x)


def seconds(jobs: Jobs, rounds: int, device: str) -> dict[str, float]:
    """Return the median time of each call; the calls run in turns."""
    first = {name: clocked(job, device) for name, job in jobs.items()}
    spent: dict[str, list[float]] = {name: [] for name in jobs if first[name] < LONG}
    for _ in range(rounds):
        for name, times in spent.items():
            times.append(clocked(jobs[name], device))
    print(", ".join(f"{name} {said(value)}" for name, value in first.items()), file=sys.stderr, flush=True)
    return first | {name: median(times) for name, times in spent.items()}


def clocked(job: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    job()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def said(value: float | None) -> str:
    """Format a time with two digits."""
    if value is None:
        return "–"
    if value >= 0.995:
        return f"{value:.0f} s" if value >= 9.95 else f"{value:.1f} s"
    return f"{1000 * value:.0f} ms" if value >= 0.00995 else f"{1000 * value:.2g} ms"


def table(corner: str, columns: dict[str, dict[str, float]]) -> None:
    rows = list(dict.fromkeys(name for column in columns.values() for name in column))
    print(f"\n| {corner} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for row in rows:
        print(f"| {row} | {' | '.join(said(column.get(row)) for column in columns.values())} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    place = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    print(f"torch {torch.__version__}, {place}, {options.threads} threads, {options.rounds} rounds")
    spend = partial(seconds, rounds=options.rounds, device=options.device)
    found = {
        name: spend(on_a_photo(model.to(options.device).eval(), layer, options.device))
        for name, (model, layer) in classifiers().items()
    }
    table("a photo of 224 x 224", found)
    drawn = {name: spend(jobs) for name, jobs in canvases(options.device).items()}
    table("an image of 128 x 256", drawn)
    table("the package's MNIST models, on the CPU", {"a call": spend(the_rest())})


if __name__ == "__main__":
    main()
