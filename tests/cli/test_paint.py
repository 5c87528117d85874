from pathlib import Path

import pytest
from PIL import Image

from xinc_captum.cli import paint
from xinc_captum.cli.canvas import Model, RuleName
from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.paint import NetworkName, paint_command
from xinc_captum.cli.video_results import VideoModel


@pytest.fixture
def calls(monkeypatch):
    seen = []
    monkeypatch.setattr(paint, "canvas_command", lambda *given: seen.append(("photo", *given)))
    monkeypatch.setattr(paint, "video_command", lambda *given: seen.append(("video", *given)))
    return seen


def run(source, model=None, size=None, steps=None, frames=None, masks=None):
    paint_command(str(source), Path("out"), model, None, RuleName.secant, size, steps, frames, masks, 0, "cpu")


def test_photos_and_videos_go_their_ways(calls, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    run(tmp_path / "a.png")
    run(tmp_path / "a.png", NetworkName.siren, 64, 7)
    run(tmp_path, NetworkName.hnerv, 64, 7, 5, tmp_path)
    run("carphone_nerv")
    out, rule = Path("out"), RuleName.secant
    assert calls == [
        ("photo", tmp_path / "a.png", out, Model.ffn, None, rule, 192, 1000, 0, "cpu"),
        ("photo", tmp_path / "a.png", out, Model.siren, None, rule, 64, 7, 0, "cpu"),
        ("video", str(tmp_path), out, VideoModel.hnerv, None, rule, 64, 7, 5, tmp_path, 0, "cpu"),
        ("video", "carphone_nerv", out, None, None, rule, None, None, 24, None, 0, "cpu"),
    ]


def test_what_belongs_to_the_other_kind_is_refused(calls, tmp_path):
    photo = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(photo)
    with pytest.raises(UsageError, match="--model nerv is not for a photo; expected ffn or siren"):
        run(photo, NetworkName.nerv)
    with pytest.raises(UsageError, match="--model siren is not for a video; expected nerv or hnerv"):
        run("sprite", NetworkName.siren)
    for extra in ({"frames": 5}, {"masks": tmp_path}):
        with pytest.raises(UsageError, match="--frames and --masks are for videos"):
            run(photo, **extra)
    with pytest.raises(UsageError, match="--frames is 1; expected at least 2"):
        run("sprite", frames=1)
    with pytest.raises(FileNotFoundError, match=r"nothing.mp4 is not a file; expected a photo .*carphone_nerv, "):
        run(tmp_path / "nothing.mp4")
    assert not calls
