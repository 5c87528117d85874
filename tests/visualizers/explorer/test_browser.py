"""Pages in Debian's chromium: what a reader does, and what changes then."""

import time

import pytest
import torch

from xinc_captum.visualizers.explorer import (
    Strip,
    explore_accentuations,
    explore_canvases,
    explore_sweeps,
    explore_table,
)

PIXEL = """([x, y]) => {
  const board = document.getElementById("picture");
  const one = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  one.drawImage(board, Math.floor(x * board.width), Math.floor(y * board.height), 1, 1, 0, 0, 1, 1);
  return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
GREY = 128
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


@pytest.fixture
def page(tmp_path, three, visit):
    picture = torch.full((3, 4, 8), GREY / 255)
    other = torch.stack([three, three.flip(0)])[:, :2]  # frame 1 has the weak one and the dark one
    layers = {"h1": three[None].repeat(2, 1, 1, 1, 1), "h2": other}
    verdicts = {"h1": ("holds", "of this"), "h2": ("fails", "of that")}
    explore_canvases(
        tmp_path / "page.html", torch.stack([picture, picture * 0.5]), layers, title="Two frames", verdicts=verdicts
    )
    return visit(tmp_path / "page.html")


def names(page):
    page.evaluate(SETTLED)
    return page.locator("#top button span").all_text_contents()


def hover(page, x, y):
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def colour(page, x, y):
    page.evaluate(SETTLED)
    return page.evaluate(PIXEL, [x, y])


def test_hovering_says_who_paints(page):
    hover(page, 0.1, 0.1)
    assert names(page) == ["neuron 0", "neuron 2"]
    assert page.locator("#top b").all_text_contents() == ["83 %", "17 %"]
    assert "pixel 0, 0" in page.inner_text("#pixel")
    hover(page, 0.95, 0.9)
    assert names(page) == ["neuron 1", "neuron 2"]
    assert "pixel 7, 3" in page.inner_text("#pixel")


def test_a_click_holds_the_pixel_until_the_next(page):
    hover(page, 0.1, 0.1)
    page.mouse.down()
    page.mouse.up()
    hover(page, 0.9, 0.9)
    assert names(page)[0] == "neuron 0" and "held" in page.inner_text("#pixel")
    page.mouse.down()
    page.mouse.up()
    hover(page, 0.9, 0.8)
    assert names(page)[0] == "neuron 1" and "held" not in page.inner_text("#pixel")


def test_a_neuron_is_laid_over_the_picture(page):
    hover(page, 0.1, 0.1)
    assert colour(page, 0.3, 0.8) == [GREY] * 3, "the picture alone"
    page.locator("#top button", has_text="neuron 0").click()
    red, green, blue = colour(page, 0.3, 0.8)
    assert red > green + 20 and red > blue + 20, "brightens: red"
    page.locator("#opacity").fill("100")
    assert colour(page, 0.3, 0.8) == [103, 0, 31], "the end of the scale"
    assert colour(page, 0.8, 0.8) == [247, 247, 247], "nothing there"
    page.locator("#opacity").fill("0")
    assert colour(page, 0.3, 0.8) == [GREY] * 3
    assert page.inner_text("#unit-title") == "Neuron 0"
    said = page.inner_text("#unit-said")
    assert "53 % of all that layer h1" in said, "8 of 8 + 4 + 3.2"
    assert "the 1st of 3" in said and "brightens a pixel by 0.50" in said and "darkens" not in said
    page.keyboard.press("Escape")
    page.evaluate(SETTLED)
    assert page.locator("#unit").is_hidden() and page.inner_text("#unit-title") == "A neuron"


def test_neighbours_the_map_and_the_number_choose(page):
    page.locator("#number").fill("1")
    page.locator("#number").press("Enter")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == "Neuron 1"
    assert sorted(page.locator("#near span").all_text_contents()) == ["neuron 0", "neuron 2"]
    page.locator("#near button", has_text="neuron 2").click()
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == "Neuron 2"
    page.click("#stronger")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == "Neuron 1"
    box = page.locator("#map").bounding_box()
    seen = set()
    for x in (12, box["width"] / 2, box["width"] - 12):
        page.mouse.click(box["x"] + x, box["y"] + box["height"] / 2)
        page.evaluate(SETTLED)
        seen.add(page.inner_text("#unit-title"))
    assert {"Neuron 0", "Neuron 1"} <= seen, "they paint in different halves, so they stand at the two ends"
    before = page.inner_text("#unit-title")
    page.locator("#map").focus()
    page.keyboard.press("ArrowLeft")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") != before
    page.locator("#number").fill("99")
    page.locator("#number").press("Enter")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") != "Neuron 99" and page.input_value("#number") != "99"


def test_keys_do_what_a_pointer_does(page):
    page.locator("#picture").focus()
    for key in ["Shift+ArrowLeft", "ArrowRight", "Shift+ArrowUp", "ArrowDown", "ArrowDown"]:
        page.keyboard.press(key)
    assert names(page)[0] == "neuron 0" and "pixel 1, 2" in page.inner_text("#pixel")
    page.keyboard.press("Enter")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == "Neuron 0"
    page.locator("#top button").nth(1).focus()
    page.keyboard.press("Enter")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == "Neuron 2"
    assert page.evaluate("document.activeElement.dataset.unit") == "2", "the focus stays on what was chosen"
    page.keyboard.press("Escape")
    page.evaluate(SETTLED)
    assert page.locator("#unit").is_hidden()


def test_frames_and_layers(page):
    hover(page, 0.1, 0.1)
    assert page.inner_text("p.verdict:visible").startswith("✓ holds How far to trust h1")
    page.locator("#frame").fill("1")
    assert colour(page, 0.8, 0.8) == [64] * 3, "the other frame's picture"
    page.locator("[data-layer='1']").click()
    page.wait_for_function("document.querySelector(\"[data-layer='1']\").ariaPressed === 'true'")
    assert names(page) == ["neuron 0"], "at frame 1 only the weak one paints there"
    assert page.inner_text("p.verdict:visible").startswith("✗ fails How far to trust h2")
    page.locator("#top button").first.click()
    page.evaluate(SETTLED)
    assert page.get_attribute("#curve", "aria-label") == "Share of the layer by frame: 67 %, 44 %"
    page.locator("#frame").fill("0")
    assert names(page) == ["neuron 0"] and page.inner_text("#frame-said") == "0"


@pytest.mark.parametrize("width", [360, 700])
def test_one_column_on_a_phone_and_taps(tmp_path, three, visit, width):
    explore_canvases(tmp_path / "page.html", torch.full((3, 4, 8), 0.5), {"h1": three}, title="Phone")
    page = visit(tmp_path / "page.html", viewport={"width": width, "height": 780}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    lefts = {round(section.bounding_box()["x"]) for section in page.locator("main section").all()}
    assert len(lefts) == 1
    box = page.locator("#picture").bounding_box()
    page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    assert names(page)[0] == "neuron 1" and "held" not in page.inner_text("#pixel")
    page.touchscreen.tap(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
    assert names(page)[0] == "neuron 0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_both_schemes(tmp_path, three, visit, scheme):
    explore_canvases(tmp_path / "page.html", torch.full((3, 4, 8), 0.5), {"h1": three}, title="Scheme")
    page = visit(tmp_path / "page.html", color_scheme=scheme)
    rgb = "(e) => getComputedStyle(document.querySelector(e[0]))[e[1]].match(/\\d+/g).slice(0, 3).map(Number)"
    paper = sum(page.evaluate(rgb, ["body", "backgroundColor"]))
    assert (paper > 700) == (scheme == "light")
    for place in ("h1", "#pixel", "p.verdict", "p.verdict strong"):
        assert abs(sum(page.evaluate(rgb, [place, "color"])) - paper) > 300, place


def test_ten_thousand_neurons_load_in_time_and_answer(large, visit, capsys):
    path, maps = large
    start = time.perf_counter()
    page = visit(path)
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n10,000 neurons at 128x128: {path.stat().st_size / 1e6:.1f} MB, ready {seconds:.1f} s after opening")
    assert seconds < 20, "wanted 2 on an idle machine; this one may be busy"
    hover(page, 9.5 / 128, 5.5 / 128)
    top = maps[:, 0, 5, 9].float().abs().topk(3).indices
    assert names(page)[:3] == [f"neuron {unit}" for unit in top]
    page.locator("#top button").first.click()
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == f"Neuron {top[0]}"


def test_data_that_was_cut_off_are_said_to_be(tmp_path, three, browser):
    path = explore_canvases(tmp_path / "page.html", torch.full((3, 4, 8), 0.5), {"h1": three}, title="Cut")
    whole = path.read_text()
    at = whole.index('id="blob-0">') + 12
    path.write_text(whole[: at + 80] + whole[whole.index("</script>", at) :])
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("#trouble:not([hidden])")
    assert "may be damaged" in page.inner_text("#trouble")
    page.close()


def test_an_accentuation_fades_into_the_photo(tmp_path, visit, g):
    explore_accentuations(
        tmp_path / "page.html", torch.rand(3, 6, 8, generator=g), torch.rand(2, 3, 6, 8, generator=g),
        torch.rand(2, 1, 6, 8, generator=g), titles=["lion", "lynx"], title="Cats", notes=["1 → 2", "3 → 4"],
        verdicts=[("holds", "of this"), ("weak", "of that")],
    )  # fmt: skip
    page = visit(tmp_path / "page.html")
    card = page.locator("figure.card").nth(1)
    over, through = card.locator(".over").nth(0), card.locator(".over").nth(1)
    assert over.evaluate("(e) => e.style.opacity") == "1" and through.is_hidden()
    card.locator(".opacity").focus()
    page.keyboard.press("Home")
    assert over.evaluate("(e) => e.style.opacity") == "0"
    page.keyboard.press("ArrowRight")
    assert over.evaluate("(e) => e.style.opacity") == "0.01"
    card.locator(".only").check()
    assert over.is_hidden() and through.is_visible()
    first = page.locator("figure.card").nth(0).locator(".over").nth(0)
    assert first.evaluate("(e) => e.style.opacity") == "1", "the other stays as it is"
    assert "because of that" in card.inner_text() and "3 → 4" in card.inner_text()


def test_a_filmstrip_is_flipped_through(tmp_path, visit, g):
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


def test_a_table_is_sorted_by_its_heads(tmp_path, visit):
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
