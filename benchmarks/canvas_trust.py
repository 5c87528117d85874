"""Check ``canvas.trust`` on canvases of fitted networks, correct ones and ones with planted errors.

    python benchmarks/canvas_trust.py        (about two minutes on an idle core)

Planted errors: every unit gets the map of the next one; signs are reversed; the canvas is that of another network.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from xinc_captum import NeuronCanvas
from xinc_captum.inr import FourierMLP, NeRV, Siren, coordinates, fit, fit_video, times
from xinc_captum.zoo.photos import skimage_photo
from xinc_captum.zoo.videos import Sprite, sprite_clip

SIZE = (32, 48)
NETWORKS = {
    "FFN": (lambda seed: FourierMLP(hidden=64, features=64, scale=3.0, seed=seed), 5e-3),
    "FFN, GELU": (lambda seed: FourierMLP(hidden=64, features=64, scale=3.0, activation="gelu", seed=seed), 5e-3),
    "SIREN": (lambda seed: Siren(hidden=64, seed=seed), 1.5e-3),
}


def exchanged(canvas):
    """Give every unit the map of the next one."""
    pairs = getattr(canvas, "pairs", None)

    def after(key):
        return ((key[0] + 1) % pairs[0], key[1]) if pairs else (key + 1) % canvas.units

    def shares(first, last, keys):
        return canvas._shares(first, last, keys if keys is None else [after(key) for key in keys])

    return replace(canvas, _shares=shares)


def say(what, canvas, other=None):
    planted = {"exchanged": exchanged(canvas), "signs": replace(canvas, _shares=lambda *at: -canvas._shares(*at))}
    if other is not None:
        planted["another's"] = replace(canvas, _shares=other._shares)
    told = {"unchanged": canvas, **planted}
    print(
        f"{what:40s}" + "  ".join(f"{k}: {c.trust.verdict} {c.trust.agreement:+.2f}" for k, c in told.items()),
        flush=True,
    )


def pictures(photo):
    where = coordinates(SIZE)
    for name, (make, rate) in NETWORKS.items():
        model, stranger = make(0), make(1)
        fit(model, photo, steps=500, lr=rate, show_progress=False)
        for layer in ("activation1", "activation2"):
            for rule in ("tangent", "secant"):
                mine, other = (NeuronCanvas(m, layer, rule=rule).canvas(where, SIZE) for m in (model, stranger))
                say(f"{name}, {layer}, {rule}", mine, other)
        for layer in ("linear2", "output"):
            method = NeuronCanvas(model, layer, rule="xinc")
            say(f"{name}, {layer}, the paper's", method.canvas(where, SIZE, attribute_to_layer_input=True))


def frames(photo):
    clip = sprite_clip(photo, (Sprite(6, (12, 8), (0, 2)),), 6)
    model = NeRV(SIZE, widths=(8, 12, 10, 8), seed=0)
    fit_video(model, clip.frames, steps=600, show_progress=False)
    for layer in ("stem.activation1", "stem.map", "blocks.0", "blocks.1", "blocks.2"):
        for rule in ("tangent", "secant"):
            say(f"NeRV, {layer}, {rule}", NeuronCanvas(model, layer, rule=rule).canvas(times(6), SIZE))
    for layer in ("blocks.0.conv", "blocks.1.conv", "blocks.2.conv", "head"):
        for rule in ("tangent", "secant", "xinc"):
            method = NeuronCanvas(model, layer, rule=rule, unit="pair")
            say(f"NeRV, kernels of {layer}, {rule}", method.canvas(times(6), SIZE, attribute_to_layer_input=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    small = F.interpolate(skimage_photo("coffee").image[None], size=SIZE, mode="area")[0]
    pictures(small)
    frames(small)
