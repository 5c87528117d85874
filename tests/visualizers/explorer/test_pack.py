import pytest
import torch
import torch.nn.functional as F

from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.pack import deflate_size, delta, nearest, places_of


def as_long(tensor):
    return tensor.to(torch.int64)


def test_packed_numbers_of_known_maps(three):
    packed = pack_units(three)
    assert packed.top.shape == packed.shares.shape == (1, 4, 8, 3)
    assert as_long(packed.top)[0, 0, 0].tolist() == [0, 2, 1] and as_long(packed.top)[0, 0, 7].tolist() == [1, 2, 0]
    left, right = as_long(packed.shares)[0, 0, [0, 7]] / 65535
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
    assert torch.equal(as_long(packed.top), expected.indices.permute(0, 2, 3, 1))
    values = as_long(packed.shares) / 65535
    assert float((values - expected.values.permute(0, 2, 3, 1)).abs().max()) <= 0.5 / 65535 + 1e-6
    bright = maps.mean(2).transpose(0, 1).float()
    error = (packed.maps / 127 * packed.scale[:, None, None, None] - bright).abs().amax((1, 2, 3))
    assert bool((error <= packed.scale / 127 * 0.5001).all()), "half a step at most"
    torch.testing.assert_close(packed.amounts, strength.sum((2, 3)).T.float())


def test_batches_do_not_change_the_result(g, monkeypatch):
    maps = torch.randn(30, 1, 5, 6, generator=g)
    at_a_time = pack_units(maps)
    monkeypatch.setattr("xinc_captum.visualizers.explorer.pack.BATCH_NUMBERS", 100)
    for name, pieces in pack_units(maps)._asdict().items():
        torch.testing.assert_close(pieces.double(), getattr(at_a_time, name).double(), msg=name)


def test_packed_size_is_below_the_limit(g):
    maps = F.interpolate(torch.randn(60, 1, 10, 10, generator=g), size=(80, 60), mode="bilinear")
    for room in (30_000, 100_000, 400_000):
        packed = pack_units(maps, room=room)
        bytes_of = sum(
            deflate_size(bytes(t.view(torch.uint8).numpy())) for n, t in packed._asdict().items() if n != "maps"
        )
        assert bytes_of + deflate_size(delta(packed.maps)) < room
    assert pack_units(maps, room=1 << 24).maps.shape[2:] == (80, 60), "all pixels if they fit"


def test_reduced_maps_are_means(g):
    maps = torch.randn(400, 1, 16, 16, generator=g)
    packed = pack_units(maps, room=60_000)
    size = packed.maps.shape[2:]
    assert size < (16, 16)
    expected = F.adaptive_avg_pool2d(maps[:, 0], size)
    values = packed.maps[:, 0] / 127 * packed.scale[:, None, None]
    assert float((values - expected).abs().max()) <= float(packed.scale.max()) / 127
    torch.testing.assert_close(packed.extremes[:, 1], maps.amax((1, 2, 3)))


def test_zero_contributions_and_a_single_unit():
    packed = pack_units(torch.zeros(1, 3, 2, 3))
    assert packed.near.shape == (1, 0) and not packed.maps.any() and not as_long(packed.shares).any()
    assert all(bool(t.float().isfinite().all()) for t in packed)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 2, 2, 2, 2, 2), (0, 3, 4, 5)])
def test_pack_units_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match=r"expected \(units, C, H, W\) or \(frames, units, C, H, W\)"):
        pack_units(torch.zeros(shape))


def test_pack_units_rejects_too_many_units_and_nan():
    with pytest.raises(ValueError, match="1 to 65536 units"):
        pack_units(torch.zeros(65_537, 1, 1, 1))
    with pytest.raises(ValueError, match="units 0 to 1 are not finite"):
        pack_units(torch.full((2, 1, 2, 2), torch.nan))


def test_two_groups_are_separated_by_the_first_component():
    vectors = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 0, 1], [0, 0.1, 1]])
    places, spread = places_of(vectors)
    assert sorted(places[:2, 0].round().tolist() + places[2:, 0].round().tolist()) == [0, 0, 1, 1]
    assert places[0, 0].round() == places[1, 0].round() != places[2, 0].round()
    centred = (vectors - vectors.mean(0)).double()
    variances = torch.linalg.svdvals(centred).square()
    torch.testing.assert_close(spread, (variances / variances.sum())[:2].float())


def test_equal_units_have_finite_positions():
    places, spread = places_of(torch.ones(5, 4))
    assert bool(places.isfinite().all()) and spread.tolist() == [0, 0]


def test_the_order_of_units_does_not_matter(g):
    vectors = torch.rand(40, 9, generator=g)
    order = torch.randperm(40, generator=g)
    torch.testing.assert_close(places_of(vectors[order])[0], places_of(vectors)[0][order], atol=1e-4, rtol=0)


def test_nearest_excludes_the_unit_itself(g):
    vectors = torch.rand(1100, 6, generator=g)  # more than one batch
    values = nearest(vectors, 3)
    for unit in (0, 7, 1050):
        alike = torch.nn.functional.cosine_similarity(vectors[unit][None], vectors)
        alike[unit] = -2
        assert values[unit].tolist() == alike.topk(3).indices.tolist()
