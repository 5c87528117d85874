import pytest
import torch

from xinc_captum.visualizers import (
    Spread,
    association_rows,
    cluster_sheet,
    cluster_variance_bars,
    region_bars,
    spread_curves,
)

H, W = 12, 18


def test_association_rows_depend_on_their_input(depends_on_input, photo):
    def draw(g):
        fields = {name: torch.rand(H, W, generator=g) for name in ("intensity", "edges")}
        rhos = {name: (torch.rand(9, generator=g) - 0.5, torch.rand(5, 9, generator=g) - 0.5) for name in fields}
        rhos["edges"][0][:] = torch.nan
        return association_rows(photo, torch.rand(H, W, generator=g), fields, rhos)

    depends_on_input(draw)


def test_association_rows_reject_wrong_maps(photo):
    rho = {"edges": (torch.rand(3), torch.rand(2, 3))}
    with pytest.raises(ValueError, match=r"field edges has shape \(3, 3\); expected \(H, W\) with H = 12, W = 18"):
        association_rows(photo, torch.rand(H, W), {"edges": torch.rand(3, 3)}, rho)


def test_region_bars_depend_on_their_input(depends_on_input, photo):
    def draw(g):
        labels = {"cells": torch.arange(H * W).view(H, W) // 9, "objects": torch.randint(-1, 3, (H, W), generator=g)}
        tests = {
            kind: [torch.rand(9, generator=g), *(torch.rand(4, 9, generator=g) / 9).expand(2, 4, 9)] for kind in labels
        }
        return region_bars(tests, labels, photo)

    depends_on_input(draw)


def test_region_bars_show_both_controls(words, photo):
    variance, scattered, shifted = torch.full((3,), 0.25), torch.full((2, 3), 0.01), torch.full((2, 3), 0.0625)
    labels = torch.arange(H * W).view(H, W) % 5
    said = words(region_bars({"kind": (variance, scattered, shifted)}, {"kind": labels}, photo))
    assert "kind, 5 regions" in said and "50 %" in said
    assert "25 %   (units: 2.0 × this)" in said and "10 %   (units: 5.0 × this)" in said
    assert said.index("same shapes elsewhere") < said.index("random pixels, same areas")


def test_region_bars_reject_wrong_inputs(photo):
    with pytest.raises(ValueError, match="kinds are cells and labels for none"):
        region_bars({"cells": (torch.rand(2), torch.rand(1, 2), torch.rand(1, 2))}, {}, photo)
    with pytest.raises(ValueError, match=r"labels of cells has shape \(3, 3\); expected \(H, W\) with H = 12, W = 18"):
        region_bars({"cells": torch.rand(3, 1, 2)}, {"cells": torch.zeros(3, 3).long()}, photo)
    with pytest.raises(ValueError, match="variances of cells have no finite value; expected at least one"):
        region_bars({"cells": (torch.full((2,), torch.nan),) * 3}, {"cells": torch.zeros(H, W).long()}, photo)


def drawn(g, photo, names=("layer1", "layer2", "layer3", "layer4")):
    def one():
        counts = torch.randint(0, H * W, (2, 7), generator=g)
        running = torch.rand(2, 8, generator=g).cumsum(1) / 9
        needed = torch.randint(0, 7, (2, H, W), generator=g)
        return Spread(counts[0], counts[1], running[0], running[1], needed[0], needed[1])

    return spread_curves({name: one() for name in names}, photo)


def test_spread_curves_depend_on_their_input(depends_on_input, photo):
    depends_on_input(lambda g: drawn(g, photo))


def test_spread_curves_accept_one_layer(legible, words, g, photo):
    figure = drawn(g, photo, ("a layer",))
    legible(figure)
    assert "a layer" in words(figure)


def test_spread_is_compared_with_its_control():
    even, running, map_of = torch.full((4,), 25), torch.linspace(0, 1, 5), torch.ones(10, 10)
    apart, rises = torch.tensor([40, 30, 20, 10]), running.sqrt()
    told = Spread(apart, even, rises, running, map_of, map_of)
    assert told.places and told.few
    by_chance = Spread(even + torch.tensor([5, -5, 0, 0]), even, running**2, running, map_of, map_of)
    assert not by_chance.places, "five of a hundred pixels apart"
    assert not by_chance.few, "below its control: a pixel needs more units, not fewer"


def test_spread_curves_reject_empty_input(photo):
    with pytest.raises(ValueError, match="layers is empty; expected the statistics of at least one layer"):
        spread_curves({}, photo)


def test_cluster_variance_bars_depend_on_their_input(depends_on_input):
    def draw(g):
        names = ("motion", "colour", "edge", "position")
        found = {name: (float(torch.rand(1, generator=g)), torch.rand(20, generator=g) / 9) for name in names}
        return cluster_variance_bars(
            found,
            "not supported here: clusters explain 20 % of the variance of motion (shuffled labels: 5 %), but less",
        )

    depends_on_input(draw)


def test_cluster_variance_bars_show_the_verdict(words):
    said = words(cluster_variance_bars({"motion": (0.5, torch.full((9,), 0.25))}, "not supported here: because"))
    assert "not supported here" in said and "because" in said and "50 %" in said and "25 % by chance" in said


def test_cluster_variance_bars_reject_empty_input():
    with pytest.raises(ValueError, match="shares is empty; expected at least one response"):
        cluster_variance_bars({}, "")


def clusters(g, photo, positions=True):
    labels = torch.randint(0, 4, (40,), generator=g)
    labels[:4] = torch.arange(4)
    sources = [f"network {i % 4}, layer 2" for i in range(40)]
    facts = {"the same from other seeds": (0.8, 0.2), "clusters are the sources: 1, go across them: 0": (-0.02, 0.0)}
    return cluster_sheet(
        torch.rand(40, H, W, generator=g), labels, photo, sources=sources, facts=facts if positions else None,
        positions=torch.randn(40, 2, generator=g) if positions else None,
    )  # fmt: skip


def test_cluster_sheet_depends_on_its_input(depends_on_input, photo):
    depends_on_input(lambda g: clusters(g, photo))


def test_cluster_sheet_without_overview_is_legible(legible, g, photo):
    legible(clusters(g, photo, positions=False))


def test_clusters_are_counted_and_their_members_named(words, photo):
    labels, sources, facts = torch.tensor([0, 0, 0, 2]), ["a", "a", "b", "b"], {"stable": (0.75, 0.125)}
    said = words(
        cluster_sheet(
            torch.rand(4, H, W), labels, photo, sources=sources, units=torch.tensor([4, 5, 6, 7]), facts=facts
        )
    )
    assert "4 units in 2 clusters" in said and "cluster 0: 3 units" in said and "cluster 2: 1 unit" in said
    assert "2 of a" in said and "b, unit 7" in said and "0.75" in said and "0.12 shuffled" in said


def test_cluster_sheet_rejects_wrong_lengths(photo):
    with pytest.raises(ValueError, match=r"labels has shape \(2,\); expected \(units\) with units = 3"):
        cluster_sheet(torch.rand(3, H, W), torch.zeros(2), photo, sources=["a"] * 3)
