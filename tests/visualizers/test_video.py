import pytest
import torch

from xinc_captum.visualizers import flow_beside_change, object_time

H, W = 12, 18


def drawn(g, frames=4, objects=2, units=9):
    masks = torch.zeros(frames, objects, H, W)
    for t in range(frames):
        masks[t, :, 3:8, t : t + 5] = 1
    matched, shuffled = torch.randn(2, frames, objects, units, generator=g)
    matched[0, 0, 0] = torch.nan
    names = ["the ball", "the dog", "a bird"][:objects]
    clip, magnitudes = torch.rand(frames, 3, H, W, generator=g), torch.rand(frames, units, H, W, generator=g)
    elsewhere = torch.randn(4, objects, units, generator=g)
    return object_time(clip, masks, matched, shuffled, magnitudes, names=names, elsewhere=elsewhere)


def test_object_time_depends_on_its_input(depends_on_input):
    depends_on_input(drawn)


def test_object_time_with_many_frames_is_legible(legible, g):
    legible(drawn(g, 14, 1, 2))


def test_best_units_come_first_with_their_control(words):
    frames, masks, magnitudes = torch.rand(3, 3, H, W), torch.ones(3, 1, H, W), torch.rand(3, 4, H, W)
    matched = torch.tensor([0.1, 0.9, -0.5, 0.4]).expand(3, 1, 4)
    elsewhere = torch.tensor([[[0.3, 0.0, 0.0, 0.1]], [[0.0, 0.2, 0.0, 0.1]], [[0.0, 0.1, 0.0, 0.0]]])
    figure = object_time(
        frames, masks, matched, 0 * matched, magnitudes, names=["ball"], elsewhere=elsewhere, units=2, layer="h"
    )
    said = words(figure)
    assert "unit 1" in said and "unit 3" in said and "unit 0" not in said and "+0.90" in said
    assert "control: with masks" in said and "own masks" in said
    assert "+0.90; control, highest score of the 4 units on the same path elsewhere: +0.20 (at most +0.30 at 3" in said


def test_object_time_rejects_wrong_shapes():
    one = torch.rand(3, 1, 4)
    with pytest.raises(ValueError, match=r"masks have shape \(2, 1, 12, 18\); expected \(3, 1, 12, 18\) for 1 names"):
        object_time(torch.rand(3, 3, H, W), torch.ones(2, 1, H, W), one, one, torch.rand(3, 4, H, W), names=["x"])


def flow_drawn(g, frames=6):
    speed, change = torch.rand(2, frames - 1, H, W, generator=g)
    table = torch.rand(frames - 1, frames - 1, generator=g) - 0.3
    controls = {"frame difference instead": 0.3, "a clip that stands still": float("nan")}
    return flow_beside_change(torch.rand(frames, 3, H, W, generator=g), speed, change, table, controls=controls)


def test_flow_with_three_frames_is_legible(legible, g):
    legible(flow_drawn(g, 3))


def test_flow_shows_scores_and_controls(words):
    table = torch.full((3, 3), 0.1) + 0.4 * torch.eye(3)
    maps = torch.rand(3, H, W)
    said = words(flow_beside_change(torch.rand(4, 3, H, W), maps, maps, table, controls={"still": float("nan")}))
    assert "+0.50" in said and "+0.10" in said and "no motion" in said and "other frames (control)" in said


def test_flow_rejects_wrong_shapes():
    maps = torch.rand(2, H, W)
    with pytest.raises(ValueError, match=r"table \(3, 3\); expected \(2, 12, 18\) twice and \(2, 2\) for 3 frames"):
        flow_beside_change(torch.rand(3, 3, H, W), maps, maps, torch.eye(3), controls={})
