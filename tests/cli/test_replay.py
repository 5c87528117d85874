import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from xinc_captum import store
from xinc_captum.attributions.trans_inr import TransINR
from xinc_captum.cli.accentuate import accentuate_command
from xinc_captum.cli.canvas import photo_canvas
from xinc_captum.cli.canvas_results import NetworkName, RuleName
from xinc_captum.cli.command import COMMANDS, UsageError, app
from xinc_captum.cli.counterfactual import Method, counterfactual_command
from xinc_captum.cli.nern import nern_command
from xinc_captum.cli.replay import compare_folders, differences, replay, resolve_call
from xinc_captum.cli.sweep import Mode, Span, Way, sweep_command
from xinc_captum.cli.trans_inr import trans_inr_command
from xinc_captum.cli.video import video_canvas

NETWORKS = """
import torch
from torch import nn
from xinc_captum.image_model import ImageModel, Normalise

def colours():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return ImageModel("tiny", nn.Sequential(*layers), Normalise((0.5,) * 3, (0.5,) * 3), 16, ("fox", "dog", "lion"))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a photo, a clip and a module of networks."""
    here = tmp_path_factory.mktemp("replayed")
    (here / "clip").mkdir()
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 255, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(values).save(here / "clip" / f"{i}.png")
    shutil.copy(here / "clip" / "0.png", here / "photo.png")
    (here / "replayed_networks.py").write_text(NETWORKS)
    sys.path.insert(0, str(here))
    yield here
    sys.path.remove(str(here))


def canvas(here, out, **_):
    photo_canvas(here / "photo.png", out, NetworkName.siren, ["activation1"], RuleName.secant, 24, 3, 1, "cpu")


def accentuate(here, out, **_):
    model, natural = "replayed_networks:colours", here / "clip"
    accentuate_command(str(here / "photo.png"), out, model, ["dog"], [], [], None, 2, 0, 24, "auto", natural)


def video(here, out, **_):
    layers = ["blocks.2.activation"]
    video_canvas(str(here / "clip"), out, None, layers, RuleName.tangent, None, 2, 24, None, 0, "cpu")


def nern(here, out, **_):
    nern_command("replayed_networks:colours", out, "noise", [], 4, 2, None, 0, "cpu")


def transinr(here, out, **_):
    TransINR(3, (8, 8), 4, dim=16, depth=1, ff=16, seed=0).save(here / "small.safetensors")
    trans_inr_command([str(here / "clip")], out, str(here / "small.safetensors"), 8, None, None, 0, "cpu")


def sweep(here, out, link):
    sweep_command(link, out, [2], [], Span.sd, Way.marginal, Mode.anchored, 2, 2, 0, "cpu")


def counterfactual(here, out, link):
    counterfactual_command(link, out, "left", [], Method.ray, 0.0, 3, 0, "cpu")


def link(here, out, link):
    shutil.copytree(link, out)  # made once for all tests of the commands


MAKERS = {one.__name__: one for one in (canvas, accentuate, video, nern, transinr, sweep, counterfactual, link)}


def test_every_command_that_writes_a_result_can_be_replayed():
    assert set(MAKERS) == COMMANDS.keys() - {"joke"}, "which test_command.py adds"


@pytest.mark.parametrize("name", MAKERS)
def test_a_replay_is_bit_identical(name, here, link_folder, tmp_path, capsys, no_ink):
    MAKERS[name](here, tmp_path / "out", link=link_folder)
    note = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert note["call"]["command"] == name and note["call"]["threads"] == torch.get_num_threads()
    assert note["call"]["settings"]["device"] == "cpu" or torch.cuda.is_available(), "auto says which it was"
    capsys.readouterr()
    assert replay(tmp_path / "out")
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"computing {tmp_path / 'out'} again, with the settings in its manifest …"
    same = [line for line in lines if line.endswith((": bit-identical", ": same text"))]
    assert last == (
        f"{len(same)} of {len(same)} arrays of {tmp_path / 'out'} are bit-identical, and its manifest is equal; images "
        "are not compared"
    )
    assert len(same) == len(lines) >= 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "nothing else is left"


