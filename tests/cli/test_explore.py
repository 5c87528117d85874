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
from xinc_captum.attributions.accentuation.result import opacity
from xinc_captum.cli import explore
from xinc_captum.cli.accentuate import accentuate_command
from xinc_captum.cli.canvas import photo_canvas
from xinc_captum.cli.canvas_results import LayerMagnitudes, NetworkName, RuleName, write_explorer_files
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.explore import explore_command, link_page, page_of, photo_page, read_bundle, video_page
from xinc_captum.cli.sweep import Mode, Span, Way, sweep_command
from xinc_captum.comparison import Comparison, Counts, Row
from xinc_captum.comparison.measures import select_columns
from xinc_captum.inr import load, render
from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.images import album, masks_of

CANVAS = {"rule": "secant", "layers": ["h"], "psnr_db": 3.0, "trust": {}, "model": {"name": "ffn"}}


def made(folder, note, file="index.html"):
    with store.bundle(folder, note) as work:
        (work / file).write_text("x")
    return folder


@pytest.mark.parametrize(
    ("note", "page"),
    [
        (CANVAS, photo_page),
        (CANVAS | {"steps": 3, "psnr_db": [3.0]}, video_page),
        ({"asked": [], "features": [], "second_network": None, "model": {}}, explore.accentuation_page),
        ({"feature": "a", "layer": None, "interrupted": False, "trust": {}}, explore.accentuation_object_page),
        ({"variant": "linear", "audit": {}, "units": [], "trust": "holds"}, link_page),
        ({"units": [], "linked": [], "judged_in": 32}, explore.sweep_page),
        ({"unit": 1, "fidelity": {}, "agreement": 1.0, "trust": {}}, explore.unit_sweep_page),
        ({"methods": [], "reference": "a", "rounds": 1}, explore.comparison_page),
    ],
)
def test_the_manifest_selects_the_page(tmp_path, note, page):
    assert page_of(read_bundle(made(tmp_path / "result", note))) is page


@pytest.mark.parametrize("command", ["counterfactual", "nern", "transinr"])
def test_a_result_without_such_a_page(tmp_path, command):
    with store.record_call({"command": command}):
        folder = made(tmp_path / "result", {"seed": 1})
    says = f"was made by xinc {command}, for which there is no interactive page; see its page "
    with pytest.raises(
        UsageError, match=f"{says}{folder / 'index.html'}. Expected a result of xinc canvas, accentuate"
    ):
        explore_command(folder, None)
    assert not (tmp_path / "result.html").exists()


