import pytest
import torch

from xinc_captum.visualizers import Spread, association_rows, cluster_variance_bars, region_bars, spread_curves

H, W = 12, 18


def test_it_shows_what_it_was_given(shows_what_it_was_given, photo):
    def draw(g):
        fields = {name: torch.rand(H, W, generator=g) for name in ("intensity", "edges")}
        rhos = {name: (torch.rand(9, generator=g) - 0.5, torch.rand(5, 9, generator=g) - 0.5) for name in fields}
        rhos["edges"][0][:] = torch.nan
        return association_rows(photo, torch.rand(H, W, generator=g), fields, rhos)

    shows_what_it_was_given(draw)


def test_what_does_not_fit_is_said(photo):
    rho = {"edges": (torch.rand(3), torch.rand(2, 3))}
    with pytest.raises(ValueError, match=r"'edges': \(3, 3\).*expected \(12, 18\) and the same names"):
        association_rows(photo, torch.rand(H, W), {"edges": torch.rand(3, 3)}, rho)


def test_regions_it_shows_what_it_was_given(shows_what_it_was_given, photo):
    def draw(g):
        labels = {"cells": torch.arange(H * W).view(H, W) // 9, "objects": torch.randint(-1, 3, (H, W), generator=g)}
        tests = {
            kind: [torch.rand(9, generator=g), *(torch.rand(4, 9, generator=g) / 9).expand(2, 4, 9)] for kind in labels
        }
        return region_bars(tests, labels, photo)

    shows_what_it_was_given(draw)


def test_it_says_how_much_beside_both_controls(words, photo):
    variance, scattered, shifted = torch.full((3,), 0.25), torch.full((2, 3), 0.01), torch.full((2, 3), 0.0625)
    labels = torch.arange(H * W).view(H, W) % 5
    said = words(region_bars({"kind": (variance, scattered, shifted)}, {"kind": labels}, photo))
    assert "kind, 5 regions" in said and "50 %" in said
    assert "25 %   (found: 2.0 × this)" in said and "10 %   (found: 5.0 × this)" in said
    assert said.index("same shapes elsewhere") < said.index("random pixels, same areas")


def test_regions_what_does_not_fit_is_said(photo):
    with pytest.raises(ValueError, match="kinds are cells and labels for none"):
        region_bars({"cells": (torch.rand(2), torch.rand(1, 2), torch.rand(1, 2))}, {}, photo)
    with pytest.raises(ValueError, match=r"labels of cells have shape \(3, 3\)"):
        region_bars({"cells": torch.rand(3, 1, 2)}, {"cells": torch.zeros(3, 3).long()}, photo)
    with pytest.raises(ValueError, match="cells: no unit paints anything"):
        region_bars({"cells": (torch.full((2,), torch.nan),) * 3}, {"cells": torch.zeros(H, W).long()}, photo)


def drawn(g, photo, names=("layer1", "layer2", "layer3", "layer4")):
    def one():
        counts = torch.randint(0, H * W, (2, 7), generator=g)
        running = torch.rand(2, 8, generator=g).cumsum(1) / 9
        needed = torch.randint(0, 7, (2, H, W), generator=g)
        return Spread(counts[0], counts[1], running[0], running[1], needed[0], needed[1])

    return spread_curves({name: one() for name in names}, photo)


def test_spread_it_shows_what_it_was_given(shows_what_it_was_given, photo):
    shows_what_it_was_given(lambda g: drawn(g, photo))


def test_one_layer_is_enough(legible, words, g, photo):
    figure = drawn(g, photo, ("a layer",))
    legible(figure)
    assert "a layer" in words(figure)


def test_what_is_as_by_chance_is_known():
    even, running, map_of = torch.full((4,), 25), torch.linspace(0, 1, 5), torch.ones(10, 10)
    apart, rises = torch.tensor([40, 30, 20, 10]), running.sqrt()
    told = Spread(apart, even, rises, running, map_of, map_of)
    assert told.places and told.few
    by_chance = Spread(even + torch.tensor([5, -5, 0, 0]), even, running**2, running, map_of, map_of)
    assert not by_chance.places, "five of a hundred pixels apart"
    assert not by_chance.few, "below its control: each pixel takes more units, not fewer"


def test_spread_what_does_not_fit_is_said(photo):
    with pytest.raises(ValueError, match=r"maps of needed units are \{\} for a photo"):
        spread_curves({}, photo)


def test_explained_it_shows_what_it_was_given(shows_what_it_was_given):
    def draw(g):
        names = ("motion", "colour", "edge", "position")
        found = {name: (float(torch.rand(1, generator=g)), torch.rand(20, generator=g) / 9) for name in names}
        return cluster_variance_bars(
            found, "not supported here: clusters explain 20 % of motion (5 % by chance), but less"
        )

    shows_what_it_was_given(draw)


def test_the_verdict_is_printed(words):
    said = words(cluster_variance_bars({"motion": (0.5, torch.full((9,), 0.25))}, "not supported here: because"))
    assert "not supported here" in said and "because" in said and "50 %" in said and "25 % by chance" in said


def test_explained_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="found is empty; give at least one response"):
        cluster_variance_bars({}, "")
