import pytest
import torch

from xinc_captum.visualizers import flow_beside_change

H, W = 12, 18


def drawn(g, frames=6):
    speed, change = torch.rand(2, frames - 1, H, W, generator=g)
    table = torch.rand(frames - 1, frames - 1, generator=g) - 0.3
    controls = {"frame difference instead": 0.3, "a clip that stands still": float("nan")}
    return flow_beside_change(torch.rand(frames, 3, H, W, generator=g), speed, change, table, controls=controls)


def test_it_shows_what_it_was_given(shows_what_it_was_given):
    shows_what_it_was_given(drawn)


def test_nothing_lies_over_anything_in_three_frames(legible, g):
    legible(drawn(g, 3))


def test_it_says_what_is_matched_shuffled_and_still(words):
    table = torch.full((3, 3), 0.1) + 0.4 * torch.eye(3)
    maps = torch.rand(3, H, W)
    said = words(flow_beside_change(torch.rand(4, 3, H, W), maps, maps, table, controls={"still": float("nan")}))
    assert "+0.50" in said and "+0.10" in said and "nothing moves" in said and "other frames (control)" in said


def test_what_does_not_fit_is_said():
    maps = torch.rand(2, H, W)
    with pytest.raises(ValueError, match=r"table \(3, 3\); wanted \(2, 12, 18\) twice and \(2, 2\) for 3 frames"):
        flow_beside_change(torch.rand(3, 3, H, W), maps, maps, torch.eye(3), controls={})
