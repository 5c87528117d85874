import math

import pytest
import torch

from xinc_captum.cli.film import Film
from xinc_captum.cli.video_network import VideoModel, explained, fit, methods_for, network
from xinc_captum.cli.video_page import _by_chance, write_video_page
from xinc_captum.cli.video_story import carried_by, layer_of, spread_of
from xinc_captum.visualizers.report import Line

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of an HNeRV that draws a bar, which walks, and its known mask and flow."""
    folder = tmp_path_factory.mktemp("page")
    masks = torch.zeros(4, 1, 8, 16, dtype=torch.bool)
    for t in range(4):
        masks[t, 0, 2:6, 1 + 3 * t : 5 + 3 * t] = True
    frames = 0.2 + 0.6 * masks.float().expand(4, 3, 8, 16)
    flow = torch.zeros(3, 2, 8, 16)
    flow[:, 1] = 3.0 * masks[:3, 0]
    film = Film("bar", frames, {}, ("the bar",), masks, flow)
    model = network(VideoModel.hnerv, (8, 16), 0)
    painter = fit(model, VideoModel.hnerv, film, 3, 0, CPU, folder / "fit.pt")
    method = methods_for(explained(model), ["blocks.2.activation"], "tangent")["blocks.2.activation"]
    layer = layer_of(method.canvas(painter.rows, (8, 16)))
    lines = (Line(layer.name, "weak", ", because of this test"),)
    write_video_page(folder, film, painter, [layer], lines, {"video": "bar"}, 0)
    return folder, film, layer


def test_every_picture_is_there_and_objects_come_second(page):
    folder, _, _ = page
    text = (folder / "index.html").read_text()
    order = [text.index(f'src="{name}.png"') for name in ("frames", "objects", "units", "motion", "spread")]
    assert order == sorted(order)
    assert all((folder / f"{name}.png").stat().st_size > 5000 for name in ("frames", "objects", "units", "motion"))


def test_verdicts_come_before_what_they_are_about(page):
    text = (page[0] / "index.html").read_text()
    at = text.index("blocks.2.activation <strong>≈ weak</strong>, because of this test")
    assert text.index("frames.png") < at < text.index('src="objects.png"')


def test_the_table_says_the_best_unit_beside_chance(page):
    folder, film, layer = page
    text = (folder / "index.html").read_text()
    carried = carried_by(layer, film.masks, 0)
    assert f"<td>{carried.best[0]:+.2f}</td><td>{carried.chance[0]:+.2f}</td>" in text
    assert math.isfinite(carried.lead)


def test_it_says_what_goes_in_and_where_the_flow_is_from(page):
    text = (page[0] / "index.html").read_text()
    assert "what an encoder condensed a frame to goes in" in text
    assert "The flow is known exactly." in text


def test_the_caption_says_what_is_as_by_chance(page):
    folder, _, layer = page
    assert _by_chance({"a": True, "b": True}) == ""
    assert _by_chance({"a": True, "b": False, "c": False}) == "; no more than by chance here: b, c"
    assert _by_chance({"a": False, "b": False}) == "; no more than by chance here: in every layer"
    spread = spread_of(layer, 2, 0)
    text = (folder / "index.html").read_text()
    assert f"places of their own{_by_chance({layer.name: spread.places})}. Right" in text
    assert f"make up each pixel{_by_chance({layer.name: spread.few})}." in text
