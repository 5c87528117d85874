import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from xinc_captum import store
from xinc_captum.cli.canvas import Model, photo_canvas
from xinc_captum.cli.canvas_trust import RuleName
from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.explore import explore_command
from xinc_captum.cli.results import read_bundle, write_explorer_files
from xinc_captum.cli.video_results import LayerMagnitudes
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
    photo_canvas(tmp_path / "slope & hill.png", tmp_path / "out", Model.ffn, layers, RuleName.secant, 24, 2, 0, "cpu")
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


def test_a_video_result_holds_what_its_page_shows(tmp_path, g):
    maps, drawn = torch.randn(3, 4, 3, 8, 16, generator=g), torch.rand(3, 3, 8, 16, generator=g)
    said = {"verdict": "weak", "because": "of this"}
    note = {"rule": "secant", "layers": ["a", "head"], "psnr_db": [30.0, 40.0, 50.0], "steps": 5}
    note |= {"trust": dict.fromkeys(("a", "head"), said), "model": {"name": "nerv"}}
    layers = [
        LayerMagnitudes(name, kind, maps.abs().sum(2), (), pack_units(maps), names)
        for name, kind, names in (
            ("a", "neurons", tuple(f"neuron {i}" for i in range(4))),
            ("head", "kernels", ("kernel 0 → red", "kernel 0 → green", "kernel 1 → red", "kernel 1 → green")),
        )
    ]
    with store.bundle(tmp_path / "film", note) as work:
        packed = {layer.name: layer.packed for layer in layers}
        unit_names = {layer.name: layer.names for layer in layers if layer.kind != "neurons"}
        write_explorer_files(work, "clip", drawn, packed, unit_names)
    explore_command(tmp_path / "film", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    data = data_of(page)
    assert data["layers"][0]["names"] is None and data["layers"][1]["names"][3] == "kernel 1 → green"
    assert len(data["frames"]) == 3
    torch.testing.assert_close(opened(data["frames"][1]), drawn[1], atol=0.01, rtol=0)
    assert "frame by frame: clip" in page and "40.0 dB" in page and "head: it is weak, because of this" in page


def test_a_video_result_of_an_older_version_raises(tmp_path):
    note = {"rule": "secant", "layers": ["a"], "psnr_db": [30.0], "steps": 5, "trust": {}, "model": {"name": "nerv"}}
    with store.bundle(tmp_path / "film", note) as work:
        (work / "index.html").write_text("x")
    with pytest.raises(UsageError, match="has no tensors for the explorer; run xinc canvas again"):
        explore_command(tmp_path / "film", None)


@pytest.fixture
def folder(tmp_path):
    with store.bundle(tmp_path / "result", {"seed": 3}) as work:
        save_file({"a": torch.arange(3)}, work / "a.safetensors")
        (work / "b.json").write_text('{"c": [1]}')
    return tmp_path / "result"


def test_files_are_read_back(folder):
    bundle = read_bundle(folder)
    assert bundle.note["seed"] == 3 and bundle.has("b.json") and not bundle.has("c.json")
    assert bundle.tensors("a.safetensors")["a"].tolist() == [0, 1, 2]
    assert bundle.json("b.json") == {"c": [1]}


def test_a_file_that_is_missing_or_changed(folder):
    (folder / "b.json").write_text('{"c": [2]}')
    (folder / "a.safetensors").unlink()
    with pytest.raises(UsageError, match="damaged: b.json was changed. Make the result again"):
        read_bundle(folder).json("b.json")
    with pytest.raises(UsageError, match="damaged: a.safetensors is missing"):
        read_bundle(folder).tensors("a.safetensors")
    with pytest.raises(UsageError, match="damaged: never.json is missing"):
        read_bundle(folder).json("never.json")


def test_files_of_the_wrong_format_raise(tmp_path):
    with store.bundle(tmp_path / "result", {}) as work:
        (work / "a.safetensors").write_bytes(b"no")
        (work / "b.json").write_text("{")
    with pytest.raises(UsageError, match="a.safetensors cannot be read"):
        read_bundle(tmp_path / "result").tensors("a.safetensors")
    with pytest.raises(UsageError, match="b.json cannot be read"):
        read_bundle(tmp_path / "result").json("b.json")


@pytest.mark.parametrize("said", [None, "{", "[]", "{}", '{"format": "other", "outputs": {}}'])
def test_other_manifests_raise(tmp_path, said):
    if said is not None:
        (tmp_path / "manifest.json").write_text(said)
    with pytest.raises(
        UsageError, match="holds no manifest.json of xinc-captum; expected a result folder of an xinc command"
    ):
        read_bundle(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; expected a result folder"):
        read_bundle(tmp_path / "none")


def test_additional_entries_of_the_manifest_are_ignored(folder):
    note = json.loads((folder / "manifest.json").read_text())
    note["format"] = "xinc-captum-result-9"
    (folder / "manifest.json").write_text(json.dumps(note))
    with pytest.raises(UsageError, match="holds no manifest.json of xinc-captum"):
        read_bundle(folder)
