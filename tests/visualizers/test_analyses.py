"""Every picture of an analysis: it shows what it was given, its control beside it, and nothing lies over anything."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import (
    Spread,
    association_rows,
    cluster_sheet,
    explained_bars,
    flow_beside_change,
    object_time,
    region_bars,
    spread_curves,
)


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=60)
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)


def given(seed):
    return torch.Generator().manual_seed(seed)


H, W = 12, 18
PHOTO = torch.rand(3, H, W, generator=given(0))


def regions(seed):
    g = given(seed)
    labels = {"cells": torch.arange(H * W).view(H, W) // 9, "objects": torch.randint(-1, 3, (H, W), generator=g)}
    tests = {
        kind: [torch.rand(9, generator=g), *(torch.rand(4, 9, generator=g) / 9).expand(2, 4, 9)] for kind in labels
    }
    return region_bars(tests, labels, PHOTO)


def spread(seed, names=("layer1", "layer2", "layer3", "layer4")):
    g = given(seed)

    def one():
        counts = torch.randint(0, H * W, (2, 7), generator=g)
        running = torch.rand(2, 8, generator=g).cumsum(1) / 9
        needed = torch.randint(0, 7, (2, H, W), generator=g)
        return Spread(counts[0], counts[1], running[0], running[1], needed[0], needed[1])

    return spread_curves({name: one() for name in names}, PHOTO)


def association(seed):
    g = given(seed)
    fields = {name: torch.rand(H, W, generator=g) for name in ("intensity", "edges")}
    rhos = {name: (torch.rand(9, generator=g) - 0.5, torch.rand(5, 9, generator=g) - 0.5) for name in fields}
    rhos["edges"][0][:] = torch.nan
    return association_rows(PHOTO, torch.rand(H, W, generator=g), fields, rhos)


def track(seed, frames=4, objects=2, units=9):
    g = given(seed)
    masks = torch.zeros(frames, objects, H, W)
    for t in range(frames):
        masks[t, :, 3:8, t : t + 5] = 1
    matched, shuffled = torch.randn(2, frames, objects, units, generator=g)
    matched[0, 0, 0] = torch.nan
    names = ["the ball", "the dog", "a bird"][:objects]
    clip, amounts = torch.rand(frames, 3, H, W, generator=g), torch.rand(frames, units, H, W, generator=g)
    elsewhere = torch.randn(4, objects, units, generator=g)
    return object_time(clip, masks, matched, shuffled, amounts, names=names, elsewhere=elsewhere)


def flow(seed, frames=6):
    g = given(seed)
    speed, change = torch.rand(2, frames - 1, H, W, generator=g)
    table = torch.rand(frames - 1, frames - 1, generator=g) - 0.3
    controls = {"frame difference instead": 0.3, "a clip that stands still": float("nan")}
    return flow_beside_change(torch.rand(frames, 3, H, W, generator=g), speed, change, table, controls=controls)


def clusters(seed, positions=True):
    g = given(seed)
    labels = torch.randint(0, 4, (40,), generator=g)
    labels[:4] = torch.arange(4)
    sources = [f"network {i % 4}, layer 2" for i in range(40)]
    facts = {"the same from other seeds": (0.8, 0.2), "clusters are the sources: 1, go across them: 0": (-0.02, 0.0)}
    return cluster_sheet(
        torch.rand(40, H, W, generator=g), labels, PHOTO, sources=sources, facts=facts if positions else None,
        positions=torch.randn(40, 2, generator=g) if positions else None,
    )  # fmt: skip


def explained(seed):
    g = given(seed)
    names = ("motion", "colour", "edge", "position")
    found = {name: (float(torch.rand(1, generator=g)), torch.rand(20, generator=g) / 9) for name in names}
    return explained_bars(found, "not supported here: clusters explain 20 % of motion (5 % by chance), but less")


PICTURES = {
    "regions": regions,
    "spread": spread,
    "association": association,
    "track": track,
    "flow": flow,
    "clusters": clusters,
    "explained": explained,
}
VARIANTS = {
    "spread of one": lambda: spread(1, ("a layer",)),
    "track of many frames": lambda: track(1, 14, 1, 2),
    "flow of three frames": lambda: flow(1, 3),
    "clusters alone": lambda: clusters(1, positions=False),
}


@pytest.mark.parametrize("name", PICTURES)
def test_it_shows_what_it_was_given(name, legible):
    figure = PICTURES[name](1)
    legible(figure)
    first, other = pixels(figure), pixels(PICTURES[name](2))
    assert first.shape != other.shape or (first != other).mean() > 0.002, "other numbers must look different"
    assert (first < 250).any(2).mean() > 0.05, "more than blank paper"


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_lies_over_anything_whatever_the_numbers(name, legible):
    legible(VARIANTS[name]())


def words(figure):
    return " ".join([t.get_text() for t in figure.texts] + [t.get_text() for a in figure.axes for t in a.texts])


def test_regions_say_how_much_beside_both_controls():
    variance, scattered, shifted = torch.full((3,), 0.25), torch.full((2, 3), 0.01), torch.full((2, 3), 0.0625)
    labels = torch.arange(H * W).view(H, W) % 5
    said = words(region_bars({"kind": (variance, scattered, shifted)}, {"kind": labels}, PHOTO))
    assert "kind, 5 regions" in said and "50 %" in said
    assert "25 %   (found: 2.0 × this)" in said and "10 %   (found: 5.0 × this)" in said
    assert said.index("same shapes elsewhere") < said.index("random pixels, same areas")


def test_track_shows_the_best_first_and_what_choosing_helps():
    frames, masks, amounts = torch.rand(3, 3, H, W), torch.ones(3, 1, H, W), torch.rand(3, 4, H, W)
    matched = torch.tensor([0.1, 0.9, -0.5, 0.4]).expand(3, 1, 4)
    elsewhere = torch.tensor([[[0.3, 0.0, 0.0, 0.1]], [[0.0, 0.2, 0.0, 0.1]], [[0.0, 0.1, 0.0, 0.0]]])
    figure = object_time(
        frames, masks, matched, 0 * matched, amounts, names=["ball"], elsewhere=elsewhere, shown=2, layer="h"
    )
    said = words(figure)
    assert "unit 1" in said and "unit 3" in said and "unit 0" not in said and "+0.90" in said
    assert "control: under its" in said and "masks of other" in said
    assert "+0.90; control, the best of the 4 units along the same path elsewhere: +0.20 (at most +0.30 in 3" in said


def test_motion_says_what_is_matched_shuffled_and_still():
    table = torch.full((3, 3), 0.1) + 0.4 * torch.eye(3)
    maps = torch.rand(3, H, W)
    said = words(flow_beside_change(torch.rand(4, 3, H, W), maps, maps, table, controls={"still": float("nan")}))
    assert "+0.50" in said and "+0.10" in said and "nothing moves" in said and "other frames (control)" in said


def test_clusters_count_and_name_their_members():
    labels, sources, facts = torch.tensor([0, 0, 0, 2]), ["a", "a", "b", "b"], {"stable": (0.75, 0.125)}
    said = words(
        cluster_sheet(
            torch.rand(4, H, W), labels, PHOTO, sources=sources, units=torch.tensor([4, 5, 6, 7]), facts=facts
        )
    )
    assert "4 units in 2 clusters" in said and "cluster 0: 3 units" in said and "cluster 2: 1 unit" in said
    assert "2 of a" in said and "b, unit 7" in said and "0.75" in said and "0.12 shuffled" in said


def test_the_verdict_is_printed():
    said = words(explained_bars({"motion": (0.5, torch.full((9,), 0.25))}, "not supported here: because"))
    assert "not supported here" in said and "because" in said and "50 %" in said and "25 % by chance" in said


def test_what_does_not_fit_is_said():
    rho = {"edges": (torch.rand(3), torch.rand(2, 3))}
    with pytest.raises(ValueError, match="kinds are cells and labels for none"):
        region_bars({"cells": (torch.rand(2), torch.rand(1, 2), torch.rand(1, 2))}, {}, PHOTO)
    with pytest.raises(ValueError, match=r"labels of cells have shape \(3, 3\)"):
        region_bars({"cells": torch.rand(3, 1, 2)}, {"cells": torch.zeros(3, 3).long()}, PHOTO)
    with pytest.raises(ValueError, match="cells: no unit paints anything"):
        region_bars({"cells": (torch.full((2,), torch.nan),) * 3}, {"cells": torch.zeros(H, W).long()}, PHOTO)
    with pytest.raises(ValueError, match=r"maps of needed units are \{\} for a photo"):
        spread_curves({}, PHOTO)
    with pytest.raises(ValueError, match=r"'edges': \(3, 3\).*wanted \(12, 18\) and the same names"):
        association_rows(PHOTO, torch.rand(H, W), {"edges": torch.rand(3, 3)}, rho)
    with pytest.raises(ValueError, match=r"masks have shape \(2, 1, 12, 18\); wanted \(3, 1, 12, 18\) for 1 names"):
        one = torch.rand(3, 1, 4)
        object_time(torch.rand(3, 3, H, W), torch.ones(2, 1, H, W), one, one, torch.rand(3, 4, H, W), names=["x"])
    with pytest.raises(ValueError, match=r"table \(3, 3\); wanted \(2, 12, 18\) twice and \(2, 2\) for 3 frames"):
        maps = torch.rand(2, H, W)
        flow_beside_change(torch.rand(3, 3, H, W), maps, maps, torch.eye(3), controls={})
    with pytest.raises(ValueError, match="'labels': 2, 'sources': 3, 'units': 3, 'positions': 3"):
        cluster_sheet(torch.rand(3, H, W), torch.zeros(2), PHOTO, sources=["a"] * 3)
    with pytest.raises(ValueError, match="found is empty; give at least one response"):
        explained_bars({}, "")
