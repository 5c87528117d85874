import pytest
import torch
import torch.nn.functional as F

from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.pack import deflated, delta, nearest, places_of


def wide(tensor):
    return tensor.to(torch.int64)


def test_what_goes_in_comes_out(three):
    packed = pack_units(three)
    assert packed.top.shape == packed.shares.shape == (1, 4, 8, 3)
    assert wide(packed.top)[0, 0, 0].tolist() == [0, 2, 1] and wide(packed.top)[0, 0, 7].tolist() == [1, 2, 0]
    left, right = wide(packed.shares)[0, 0, [0, 7]] / 65535
    assert left.tolist() == pytest.approx([0.5 / 0.6, 0.1 / 0.6, 0], abs=1e-5)
    assert right.tolist() == pytest.approx([0.25 / 0.35, 0.1 / 0.35, 0], abs=1e-5)
    assert packed.amounts[:, 0].tolist() == pytest.approx([3 * 16 * 0.5, 3 * 16 * 0.25, 3 * 32 * 0.1])
    torch.testing.assert_close(packed.extremes, torch.tensor([[0, 0.5], [-0.25, 0], [0.1, 0.1]]))
    again = packed.maps[:, 0] / 127 * packed.scale[:, None, None]
    torch.testing.assert_close(again, three.mean(1), atol=1e-6, rtol=0)


def test_shares_and_maps_of_noise(g):
    maps = torch.randn(2, 7, 3, 6, 9, generator=g).double()
    packed = pack_units(maps, k=4)
    strength = maps.abs().sum(2)
    expected = (strength / strength.sum(1, keepdim=True)).topk(4, dim=1)
    assert torch.equal(wide(packed.top), expected.indices.permute(0, 2, 3, 1))
    found = wide(packed.shares) / 65535
    assert float((found - expected.values.permute(0, 2, 3, 1)).abs().max()) <= 0.5 / 65535 + 1e-6
    bright = maps.mean(2).transpose(0, 1).float()
    error = (packed.maps / 127 * packed.scale[:, None, None, None] - bright).abs().amax((1, 2, 3))
    assert bool((error <= packed.scale / 127 * 0.5001).all()), "half a step at most"
    torch.testing.assert_close(packed.amounts, strength.sum((2, 3)).T.float())


def test_many_units_are_ranked_in_pieces(g, monkeypatch):
    maps = torch.randn(30, 1, 5, 6, generator=g)
    whole = pack_units(maps)
    monkeypatch.setattr("xinc_captum.visualizers.explorer.pack.AT_ONCE", 100)
    for name, pieces in pack_units(maps)._asdict().items():
        torch.testing.assert_close(pieces.double(), getattr(whole, name).double(), msg=name)


def test_it_keeps_to_its_room(g):
    maps = F.interpolate(torch.randn(60, 1, 10, 10, generator=g), size=(80, 60), mode="bilinear")
    for room in (30_000, 100_000, 400_000):
        packed = pack_units(maps, room=room)
        bytes_of = sum(deflated(bytes(t.view(torch.uint8).numpy())) for n, t in packed._asdict().items() if n != "maps")
        assert bytes_of + deflated(delta(packed.maps)) < room
    assert pack_units(maps, room=1 << 24).maps.shape[2:] == (80, 60), "all of it where there is room"


def test_smaller_maps_are_means(g):
    maps = torch.randn(400, 1, 16, 16, generator=g)
    packed = pack_units(maps, room=60_000)
    size = packed.maps.shape[2:]
    assert size < (16, 16)
    expected = F.adaptive_avg_pool2d(maps[:, 0], size)
    found = packed.maps[:, 0] / 127 * packed.scale[:, None, None]
    assert float((found - expected).abs().max()) <= float(packed.scale.max()) / 127
    torch.testing.assert_close(packed.extremes[:, 1], maps.amax((1, 2, 3)))


def test_nothing_painted_and_a_single_unit():
    packed = pack_units(torch.zeros(1, 3, 2, 3))
    assert packed.near.shape == (1, 0) and not packed.maps.any() and not wide(packed.shares).any()
    assert all(bool(t.float().isfinite().all()) for t in packed)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 2, 2, 2, 2, 2), (0, 3, 4, 5)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match=r"expected \(units, C, H, W\) or \(frames, units, C, H, W\)"):
        pack_units(torch.zeros(shape))


def test_too_many_units_and_no_numbers():
    with pytest.raises(ValueError, match="1 to 65536 units"):
        pack_units(torch.zeros(65_537, 1, 1, 1))
    with pytest.raises(ValueError, match="units 0 to 1 are not finite"):
        pack_units(torch.full((2, 1, 2, 2), torch.nan))


def test_two_groups_stand_apart_and_the_first_direction_says_so():
    vectors = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 0, 1], [0, 0.1, 1]])
    places, spread = places_of(vectors)
    assert sorted(places[:2, 0].round().tolist() + places[2:, 0].round().tolist()) == [0, 0, 1, 1]
    assert places[0, 0].round() == places[1, 0].round() != places[2, 0].round()
    centred = (vectors - vectors.mean(0)).double()
    variances = torch.linalg.svdvals(centred).square()
    torch.testing.assert_close(spread, (variances / variances.sum())[:2].float())


def test_units_that_are_all_alike_stand_somewhere():
    places, spread = places_of(torch.ones(5, 4))
    assert bool(places.isfinite().all()) and spread.tolist() == [0, 0]


def test_the_order_of_units_does_not_matter(g):
    vectors = torch.rand(40, 9, generator=g)
    order = torch.randperm(40, generator=g)
    torch.testing.assert_close(places_of(vectors[order])[0], places_of(vectors)[0][order], atol=1e-4, rtol=0)


def test_nearest_by_direction_never_itself(g):
    vectors = torch.rand(1100, 6, generator=g)  # more than a piece
    found = nearest(vectors, 3)
    for unit in (0, 7, 1050):
        alike = torch.nn.functional.cosine_similarity(vectors[unit][None], vectors)
        alike[unit] = -2
        assert found[unit].tolist() == alike.topk(3).indices.tolist()
