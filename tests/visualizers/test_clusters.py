import pytest
import torch

from xinc_captum.visualizers import cluster_sheet

H, W = 12, 18


def drawn(g, photo, positions=True):
    labels = torch.randint(0, 4, (40,), generator=g)
    labels[:4] = torch.arange(4)
    sources = [f"network {i % 4}, layer 2" for i in range(40)]
    facts = {"the same from other seeds": (0.8, 0.2), "clusters are the sources: 1, go across them: 0": (-0.02, 0.0)}
    return cluster_sheet(
        torch.rand(40, H, W, generator=g), labels, photo, sources=sources, facts=facts if positions else None,
        positions=torch.randn(40, 2, generator=g) if positions else None,
    )  # fmt: skip


def test_cluster_sheet_depends_on_its_input(depends_on_input, photo):
    depends_on_input(lambda g: drawn(g, photo))


def test_cluster_sheet_without_overview_is_legible(legible, g, photo):
    legible(drawn(g, photo, positions=False))


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
    with pytest.raises(ValueError, match="'labels': 2, 'sources': 3, 'units': 3, 'positions': 3"):
        cluster_sheet(torch.rand(3, H, W), torch.zeros(2), photo, sources=["a"] * 3)
