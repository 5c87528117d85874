import errno
import importlib.util
import json
import math

import pytest
import torch
from PIL import Image

from xinc_captum import open_canvas
from xinc_captum.cli import video
from xinc_captum.cli.canvas_results import (
    NetworkName,
    RuleName,
    decoder_part,
    fit_network,
    make_network,
    measure_layer,
    measure_spread,
    methods_for,
    track_objects,
)
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.inputs import VideoInput
from xinc_captum.cli.video import _by_chance, video_canvas, write_video_page
from xinc_captum.hooks import LayerError
from xinc_captum.inr import load, render_video
from xinc_captum.inr.training import load_run
from xinc_captum.store import StoreError, check_folder, sha256
from xinc_captum.videos import VideoError
from xinc_captum.visualizers.report import Line

PAGE = ("frames", "units", "motion", "spread")


@pytest.fixture
def clip(tmp_path):
    """A square that walks over a slope, and its masks."""
    for i in range(4):
        frame = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
        mask = Image.new("L", (24, 16))
        box = (3 + 4 * i, 5, 9 + 4 * i, 11)
        frame.paste((230, 40, 40), box)
        mask.paste(255, box)
        for folder, picture in (("clip", frame), ("square", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{i}.png")
    return tmp_path / "clip"


def run(source, out, layers=("blocks.2.activation",), masks=None, frames=24, steps=3, seed=0, size=None, device="cpu"):
    video_canvas(str(source), out, None, list(layers), RuleName.secant, size, steps, frames, masks, seed, device)


def test_the_whole_job_with_masks(clip, tmp_path, capsys):
    out = tmp_path / "result"
    run(clip, out, ("blocks.2.activation", "head"), masks=tmp_path / "square")
    manifest = json.loads((out / "manifest.json").read_text())
    expected = {"index.html", "network.safetensors", "objects.png", *(f"{name}.png" for name in PAGE)}
    expected |= {"explorer.safetensors", "explorer.json"}
    assert {name for name in manifest["outputs"] if not name.startswith("canvas.zarr")} == expected
    assert all(sha256(out / name) == digest for name, digest in manifest["outputs"].items())
    assert manifest["layers"] == ["blocks.2.activation", "head"] and len(manifest["psnr_db"]) == 4
    assert set(manifest["inputs"]) == {"clip", "masks of square"}
    assert list(manifest["trust"]) == manifest["layers"]
    assert manifest["trust"]["head"]["verdict"] == "holds", "nothing comes behind the head"
    model, size = load(out / "network.safetensors")
    assert size == (4, 16, 24)
    kept = open_canvas(out / "canvas.zarr")
    assert (kept.layer, kept.pairs, kept.frames) == ("head", (14, 3), 4)
    whole = kept.to_tensor().sum((1, 2))
    assert torch.allclose(whole, render_video(model, 4), atol=5e-3), "what is kept adds up to the frames"
    page = (out / "index.html").read_text()
    assert page.count('<p class="verdict">') == 2 and "head <strong>✓ holds</strong>, because" in page
    assert "TV-L1, which misses objects that move more than a few pixels per frame" in page
    assert "square: best unit" in page and "elsewhere" in page and "open" in capsys.readouterr().out
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"clip", "square", "result"}, "the checkpoint goes when all is done"
    assert check_folder(out) == out, "a later run may replace it, the store in it too"


def test_two_frames_leave_out_the_shuffled_control(clip, tmp_path, no_ink):
    run(clip, tmp_path / "out", frames=2)
    assert "The control needs at least three frames." in (tmp_path / "out" / "index.html").read_text()


def test_without_zarr_and_scikit_image_the_page_names_the_extras(clip, tmp_path, monkeypatch, no_ink):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("zarr", "skimage") else find(name, *rest)
    )
    run(clip, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "xinc-captum[store]" in page and "xinc-captum[analysis]" in page
    assert not (tmp_path / "out" / "canvas.zarr").exists() and not (tmp_path / "out" / "motion.png").exists()


def test_a_run_stopped_while_drawing_does_not_fit_again(clip, tmp_path, monkeypatch, capsys, little_ink):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(video, "write_video_page", stop)
        with pytest.raises(KeyboardInterrupt):
            run(clip, tmp_path / "out")
    kept = tmp_path / "out.fit.pt"
    assert {p.name for p in tmp_path.iterdir()} == {"clip", "square", "out.fit.pt"}
    at = load_run(kept, {})["step"]
    assert at == 3
    capsys.readouterr()
    run(clip, tmp_path / "out")
    assert "resuming an earlier run" in capsys.readouterr().out
    run(clip, tmp_path / "anew")
    assert "going on" not in capsys.readouterr().out
    same = [json.loads((tmp_path / n / "manifest.json").read_text())["outputs"] for n in ("out", "anew")]
    assert same[0] == same[1], "and equal runs give equal bytes"
    assert not kept.exists() and "objects.png" not in same[0]


def test_a_full_disk_leaves_only_the_checkpoint(clip, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(video, "write_video_page", full)
    with pytest.raises(
        StoreError, match=r"there is no space for .*out \(No space left on device\); nothing was written"
    ):
        run(clip, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"clip", "square", "out.fit.pt"}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layers": ["blocks.2.activaton"]}, LayerError, "did you mean 'blocks.2.activation'"),
        ({"device": "gpu9"}, UsageError, "device 'gpu9' cannot be used here"),
        ({"source": "carphone_nerv"}, UsageError, "carphone_nerv is fitted already; --model and --steps do not"),
    ],
)
def test_wrong_options_fail_before_the_fit_and_write_nothing(clip, tmp_path, change, error, text, capsys):
    with pytest.raises(error, match=text):
        run(**{"source": clip, "out": tmp_path / "out", **change})
    assert "fitting" not in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"clip", "square"}


