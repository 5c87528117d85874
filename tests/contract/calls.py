"""One short call of every public class, of every rule, and of lazy results.

Used by the test of memory and by ``benchmarks/leak.py``. Every value of :func:`every_call` is a function without
arguments that makes its own objects, calls them, and returns the result.
"""

import tempfile
from pathlib import Path

import torch
from contract.methods import METHODS, PAINT, Net, linked
from torch import nn

from xinc_captum import (
    Ablation,
    FeatureAccentuation,
    LatentLink,
    LayerContribution,
    LinkedUnitVisualization,
    NeRN,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    Secant,
    TokenContribution,
    TransINR,
    as_explanation,
    canvases,
    capture,
    compare,
    open_canvas,
    patch,
    untouched,
)
from xinc_captum.attributions.accentuation import Crops
from xinc_captum.attributions.linking import Pairs
from xinc_captum.inr import coordinates, ray_weights

COMPARED = ("Grad-CAM", "Guided Grad-CAM", "Integrated Gradients", "Feature Accentuation", "random map")


def every_call():
    """From a name to a call; files are written into a temporary folder and removed again."""
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(2, 3, 6, 6)
    calls = {}
    for method in METHODS:
        calls[method.name] = lambda m=method: m.on(net).attribute(x, **m.of(1))
        if "delta" in method.promises:
            calls[f"{method.name}, delta"] = lambda m=method: m.on(net).attribute(
                x, **m.of(1), return_convergence_delta=True
            )
        if "perturb" in method.promises:
            dose = method.dose
            calls[f"{method.name}, perturb"] = lambda m=method, d=dose: m.on(net).perturb(
                x, **m.perturbed, **{d[0]: d[2]}
            )
    return calls | _canvases() | _accentuations(net, x) | _links(net, x) | _written() | _rest(net, x)


def _queries(canvas, unit=0):
    """All that a canvas computes later."""
    found = [canvas.map(unit), canvas.totals(), canvas.to_tensor(), canvas.top_units(1), canvas.trust]
    whole = torch.ones(1, *canvas.size)
    found += [canvas.regions(whole), canvas.regions(whole, signed=True), canvas.share(whole)]
    return [*found, canvas.pooled((2, 2))]


