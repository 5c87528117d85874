import pytest

from xinc_captum.cli import demo
from xinc_captum.cli.failures import UsageError


def test_the_demo_runs_the_canvas_on_a_real_photo(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        demo, "canvas_command", lambda photo, out, *rest: calls.append((photo.name, photo.stat().st_size, out))
    )
    demo.demo_command(tmp_path, [demo.Part.canvas], 0)
    assert calls == [("chelsea.png", 240512, tmp_path / "canvas")]


def test_the_demo_accentuates_two_features_and_says_what_to_open(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(demo, "accentuate_command", lambda *given: calls.append(given))
    monkeypatch.setattr(demo, "canvas_command", lambda *given: calls.append(given))
    monkeypatch.setattr(demo, "video_command", lambda *given: calls.append(given))
    demo.demo_command(tmp_path, list(demo.Part), 3)
    photo, out, model, targets = calls[0][:4]
    assert (photo, out, model, len(targets)) == ("foolbox:00", tmp_path / "accentuate", "efficientnet_lite0", 2)
    said = capsys.readouterr().out.splitlines()
    pages = ("accentuate", "canvas", "video/carphone_nerv", "video/sprite")
    assert said[-4:] == [f"  {tmp_path / page / 'index.html'}" for page in pages]


def test_the_video_part_takes_the_shipped_network_and_fits_a_known_clip(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "video_command", lambda *given: calls.append(given))
    demo.demo_command(tmp_path, [demo.Part.video], 3)
    assert [given[:2] for given in calls] == [(clip, tmp_path / "video" / clip) for clip in ("carphone_nerv", "sprite")]
    assert calls[0][6] is None and calls[1][6] >= 100, "only the second is fitted"


def test_without_the_photo_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.resources, "files", lambda _name: (_ for _ in ()).throw(ModuleNotFoundError()))
    with pytest.raises(UsageError, match=r"pip install 'xinc-captum\[demo\]'"):
        demo.demo_command(tmp_path, [demo.Part.canvas], 0)