@pytest.mark.parametrize("name", ["canvas", "accentuate", "video", "sweep", "counterfactual"])
def test_a_result_of_relative_paths_replays_from_elsewhere(
    name, here, link_folder, tmp_path, monkeypatch, capsys, no_ink
):
    """Relative paths through a linked folder, and a result that is moved before it is replayed elsewhere."""
    place = tmp_path / "my work, ü"
    shutil.copytree(here, place)
    shutil.copytree(link_folder, place / "link")
    (tmp_path / "short").symlink_to(place)
    monkeypatch.chdir(tmp_path / "short")
    MAKERS[name](Path(), Path("out"), link=Path("link"))
    (tmp_path / "elsewhere").mkdir()
    shutil.move(place / "out", tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert replay(Path("moved")), capsys.readouterr().out


def test_a_module_of_the_working_directory_is_found_from_elsewhere(tmp_path, monkeypatch, no_ink):
    (tmp_path / "of_that_folder.py").write_text(NETWORKS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    nern_command("of_that_folder:colours", Path("out"), "noise", [], 4, 2, None, 0, "cpu")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delitem(sys.modules, "of_that_folder")
    assert replay(Path("../out"))
    assert Path.cwd() == tmp_path / "elsewhere"


@pytest.fixture(scope="module")
def once(here, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    canvas(here, out)
    return out


@pytest.fixture
def made(once, tmp_path, no_ink):
    """A result of its own for each test."""
    return Path(shutil.copytree(once, tmp_path / "out"))


def rewritten(folder, **change):
    """The manifest, changed, with checksums that are right again."""
    note = json.loads((folder / "manifest.json").read_text())
    note["outputs"] = {name: store.sha256(folder / name) for name in note["outputs"]}
    (folder / "manifest.json").write_text(json.dumps(note | change))
    return note


def test_a_changed_number_is_reported(made, capsys, no_ink):
    kept = load_file(made / "activation1.safetensors")
    kept["totals"][0, 0] += 0.25
    save_file(kept, made / "activation1.safetensors")
    rewritten(made)
    done = CliRunner().invoke(app, ["replay", str(made)])
    assert done.exit_code == 1
    assert (
        f"activation1.safetensors: totals: differs by up to 0.25 in 1 of {kept['totals'].numel()} places" in done.output
    )
    assert "activation1.safetensors: maps: bit-identical" in done.output


@pytest.mark.parametrize(("share", "near"), [(2e-4, True), (1e-2, False)])
def test_on_another_machine_floats_may_round_otherwise(made, capsys, no_ink, share, near):
    kept = load_file(made / "activation1.safetensors")
    kept["totals"] += share * kept["totals"].abs().max()
    save_file(kept, made / "activation1.safetensors")
    note = rewritten(made)
    assert not replay(made), "the same machine"
    rewritten(made, call=note["call"] | {"machine": "another"})
    capsys.readouterr()
    assert replay(made) is near
    out = capsys.readouterr().out
    assert out.startswith("machine: another before, ") and "now; arrays may differ in their last bits" in out
    assert ("are bit-identical, 1 more within 0.001 of their largest value, and its manifest is equal" in out) is near


def test_a_changed_verdict_is_reported(made, capsys, no_ink):
    note = json.loads((made / "manifest.json").read_text())
    verdict = note["trust"]["activation1"]["verdict"]
    note["trust"]["activation1"]["verdict"] = "better"
    (made / "manifest.json").write_text(json.dumps(note))
    assert not replay(made)
    said = capsys.readouterr().out
    assert f"  manifest.json: trust.activation1.verdict: 'better' before, '{verdict}' now" in said
    assert "are bit-identical, and its manifest differs in 1 entry; images" in said


def test_a_damaged_result_raises(made):
    with (made / "network.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match=r"out is damaged: network.safetensors has changed since it was written"):
        replay(made)
    (made / "network.safetensors").unlink()
    with pytest.raises(UsageError, match="network.safetensors is missing. Restore it from a backup"):
        replay(made)


def test_folders_without_a_result_raise(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder; expected a result"):
        replay(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no readable manifest.json"):
        replay(tmp_path / "empty")
    rewritten(made, format="xinc-captum-result-9")
    with pytest.raises(UsageError, match="has the format 'xinc-captum-result-9'; this version reads"):
        replay(made)


def test_a_result_of_another_version_raises(made):
    versions = rewritten(made)["versions"]
    rewritten(made, versions=versions | {"xinc-captum": "0.0.1"})
    with pytest.raises(UsageError, match=r"made by xinc-captum 0.0.1, and this is .*; replay it with that version"):
        replay(made)
    rewritten(made, versions=versions | {"torch": "2.0.0"})
    done = CliRunner().invoke(app, ["replay", str(made)])
    assert done.exit_code == 0 and "torch: 2.0.0 before, " in done.output


def test_a_result_saved_from_python_raises(tmp_path):
    with store.bundle(tmp_path / "out", {}) as folder:
        (folder / "a.txt").write_text("a")
    with pytest.raises(UsageError, match="has no recorded call of a command, because it was saved from Python"):
        replay(tmp_path / "out")


def test_missing_or_changed_inputs_raise(made, tmp_path):
    note = rewritten(made)
    photo = shutil.copy(note["call"]["settings"]["photo_path"], tmp_path / "photo.png")
    rewritten(made, call=note["call"] | {"files": {str(photo): store.sha256(photo)}})
    Image.new("RGB", (24, 16)).save(photo)
    with pytest.raises(UsageError, match=r"photo.png has changed since .*out was made from it"):
        replay(made)
    photo.unlink()
    with pytest.raises(FileNotFoundError, match=r"photo.png, an input of .*out, is missing"):
        replay(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"outputs": []}, "manifest.json does not list its files. Restore it from a backup"),
        ({"call": {"command": "canvas"}}, "has no settings of its command"),
        ({"call": {"command": "canvas", "settings": 3, "files": {}}}, "has no settings of its command"),
        ({"call": {"command": "canvas", "settings": {}, "files": []}}, "has no settings of its command"),
    ],
)
def test_a_damaged_manifest_raises(made, change, says):
    note = rewritten(made)
    (made / "manifest.json").write_text(json.dumps(note | change))
    with pytest.raises(UsageError, match=f"out is damaged: .*{says}"):
        replay(made)


def test_settings_that_do_not_fit_raise(made):
    note = rewritten(made)
    call = note["call"]
    settings = {key: value for key, value in call["settings"].items() if key != "rule"}
    with pytest.raises(UsageError, match="do not fit xinc canvas: rule"):
        resolve_call(made, note | {"call": call | {"settings": settings}})
    with pytest.raises(UsageError, match="cannot be read: 'many' is a str; expected int"):
        resolve_call(made, note | {"call": call | {"settings": call["settings"] | {"steps": "many"}}})
    with pytest.raises(UsageError, match="cannot be read: 'thumb' is not a valid RuleName"):
        resolve_call(made, note | {"call": call | {"settings": call["settings"] | {"rule": "thumb"}}})


def test_a_result_from_before_an_option_gets_its_default(here, tmp_path, no_ink):
    accentuate(here, tmp_path / "out")
    note = json.loads((tmp_path / "out" / "manifest.json").read_text())
    call = note["call"]
    settings = {key: value for key, value in call["settings"].items() if key != "weights"}
    assert len(settings) == len(call["settings"]) - 1
    _, found = resolve_call(tmp_path / "out", note | {"call": call | {"settings": settings}})
    assert found["weights"] is None and found["model"] == "replayed_networks:colours"


def test_settings_are_converted_to_the_commands_types(made):
    command, settings = resolve_call(made, rewritten(made))
    assert command is photo_canvas
    assert settings["rule"] is RuleName.secant and isinstance(settings["photo_path"], Path)
    assert settings["layers"] == ["activation1"] and settings["steps"] == 3


NAN = float("nan")


def words(tmp_path, before, after):
    for name, tensors in (("a", before), ("b", after)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "x.safetensors")
    return {
        one.name.removeprefix("x.safetensors: "): (one.same, one.text)
        for one in compare_folders(tmp_path / "a", tmp_path / "b")
    }


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([1.0, NAN], [1.0, NAN], (True, "bit-identical")),
        ([1.0, 2.0], [1.0, 2.5], (False, "differs by up to 0.5 in 1 of 2 places")),
        ([1.0, 2.0], [NAN, 2.0], (False, "differs by up to nan in 1 of 2 places")),
        ([0.0, 2.0], [-0.0, 2.0], (False, "equal except for signs of zeros or kinds of NaN")),
        ([1.0], [1.0, 2.0], (False, "torch.float32 (1,) before, torch.float32 (2,) now")),
        ([], [], (True, "bit-identical")),
    ],
)
def test_differences_as_text(tmp_path, before, after, said):
    assert words(tmp_path, {"t": torch.tensor(before)}, {"t": torch.tensor(after)}) == {"t": said}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (torch.tensor([100.0, 1.0]), torch.tensor([100.0, 1.009]), True),
        (torch.tensor([100.0, 1.0]), torch.tensor([100.0, 1.02]), False),
        (torch.tensor([100.0, NAN]), torch.tensor([100.0, 1.0]), False),
        (torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 1.01]), False),
        (torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]), True),
        (torch.tensor([7, 9], dtype=torch.uint8), torch.tensor([8, 9], dtype=torch.uint8), True),
        (torch.tensor([7, 9], dtype=torch.uint8), torch.tensor([9, 9], dtype=torch.uint8), False),
        (torch.tensor([70000, 9]), torch.tensor([70001, 9]), False),
    ],
    ids=["near", "far", "nan", "infinite", "sign of zero", "one byte", "two bytes", "whole numbers"],
)
def test_a_tolerance_is_a_share_of_the_largest_value(tmp_path, before, after, same):
    for name, tensor in (("a", before), ("b", after)):
        (tmp_path / name).mkdir()
        save_file({"t": tensor}, tmp_path / name / "x.safetensors")
    (found,) = compare_folders(tmp_path / "a", tmp_path / "b", 1e-4)
    assert found.same is same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_other_dtypes(tmp_path, dtype):
    t = torch.tensor([0, 1, 1]).to(dtype)
    found = words(tmp_path, {"s": t, "t": t.clone()}, {"s": t, "t": t.flip(0)})
    assert found == {"s": (True, "bit-identical"), "t": (False, "differs by up to 1 in 2 of 3 places")}


