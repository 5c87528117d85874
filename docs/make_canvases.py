"""Make the figures and numbers of docs/canvases.md: two networks are fitted to a clip with known masks and flow.

python docs/make_canvases.py        (about ten minutes on an idle core)
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from xinc_captum import NeuronCanvas
from xinc_captum.inr import FourierMLP, Siren, coordinates, fit
from xinc_captum.metrics import (
    as_masks,
    association,
    colour_regions,
    contribution_change,
    control_tracks,
    cumulative_share,
    edges,
    gabor_regions,
    grid_cells,
    intensity,
    magnitudes,
    motion_agreement,
    object_track,
    optical_flow,
    pixels_per_unit,
    region_test,
    shuffle_pixels,
    shuffle_units,
    units_for,
)
from xinc_captum.visualizers import (
    Spread,
    association_rows,
    flow_beside_change,
    object_time,
    region_bars,
    spread_curves,
)
from xinc_captum.zoo.photos import skimage_photo
from xinc_captum.zoo.videos import Sprite, sprite_clip

PICTURES = Path(__file__).parent / "pictures"
SIZE = (12, 64, 96)
NETWORKS = {
    "FFN": lambda: FourierMLP(in_features=3, hidden=64, features=128, scale=3.0, seed=0),
    "SIREN": lambda: Siren(in_features=3, hidden=64, seed=0),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def known_clip():
    photo = F.interpolate(skimage_photo("coffee").image[None], size=SIZE[1:], mode="area")[0]
    red, blue = Sprite(9, (20, 12), (0, 4)), Sprite(8, (52, 84), (-1, -5), (0.15, 0.35, 0.9))
    return sprite_clip(photo, (red, blue), SIZE[0])


def fit_and_explain(clip):
    """Return by network and layer the magnitudes, (frames, units, H, W)."""
    layers = {}
    for name, make in NETWORKS.items():
        model = make()
        rate = 1.5e-3 if name == "SIREN" else 5e-3
        movie = clip.frames.movedim(0, 1)
        done = fit(model, movie, steps=1600, lr=rate, batch_size=12000, seed=0, show_progress=False)
        print(f"{name}: {done.psnr:.1f} dB", flush=True)
        for number in (1, 2):
            canvas = NeuronCanvas(model, f"activation{number}").canvas(coordinates(SIZE), SIZE).to_tensor()
            layers[f"{name}, layer {number}"] = magnitudes(canvas.movedim(2, 0))
    return layers


def save(figure, name):
    figure.savefig(PICTURES / f"{name}.png", dpi=100)
    print("wrote", name, flush=True)


def draw_first_frame(layers, photo, masks):
    """Draw spread, regions and association of the first frame."""
    one = layers["FFN, layer 2"][0]
    spreads = {}
    for name in ("FFN, layer 1", "FFN, layer 2", "SIREN, layer 2"):
        amounts = layers[name][0]
        units, pixels = shuffle_units(amounts, generator()), shuffle_pixels(amounts, generator())
        spreads[name] = Spread(
            pixels_per_unit(amounts), pixels_per_unit(units), cumulative_share(amounts), cumulative_share(pixels),
            units_for(amounts), units_for(pixels),
        )  # fmt: skip
    save(spread_curves(spreads, photo), "spread")
    objects = (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(0) - 1
    labels = {
        "objects": objects,
        "grid cells": grid_cells(SIZE[1:], (4, 8)),
        "colours": colour_regions(photo, 32),
        "textures (Gabor)": gabor_regions(photo, 24),
    }
    tests = {kind: region_test(one, as_masks(where), generator=generator()) for kind, where in labels.items()}
    for kind, test in tests.items():
        print(f"{kind}: variance {test.above_chance:.1f} x scattered, {test.above_elsewhere:.2f} x shifted")
    save(region_bars({kind: test[1:] for kind, test in tests.items()}, labels, photo, layer="FFN, layer 2"), "regions")
    fields = {"intensity": intensity(photo), "edges": edges(photo)}
    associations = {name: association(one, field, generator=generator()) for name, field in fields.items()}
    save(association_rows(photo, one.sum(0), fields, associations, layer="FFN, layer 2"), "association")


def draw_motion(layers, clip):
    """Draw the object tracks and the agreement with motion."""
    for name, amounts in layers.items():
        track, elsewhere = (
            object_track(amounts, clip.masks),
            control_tracks(amounts, clip.masks, generator=generator(1)),
        )
        best, chance = track.carried.nan_to_num().amax(1), elsewhere.nan_to_num().amax(2).median(0).values
        print(f"{name}: carried {best.tolist()}, displaced {chance.tolist()}")
        if name == "FFN, layer 2":
            names = ["the red disc", "the blue disc"]
            tables = (track.matched, track.shuffled, amounts)
            figure = object_time(clip.frames, clip.masks, *tables, names=names, elsewhere=elsewhere, layer=name)
            save(figure, "track")
    amounts = layers["FFN, layer 2"]
    change, speed = contribution_change(amounts).sum(1, keepdim=True), clip.flow.norm(dim=1)
    agreement = motion_agreement(change, speed)
    alternatives = {
        "frame difference instead": motion_agreement(change, clip.frames.diff(dim=0).abs().sum(1)),
        "flow estimated by TV-L1": motion_agreement(change, optical_flow(clip.frames).norm(dim=1)),
        "a clip that stands still": motion_agreement(
            contribution_change(amounts[:1].expand_as(amounts)).sum(1, True), speed
        ),
    }
    controls = {name: float(one.matched) for name, one in alternatives.items()}
    figure = flow_beside_change(
        clip.frames, speed, change[:, 0], agreement.table[0], controls=controls, layer="FFN, layer 2"
    )
    save(figure, "flow")


if __name__ == "__main__":
    torch.set_num_threads(1)
    known = known_clip()
    magnitudes_by_layer = fit_and_explain(known)
    draw_first_frame(magnitudes_by_layer, known.frames[0], known.masks[0])
    draw_motion(magnitudes_by_layer, known)
