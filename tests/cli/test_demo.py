import json

import pytest

from xinc_captum.cli import demo
from xinc_captum.cli.errors import UsageError


def test_the_demo_runs_the_canvas_on_a_real_photo(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        demo, "photo_canvas", lambda photo, out, *rest: calls.append((photo.name, photo.stat().st_size, out))
    )
    demo.demo_command(tmp_path, [demo.Part.canvas], 0)
    assert calls == [("chelsea.png", 240512, tmp_path / "canvas")]
    assert (tmp_path / "chelsea.png").stat().st_size == 240512, "xinc replay reads it"


def test_the_demo_accentuates_two_features_and_prints_the_pages(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(demo, "accentuate_command", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(demo, "photo_canvas", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(demo, "video_canvas", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(demo, "_run_link", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(demo, "nern_command", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(demo, "trans_inr_command", lambda *given, **more: calls.append((*given, more)))
    demo.demo_command(tmp_path, list(demo.Part), 3)
    photo, out, more = calls[0]
    assert (photo, out, len(more["targets"])) == ("foolbox:00", tmp_path / "accentuate", 2)
    said = capsys.readouterr().out.splitlines()
    pages = ("accentuate", "canvas", "video/carphone_nerv", "video/sprite")
    pages += ("linked/link", "linked/units", "linked/another_answer")
    pages += ("nern", "transinr")
    assert said[-9:] == [f"  {tmp_path / page / 'index.html'}" for page in pages]


def test_the_video_part_takes_the_shipped_network_and_fits_a_known_clip(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "video_canvas", lambda *given, **more: calls.append((*given, more)))
    demo.demo_command(tmp_path, [demo.Part.video], 3)
    assert [given[:2] for given in calls] == [(clip, tmp_path / "video" / clip) for clip in ("carphone_nerv", "sprite")]
    assert calls[0][6] is None and calls[1][6] >= 100, "only the second is fitted"


def test_networks_that_write_networks_come_with_the_package(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "nern_command", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(demo, "trans_inr_command", lambda *given, **more: calls.append((*given, more)))
    demo.demo_command(tmp_path, [demo.Part.nern, demo.Part.transinr], 3)
    nern, written = calls
    assert nern[:3] == ("mnist_convnet", tmp_path / "nern", "mnist_generator") and nern[-1]["fitted"] == "mnist_nern"
    assert written[:2] == (["mnist_digits"], tmp_path / "transinr")
    assert "model" not in written[-1], "by default the shipped model"


def test_without_the_photo_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.resources, "files", lambda _name: (_ for _ in ()).throw(ModuleNotFoundError()))
    with pytest.raises(UsageError, match=r"pip install 'xinc-captum\[demo\]'"):
        demo.demo_command(tmp_path, [demo.Part.canvas], 0)


def test_the_linked_part_links_sweeps_and_flips(tmp_path, monkeypatch):
    calls = []
    for name in ("sweep_command", "counterfactual_command"):
        monkeypatch.setattr(demo, name, lambda *given, name=name, **more: calls.append((name, given)))

    def link_command(out, **more):
        out.mkdir(parents=True)
        verdicts = {4: "weak", 7: "holds", 9: "fails", 2: "holds", 5: "holds", 6: "fails"}
        units = [{"unit": unit, "verdict": verdict, "rank": 20 - unit} for unit, verdict in verdicts.items()]
        (out / "manifest.json").write_text(json.dumps({"units": units}))
        calls.append(("link_command", (out,)))

    monkeypatch.setattr(demo, "link_command", link_command)
    demo.demo_command(tmp_path, [demo.Part.linked], 3)
    assert [name for name, _ in calls] == ["link_command", "sweep_command", "counterfactual_command"]
    link, sweep, flip = (given for _, given in calls)
    assert link[0] == sweep[0] == flip[0] == tmp_path / "linked" / "link"
    assert sweep[2] == [7, 2, 6], "two that hold, and the worst one"


def test_the_units_shown_are_of_different_classes_and_the_failure_is_the_clearest(tmp_path):
    told = [("holds", 1), ("holds", 1), ("holds", 1), ("holds", 1), ("weak", 2), ("fails", 9), ("fails", 40)]
    units = [{"unit": i, "verdict": verdict, "rank": rank} for i, (verdict, rank) in enumerate(told)]

    def selected(units):
        (tmp_path / "manifest.json").write_text(json.dumps({"units": units}))
        return demo._select_units(tmp_path)

    assert selected(units) == [0, 2, 6]
    assert selected(units[3:]) == [3, 6]
    assert selected(units[:5]) == [0, 2, 4], "if none fails, a weak one"
    assert selected(units[4:5]) == [4], "a weak one if there is no other"
