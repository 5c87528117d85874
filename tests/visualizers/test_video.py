import pytest
import torch

from xinc_captum.visualizers import FilmRow, flow_beside_change, frame_reconstructions, object_time, unit_film

FRAMES = torch.rand(10, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def rows(*names):
    g = torch.Generator().manual_seed(1)
    note = "strongest; 12.3 % of the layer"
    return [FilmRow(layer, unit, note, torch.randn(10, 12, 18, generator=g)) for layer, unit in names]


def test_unit_film_has_one_row_per_unit_and_one_heading_per_layer(legible):
    figure = unit_film(FRAMES, rows(("blocks.0.activation", "neuron 3"), ("blocks.0.activation", "neuron 5"), ("head", "kernel 11 → green")))  # fmt: skip
    legible(figure)
    words = [text.get_text() for text in figure.texts]
    assert words.count("blocks.0.activation") == 1 and words.count("head") == 1
    assert [word for word in words if word.startswith("frame ")] == [f"frame {t}" for t in (0, 1, 3, 4, 5, 6, 8, 9)]
    assert len(figure.axes) == 8 * 4 + 1


def test_unit_film_rows_have_one_scale():
    one = rows(("a", "neuron 1"))[0]
    quiet = one.maps.clone()
    quiet[1:] *= 0.01  # contributes in the first frame and hardly after
    figure = unit_film(FRAMES[:2], [one._replace(maps=quiet[:2])])
    limits = [axes.images[0].get_clim() for axes in figure.axes[2:4]]
    assert limits[0] == limits[1] and limits[0][0] == -limits[0][1]


def test_unit_film_depends_on_its_input(pixels):
    one = rows(("a", "neuron 1"))
    other = [one[0]._replace(maps=-one[0].maps)]
    assert abs(pixels(unit_film(FRAMES, one)) - pixels(unit_film(FRAMES, other))).max() > 50


def test_unit_film_rejects_wrong_maps():
    with pytest.raises(
        ValueError,
        match=r"maps of b has shape \(9, 12, 18\); expected \(frames, H, W\) with frames = 10, H = 12, W = 18",
    ):
        unit_film(FRAMES, [rows(("a", "b"))[0]._replace(maps=torch.zeros(9, 12, 18))])
    with pytest.raises(ValueError, match="rows is empty; expected the canvases of at least one unit"):
        unit_film(FRAMES, [])


RECONSTRUCTION_FRAMES = torch.rand(5, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def test_reconstructions_show_frames_outputs_differences_and_psnr(legible):
    drawn = (RECONSTRUCTION_FRAMES + 0.1).clamp(0, 1)
    figure = frame_reconstructions(RECONSTRUCTION_FRAMES, drawn, [30.0, 31.5, 29.0, 40.0, 33.0], columns=3)
    legible(figure)
    words = [text.get_text() for text in figure.texts]
    assert [word for word in words if word.startswith("frame ")] == ["frame 0", "frame 2", "frame 4"]
    assert "mean 32.7, worst 29.0" in " ".join(words)
    clip, picture, missing, curve = (figure.axes[i] for i in (0, 3, 6, 9))
    assert torch.allclose(torch.as_tensor(clip.images[0].get_array()), RECONSTRUCTION_FRAMES[0].permute(1, 2, 0))
    assert torch.allclose(torch.as_tensor(picture.images[0].get_array()), drawn[0].permute(1, 2, 0))
    gap = torch.as_tensor(missing.images[0].get_array())
    assert torch.allclose(gap, (RECONSTRUCTION_FRAMES - drawn)[0].mean(0), atol=1e-6), (
        "red where the output is too dark"
    )
    assert curve.lines[0].get_ydata().tolist() == [30.0, 31.5, 29.0, 40.0, 33.0]


def test_reconstructions_state_the_scale_of_the_difference():
    figure = frame_reconstructions(RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES - 0.05, [26.0] * 5)
    assert "full colour at 5.0 % of white" in " ".join(text.get_text() for text in figure.texts)


def test_reconstructions_reject_wrong_shapes():
    with pytest.raises(ValueError, match="decibels has 4 entries; expected frames = 5"):
        frame_reconstructions(RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES, [1.0] * 4)
    with pytest.raises(
        ValueError,
        match=r"reconstructions has shape \(4, 3, 12, 18\); expected \(frames, C, H, W\) with frames = 5, C = 3, H = 12, W = 18",
    ):
        frame_reconstructions(RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES[:4], [1.0] * 5)


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
    with pytest.raises(
        ValueError,
        match=r"masks has shape \(2, 1, 12, 18\); expected \(frames, names, H, W\) with frames = 3, names = 1, H = 12, W = 18",
    ):
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
    with pytest.raises(
        ValueError, match=r"table has shape \(3, 3\); expected \(frames - 1, frames - 1\) with frames - 1 = 2"
    ):
        flow_beside_change(torch.rand(3, 3, H, W), maps, maps, torch.eye(3), controls={})