def _decoder():
    return nn.Sequential(
        nn.Linear(1, 24), nn.Unflatten(1, (2, 3, 4)), nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2), nn.GELU(),
        nn.Conv2d(2, 3, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip


def _canvases():
    field = nn.Sequential(nn.Linear(2, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Sigmoid())
    decoder = _decoder()
    points, times = coordinates((6, 8)), torch.rand(2, 1)
    rules = {"tangent": "tangent", "secant": "secant", "ablation": "ablation"}
    rules |= {"ablation mean": Ablation("mean"), "ablation resample": Ablation("resample")}
    calls = {}
    for name, rule in rules.items():
        calls[f"Canvas {name}"] = lambda r=rule: _queries(NeuronCanvas(field, "3", rule=r).canvas(points, (6, 8)))
        calls[f"FrameCanvas {name}"] = lambda r=rule: _queries(NeuronCanvas(decoder, "4", rule=r).canvas(times, (6, 8)))
        if "ablation" not in name or name == "ablation":
            calls[f"pairs {name}"] = lambda r=rule: NeuronCanvas(field, "2", rule=r, unit="pair").attribute(points)
            calls[f"FrameCanvas pairs {name}"] = lambda r=rule: _queries(
                NeuronCanvas(decoder, "2", rule=r, unit="pair").canvas(times, (6, 8)), (0, 0)
            )
    calls["FrameCanvas xinc"] = lambda: (
        NeuronCanvas(decoder, "2", rule="xinc", unit="pair")
        .canvas(times, (6, 8), attribute_to_layer_input=True)
        .totals()
    )
    calls["canvases"] = lambda: [c.totals() for c in canvases(field, ["1", "3"], points, (6, 8)).values()]
    calls["canvases secant"] = lambda: [
        c.totals() for c in canvases(field, ["1", "3"], points, (6, 8), rule="secant").values()
    ]
    calls["small memory_budget"] = lambda: NeuronCanvas(field, "3").attribute(points, memory_budget=4000)

    ray_field = nn.Sequential(nn.Linear(3, 6), nn.SiLU(), nn.Linear(6, 4))
    rays = torch.rand(4, 5, 3)

    def render(answers, _points):
        return (ray_weights(answers[..., 3:].sigmoid(), 0.4) * answers[..., :3]).sum(1)

    for name, rule in {"tangent": "tangent", "halves": Secant(products="halves"), "ablation": "ablation"}.items():
        calls[f"render {name}"] = lambda r=rule: NeuronCanvas(ray_field, "1", rule=r, render=render).attribute(rays)

    def stored():
        with tempfile.TemporaryDirectory() as folder:
            canvas = NeuronCanvas(field, "3").canvas(points, (6, 8))
            return _queries(open_canvas(canvas.save(Path(folder) / "canvas")))[:-1]

    calls["open_canvas"] = stored
    return calls


def _accentuations(net, x):
    quick = {"n_steps": 2, "transforms": (Crops(1),)}
    natural, other = torch.rand(3, 3, 6, 6), Net().eval()

    def trust(method, key):
        found = method.accentuate(x, key, natural=natural, transfer=other, **quick)
        return found, found.trust

    return {
        "accentuate, trust": lambda: trust(FeatureAccentuation(net), 1),
        "accentuate neuron, trust": lambda: trust(NeuronFeatureAccentuation(net, "relu"), 1),
        "accentuate, dose": lambda: FeatureAccentuation(net).accentuate(x, 1, dose=0.01, **quick),
        "accentuate, contrast": lambda: FeatureAccentuation(net).accentuate(x, 1, contrast=2, **quick),
        "accentuate, contrast model": lambda: FeatureAccentuation(net).accentuate(x, 1, contrast=other, **quick),
        "accentuate, noise": lambda: FeatureAccentuation(net).accentuate(None, 1, shape=(1, 3, 6, 6), **quick),
        "accentuate, chunks": lambda: FeatureAccentuation(net).accentuate(x, 1, internal_batch_size=1, **quick),
    }


def _links(net, x):
    units = linked(net, "relu")
    generator = torch.Generator().manual_seed(3)
    r, w = torch.rand(40, 4, generator=generator), torch.rand(40, 5, generator=generator)
    pairs = Pairs(r, w, torch.arange(40) % 2, torch.rand(40, 3, generator=generator), 1.0, {})

    def fitted():
        link = LatentLink().partial_fit(r[:20], w[:20])
        link = link.merge(LatentLink().partial_fit(r[20:], w[20:])).solve() and LatentLink().fit(r, w)
        return link, link(r), link.score(r, w), link.audit(pairs, pairs)

    def stored():
        with tempfile.TemporaryDirectory() as folder:
            return LatentLink.load(LatentLink().fit(r, w).save(Path(folder) / "link.safetensors"))

    calls = {"LatentLink": fitted, "LatentLink.load": stored}
    manifest = {"layer": "fc", "attribute_to_neuron_input": True, "pool": "auto"}
    head = LatentLink().fit(torch.rand(40, 16, generator=generator), w, manifest=manifest)
    linear = LinkedUnitVisualization(net, "fc", PAINT, head)
    calls["sweep, trust"] = lambda: (lambda found: (found, found.trust))(units.sweep(x, 2, steps=2))
    for method in ("ray", "latent", "minimal"):
        calls[f"counterfactual {method}, trust"] = lambda m=method: (lambda found: (found, found.trust))(
            linear.counterfactual(x, 1, m)
        )
    return calls


def _written():
    target = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    images = torch.rand(4, 2, 6, 6)
    target(images)
    target.eval()

    def nern():
        made = NeRN(target, hidden=6, levels=4)
        made.fit(images, steps=2, every=1, show_progress=False)
        with tempfile.TemporaryDirectory() as folder:
            made = NeRN.load(made.save(Path(folder) / "nern.safetensors"), target)
        return made.rebuild(), made.size_report(images)

    def trans_inr():
        made = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0)
        made.fit(torch.rand(10, 3, 6, 6), steps=1)
        return made.generate(torch.rand(2, 3, 6, 6)), made.routing(torch.rand(2, 3, 6, 6))

    writer = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0).eval()
    photos = torch.rand(2, 3, 6, 6)
    calls = {"NeRN": nern, "TransINR": trans_inr}
    for level in ("token", "modulation", "patch"):
        calls[f"TokenContribution {level}"] = lambda k=level: TokenContribution(writer, k).attribute(
            photos, target=1, n_steps=2
        )
    calls["TokenContribution composed"] = lambda: TokenContribution(writer, "patch").composed(
        photos, target=1, n_steps=2
    )
    return calls


def _rest(net, x):
    def hooks():
        with untouched(net), capture(net, "relu") as seen, patch(net, "norm", lambda v: v * 2):
            net(x)
        return seen[net.relu]

    def compared(metrics):
        return compare(COMPARED, net, x, 1, layer="relu", rounds=1, steps=2, metrics=metrics, baselines=())

    return {
        "capture, patch, untouched": hooks,
        "as_explanation": lambda: as_explanation(LayerContribution(net, "relu"))((x,), target=1),
        "compare": lambda: compared(["sparseness", "deletion"]),
        "compare, all measures": lambda: compared(["deletion", "insertion", "agreement", "sensitivity", "infidelity"]),
    }
