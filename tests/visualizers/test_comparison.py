import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import comparison_grid
from xinc_captum.visualizers.style import DIM

PHOTOS = torch.rand(2, 3, 12, 16)


def maps(*names):
    return {name: torch.rand(2, 12, 16) for name in names}


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=60)
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)


def shown(figure, column, row=0, rows=2):
    return figure.axes[column * rows + row].get_images()[0].get_array()


def test_grid_has_one_row_per_image_and_one_column_per_method():
    figure = comparison_grid(PHOTOS, maps("a", "b", "c"))
    assert len(figure.axes) == 2 * 4 + 1
    np.testing.assert_allclose(shown(figure, 0, 1), PHOTOS[1].permute(1, 2, 0), atol=1e-6)
    assert {"the photo", "a", "b", "c"} <= {t.get_text() for t in figure.texts}


def test_each_map_is_scaled_by_its_99th_percentile():
    values = torch.linspace(0, 1, 12 * 16).view(1, 12, 16).repeat(2, 1, 1)
    first = pixels(comparison_grid(PHOTOS, {"a": values}))
    assert np.array_equal(first, pixels(comparison_grid(PHOTOS, {"a": 7 * values})))
    spike = values.clone()
    spike[:, -1, -1] = 1e6
    assert np.array_equal(first, pixels(comparison_grid(PHOTOS, {"a": spike}))), (
        "a single pixel does not change the scale"
    )


def test_large_values_are_bright_over_the_dark_photo():
    values = torch.zeros(2, 12, 16)
    values[:, :6] = 1
    picture = shown(comparison_grid(torch.full((2, 3, 12, 16), 0.8), {"a": values}), 1)
    assert picture[:6].mean() > picture[6:].mean() + 0.2
    np.testing.assert_allclose(picture[6:], DIM * 0.8, atol=0.01)
    nothing = shown(comparison_grid(PHOTOS, {"a": -torch.rand(2, 12, 16)}), 1)
    np.testing.assert_allclose(nothing, DIM * PHOTOS[0].mean(0)[..., None].expand(-1, -1, 3), atol=0.015)


def test_invalid_maps_are_labelled():
    figure = comparison_grid(PHOTOS, {"a": torch.zeros(2, 12, 16), "b": torch.full((2, 12, 16), torch.nan)})
    words = [axes.texts[0].get_text() for axes in figure.axes[2:6]]
    assert words == ["constant", "constant", "not finite", "not finite"]
    assert np.isfinite(shown(figure, 2)).all()


def test_negative_values_are_mentioned_only_if_present():
    def foot(values):
        return " ".join(t.get_text() for t in comparison_grid(PHOTOS, {"a": values}).texts)

    assert "99th percentile" in foot(torch.rand(2, 12, 16))
    assert "Negative" not in foot(torch.rand(2, 12, 16))
    assert "Negative values are not shown" in foot(torch.randn(2, 12, 16))


def test_grid_is_deterministic_and_accepts_grey_photos():
    values = maps("a")
    assert np.array_equal(
        pixels(comparison_grid(PHOTOS[:, :1], values)), pixels(comparison_grid(PHOTOS[:, :1], values))
    )
    assert not np.array_equal(pixels(comparison_grid(PHOTOS, values)), pixels(comparison_grid(PHOTOS, maps("a"))))


def test_grid_rejects_wrong_inputs():
    with pytest.raises(ValueError, match="maps is empty; expected at least one"):
        comparison_grid(PHOTOS, {})
    with pytest.raises(ValueError, match="captions has 1 entries; expected N = 2"):
        comparison_grid(PHOTOS, maps("a"), captions=[("tench", "p 0.5")])
    with pytest.raises(ValueError, match=r"photos has shape \(3, 12, 16\); expected \(N, C, H, W\)"):
        comparison_grid(PHOTOS[0], maps("a"))
    with pytest.raises(
        ValueError, match=r"map 'a' has shape \(2, 6, 16\); expected \(N, H, W\) with N = 2, H = 12, W = 16"
    ):
        comparison_grid(PHOTOS, {"a": torch.rand(2, 6, 16)})


def test_baselines_are_at_the_right_with_their_own_scales():
    weak = torch.linspace(0, 0.01, 12 * 16).view(1, 12, 16).repeat(2, 1, 1)
    given = {"blob": 100 * weak, "a": weak, "b": weak / 20, "c": weak / 11}
    figure = comparison_grid(PHOTOS, given, baselines=["blob"], shared=True)
    lefts = [figure.axes[2 * i].get_position().x0 * figure.get_figwidth() for i in range(5)]
    steps = np.diff(lefts)
    assert steps[0] == pytest.approx(steps[2]) and steps[3] > steps[2] + 0.2
    own = comparison_grid(PHOTOS, {"a": weak})
    for column in (1, 4):
        np.testing.assert_allclose(shown(figure, column), shown(own, 1), atol=0.1)
    said = [t.get_text() for t in figure.texts]
    assert "do not depend on the network" in " ".join(said) and "0.0097" in said
    assert "each map of a baseline has its own. b reaches 5.1 % of it. c reaches 9.3 % of it." in " ".join(
        said
    ) and "a reaches" not in " ".join(said)
    assert "do not depend" not in " ".join(t.get_text() for t in own.texts)


def test_baselines_alone_are_drawn(legible):
    figure = comparison_grid(PHOTOS, maps("a", "b"), baselines=["a", "b"], shared=True)
    legible(figure)
    assert "One scale for all maps" in " ".join(t.get_text() for t in figure.texts)


def test_captions_are_below_the_photos():
    figure = comparison_grid(PHOTOS, maps("a"), captions=[("tench", "p 0.71"), ("a hen", "")])
    texts = {t.get_text(): t.get_position()[1] for t in figure.texts}
    first, second = (figure.axes[row].get_position() for row in (0, 1))
    assert first.y0 > texts["tench, p 0.71"] > second.y1 and second.y0 > texts["a hen"]
    long = comparison_grid(PHOTOS, maps("a"), captions=[("a name of many words " * 4, "p 0.71"), ("hen", "p 1.00")])
    said = [t.get_text() for t in long.texts]
    assert said.count("p 0.71") == 1 and any(text.endswith("…") for text in said)


@pytest.mark.parametrize(("side", "columns"), [(64, 3), (224, 8), (400, 2)])
def test_panels_have_the_pixels_of_the_photo(side, columns):
    given = {f"{i}": torch.rand(1, 4, side) for i in range(columns)}
    figure = comparison_grid(torch.rand(1, 3, 4, side), given)
    assert figure.axes[0].get_position().width * figure.get_figwidth() * figure.dpi >= side - 1
    assert 200 <= figure.dpi <= 300
    file = io.BytesIO()
    figure.savefig(file)
    assert Image.open(file).width == pytest.approx(figure.get_figwidth() * figure.dpi, abs=2)
