import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import carried_elsewhere, object_track, preference
from xinc_captum.zoo.sprite import Sprite, sprite_clip


def test_by_hand():
    """Unit 0 goes along with the object, unit 1 always paints pixel 0, unit 2 paints evenly, unit 3 nothing."""
    amounts = torch.zeros(3, 4, 1, 4)
    masks = torch.zeros(3, 1, 1, 4)
    for t in range(3):
        amounts[t, 0, 0, t] = 2.0
        amounts[t, 1, 0, 0] = 1.0
        masks[t, 0, 0, t] = 1
    amounts[:, 2] = 0.5
    track = object_track(amounts, masks)
    assert track.density[:, 0].tolist() == [[2, 1, 0.5, 0], [2, 0, 0.5, 0], [2, 0, 0.5, 0]]
    assert track.matched[:, 0, 0].tolist() == [3, 3, 3], "four times as much as its area"
    assert track.matched[:, 0, 1].tolist() == [3, -1, -1]
    assert track.shuffled[:, 0, 0].tolist() == [-1, -1, -1]
    assert track.shuffled[:, 0, 1].tolist() == [-1, 1, 1], "at two of its other times the object is not there"
    assert track.matched[:, 0, 2].tolist() == track.shuffled[:, 0, 2].tolist() == [0, 0, 0]
    assert track.carried[0, :3].tolist() == pytest.approx([4, 0, 0]), "always the same place is not going along"
    assert track.carried[0, 3].isnan() and track.matched[:, 0, 3].isnan().all()
    assert track.shares[:, 0, 0].tolist() == pytest.approx([1 / 3] * 3)


@given(seed=st.integers(0, 99))
def test_matched_is_the_regions_preference_frame_by_frame(seed):
    g = torch.Generator().manual_seed(seed)
    amounts, masks = torch.rand(3, 4, 5, 6, generator=g), torch.rand(3, 2, 5, 6, generator=g)
    track = object_track(amounts, masks)
    for t in range(3):
        torch.testing.assert_close(track.matched[t], preference(amounts[t], masks[t]).T)
        others = [preference(amounts[t], masks[s]).T for s in range(3) if s != t]
        torch.testing.assert_close(track.shuffled[t], torch.stack(others).mean(0))


def test_out_of_sight_counts_nowhere():
    amounts = torch.rand(3, 2, 2, 3) + 0.1
    masks = torch.ones(3, 1, 2, 3)
    masks[0, ..., 0], masks[1] = 0, 0
    track = object_track(amounts, masks)
    assert track.density[1].isnan().all() and track.matched[1].isnan().all()
    assert track.carried.isfinite().all() and track.shares[1].abs().sum() == 0
    torch.testing.assert_close(track.shuffled[0, 0], preference(amounts[0], masks[2])[:, 0])


def test_an_object_that_stands_still_says_nothing():
    amounts = torch.rand(4, 3, 5, 6)
    assert object_track(amounts, torch.rand(1, 2, 5, 6).expand(4, 2, 5, 6)).carried.abs().max() < 1e-12


def test_a_planted_carrier_is_found_and_elsewhere_none_is():
    clip = sprite_clip(torch.rand(3, 40, 60), (Sprite(5, (10, 8), (0, 4)), Sprite(4, (30, 50), (0, -4))), frames=10)
    g = torch.Generator().manual_seed(0)
    amounts = torch.rand(10, 8, 40, 60, generator=g)
    amounts[:, 3] += 2 * clip.masks[:, 0]
    track = object_track(amounts, clip.masks)
    assert track.carried[0].argmax() == 3 and track.carried[0, 3] > 1
    assert track.carried[1].abs().max() < 0.2, "nobody carries the other one"
    elsewhere = carried_elsewhere(amounts, clip.masks, generator=g, repeats=8)
    assert elsewhere.shape == (8, 2, 8)
    assert track.carried[0, 3] > 5 * elsewhere[:, 0].amax(), "nor is the finding among its own controls"


def test_what_does_not_fit_is_said():
    amounts = torch.rand(3, 2, 4, 5)
    with pytest.raises(ValueError, match=r"masks have shape \(3, 4, 5\) for 3 frames of 4 x 5; .*masks\[:, None\]"):
        object_track(amounts, torch.ones(3, 4, 5))
    with pytest.raises(
        ValueError, match=r"masks have shape \(2, 1, 4, 5\) for 3 frames of 4 x 5; wanted \(3, objects, 4"
    ):
        object_track(amounts, torch.ones(2, 1, 4, 5))
    with pytest.raises(ValueError, match="masks go from 0 to 255"):
        object_track(amounts, 255 * torch.eye(5)[:4].expand(3, 1, 4, 5))
    with pytest.raises(ValueError, match=r"objects \[1\] are at no frame; drop them"):
        object_track(amounts, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(3, 2, 4, 5))
    with pytest.raises(ValueError, match="amounts have 1 frame; wanted at least 2"):
        object_track(amounts[:1], torch.ones(1, 1, 4, 5))


def test_masks_that_are_no_numbers_are_refused():
    masks = torch.ones(3, 1, 2, 2)
    masks[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="masks go from nan to nan"):
        object_track(torch.rand(3, 2, 2, 2), masks)
