import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from xinc_captum.comparison import Column, Comparison, Counts, Row, compare, result
from xinc_captum.comparison.measures import COLUMNS, select_columns
from xinc_captum.comparison.result import captions, score_notes
from xinc_captum.metrics import Interval
from xinc_captum.store import StoreError

NAN = math.nan
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
FLAWS = {"Grad-CAM": ["", ""], "a|b": ["", "constant"], "flat": ["constant", "not finite"]}
SCORES = {
    "Grad-CAM": {"deletion": [0.25, 0.75], "insertion": [0.5, 1.0], "agreement": [1.0, 1.0]},
    "a|b": {"deletion": [0.25, NAN], "insertion": [0.75, NAN], "agreement": [-0.5, NAN]},
    "flat": {"deletion": [NAN, NAN], "insertion": [NAN, NAN], "agreement": [NAN, NAN]},
}


def comparison(seconds=0.5, names=tuple(SCORES), error=True):
    scores = {name: {m: torch.tensor(v) for m, v in SCORES[name].items()} for name in names}
    counts = Counts(forwards=2, backwards=1, rows=4, peak_bytes=1_500_000)
    rows = [Row.of(name, (seconds, 2 * seconds), counts, s, FLAWS[name], "", 0) for name, s in scores.items()]
    if error:
        rows.append(Row.of("broken", (NAN, NAN), Counts(), {}, [], "ValueError: a | b\nc", 0))
    return Comparison(
        photos=torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        maps={name: torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)) for name in scores},
        table=tuple(rows),
        scores=scores,
        confidence=torch.tensor([0.5, 0.25]),
        reference="Grad-CAM",
        note={"seed": 3, "rounds": 1, "steps": 4, "target": 1},
        columns=select_columns(["deletion", "insertion", "agreement"]),
    )


def test_rows_are_means_over_valid_maps():
    good, partly, flat, _ = comparison().table
    assert good.scores["deletion"] == (0.5, 0.25, 0.75), "a resample of two is one of them twice, or both"
    assert (good.seconds, good.cpu_seconds, good.left_out, good.fault) == (1.0, 0.5, 0, "")
    assert (
        partly.scores["deletion"].value == 0.25 and math.isnan(partly.scores["deletion"].low) and partly.left_out == 1
    )
    assert math.isnan(flat.scores["deletion"].value) and flat.fault == "constant or not finite"


def test_table_as_markdown():
    assert (
        comparison().to_markdown()
        == str(comparison())
        == (
            "| method | seconds | forwards | backwards | peak MB | deletion AUC ↓ | insertion AUC ↑ | ρ with Grad-CAM | remarks |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
            "| Grad-CAM | 1.000 | 2 | 1 | 1.5 | 0.50 [0.25, 0.75] | 0.75 [0.50, 1.00] | 1.00 [1.00, 1.00] |  |\n"
            "| a\\|b | 1.000 | 2 | 1 | 1.5 | 0.25 | 0.75 | -0.50 "
            "| 1 of 2 maps left out (constant) |\n"
            "| flat | 1.000 | 2 | 1 | 1.5 | – | – | – | 2 of 2 maps left out (constant or not finite) |\n"
            "| broken | – | – | – | – | – | – | – | failed: ValueError: a \\| b c |\n"
        )
    )
    assert "remarks" not in comparison(names=["Grad-CAM"], error=False).to_markdown()


def test_result_as_json_values():
    found = comparison().to_dict()
    assert found["rows"][0] == {
        "method": "Grad-CAM", "seconds": 1.0, "cpu_seconds": 0.5, "forwards": 2, "backwards": 1, "peak MB": 1.5,
        "deletion": [0.5, 0.25, 0.75], "insertion": [0.75, 0.5, 1.0], "agreement": [1.0, 1.0, 1.0],
        "left_out": 0, "fault": "", "error": "",
    }  # fmt: skip
    assert found["rows"][2]["deletion"] == [None] * 3 and found["rows"][3]["seconds"] is None
    assert found["images"][1]["methods"]["a|b"] == dict.fromkeys(("deletion", "insertion", "agreement"), None)
    assert (found["reference"], found["seed"], found["images"][1]["probability"]) == ("Grad-CAM", 3, 0.25)
    json.dumps(found, allow_nan=False)


