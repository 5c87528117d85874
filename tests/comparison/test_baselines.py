import pytest
import torch

from xinc_captum.comparison import centre_blob, edge_map, random_map

PHOTOS = torch.rand(2, 3, 8, 8)


def test_random_maps_know_only_seed_and_row():
    state = torch.get_rng_state()
    maps = random_map(3)(PHOTOS, 0)
    assert maps.shape == (2, 1, 7, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(random_map(3)(PHOTOS[:1] * 0, 1), maps[:1])
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(random_map(4)(PHOTOS, 0), maps)
    assert random_map(cells=3)(PHOTOS.double(), 0).dtype == torch.float64


def test_the_blob_peaks_in_the_middle_and_fades_alike_on_all_sides():
    (blob,) = centre_blob(0.25)(torch.rand(1, 3, 4, 8), 1)
    assert blob.shape == (4, 8) and blob.max().item() == pytest.approx(blob[1:3, 3:5].min().item())
    torch.testing.assert_close(blob, blob.flip(0).flip(1))
    torch.testing.assert_close(blob[1, 7] / blob[1, 4], torch.exp(torch.tensor((0.0625**2 - 0.4375**2) / 0.125)))


def test_edges_by_hand():
    photo = torch.zeros(1, 3, 3, 4)
    photo[..., 2:] = 1.0  # a step between columns 1 and 2: Sobel gives 4 on both sides of it, nothing elsewhere
    (edges,) = edge_map()(photo, 0)
    assert edges.tolist() == [[0.0, 4.0, 4.0, 0.0]] * 3
    (turned,) = edge_map()(photo.mT, 0)
    assert torch.equal(turned, edges.T)
    assert edge_map()(PHOTOS.double(), 0).dtype == torch.float64
