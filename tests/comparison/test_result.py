import json
import math

import pytest
import torch
from safetensors.torch import load_file

from xinc_captum.comparison import Comparison, Row
from xinc_captum.comparison.result import Scores
from xinc_captum.store import StoreError

NAN = math.nan


def scores(deletion, insertion, agreement, energy, faults=("", "")):
    return Scores(*(torch.tensor(v) for v in (deletion, insertion, agreement, energy)), faults)


SCORES = {
    "Grad-CAM": scores([0.25, 0.75], [0.5, 1.0], [1.0, 1.0], [NAN, NAN]),
    "a|b": scores([0.25, NAN], [0.75, NAN], [-0.5, NAN], [NAN, NAN], ("", "constant")),
    "flat": scores([NAN, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN], ("constant", "not finite")),
}


def comparison(seconds=0.5, **only):
    found = {name: SCORES[name] for name in only.get("names", SCORES)}
    return Comparison(
        photos=torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        maps={name: torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)) for name in found},
        table=tuple(Row.of(name, s, seconds, 2 * seconds) for name, s in found.items()),
        scores=found,
        confidence=torch.tensor([0.5, 0.25]),
        reference="Grad-CAM",
        note={"seed": 3, "rounds": 1, "steps": 4, "target": 1},
    )


def test_rows_are_means_of_what_is_left():
    good, partly, flat = comparison().table
    assert good == ("Grad-CAM", 0.5, 1.0, 0.5, 0.75, 1.0, pytest.approx(NAN, nan_ok=True), 0, "")
    assert partly[3:6] == (0.25, 0.75, -0.5) and partly.left_out == 1
    assert math.isnan(flat.deletion) and flat.fault == "constant or not finite"


def test_the_table_as_text():
    assert (
        comparison().to_markdown()
        == str(comparison())
        == (
            "| method | CPU seconds | seconds | deletion AUC ↓ | insertion AUC ↑ | ρ with Grad-CAM | energy in mask ↑ | left out |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
            "| Grad-CAM | 0.500 | 1.000 | 0.500 | 0.750 | 1.00 | – |  |\n"
            "| a\\|b | 0.500 | 1.000 | 0.250 | 0.750 | -0.50 | – | 1 of 2 maps (constant) |\n"
            "| flat | 0.500 | 1.000 | constant or not finite | constant or not finite | – | – "
            "| 2 of 2 maps (constant or not finite) |\n"
        )
    )
    assert "left out" not in comparison(names=["Grad-CAM"]).to_markdown()


def test_the_figure_carries_two_numbers_a_method():
    texts = [t.get_text() for t in comparison().figure().texts]
    assert "deletion 0.50 ↓" in texts and "insertion 0.75 ↑" in texts
    assert "constant or not finite" in texts


def test_saved_whole(tmp_path):
    result = comparison()
    result.save(tmp_path / "result")
    folder = tmp_path / "result"
    assert sorted(p.name for p in folder.iterdir()) == [
        "figure.png", "manifest.json", "maps.safetensors", "table.json", "table.md", "times.json",
    ]  # fmt: skip
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    maps = load_file(folder / "maps.safetensors")
    assert all(torch.equal(maps[name], m) for name, m in result.maps.items()) and len(maps) == 3
    assert "| Grad-CAM | 0.500 | 0.750 | 1.00 | – |  |" in (folder / "table.md").read_text()
    table = json.loads((folder / "table.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert table["rows"][0] == {
        "method": "Grad-CAM", "deletion": 0.5, "insertion": 0.75, "agreement": 1.0, "energy": None, "left_out": 0,
    }  # fmt: skip
    assert table["images"][1]["probability"] == 0.25
    assert table["images"][1]["methods"]["a|b"] == dict.fromkeys(
        ("deletion", "insertion", "agreement", "energy"), None
    ) | {"fault": "constant"}
    assert json.loads((folder / "times.json").read_text())["flat"] == {"cpu_seconds": 0.5, "wall_seconds": 1.0}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seed"] == 3 and manifest["reference"] == "Grad-CAM" and manifest["methods"] == list(result.maps)


def test_slower_but_equal_runs_have_equal_manifests(tmp_path):
    comparison().save(tmp_path / "fast")
    comparison(seconds=9.0).save(tmp_path / "slow")
    fast, slow = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("fast", "slow"))
    assert fast == slow


def test_not_at_all_when_something_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("xinc_captum.comparison.result.save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        comparison().save(tmp_path / "result")
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="holds files but no manifest"):
        comparison().save(tmp_path)
