import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import store
from xinc_captum.cli.canvas import Model, RuleName, canvas_command
from xinc_captum.cli.explore import explore_command
from xinc_captum.cli.explore_canvases import keep
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.video_story import Layer
from xinc_captum.inr import load, render
from xinc_captum.visualizers.explorer import pack_units


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def opened(address):
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def test_a_photo_from_end_to_end(tmp_path, little_ink, capsys):
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(tmp_path / "slope & hill.png")
    layers = ["activation1", "activation2"]
    canvas_command(tmp_path / "slope & hill.png", tmp_path / "out", Model.ffn, layers, RuleName.secant, 24, 2, 0, "cpu")
    explore_command(tmp_path / "out", None)
    page = (tmp_path / "out.html").read_text()
    assert f"open {(tmp_path / 'out.html').resolve()}" in capsys.readouterr().out
    data = data_of(page)
    assert [one["layer"] for one in data["layers"]] == layers and data["layers"][0]["units"] == 104
    drawn = render(*load(tmp_path / "out" / "network.safetensors")).clamp(0, 1)
    torch.testing.assert_close(opened(data["frames"][0]), drawn, atol=0.01, rtol=0)
    assert "What the neurons of a network paint: slope &amp; hill" in page
    trust = json.loads((tmp_path / "out" / "manifest.json").read_text())["trust"]
    for layer, found in trust.items():
        assert f"How far to trust {layer}: it " in page and found["because"] in page


def test_a_video_keeps_what_its_page_shows(tmp_path, g):
    maps, drawn = torch.randn(3, 4, 3, 8, 16, generator=g), torch.rand(3, 3, 8, 16, generator=g)
    said = {"verdict": "weak", "because": "of this"}
    note = {"rule": "secant", "layers": ["a", "head"], "psnr_db": [30.0, 40.0, 50.0], "steps": 5}
    note |= {"trust": dict.fromkeys(("a", "head"), said), "model": {"name": "nerv"}}
    layers = [
        Layer(name, kind, maps.abs().sum(2), (), pack_units(maps), names)
        for name, kind, names in (
            ("a", "neurons", tuple(f"neuron {i}" for i in range(4))),
            ("head", "kernels", ("kernel 0 → red", "kernel 0 → green", "kernel 1 → red", "kernel 1 → green")),
        )
    ]
    with store.bundle(tmp_path / "film", note) as work:
        keep(work, "clip", drawn, layers)
    explore_command(tmp_path / "film", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    data = data_of(page)
    assert data["layers"][0]["names"] is None and data["layers"][1]["names"][3] == "kernel 1 → green"
    assert len(data["frames"]) == 3
    torch.testing.assert_close(opened(data["frames"][1]), drawn[1], atol=0.01, rtol=0)
    assert "frame by frame: clip" in page and "40.0 dB" in page and "head: it is weak, because of this" in page


def test_a_video_from_before_it_was_kept(tmp_path):
    note = {"rule": "secant", "layers": ["a"], "psnr_db": [30.0], "steps": 5, "trust": {}, "model": {"name": "nerv"}}
    with store.bundle(tmp_path / "film", note) as work:
        (work / "index.html").write_text("x")
    with pytest.raises(UsageError, match="does not keep what this page shows; run xinc canvas again"):
        explore_command(tmp_path / "film", None)