def test_figure_has_two_scores_per_method():
    texts = [t.get_text() for t in comparison().figure().texts]
    assert "deletion 0.50 ↓" in texts and "insertion 0.75 ↑" in texts
    assert "constant or not finite" in texts and "broken" not in texts
    assert "One scale for all maps" in " ".join(t.get_text() for t in comparison().figure(shared=True).texts)


def said(figure):
    return " ".join(t.get_text() for t in figure.texts)


def test_figure_explains_classes_and_scores():
    assert "class 1, p 0.50" in said(comparison().figure()) and "class 1, p 0.25" in said(comparison().figure())
    assert "tinca, p 0.50" in said(comparison().figure(labels=["tench", "tinca, Tinca"]))
    assert "deletion: area under" in said(comparison().figure()) and "less is better (↓)" in said(comparison().figure())
    with pytest.raises(LookupError, match="labels have no name for class 1"):
        comparison().figure(labels=["tench"])


def test_baselines_can_be_excluded(tmp_path):
    found = comparison()
    assert found.baselines == () and "do not depend on the network" not in said(found.figure())
    found = dataclasses.replace(found, note={**found.note, "baselines": ["a|b", "flat"]})
    assert found.baselines == ("a|b", "flat") and "do not depend on the network" in said(found.figure())
    without = said(found.figure(baselines=False))
    assert "Grad-CAM" in without and "flat" not in without and "do not depend" not in without
    found.save(tmp_path / "result")
    for file in ("manifest.json", "table.json"):
        assert json.loads((tmp_path / "result" / file).read_text())["baselines"] == ["a|b", "flat"]
    found = dataclasses.replace(found, note={**found.note, "baselines": list(found.maps)})
    with pytest.raises(ValueError, match="no map is left without the baselines; use baselines=True, or compare more"):
        found.figure(baselines=False)


