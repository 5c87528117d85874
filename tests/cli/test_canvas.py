import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum import NeuronCanvas
from xinc_captum.cli import canvas as canvas_module
from xinc_captum.cli.canvas import _most_detailed_pixel, canvas_command, photo_canvas
from xinc_captum.cli.canvas_results import NetworkName, RuleName
from xinc_captum.cli.command import UsageError
from xinc_captum.hooks import LayerError
from xinc_captum.images import PhotoError
from xinc_captum.inr import coordinates, load, psnr, render
from xinc_captum.store import StoreError, sha256


@pytest.fixture
def photo(tmp_path):
    image = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(photo, out, model=NetworkName.ffn, layers=None, rule=RuleName.secant, steps=8, seed=0, device="cpu"):
    photo_canvas(photo, out, model, layers, rule, 24, steps, seed, device)


@pytest.mark.parametrize("model", [NetworkName.ffn, NetworkName.siren])
def test_the_whole_job(photo, tmp_path, model, capsys):
    run(photo, tmp_path / "out", model, layers=["activation1"])
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    names = {"activation1.safetensors", "index.html", "network.safetensors"}
    names |= {f"activation1_{p}.png" for p in ("build_up", "grid", "neuron", "pixel", "dominant")}
    assert set(manifest["outputs"]) == names
    assert {p.name for p in out.iterdir()} == names | {"manifest.json", "times.json"}
    assert all(sha256(out / name) == digest for name, digest in manifest["outputs"].items())
    assert manifest["inputs"] == {"photo.png": sha256(photo)}
    assert "open" in capsys.readouterr().out
    network, size = load(out / "network.safetensors")
    kept = load_file(out / "activation1.safetensors")
    assert size == (16, 24)
    rebuilt = kept["maps"].float().sum(0) + kept["rest"]
    assert psnr(rebuilt, render(network, size)) > 50, "what is kept adds up to the picture"
    assert math.isfinite(manifest["psnr_db"])
    canvas = NeuronCanvas(network, "activation1", rule="secant").canvas(coordinates(size), size)
    told = manifest["trust"]["activation1"]
    assert list(manifest["trust"]) == ["activation1"]
    assert (told["verdict"], told["because"]) == (canvas.trust.verdict, canvas.trust.because)
    page = (out / "index.html").read_text()
    assert page.count('<p class="verdict">activation1 <strong>') == 1
    assert f" {told['verdict']}</strong>, because {told['because']}." in page
    assert ("--rule tangent" in page) == (told["verdict"] != "holds")


def test_equal_runs_give_equal_bytes(photo, tmp_path, little_ink):
    for name in ("one", "two"):
        run(photo, tmp_path / name, layers=["activation2"], rule=RuleName.tangent, steps=2)
    outputs = [json.loads((tmp_path / n / "manifest.json").read_text())["outputs"] for n in ("one", "two")]
    assert outputs[0] == outputs[1]


def test_by_default_every_activation_is_drawn(photo, tmp_path, no_ink):
    run(photo, tmp_path / "out", steps=2)
    assert len(list((tmp_path / "out").glob("*.png"))) == 10


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layers": ["activaton1"]}, LayerError, "did you mean 'activation1'"),
        ({"device": "gpu9"}, UsageError, "device 'gpu9' cannot be used here .*try --device cpu"),
        ({"device": "meta"}, UsageError, "device 'meta'"),
    ],
)
def test_wrong_options_fail_before_the_fit_and_write_nothing(photo, tmp_path, change, error, text, capsys):
    with pytest.raises(error, match=text):
        run(photo, tmp_path / "out", **change)
    assert "fitting" not in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_a_bad_photo_or_folder_writes_nothing(photo, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PhotoError, match="cannot be read as a photo"):
        run(tmp_path / "notes.txt", tmp_path / "out")
    with pytest.raises(StoreError, match="is a file; give a folder"):
        run(photo, tmp_path / "notes.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "photo.png"]


def test_ctrl_c_while_drawing_writes_nothing(photo, tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("xinc_captum.cli.canvas.canvas_grid", stop)
    with pytest.raises(KeyboardInterrupt):
        run(photo, tmp_path / "out", steps=2)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_the_most_detailed_pixel_is_on_an_edge():
    photo = torch.zeros(3, 40, 60)
    photo[:, :, 33:] = 1
    y, x = _most_detailed_pixel(photo)
    assert 10 <= y < 30
    assert abs(x - 33) <= 5


@pytest.fixture
def calls(monkeypatch):
    seen = []
    monkeypatch.setattr(canvas_module, "photo_canvas", lambda *given: seen.append(("photo", *given)))
    monkeypatch.setattr(canvas_module, "video_canvas", lambda *given: seen.append(("video", *given)))
    return seen


def run_either(source, model=None, size=None, steps=None, frames=None, masks=None):
    canvas_command(str(source), Path("out"), model, None, RuleName.secant, size, steps, frames, masks, 0, "cpu")


def test_photos_and_videos_are_dispatched(calls, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    run_either(tmp_path / "a.png")
    run_either(tmp_path / "a.png", NetworkName.siren, 64, 7)
    run_either(tmp_path, NetworkName.hnerv, 64, 7, 5, tmp_path)
    run_either("carphone_nerv")
    out, rule = Path("out"), RuleName.secant
    assert calls == [
        ("photo", tmp_path / "a.png", out, NetworkName.ffn, None, rule, 192, 1000, 0, "cpu"),
        ("photo", tmp_path / "a.png", out, NetworkName.siren, None, rule, 64, 7, 0, "cpu"),
        ("video", str(tmp_path), out, NetworkName.hnerv, None, rule, 64, 7, 5, tmp_path, 0, "cpu"),
        ("video", "carphone_nerv", out, None, None, rule, None, None, 24, None, 0, "cpu"),
    ]


def test_options_of_the_other_kind_raise(calls, tmp_path):
    photo = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(photo)
    with pytest.raises(UsageError, match="--model nerv is not for a photo; expected ffn or siren"):
        run_either(photo, NetworkName.nerv)
    with pytest.raises(UsageError, match="--model siren is not for a video; expected nerv or hnerv"):
        run_either("sprite", NetworkName.siren)
    for extra in ({"frames": 5}, {"masks": tmp_path}):
        with pytest.raises(UsageError, match="--frames and --masks are for videos"):
            run_either(photo, **extra)
    with pytest.raises(UsageError, match="--frames is 1; expected at least 2"):
        run_either("sprite", frames=1)
    with pytest.raises(FileNotFoundError, match=r"nothing.mp4 is not a file; expected a photo .*carphone_nerv, "):
        run_either(tmp_path / "nothing.mp4")
    assert not calls
