"""Pages of accentuations, sweeps and tables in Debian's chromium: actions of a reader and their effects."""

import io

import pytest
import torch
from PIL import Image

from xinc_captum.visualizers.explorer import Strip, explore_accentuations, explore_sweeps, explore_table

BLUE, RED = torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0])


def seen(card):
    """Colours of the left and the right half of a card's picture, as they are on the screen."""
    shot = Image.open(io.BytesIO(card.locator(".stack").screenshot())).convert("RGB")
    return [shot.getpixel((round(x * shot.width), shot.height // 2)) for x in (0.25, 0.75)]


@pytest.mark.parametrize("count", [1, 2])
def test_opacity_changes_from_photo_to_accentuation(tmp_path, visit, count):
    """A blue photo turned red, which the feature felt on the left."""
    photo = BLUE[:, None, None].expand(3, 6, 8)
    masks = torch.zeros(2, 1, 6, 8)
    masks[..., :4] = 1
    explore_accentuations(
        tmp_path / "page.html", photo if count == 1 else torch.stack([photo, photo]),
        RED[:, None, None].expand(2, 3, 6, 8), masks, titles=["lion", "lynx"], title="Cats", notes=["1 → 2", "3 → 4"],
        verdicts=[("holds", "of this"), ("weak", "of that")],
    )  # fmt: skip
    page = visit(tmp_path / "page.html")
    card = page.locator("figure.card").nth(1)
    assert "because of that" in card.inner_text() and "3 → 4" in card.inner_text()
    red, blue = (255, 0, 0), (0, 0, 255)
    assert seen(card) == [red, red], "the accentuation alone"
    card.locator(".only").focus()
    page.keyboard.press("Space")
    assert seen(card) == [red, blue], "only where the feature felt the change"
    card.locator(".opacity").focus()
    page.keyboard.press("Home")
    assert seen(card) == [blue, blue], "the photo alone"
    page.keyboard.press("ArrowRight")
    card.locator(".opacity").fill("50")
    (left, _, rest), right = seen(card)
    assert left == pytest.approx(128, abs=2) == rest and right == blue
    card.locator(".only").uncheck()
    assert seen(card)[1] == seen(card)[0] == pytest.approx((128, 0, 128), abs=2)
    assert seen(page.locator("figure.card").nth(0)) == [red, red], "the other stays as it is"


def test_grad_cam_is_beside_the_accentuation_or_above_it_on_phones(tmp_path, visit):
    photo, cam = BLUE[:, None, None].expand(3, 60, 80), torch.arange(80.0).expand(1, 60, -1)
    explore_accentuations(
        tmp_path / "page.html", photo, RED[:, None, None].expand(1, 3, 60, 80), None, cam, titles=["lion"], title="Cats"
    )
    page = visit(tmp_path / "page.html")

    def boxes():
        return [page.locator(where).bounding_box() for where in (".cam", ".stack")]

    where, what = boxes()
    assert where["y"] == what["y"] and where["x"] + where["width"] < what["x"]
    assert where["width"] == what["width"] and where["height"] == what["height"]
    page.set_viewport_size({"width": 390, "height": 800})
    where, what = boxes()
    assert where["x"] == what["x"] and where["y"] + where["height"] < what["y"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_slider_changes_the_frame(tmp_path, visit, g):
    strip = Strip(
        torch.tensor([-1.0, 0.0, 2.0]), torch.rand(2, 3, 1, 4, 4, generator=g), torch.tensor([[0.5, 1, 1.5]] * 2)
    )
    explore_sweeps(
        tmp_path / "page.html",
        {"unit 7": strip},
        rows=["a", "b"],
        title="Unit",
        verdicts={"unit 7": ("fails", "of this")},
    )
    page = visit(tmp_path / "page.html")
    under = page.locator(".film").nth(1).locator("li").nth(2)
    assert under.inner_text().split() == ["set", "2.00", "measured", "1.50"]
    large = page.locator(".large img").nth(1)
    before = large.get_attribute("src")
    under.locator("button").click()
    assert large.get_attribute("src") == under.locator("img").get_attribute("src") != before
    assert page.inner_text("output") == "set 2.00" and page.input_value(".flip") == "2"
    page.locator(".flip").focus()
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("output") == "set 0.00" and page.locator(".film li.now").count() == 2


def test_texts_and_infinity_are_sorted(tmp_path, visit):
    rows = {"a": ["x", 1.0], "b": ["z", float("inf")], "c": ["y", -2.0], "d": [None, float("-inf")]}
    explore_table(tmp_path / "page.html", ["remarks", "far"], rows, title="Methods", images=1)
    page = visit(tmp_path / "page.html")
    assert "one picture shows how the methods perform on this picture only" in page.inner_text("header")
    heads = page.locator("thead button")

    def order():
        return page.locator("tbody th").all_text_contents()

    heads.nth(1).click()
    assert order() == ["a", "c", "b", "d"]
    heads.nth(1).click()
    assert order() == ["b", "c", "a", "d"]
    heads.nth(2).click()
    assert order() == ["d", "c", "a", "b"]
    heads.nth(2).click()
    assert order() == ["b", "a", "c", "d"]


def test_tables_are_sorted_by_their_column_titles(tmp_path, visit):
    rows = {"b": [(0.3, 0.2, 0.4), 10.0], "a": [None, 9.0], "c": [(-0.1, -0.2, 0.1), 100.0]}
    explore_table(tmp_path / "page.html", ["score", "passes"], rows, title="Methods", images=3)
    page = visit(tmp_path / "page.html")

    def order():
        return page.locator("tbody th").all_text_contents()

    assert order() == ["b", "a", "c"]
    heads = page.locator("thead button")
    heads.nth(1).click()
    assert order() == ["c", "b", "a"] and "smallest first" in page.inner_text("#sorted")
    heads.nth(1).press("Enter")
    assert order() == ["b", "c", "a"], "what has no number comes last either way"
    heads.nth(2).click()
    assert order() == ["a", "b", "c"], "by number, not by letter"
    heads.nth(0).click()
    assert order() == ["a", "b", "c"]
    sorts = page.locator("thead th").evaluate_all("(all) => all.map((e) => e.ariaSort)")
    assert sorts == ["ascending", "none", "none"]