def test_save_writes_all_files(tmp_path):
    result = comparison()
    result.save(tmp_path / "result")
    folder = tmp_path / "result"
    assert sorted(p.name for p in folder.iterdir()) == [
        "figure.png", "manifest.json", "maps.safetensors", "table.json", "table.md", "times.json",
    ]  # fmt: skip
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    maps = load_file(folder / "maps.safetensors")
    assert all(torch.equal(maps[name], m) for name, m in result.maps.items()) and len(maps) == 3
    assert "| Grad-CAM | 2 | 1 | 1.5 | 0.50 [0.25, 0.75] |" in (folder / "table.md").read_text()
    table = json.loads((folder / "table.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    whole = result.to_dict()
    for row in whole["rows"]:
        del row["seconds"], row["cpu_seconds"]
    assert table == whole
    assert json.loads((folder / "times.json").read_text())["flat"] == {"cpu_seconds": 0.5, "seconds": 1.0}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seed"] == 3 and manifest["reference"] == "Grad-CAM"
    assert manifest["methods"] == ["Grad-CAM", "a|b", "flat", "broken"]


def test_manifests_do_not_depend_on_time(tmp_path):
    comparison().save(tmp_path / "fast")
    comparison(seconds=9.0).save(tmp_path / "slow")
    fast, slow = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("fast", "slow"))
    assert fast == slow


def test_save_writes_nothing_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("xinc_captum.store.write_tensors", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        comparison().save(tmp_path / "result")
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="holds files but no manifest"):
        comparison().save(tmp_path)


def test_figure_of_selected_images():
    words = said(comparison().figure(images=[1]))
    assert "class 1, p 0.25" in words and "class 1, p 0.50" not in words and "Means over 2 photos" in words
    with pytest.raises(IndexError, match="images contains 2; expected indices from 0 to 1"):
        comparison().figure(images=[0, 2])
    with pytest.raises(ValueError, match="images is empty; expected at least one index, or None"):
        comparison().figure(images=[])


def test_equal_maps_of_two_methods_are_saved(tmp_path):
    kept = torch.rand(2, 8, 8)
    compare({"a": lambda x, y: kept, "b": lambda x, y: kept}, NET, torch.rand(2, 3, 8, 8), 0, rounds=1).save(tmp_path)
    found = load_file(tmp_path / "maps.safetensors")
    assert torch.equal(found["a"], kept) and torch.equal(found["b"], kept)


def test_a_result_of_failed_methods_can_be_saved(tmp_path):
    with pytest.warns(UserWarning, match="broken failed and has no map"):
        found = compare({"broken": lambda x, y: 1 / 0}, NET, torch.rand(2, 3, 8, 8), 0, rounds=1, baselines=())
    found.save(tmp_path)
    assert not (tmp_path / "figure.png").exists() and load_file(tmp_path / "maps.safetensors") == {}
    assert "failed: ZeroDivisionError" in (tmp_path / "table.md").read_text()
    with pytest.raises(ValueError, match="no map is left"):
        found.figure()


def test_infinity_becomes_null_in_json(tmp_path):
    column = Column("far", "far", "", lambda case: torch.tensor([math.inf, 1.0]))
    compare(["edge map"], NET, torch.rand(2, 3, 8, 8), 0, rounds=1, baselines=(), metrics=[column]).save(tmp_path)
    read = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    assert [one["methods"]["edge map"]["far"] for one in read["images"]] == [None, 1.0]


def test_figure_names_failed_methods(tmp_path, monkeypatch):
    feet = []
    grid = result.comparison_grid
    monkeypatch.setattr(result, "comparison_grid", lambda *a, foot, **k: feet.append(foot) or grid(*a, foot=foot, **k))
    comparison().figure()
    comparison(error=False).figure()
    assert feet[0].endswith("Not shown, because they failed: broken.") and "Not shown" not in feet[1]


def test_class_names_are_saved(tmp_path):
    comparison().save(tmp_path / "named", labels=["cat", "dog, hound"])
    assert json.loads((tmp_path / "named" / "manifest.json").read_text())["labels"] == {"1": "dog"}
    with pytest.raises(LookupError, match="labels have no name for class 1"):
        comparison().save(tmp_path / "wrong", labels=["cat"])
    assert not (tmp_path / "wrong").exists()


def row(method, left_out=0, **values):
    scores = {name: Interval(value, value, value) for name, value in values.items()}
    return Row(method, 1.0, 1.0, Counts(), scores, left_out, "constant" if left_out else "")


def test_small_scores_have_three_decimals():
    rows = [row("a", deletion=0.023, insertion=0.74), row("b", deletion=0.25, insertion=0.1)]
    notes, _ = score_notes(rows, select_columns(["deletion", "insertion"]), 3)
    assert notes == {"a": "deletion 0.023 ↓\ninsertion 0.74 ↑", "b": "deletion 0.250 ↓\ninsertion 0.10 ↑"}


def test_only_the_scores_in_the_figure_are_explained():
    rows = [row("a", sparseness=0.5, road=0.2, energy=0.5, deletion=0.5)]
    _, foot = score_notes(rows, select_columns(["sparseness", "road", "energy", "deletion"]), 3)
    assert (
        foot.startswith("ROAD: probability without the weakest pixels")
        and "deletion" not in foot
        and "Gini" not in foot
    )
    assert "energy in mask: share of the map inside the mask; more is better (↑). Means over 3 photos." in foot
    assert "One photo." in score_notes(rows, select_columns(["deletion"]), 1)[1]
    assert score_notes(rows, select_columns(["sparseness"]), 3) == ({"a": ""}, "")
    own = Column("own", "mine", "↓", lambda _: None)
    assert score_notes([row("a", own=4.0)], [own], 2)[1] == "mine; less is better (↓). Means over 2 photos."


def test_notes_of_invalid_maps():
    rows = [row("a", deletion=0.5), row("b", 1, deletion=0.5), row("c", 2, deletion=math.nan), row("d")]
    notes, foot = score_notes(rows, select_columns(["deletion"]), 2)
    assert notes["c"] == "constant" and notes["d"] == "deletion – ↓"
    assert foot.endswith("Means over 2 photos, without invalid maps.")


def test_measures_with_a_better_side_have_a_meaning():
    assert all(column.meaning for column in COLUMNS if column.better)


def test_captions():
    assert captions(243, [0.714, math.nan], None) == [("class 243", "p 0.71"), ("class 243", "")]
    assert captions([2], [0.5], {2: "a\udcff"}) == [("a?", "p 0.50")], "no font draws a byte that is no UTF-8"
    assert captions([2], [0.0514, 0.5], {2: "a, b"}) == [("a", "p 0.051"), ("a", "p 0.50")]
    for labels in (["a", "b"], {1: "b"}):
        with pytest.raises(LookupError, match=r"no name for class 2; give one per class, or {2: 'its name'}"):
            captions([2], [0.5], labels)
    with pytest.raises(LookupError, match="class -1"):
        captions(-1, [0.5], ["a", "b"])