def test_bad_videos_and_masks_write_nothing(clip, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"x" * 100)
    with pytest.raises(VideoError, match="cannot be decoded"):
        run(tmp_path / "bad.mp4", tmp_path / "out")
    (tmp_path / "square" / "3.png").unlink()
    with pytest.raises(UsageError, match="has 3 masks for 4 frames"):
        run(clip, tmp_path / "out", masks=tmp_path / "square")
    with pytest.raises(StoreError, match="is a file; give a folder"):
        run(clip, tmp_path / "bad.mp4")
    assert {p.name for p in tmp_path.iterdir()} == {"clip", "square", "bad.mp4"}


def test_the_shipped_network_needs_no_fit(tmp_path, capsys, no_ink):
    run("carphone_nerv", tmp_path / "out", frames=3, steps=None)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["steps"] == 0 and min(manifest["psnr_db"]) > 38
    assert "fitting" not in capsys.readouterr().out


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
    film = VideoInput("bar", frames, {}, ("the bar",), masks, flow)
    model = make_network(NetworkName.hnerv, (8, 16), 0)
    network = fit_network(model, NetworkName.hnerv, film, 3, 0, CPU, folder / "fit.pt")
    method = methods_for(decoder_part(model), ["blocks.2.activation"], "tangent")["blocks.2.activation"]
    layer = measure_layer(method.canvas(network.rows, (8, 16)))
    lines = (Line(layer.name, "weak", ", because of this test"),)
    write_video_page(folder, film, network, [layer], lines, {"video": "bar"}, 0)
    return folder, film, layer


def test_every_figure_exists_and_objects_come_second(page):
    folder, _, _ = page
    text = (folder / "index.html").read_text()
    order = [text.index(f'src="{name}.png"') for name in ("frames", "objects", "units", "motion", "spread")]
    assert order == sorted(order)
    assert all((folder / f"{name}.png").stat().st_size > 5000 for name in ("frames", "objects", "units", "motion"))


def test_verdicts_come_before_the_figures(page):
    text = (page[0] / "index.html").read_text()
    at = text.index("blocks.2.activation <strong>≈ weak</strong>, because of this test")
    assert text.index("frames.png") < at < text.index('src="objects.png"')


def test_the_table_shows_the_best_unit_and_chance(page):
    folder, film, layer = page
    text = (folder / "index.html").read_text()
    carried = track_objects(layer, film.masks, 0)
    assert f"<td>{carried.best[0]:+.2f}</td><td>{carried.chance[0]:+.2f}</td>" in text
    assert math.isfinite(carried.lead)


def test_the_page_names_the_input_and_the_source_of_the_flow(page):
    text = (page[0] / "index.html").read_text()
    assert "to map the code of a frame from an encoder to the frame" in text
    assert "The flow is known exactly." in text


def test_the_caption_names_layers_that_are_not_above_chance(page):
    folder, _, layer = page
    assert _by_chance({"a": True, "b": True}) == ""
    assert _by_chance({"a": True, "b": False, "c": False}) == "; not more than the control here: b, c"
    assert _by_chance({"a": False, "b": False}) == "; not more than the control here: in every layer"
    spread = measure_spread(layer, 2, 0)
    text = (folder / "index.html").read_text()
    assert f"units are local{_by_chance({layer.name: spread.places})}. Right" in text
    assert f"make up each pixel{_by_chance({layer.name: spread.few})}." in text
