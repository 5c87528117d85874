import json

import pytest

from xinc_captum import store
from xinc_captum.cli import explore, explore_others
from xinc_captum.cli.bundle import bundle_at
from xinc_captum.cli.explore import explore_command, page_of
from xinc_captum.cli.explore_canvases import photo_page, video_page
from xinc_captum.cli.explore_link import link_page
from xinc_captum.cli.failures import UsageError

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
        ({"asked": [], "features": [], "second_network": None, "model": {}}, explore_others.accentuation_page),
        ({"feature": "a", "layer": None, "interrupted": False, "trust": {}}, explore_others.saved_accentuation_page),
        ({"variant": "linear", "audit": {}, "units": [], "trust": "holds"}, link_page),
        ({"units": [], "linked": [], "judged_in": 32}, explore_others.sweep_page),
        ({"unit": 1, "fidelity": {}, "agreement": 1.0, "trust": {}}, explore_others.unit_sweep_page),
        ({"methods": [], "reference": "a", "rounds": 1}, explore_others.comparison_page),
    ],
)
def test_a_result_is_known_by_its_manifest(tmp_path, note, page):
    assert page_of(bundle_at(made(tmp_path / "result", note))) is page


@pytest.mark.parametrize("command", ["counterfactual", "nern", "transinr"])
def test_a_result_without_such_a_page(tmp_path, command):
    with store.calling({"command": command}):
        folder = made(tmp_path / "result", {"seed": 1})
    says = f"was made by xinc {command}, and there is no page to explore of such; its own page shows it already: "
    with pytest.raises(UsageError, match=f"{says}{folder / 'index.html'}. Wanted a result of xinc canvas, accentuate"):
        explore_command(folder, None)
    assert not (tmp_path / "result.html").exists()


def test_a_file_of_another_kind_is_not_written_over(tmp_path, monkeypatch):
    def page(bundle, path):
        path.write_text("<!doctype html>new")

    monkeypatch.setattr(explore, "KINDS", (({"seed"}, page),))
    folder = made(tmp_path / "result", {"seed": 1})
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        UsageError, match=r"thesis.tex is a file of another kind and would be lost; give a name that is"
    ):
        explore_command(folder, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    with pytest.raises(UsageError, match="index.html lies in the result itself, which would count as damaged"):
        explore_command(folder, folder / "index.html")
    for _ in range(2):
        explore_command(folder, tmp_path / "page.html")


def test_a_result_without_any_page(tmp_path):
    folder = made(tmp_path / "other", {"seed": 1}, "table.csv")
    with pytest.raises(UsageError, match="holds another result, and there is no page to explore of such. Wanted a"):
        explore_command(folder, None)


def test_more_than_a_page_holds(tmp_path, monkeypatch):
    def too_much(bundle, path):
        raise ValueError("900,000 pictures do not fit into 4.8 MB")

    monkeypatch.setattr(explore, "KINDS", (({"seed"}, too_much),))
    folder = made(tmp_path / "result", {"seed": 1})
    with pytest.raises(UsageError, match=f"{folder}: 900,000 pictures do not fit into 4.8 MB"):
        explore_command(folder, None)


def test_a_manifest_that_says_too_little(tmp_path):
    folder = made(tmp_path / "result", {"methods": [], "reference": "a", "rounds": 1}, "table.json")
    with pytest.raises(UsageError, match="damaged: table.json cannot be read"):
        explore_command(folder, None)
    with store.bundle(folder, {"methods": [], "reference": "a", "rounds": 1}) as work:
        (work / "table.json").write_text(json.dumps({"lines": []}))
    with pytest.raises(UsageError, match=r"is damaged, or of a version that kept other things \(KeyError: 'rows'\)"):
        explore_command(folder, None)
    assert not (tmp_path / "result.html").exists()


def test_where_the_file_cannot_be_written(tmp_path):
    folder = made(tmp_path / "result", CANVAS)
    with pytest.raises(UsageError, match="is a folder; wanted a file, such as"):
        explore_command(folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*none to write page.html to; make it first"):
        explore_command(folder, tmp_path / "none" / "page.html")