def test_a_file_of_another_kind_is_not_overwritten(tmp_path, monkeypatch):
    def page(bundle, path):
        path.write_text("<!doctype html>new")

    monkeypatch.setattr(explore, "KINDS", (({"seed"}, page),))
    folder = made(tmp_path / "result", {"seed": 1})
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis.tex is an existing file of another kind; give a new name"):
        explore_command(folder, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    with pytest.raises(UsageError, match="index.html is inside the result folder, which must not change"):
        explore_command(folder, folder / "index.html")
    for _ in range(2):
        explore_command(folder, tmp_path / "page.html")


def test_a_result_without_any_page(tmp_path):
    folder = made(tmp_path / "other", {"seed": 1}, "table.csv")
    with pytest.raises(UsageError, match="holds another result, for which there is no interactive page. Expected a"):
        explore_command(folder, None)


def test_results_too_large_for_a_page_raise(tmp_path, monkeypatch):
    def too_much(bundle, path):
        raise ValueError("900,000 pictures do not fit into 4.8 MB")

    monkeypatch.setattr(explore, "KINDS", (({"seed"}, too_much),))
    folder = made(tmp_path / "result", {"seed": 1})
    with pytest.raises(UsageError, match=f"{folder}: 900,000 pictures do not fit into 4.8 MB"):
        explore_command(folder, None)


def test_an_incomplete_manifest_raises(tmp_path):
    folder = made(tmp_path / "result", {"methods": [], "reference": "a", "rounds": 1}, "table.json")
    with pytest.raises(UsageError, match="damaged: table.json cannot be read"):
        explore_command(folder, None)
    with store.bundle(folder, {"methods": [], "reference": "a", "rounds": 1}) as work:
        (work / "table.json").write_text(json.dumps({"lines": []}))
    with pytest.raises(UsageError, match=r"is damaged or has the contents of another version \(KeyError: 'rows'\)"):
        explore_command(folder, None)
    assert not (tmp_path / "result.html").exists()


def test_where_the_file_cannot_be_written(tmp_path):
    folder = made(tmp_path / "result", CANVAS)
    with pytest.raises(UsageError, match="is a folder; expected a file, such as"):
        explore_command(folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="the folder .*none for page.html does not exist; create it first"):
        explore_command(folder, tmp_path / "none" / "page.html")


ROOM = 1_000_000
SAID = {"verdict": "weak", "because": "of this"}


def explore_others_page_of(tmp_path, note, file, tensors):
    with store.bundle(tmp_path / "result", note) as work:
        save_file(tensors, work / file)
    explore_command(tmp_path / "result", tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_accentuations_are_in_the_order_of_the_options(tmp_path, g):
    names = [f"{i}_lion" for i in range(1, 12)]  # as text, 10 comes before 2
    held = {"photo": torch.rand(3, 6, 8, generator=g)}
    for name in names:
        held |= {f"{name}.image": torch.rand(3, 6, 8, generator=g), f"{name}.mask": torch.rand(3, 6, 8, generator=g)}
    features = [{"title": f"the {i}.", "before": -0.5, "after": 2.25 + i, "steps": 6} | SAID for i in range(1, 12)]
    note = {"asked": [], "features": features, "second_network": None, "model": {"name": "net"}}
    note |= {"inputs": {"photo of the zoo": "chelsea"}, "asked": [{"layer": "head"}, {"layer": None}]}
    page = explore_others_page_of(tmp_path, note, "accentuation.safetensors", held)
    assert "<dt>layer</dt><dd>head</dd>" in page
    assert "What net sees in chelsea" in page and "output for it: -0.5 → 4.25, after 6 steps." in page
    second = page[page.index("<h2>the 2.</h2>") : page.index("<h2>the 3.</h2>")]
    assert album([held["2_lion.image"]], ROOM).addresses[0] in second
    assert masks_of(list(opacity(held["2_lion.mask"][None])), ROOM)[0] in second
    assert page.count(album([held["photo"]], ROOM).addresses[0]) == 1
    assert "≈ weak</strong> because of this." in second
    assert 'class="cam"' not in page, "no map was kept"
    held |= {f"{name}.where": torch.rand(6, 8, generator=g) for name in names}
    for layer, head in (("head", "where the unit is active"), (None, "Grad-CAM: where")):
        again = explore_others_page_of(
            tmp_path / head, note | {"asked": [{"layer": layer}]}, "accentuation.safetensors", held
        )
        assert again.count(f"<h3>{head}</h3>") == again.count('class="cam" src="data:image/png') == 11


@pytest.mark.parametrize(("after", "says"), [("ambulance", "now"), ("jeep", "still")])
def test_the_notes_name_the_predicted_classes(tmp_path, g, after, says):
    held = {f"1_x.{part}": torch.rand(3, 6, 8, generator=g) for part in ("image", "mask")}
    answers = {"before": [["jeep", 0.97], ["cab", 0.02]], "after": [[after, 0.6], ["van", 0.004]]}
    feature = {"title": "ambulance", "unit": "logit", "before": -0.5, "after": 2.25, "steps": 6, "answers": answers}
    note = {"asked": [{"layer": None}], "features": [feature | SAID], "second_network": None, "model": {"name": "net"}}
    note |= {"inputs": {"photo of the zoo": "chelsea"}}
    page = explore_others_page_of(
        tmp_path, note, "accentuation.safetensors", held | {"photo": torch.rand(3, 6, 8, generator=g)}
    )
    assert (
        "logit for it: -0.5 → 2.25, after 6 steps. The network predicts jeep (97 %) for the photo, and for the accentuation "
        f"{says} {after} (60 %), van (&lt;1 %)." in page
    )


def test_a_result_of_accentuation_save(tmp_path, g):
    held = {name: torch.rand(2, 3, 6, 8, generator=g) for name in ("images", "masks", "seeds")}
    note = {"feature": "lion", "layer": None, "interrupted": False, "trust": SAID}
    page = explore_others_page_of(tmp_path, note, "accentuation.safetensors", held)
    second = page[page.index("lion, photo 1") :]
    first, other = album(list(held["seeds"]), ROOM).addresses
    assert other in second and first not in second


def test_sweeps_show_measured_values(tmp_path):
    held = {"unit_7.values": torch.tensor([0.0, 1, 2]), "unit_7.images": torch.rand(1, 3, 1, 4, 4)}
    held["unit_7.measured"] = torch.tensor([[0.25, 0.5, 3.0]])
    ends = {"model": "net", "layer": "head", "generator": "gen"}
    note = {"units": [{"unit": 7} | SAID], "linked": [{"name": "drawn: 0"}], "judged_in": 32, "ends": ends}
    page = explore_others_page_of(tmp_path, note, "sweeps.safetensors", held)
    assert page.count("data-frame=") == 3 and "drawn: 0" in page and "Sweeps of units of net" in page
    assert "≈ weak</strong> because of this." in page
    last = page[page.rindex("data-frame=") :]
    assert "set 2.0" in last and "measured 3.0" in last
    assert "left: 66.7%" in last and "left: 100.0%" in last, "2 and 3 on a line from 0 to 3"


def test_a_result_of_unit_sweep_save(tmp_path):
    held = {"values": torch.tensor([0.0, 1]), "images": torch.rand(2, 2, 3, 4, 4)}
    held["representations"] = torch.tensor([[[9.0, 0.125], [9, 0.5]], [[9, 0.25], [9, 0.75]]])
    note = {"unit": 1, "fidelity": {}, "agreement": 1.0, "trust": SAID}
    page = explore_others_page_of(tmp_path, note, "sweep.safetensors", held)
    assert "What unit 1 shows" in page and "image 1" in page
    assert "measured 0.75" in page and "measured 9" not in page


@pytest.fixture
def compared(tmp_path):
    scores = {
        "Grad-CAM": {"deletion": torch.tensor([0.25, 0.75])},
        "<flat>": {"deletion": torch.tensor([torch.nan] * 2)},
    }
    counts = Counts(forwards=2, backwards=1, rows=4, peak_bytes=1_500_000)
    rows = [
        Row.of(name, (0.5, 1.0), counts, s, flaws, "", 0)
        for (name, s), flaws in zip(scores.items(), (["", ""], ["constant", "constant"]), strict=True)
    ]
    nan = float("nan")
    rows.append(Row.of("broken", (nan, nan), Counts(), {}, [], "ValueError: no", 0))
    made = Comparison(
        photos=torch.rand(2, 3, 8, 8), maps={name: torch.rand(2, 8, 8) for name in scores}, table=tuple(rows),
        scores=scores, confidence=torch.tensor([0.5, 0.25]), reference="Grad-CAM",
        note={"seed": 3, "rounds": 1, "steps": 4, "target": 1, "network": "net"}, columns=select_columns(["deletion"]),
    )  # fmt: skip
    made.save(tmp_path / "compared")
    return tmp_path / "compared"


def test_a_comparison(tmp_path, compared):
    explore_command(compared, None)
    page = (tmp_path / "compared.html").read_text()
    assert "<dt>network</dt><dd>net</dd>" in page and "<dt>classes</dt><dd>1</dd>" in page
    assert "the same 2 pictures" in page and "deletion AUC ↓" in page
    good = page[page.index('data-value="Grad-CAM"') : page.index('data-value="&lt;flat&gt;"')]
    cells = [part.split('"')[0] for part in good.split('data-value="')[1:]]
    assert cells[:6] == ["Grad-CAM", "0.5", "1.0", "2.0", "1.0", "1.5"], "deletion, seconds, passes, memory"
    assert "<dt>deletion AUC ↓</dt><dd>area under the class&#39;s probability, strongest pixels removed first" in page
    assert "2 left out (constant)" in page and "failed: ValueError: no" in page
    assert page.count('<img src="data:image/') == 1


def test_a_comparison_without_its_times(tmp_path, compared):
    (compared / "times.json").unlink()
    explore_command(compared, None)
    page = (tmp_path / "compared.html").read_text()
    good = page[page.index('data-value="Grad-CAM"') : page.index('data-value="&lt;flat&gt;"')]
    assert [part.split('"')[0] for part in good.split('data-value="')[2:4]] == ["0.5", ""], "deletion, no seconds"


def test_what_the_sweep_command_writes(tmp_path, link_folder):
    more = {"photos": [], "span": Span.quantile, "way": Way.marginal, "mode": Mode.anchored, "steps": 4, "count": 3}
    sweep_command(link_folder, tmp_path / "swept", [0, 2], **more, seed=0, device="cpu")
    explore_command(tmp_path / "swept", None)
    page = (tmp_path / "swept.html").read_text()
    assert page.count("data-frame=") == 2 * 3 * 4
    assert page.count("</strong> because ") == 2


def test_what_the_accentuate_command_writes(tmp_path, tiny):
    values = np.random.default_rng(0).integers(0, 255, (3, 18, 24, 3), dtype=np.uint8)
    (tmp_path / "natural").mkdir()
    for place, photo in zip(("photo.png", "natural/a.png", "natural/b.png"), values, strict=True):
        Image.fromarray(photo).save(tmp_path / place)
    accentuate_command(
        str(tmp_path / "photo.png"), tmp_path / "out", f"{tiny}:colours", ["warm", "cold"], [], [], None, 1, 0, 24,
        "cpu", tmp_path / "natural",
    )  # fmt: skip
    explore_command(tmp_path / "out", None)
    page = (tmp_path / "out.html").read_text()
    assert [part.split("<")[0] for part in page.split("<h2>")[1:]] == ["warm", "cold"]
    assert page.count('class="opacity"') == page.count('class="only"') == page.count(" because ") == 2
    assert 'class="cam"' not in page, "a network that has no map has no Grad-CAM"
    assert "What colours sees in photo" in page or f"What {tiny}" in page


def test_a_comparison_of_failures_alone_has_no_figure(tmp_path, g):
    row = Row("broken", *[float("nan")] * 2, Counts(), {}, error="ValueError: no")
    found = Comparison(
        torch.rand(1, 3, 8, 8, generator=g), {}, (row,), {}, torch.tensor([0.5]), "broken",
        {"seed": 0, "rounds": 1, "target": 1, "baselines": []}, select_columns(["deletion"]),
    )  # fmt: skip
    found.save(tmp_path / "compared")
    explore_command(tmp_path / "compared", None)
    page = (tmp_path / "compared.html").read_text()
    assert "failed: ValueError: no" in page and "<img" not in page


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def opened(address):
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def test_a_photo_from_end_to_end(tmp_path, little_ink, capsys):
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(tmp_path / "slope & hill.png")
    layers = ["activation1", "activation2"]
    photo_canvas(
        tmp_path / "slope & hill.png", tmp_path / "out", NetworkName.ffn, layers, RuleName.secant, 24, 2, 0, "cpu"
    )
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
        write_explorer_files(work, "clip", drawn, layers)
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