def test_an_array_of_one_folder_alone(tmp_path):
    found = words(tmp_path, {"s": torch.ones(1)}, {"t": torch.ones(1)})
    assert found == {"s": (False, "only in the bundle"), "t": (False, "only in the replay")}


def test_tables_by_their_columns(tmp_path):
    for name, rows in (("a", "unit,size,kind\n0,1.5,x\n1,2.5,y\n"), ("b", "unit,size,kind\n0,1.5,x\n1,2.75,z\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "units.csv").write_text(rows)
    assert [(one.name, one.text) for one in compare_folders(tmp_path / "a", tmp_path / "b")] == [
        ("units.csv: unit", "bit-identical"),
        ("units.csv: size", "differs by up to 0.25 in 1 of 2 places"),
        ("units.csv: kind", "other text"),
    ]


def test_arrays_of_zarr_stores(tmp_path):
    zarr = pytest.importorskip("zarr", reason="pip install 'xinc-captum[store]'")
    for name, last in (("a", 1.0), ("b", 3.0)):
        group = zarr.open_group(tmp_path / name / "canvas.zarr", mode="w")
        group.create_array("maps", data=torch.tensor([1.0, last]).numpy())
        group.create_array("deep/pixels", data=torch.arange(3).numpy())
    assert [(one.name, one.text) for one in compare_folders(tmp_path / "a", tmp_path / "b")] == [
        ("canvas.zarr: deep/pixels", "bit-identical"),
        ("canvas.zarr: maps", "differs by up to 2 in 1 of 2 places"),
    ]


def test_entries_about_the_run_are_ignored():
    before = {"command": ["a"], "versions": {}, "outputs": {"x": "1"}, "call": {"out": "a"}, "seed": 0}
    after = {"command": ["b"], "versions": {"y": 1}, "outputs": {"x": "2"}, "call": {"out": "b"}, "seed": 0}
    assert list(differences(before, after)) == []
    assert list(differences({"at": {"call": 1}}, {"at": {"call": 2}})) == ["at.call: 1 before, 2 now"], (
        "only at the top"
    )


def test_paths_of_inputs_are_ignored():
    before = {"link": {"folder": "out/link", "trust": "holds"}}
    assert list(differences(before, {"link": {"folder": "/there/link", "trust": "holds"}})) == []
    assert list(differences(before, {"link": {"folder": "/there/link", "trust": "fails"}})) == [
        "link.trust: 'holds' before, 'fails' now"
    ]


def test_numbers_within_a_tolerance():
    before, after = {"rho": 0.5, "units": 3, "sum": 2000.0}, {"rho": 0.50004, "units": 4, "sum": 2000.1}
    assert list(differences(before, after, tolerance=1e-4)) == ["units: 3 before, 4 now"]
    assert len(list(differences(before, after, tolerance=1e-6))) == 3
    one, other = {"sha256": "0" * 64}, {"sha256": "a" * 64}
    assert list(differences(one, other, tolerance=1e-4)) == [] and len(list(differences(one, other))) == 1


def test_differences_have_their_position():
    before = {"layers": [{"rho": 0.5, "verdict": "holds"}, {"rho": math.nan}], "gone": 1}
    after = {"layers": [{"rho": 0.5, "verdict": "weak"}, {"rho": math.nan}], "new": [2]}
    assert list(differences(before, after)) == [
        "layers[0].verdict: 'holds' before, 'weak' now", "gone: 1 before, None now", "new: None before, [2] now"
    ]  # fmt: skip
    assert list(differences({"units": [1]}, {"units": [1, 2]})) == ["units: [1] before, [1, 2] now"]
