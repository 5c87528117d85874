"""The page of canvases in Debian's chromium: actions of a reader and their effects."""

import pytest
import torch
import torch.nn.functional as F

from xinc_captum.visualizers.explorer import explore_canvases

PIXEL = """([x, y]) => {
  const board = document.getElementById("picture");
  const one = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  one.drawImage(board, Math.floor(x * board.width), Math.floor(y * board.height), 1, 1, 0, 0, 1, 1);
  return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
DOT = """(id) => {
  const board = document.getElementById(id);
  const { width, height } = board;
  const copy = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  copy.drawImage(board, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  const sum = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== 0xc2 || data[i + 1] !== 0x41 || data[i + 2] !== 0x0c || data[i + 3] !== 255) continue;
    sum[0] += (i / 4) % width / width;
    sum[1] += Math.floor(i / 4 / width) / height;
    sum[2] += 1;
  }
  return [sum[0] / sum[2], sum[1] / sum[2]];
}"""  # position of the colour of the chosen neuron, from 0 to 1
GREY = 128
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


@pytest.fixture
def page(tmp_path, three, visit):
    picture = torch.full((3, 4, 8), GREY / 255)
    other = torch.stack([three, three.flip(0)])[:, :2]  # frame 1 has the weak and the dark neuron
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


def test_hovering_shows_the_strongest_neurons(page):
    hover(page, 0.1, 0.1)
    assert names(page) == ["neuron 0", "neuron 2"]
    assert page.locator("#top b").all_text_contents() == ["83 %", "17 %"]
    assert "pixel 0, 0" in page.inner_text("#pixel")
    hover(page, 0.95, 0.9)
    assert names(page) == ["neuron 1", "neuron 2"]
    assert "pixel 7, 3" in page.inner_text("#pixel")


def test_a_click_fixes_the_pixel_until_the_next(page):
    hover(page, 0.1, 0.1)
    page.mouse.down()
    page.mouse.up()
    hover(page, 0.9, 0.9)
    assert names(page)[0] == "neuron 0" and "fixed" in page.inner_text("#pixel")
    page.mouse.down()
    page.mouse.up()
    hover(page, 0.9, 0.8)
    assert names(page)[0] == "neuron 1" and "fixed" not in page.inner_text("#pixel")


def test_a_canvas_is_drawn_over_the_picture(page):
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
    assert "contributions of layer h1 is 53 %" in said, "8 of 8 + 4 + 3.2"
    assert "rank 1 of 3" in said and "brightens a pixel by 0.50" in said and "darkens" not in said
    page.keyboard.press("Escape")
    page.evaluate(SETTLED)
    assert page.locator("#unit").is_hidden() and page.inner_text("#unit-title") == "A neuron"


def test_neurons_are_chosen_by_neighbours_map_and_number(page):
    page.locator("#number").fill("1")
    page.locator("#number").press("Enter")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == "Neuron 1"
    assert sorted(page.locator("#near span").all_text_contents()) == ["neuron 0", "neuron 2"]
    across = page.evaluate(DOT, "map")[0]
    assert min(across, 1 - across) < 0.1, "it is highlighted in the map, at one of the two ends"
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
    assert {"Neuron 0", "Neuron 1"} <= seen, "they contribute to different halves, so they are at the two ends"
    before = page.inner_text("#unit-title")
    page.locator("#map").focus()
    page.keyboard.press("ArrowLeft")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") != before
    page.locator("#number").fill("99")
    page.locator("#number").press("Enter")
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") != "Neuron 99" and page.input_value("#number") != "99"


def test_keys_replace_the_pointer(page):
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
    assert page.evaluate("document.activeElement.dataset.unit") == "2", "the focus stays on the chosen neuron"
    page.keyboard.press("Escape")
    page.evaluate(SETTLED)
    assert page.locator("#unit").is_hidden()


def test_frames_and_layers_can_be_changed(page):
    hover(page, 0.1, 0.1)
    assert page.inner_text("p.verdict:visible").startswith("✓ holds How far to trust h1")
    page.locator("#frame").fill("1")
    assert colour(page, 0.8, 0.8) == [64] * 3, "the other frame's picture"
    page.locator("[data-layer='1']").click()
    page.wait_for_selector("[data-layer='1'][aria-pressed='true']")
    assert names(page) == ["neuron 0"], "at frame 1 only the weak neuron contributes there"
    assert page.inner_text("p.verdict:visible").startswith("✗ fails How far to trust h2")
    page.locator("#top button").first.click()
    page.evaluate(SETTLED)
    assert page.get_attribute("#curve", "aria-label") == "Share of the layer by frame: 67 %, 44 %"
    assert page.evaluate(DOT, "curve")[0] > 0.9, "the dot is at the last frame"
    page.locator("#frame").focus()
    page.keyboard.press("ArrowLeft")
    assert names(page) == ["neuron 0"] and page.inner_text("#frame-said") == "0"
    assert page.evaluate(DOT, "curve")[0] < 0.1


@pytest.mark.parametrize("width", [360, 700])
def test_phones_have_one_column_and_taps(tmp_path, three, visit, width):
    explore_canvases(tmp_path / "page.html", torch.full((3, 4, 8), 0.5), {"h1": three}, title="Phone")
    page = visit(tmp_path / "page.html", viewport={"width": width, "height": 780}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "no horizontal overflow"
    lefts = {round(section.bounding_box()["x"]) for section in page.locator("main section").all()}
    assert len(lefts) == 1
    box = page.locator("#picture").bounding_box()
    page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    assert names(page)[0] == "neuron 1" and "fixed" not in page.inner_text("#pixel")
    page.touchscreen.tap(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
    assert names(page)[0] == "neuron 0"


def test_ten_thousand_neurons_can_be_explored(large, visit):
    path, maps = large
    page = visit(path)
    hover(page, 9.5 / 64, 5.5 / 64)
    top = maps[:, 0, 5, 9].float().abs().topk(3).indices
    assert names(page)[:3] == [f"neuron {unit}" for unit in top]
    page.locator("#top button").first.click()
    page.evaluate(SETTLED)
    assert page.inner_text("#unit-title") == f"Neuron {top[0]}"


def test_truncated_data_is_reported(tmp_path, three, browser):
    path = explore_canvases(tmp_path / "page.html", torch.full((3, 4, 8), 0.5), {"h1": three}, title="Cut")
    whole = path.read_text()
    at = whole.index('id="blob-0">') + 12
    path.write_text(whole[: at + 80] + whole[whole.index("</script>", at) :])
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("#trouble:not([hidden])")
    assert "may be damaged" in page.inner_text("#trouble")
    page.close()


def test_the_last_chosen_layer_is_shown(tmp_path, visit, three, g):
    """A layer that takes longer to read arrives after the other, and is ignored."""
    many = torch.randn(1_500, 3, 32, 64, generator=g).half()
    small = F.interpolate(three, size=(32, 64)).half()
    explore_canvases(
        tmp_path / "page.html", torch.full((3, 32, 64), 0.5), {"first": small, "big": many, "small": small},
        title="Three layers",
    )  # fmt: skip
    page = visit(tmp_path / "page.html")
    page.evaluate("for (const number of [1, 2]) document.querySelector(`[data-layer='${number}']`).click()")
    page.wait_for_selector("[data-layer='2'][aria-pressed='true']")
    page.wait_for_timeout(1_500)
    assert page.get_attribute("[data-layer='1']", "aria-pressed") == "false"
    page.locator("[data-layer='1']").click()
    page.wait_for_selector("[data-layer='1'][aria-pressed='true']")
