import pytest
import torch
from torch import nn

from xinc_captum.metrics import noisy_linear_imputation, removal_order, road, target_score


class Left(nn.Module):
    """Class 1 is how much the left half flickers."""

    def forward(self, x):
        flicker = x[..., : x.shape[-1] // 2].diff(dim=-2).abs().mean((1, 2, 3))
        return torch.stack([0 * flicker, 20 * flicker - 3], 1)


PHOTOS = torch.rand(2, 3, 12, 12)
LEFT = torch.zeros(2, 12, 12)
LEFT[..., :6] = 1


def test_it_is_the_mean_difference_of_the_two_orders():
    maps = torch.rand(2, 12, 12)
    places, total = removal_order(maps), 0
    for share in (0.25, 0.5):
        count = round(share * 144)
        least, most = (noisy_linear_imputation(PHOTOS, gone) for gone in (places >= 144 - count, places < count))
        total = total + target_score(Left(), least, 1) - target_score(Left(), most, 1)
    torch.testing.assert_close(road(Left(), PHOTOS, maps, 1, shares=(0.25, 0.5)), total / 4)


def test_who_points_at_the_flicker_scores_and_who_points_away_pays():
    right, wrong = road(Left(), PHOTOS, LEFT, 1), road(Left(), PHOTOS, 1 - LEFT, 1)
    assert (right > 0.2).all() and (wrong < -0.2).all()
    assert road(Left(), PHOTOS, LEFT, [1, 0])[1] < 0


def test_only_the_order_counts_and_rows_are_their_own():
    maps = torch.rand(2, 12, 12)
    whole = road(Left(), PHOTOS, maps, 1)
    torch.testing.assert_close(road(Left(), PHOTOS, maps.exp(), 1), whole)
    torch.testing.assert_close(road(Left(), PHOTOS[:1], maps[:1], 1), whole[:1], atol=1e-3, rtol=0)


def test_a_map_that_is_not_finite_has_no_score():
    maps = torch.rand(2, 12, 12)
    maps[1, 0, 0] = torch.nan
    assert road(Left(), PHOTOS, maps, 1).isnan().tolist() == [False, True]


def test_the_model_is_left_as_found(conv, found):
    photos, maps, before = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), found(conv)
    road(conv, photos, maps, 1)
    assert before.differences(conv) == []


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"maps \(2, 6, 6\); wanted \(N, C, H, W\) and \(N, H, W\)"):
        road(Left(), PHOTOS, torch.rand(2, 6, 6), 1)
    with pytest.raises(ValueError, match=r"maps \(0, .*\); wanted .* at least one"):
        road(Left(), PHOTOS[:0], LEFT[:0], 1)
    with pytest.raises(ValueError, match="rows_at_once is 0; wanted at least 1"):
        road(Left(), PHOTOS, LEFT, 1, rows_at_once=0)
    for shares in ((), (0.5, 1.0), (0.0,)):
        with pytest.raises(ValueError, match="wanted at least one, each above 0 and below 1"):
            road(Left(), PHOTOS, LEFT, 1, shares=shares)
    with pytest.raises(IndexError, match="target 5 is no class"):
        road(Left(), PHOTOS, LEFT, 5)
