import base64
import json
import re
import zlib

import numpy as np
import pytest
import torch

from xinc_captum.visualizers.explorer import explore_canvases, pack_units


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def write(tmp_path, picture, layers, **words):
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
    page = write(
        tmp_path, torch.rand(3, 4, 8), {bad: three}, title=bad, facts={bad: bad}, verdicts={bad: ("weak", bad)},
        names={bad: [bad, "b", "c"]},
    )  # fmt: skip
    assert "<img" not in page
    note = data_of(page)["layers"][0]
    assert note["layer"] == bad and note["names"][0] == bad


def test_each_layer_has_its_verdict(tmp_path, three):
    layers = {"h1": three, "h2": pack_units(three)}
    page = write(
        tmp_path, torch.rand(3, 4, 8), layers, verdicts={"h1": ("holds", "of this"), "h2": ("weak", "of that")}
    )
    assert "How far to trust h1: it holds, because of this." in page
    assert "How far to trust h2: it is weak, because of that." in page
    assert "The reliability of this result was not checked." in write(tmp_path, torch.rand(3, 4, 8), layers)


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
    write(tmp_path, picture, {"h": packed})
    alone = data_of((tmp_path / "page.html").read_text())["size"]
    write(tmp_path, picture, {"h": maps})
    assert alone < data_of((tmp_path / "page.html").read_text())["size"]
    with pytest.raises(
        ValueError, match=r"A cat: the page would have \d.\d MB; expected at most 5 MB. Write several pages"
    ):
        write(tmp_path, picture, {"h": packed, "i": packed})


def test_explore_canvases_rejects_wrong_inputs(tmp_path, three):
    picture = torch.rand(3, 4, 8)
    with pytest.raises(ValueError, match="layers is empty; expected the canvases of at least one layer"):
        write(tmp_path, picture, {})
    with pytest.raises(ValueError, match="h has canvases of 2 frames for 1 images"):
        write(tmp_path, picture, {"h": three[None].expand(2, -1, -1, -1, -1)})
    with pytest.raises(ValueError, match="h has 3 units and 1 names"):
        write(tmp_path, picture, {"h": three}, names={"h": ["a"]})
    packed = pack_units(three)
    with pytest.raises(ValueError, match="h refers to unit 9 and has 3 units"):
        write(tmp_path, picture, {"h": packed._replace(top=torch.full_like(packed.top, 9))})
    assert list(tmp_path.iterdir()) == []


def test_large_photos_are_reduced_to_640_pixels(tmp_path, three):
    smooth = torch.linspace(0, 1, 1280).expand(3, 700, 1280)
    assert data_of(write(tmp_path, smooth, {"h": three}))["size"] == [350, 640]
