import base64
import io
import json
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers.explorer import (
    Strip,
    explore_accentuations,
    explore_canvases,
    explore_sweeps,
    explore_table,
    pack_units,
)
from xinc_captum.visualizers.explorer.pages import VerdictNote, blob, cell_of, write_page


def write_table(path, verdicts=()):
    rows = [[]]
    return write_page(
        path, "table.html.j2", ["table.js"], title="<b>T & U</b>", facts={"a<": "</script>"}, verdicts=verdicts,
        images=1, columns=["<i>"], rows=rows, figure=None,
    )  # fmt: skip


def test_texts_are_escaped_and_nothing_is_fetched(tmp_path):
    page = write_table(tmp_path / "page.html").read_text()
    assert "<b>T" not in page and "&lt;b&gt;T &amp; U" in page and "a&lt;" in page and "<i>" not in page
    assert page.count("</script>") == 1, "only the one that ends the script"
    assert "http:" not in page and "https:" not in page and "src=" not in page
    assert "default-src 'none'; img-src data:;" in page, "enforced by the browser"
    assert "prefers-color-scheme: dark" in page and "max-width: 700px" in page


def test_pages_are_limited_in_size(tmp_path):
    with pytest.raises(ValueError, match="<b>T & U</b>: the page would have 6.0 MB; expected at most 5 MB. Write"):
        write_page(
            tmp_path / "page.html", "table.html.j2", ["table.js"], title="<b>T & U</b>", facts={"a": "x" * 6_000_000},
            verdicts=[], images=1, columns=[], rows=[], figure=None,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_pages_are_written_atomically(tmp_path):
    with pytest.raises(ValueError, match="verdict 'fine' is not known"):
        write_table(tmp_path / "page.html", [VerdictNote("h1", "fine", "x")])
    assert list(tmp_path.iterdir()) == []


def test_blob_has_the_order_that_the_page_expects(g):
    packed = pack_units(torch.randn(2, 5, 3, 4, 6, generator=g))
    content = zlib.decompress(base64.b64decode(blob(packed)), -15)
    at = 0
    order = ["amounts", "extremes", "scale", "places", "top", "shares", "near", "maps"]
    for name, kind in zip(order, ["<f4"] * 4 + ["<u2"] * 3 + ["<i1"], strict=True):
        expected = getattr(packed, name).numpy()
        values = np.frombuffer(content, kind, expected.size, at).reshape(expected.shape)
        at += values.nbytes
        if name == "maps":
            values = np.cumsum(values.astype(np.int64), axis=-1).astype(np.int8)  # modulo 256
        np.testing.assert_array_equal(values, expected, err_msg=name)
    assert at == len(content)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def write_canvases(tmp_path, picture, layers, **words):
    return explore_canvases(tmp_path / "page.html", picture, layers, **{"title": "A cat"} | words).read_text()


def test_ten_thousand_neurons_stay_below_five_megabytes(large):
    path, maps = large
    assert 1_000_000 < path.stat().st_size < 5_000_000, "as much as fits"
    page = path.read_text()
    note = data_of(page)["layers"][0]
    assert note["grid"] == [64, 64], "every pixel is stored"
    assert note["small"][0] >= 12
    text = re.search(r'id="blob-0">(.*?)</script>', page, re.S)[1]
    content = zlib.decompress(base64.b64decode(text), -15)
    start = 10_000 * 4 * (1 + 2 + 1 + 2) + (5 * 64 + 9) * note["k"] * 2
    top = np.frombuffer(content, "<u2", note["k"], start)
    expected = maps[:, 0, 5, 9].float().abs().topk(note["k"]).indices
    assert top.tolist() == expected.tolist(), "the pixel at row 5, column 9"


def test_all_texts_are_escaped(tmp_path, three):
    bad = '</script><img src=x onerror="alert(1)">'
    page = write_canvases(
        tmp_path, torch.rand(3, 4, 8), {bad: three}, title=bad, facts={bad: bad}, verdicts={bad: ("weak", bad)},
        names={bad: [bad, "b", "c"]},
    )  # fmt: skip
    assert "<img" not in page
    note = data_of(page)["layers"][0]
    assert note["layer"] == bad and note["names"][0] == bad


def test_each_layer_has_its_verdict(tmp_path, three):
    layers = {"h1": three, "h2": pack_units(three)}
    page = write_canvases(
        tmp_path, torch.rand(3, 4, 8), layers, verdicts={"h1": ("holds", "of this"), "h2": ("weak", "of that")}
    )
    assert "How far to trust h1: it holds, because of this." in page
    assert "How far to trust h2: it is weak, because of that." in page
    assert "The reliability of this result was not checked." in write_canvases(tmp_path, torch.rand(3, 4, 8), layers)


def test_large_images_and_many_frames_stay_below_the_limit(tmp_path, g):
    picture = torch.rand(6, 3, 500, 900, generator=g)
    path = tmp_path / "page.html"
    explore_canvases(path, picture, {"h": torch.randn(6, 4, 1, 50, 90, generator=g)}, title="Noise")
    data = data_of(path.read_text())
    assert max(data["size"]) < 640 and path.stat().st_size < 5_000_000
    assert data["frames"][0].startswith("data:image/jpeg") and len(data["frames"]) == 6
    assert f"reduced from 900 x 500 to {data['size'][1]} x {data['size'][0]} pixels" in path.read_text()


def test_packed_layers_reduce_the_space_for_images(tmp_path, g):
    maps = torch.randn(83, 1, 160, 200, generator=g)
    packed = pack_units(maps, room=5_000_000)
    picture = torch.rand(3, 500, 600, generator=g)
    write_canvases(tmp_path, picture, {"h": packed})
    alone = data_of((tmp_path / "page.html").read_text())["size"]
    write_canvases(tmp_path, picture, {"h": maps})
    assert alone < data_of((tmp_path / "page.html").read_text())["size"]
    with pytest.raises(
        ValueError, match=r"A cat: the page would have \d.\d MB; expected at most 5 MB. Write several pages"
    ):
        write_canvases(tmp_path, picture, {"h": packed, "i": packed})


def test_explore_canvases_rejects_wrong_inputs(tmp_path, three):
    picture = torch.rand(3, 4, 8)
    with pytest.raises(ValueError, match="layers is empty; expected the canvases of at least one layer"):
        write_canvases(tmp_path, picture, {})
    with pytest.raises(ValueError, match="h has canvases of 2 frames for 1 images"):
        write_canvases(tmp_path, picture, {"h": three[None].expand(2, -1, -1, -1, -1)})
    with pytest.raises(ValueError, match="h has 3 units and 1 names"):
        write_canvases(tmp_path, picture, {"h": three}, names={"h": ["a"]})
    packed = pack_units(three)
    with pytest.raises(ValueError, match="h refers to unit 9 and has 3 units"):
        write_canvases(tmp_path, picture, {"h": packed._replace(top=torch.full_like(packed.top, 9))})
    assert list(tmp_path.iterdir()) == []


def test_large_photos_are_reduced_to_640_pixels(tmp_path, three):
    smooth = torch.linspace(0, 1, 1280).expand(3, 700, 1280)
    assert data_of(write_canvases(tmp_path, smooth, {"h": three}))["size"] == [350, 640]


def write_accentuations(tmp_path, photo=(3, 4, 6), images=(2, 3, 4, 6), **words):
    given = {"titles": ["a", "b"], "title": "T"} | words
    return explore_accentuations(tmp_path / "page.html", torch.rand(photo), torch.rand(images), **given).read_text()


def test_texts_are_escaped_and_masks_are_optional(tmp_path):
    page = write_accentuations(
        tmp_path, photo=(1, 4, 6), titles=["<a>", "b"], verdicts=[("holds", "of <this>"), ("weak", "of that")]
    )
    assert "&lt;a&gt;" in page and "<a>" not in page and "of &lt;this&gt;" in page
    assert page.count("What the verdicts mean") == 1
    assert 'class="only"' not in page and "data-mask" not in page and page.count('class="opacity"') == 2
    assert page.count('<img class="photo" src="data:') == page.count('<img class="photo" alt') == 1, (
        "a shared photo is stored once"
    )
    assert 'id="reduced"' not in page, "the images are unchanged"


def test_grad_cam_is_beside_each_accentuation(tmp_path):
    cams = torch.stack([torch.arange(24.0).reshape(4, 6), torch.ones(4, 6)])
    page = write_accentuations(tmp_path, cams=cams, cam_name="Grad-CAM at head: where")
    assert page.count('class="pair"') == page.count('class="cam" src="data:image/png') == 2
    assert page.count("<h3>Grad-CAM at head: where</h3>") == 2 and page.count("The map is constant") == 1
    bare = write_accentuations(tmp_path)
    assert 'class="pair"' not in bare and "What the verdicts mean" not in bare, "none was given"


def test_cams_are_bright_where_they_are_large(tmp_path):
    cam = torch.zeros(1, 4, 6)
    cam[:, :2, :2] = 1
    page = write_accentuations(tmp_path, photo=(3, 4, 6), images=(1, 3, 4, 6), titles=["a"], cams=cam)
    address = re.search(r'class="cam" src="data:image/png;base64,([^"]+)"', page)[1]
    shown = torch.tensor(np.array(Image.open(io.BytesIO(base64.b64decode(address))))).float() / 255
    strong = cam[0] > 0
    assert shown[strong].mean() > 0.7 and shown[~strong].max() < 0.5
    assert (shown[~strong].amax(-1) - shown[~strong].amin(-1)).max() < 0.02, "grey"


def test_large_photos_stay_below_the_limit(tmp_path, g):
    photos, images = (torch.rand(5, 3, 450, 600, generator=g) for _ in range(2))  # noise, the largest possible files
    masks = torch.rand(5, 1, 450, 600, generator=g)
    path = tmp_path / "page.html"
    titles = [f"photo {i}" for i in range(5)]
    explore_accentuations(path, photos, images, masks, titles=titles, title="Five")
    page = path.read_text()
    assert 3_000_000 < path.stat().st_size < 5_000_000
    assert page.count('src="data:image/jpeg') == 10 and page.count("data-mask=") == 5
    assert re.search(r"reduced from 600 x 450 to \d+ x \d+ pixels, to keep the file small enough to send", page)


def test_too_many_images_are_rejected(tmp_path):
    many = torch.rand(1, 3, 40, 60).expand(2_000, -1, -1, -1)
    with pytest.raises(
        ValueError, match=r"2,001 pictures do not fit into 0.8 MB, not even at 32 pixels; make several pages"
    ):
        explore_accentuations(tmp_path / "page.html", many[0], many, titles=["a"] * 2_000, title="Stamps")


@pytest.mark.parametrize(
    "wrong",
    [
        {"photo": (3, 4, 5)},
        {"photo": (3, 3, 4, 6)},
        {"titles": ["a"]},
        {"notes": ["a"]},
        {"images": (3, 4, 6)},
        {"cams": torch.ones(1, 4, 6)},
        {"cams": torch.ones(2, 1, 4, 6)},
    ],
)
def test_explore_accentuations_rejects_wrong_inputs(tmp_path, wrong):
    with pytest.raises(
        ValueError,
        match=r"expected \(N, C, H, W\) of the photo's size, at least one, one photo or N, and N of each, cams",
    ):
        write_accentuations(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_explore_accentuations_rejects_unknown_verdicts(tmp_path):
    with pytest.raises(ValueError, match="verdict 'fine' is not known"):
        write_accentuations(tmp_path, verdicts=[("fine", "x"), ("holds", "y")])


def test_explore_accentuations_rejects_no_images(tmp_path):
    with pytest.raises(ValueError, match=r"images have shape \(0, 3, 4, 6\).* at least one"):
        write_accentuations(tmp_path, images=(0, 3, 4, 6), titles=[])


NAN = float("nan")


def sweeps_write(tmp_path, strips, rows=("a",)):
    return explore_sweeps(tmp_path / "page.html", strips, rows=list(rows), title="T").read_text()


def test_positions_on_the_line_and_missing_measurements(tmp_path):
    strip = Strip(torch.tensor([-1.0, 1.0]), torch.rand(1, 2, 3, 4, 4), torch.tensor([[NAN, 3.0]]))
    page = sweeps_write(tmp_path, {"unit <7>": strip}, rows=["<row>"])
    assert "unit &lt;7&gt;" in page and "&lt;row&gt;" in page and "<row>" not in page
    assert "set −1.0" in page and "measured –" in page and "measured 3.0" in page
    places = [part.split("%")[0] for part in page.split('style="left: ')[1:]]
    assert places == ["0.0", "50.0", "100.0"], "-1, 1 and 3 on a line from -1 to 3, and no dot for nan"
    assert "The reliability of this result was not checked." in page
    far = Strip(torch.tensor([-1.0, torch.inf]), strip.images, torch.tensor([[3.0, -torch.inf]]))
    page = sweeps_write(tmp_path, {"unit": far}, rows=["row"])
    places = [part.split("%")[0] for part in page.split('style="left: ')[1:]]
    assert places == ["0.0", "100.0"], "no mark for infinity"


def test_rows_and_verdicts_of_each_unit(tmp_path):
    strip = Strip(torch.tensor([0.0, 1.0]), torch.rand(1, 2, 1, 4, 4), torch.zeros(1, 2))
    path = explore_sweeps(
        tmp_path / "page.html", {"u": strip, "v": strip}, rows={"u": ["drawn: 3"], "v": ["drawn: 8"]}, title="T",
        verdicts={"v": ("fails", "of <that>")}, remark="The link holds.",
    )  # fmt: skip
    one, other = path.read_text().split("<h2")[1:]
    assert "drawn: 3" in one and "drawn: 8" in other
    assert "✗ fails</strong> because of &lt;that&gt;." in other and "because" not in one
    assert "stated below its name. The link holds." in path.read_text()


def test_large_frames_stay_below_the_limit(tmp_path, g):
    images = torch.rand(2, 5, 3, 400, 500, generator=g)
    strips = {f"unit {i}": Strip(torch.arange(5.0), images, torch.zeros(2, 5)) for i in range(3)}
    page = sweeps_write(tmp_path, strips, rows=["a", "b"])
    assert 3_000_000 < len(page) < 5_000_000 and page.count('<img src="data:image/jpeg') == 30
    assert "reduced from 500 x 400 to" in page


def test_explore_sweeps_rejects_wrong_inputs(tmp_path):
    with pytest.raises(ValueError, match="strips is empty; expected at least one sweep"):
        sweeps_write(tmp_path, {})
    strip = Strip(torch.zeros(2), torch.rand(1, 3, 3, 4, 4), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"u: 2 values, images \(1, 3, 3, 4, 4\), measured \(1, 3\) and 1 names"):
        sweeps_write(tmp_path, {"u": strip})
    with pytest.raises(ValueError, match=r"expected \(S,\), \(N, S, C, H, W\), \(N, S\) and N"):
        sweeps_write(tmp_path, {"u": strip._replace(values=torch.zeros(3))}, rows=["a", "b"])


@pytest.mark.parametrize(
    ("value", "text", "by", "note"),
    [
        (12.0, "12", "12.0", ""),
        (-0.12345, "−0.123", "-0.12345", ""),
        (1234.56, "1234.6", "1234.56", ""),
        (float("nan"), "–", "", ""),
        (None, "–", "", ""),
        ("left out", "left out", "left out", ""),
        ((0.5, 0.25, None), "0.500", "0.5", "[0.250, –]"),
        ((None, None, None), "–", "", ""),
    ],
)
def test_cells(value, text, by, note):
    assert cell_of(value) == (text, by, note)


def test_table_texts_are_escaped(tmp_path):
    page = explore_table(tmp_path / "t.html", ["<c>"], {"<m>": [1]}, title="T", images=1).read_text()
    assert (
        "&lt;c&gt;" in page
        and "&lt;m&gt;" in page
        and "<m>" not in page
        and "Each column is a measure, of one picture." in page
    )


def test_large_figures_are_reduced(tmp_path, g):
    path = explore_table(
        tmp_path / "t.html", ["c"], {"m": [1]}, title="T", images=2, figure=torch.rand(3, 1500, 2400, generator=g)
    )
    assert path.stat().st_size < 5_000_000 and "reduced from 2400 x 1500 to" in path.read_text()


def test_explore_table_rejects_wrong_inputs(tmp_path):
    with pytest.raises(ValueError, match=r"got 1 rows, of which \['m'\] do not have 2 values"):
        explore_table(tmp_path / "t.html", ["a", "b"], {"m": [1]}, title="T", images=1)
    with pytest.raises(ValueError, match="expected at least one row with a value for each column"):
        explore_table(tmp_path / "t.html", ["a"], {}, title="T", images=1)


def test_remarks_are_in_their_row(tmp_path):
    page = explore_table(
        tmp_path / "t.html", ["c"], {"good": [1], "bad": [None]}, title="T", images=2, remarks={"bad": "failed: <no>"}
    ).read_text()
    assert '<th scope="row" data-value="bad">bad<small>failed: &lt;no&gt;</small></th>' in page
    assert (
        '<th scope="row" data-value="good">good</th>' in page and "the same 2 pictures, or those with a value" in page
    )
