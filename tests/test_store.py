"""All tensor files of the package have the same guarantees."""

import errno
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from xinc_captum import store
from xinc_captum import store as tensor_files
from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.nern import NeRN
from xinc_captum.attributions.trans_inr import RayTransINR, TransINR
from xinc_captum.generators import StyleGenerator, load_style_generator, load_weights, save_style_generator
from xinc_captum.inr import CheckpointError, FourierMLP, HNeRV, HypoNet, NeRV, Siren, load, save
from xinc_captum.inr.training import load_run, save_run
from xinc_captum.store import StoreError, bundle, check_folder, read_tensors, sha256, tensors_sha256, write_tensors


def _convnet():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1, bias=False))


def _link(variant):
    generator = torch.Generator().manual_seed(0)
    r, w = torch.randn(40, 3, generator=generator), torch.randn(40, 2, generator=generator)
    link = LatentLink(variant, 0.1, features=5, reservoir=4)
    return link.fit(r, w, torch.arange(40) % 2, manifest={"layer": "fc"})


def _inr(model, size):
    return lambda path: save(model, path, size=size)


def _run():
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    return {
        "step": 4,
        "optimizer": optimizer.state_dict(),
        "losses": [0.1, float("inf")],
        "bits": torch.get_rng_state(),
    }


RECIPE = {"lr": 0.1, "size": (3, 4)}
# For each kind: its name in the file, a function that writes such a file, one that reads it.
FILES = {
    "FourierMLP": ("inr", _inr(FourierMLP(hidden=4, layers=2), (5, 7)), load),
    "Siren": ("inr", _inr(Siren(hidden=3), (5, 7)), load),
    "NeRV": ("inr", _inr(NeRV((8, 8), (2, 2), (2,), stem=(3,)), (2, 8, 8)), load),
    "HNeRV": ("inr", _inr(HNeRV((8, 8), (2, 2), (2,), embedding=2, encoder_width=2), (2, 8, 8)), load),
    "HypoNet": ("inr", _inr(HypoNet(hidden=3), (8, 8)), load),
    "TransINR": ("trans-inr", TransINR(dim=4, depth=1, heads=1, ff=4, groups=4, seed=0).save, TransINR.load),
    "RayTransINR": (
        "trans-inr",
        RayTransINR(size=(4, 4), patch=2, dim=4, depth=1, heads=1, ff=4, hidden=4, layers=2, groups=2).save,
        RayTransINR.load,
    ),
    "NeRN": ("nern", NeRN(_convnet(), hidden=3, levels=2, seed=0).save, lambda path: NeRN.load(path, _convnet())),
    "style generator": (
        "style-generator",
        lambda path: save_style_generator(
            StyleGenerator(2, 8, channels=(2, 2), generator=torch.Generator().manual_seed(0)), path, recipe={"seed": 0}
        ),
        load_style_generator,
    ),
    "link": ("link", _link("linear").save, LatentLink.load),
    "link per class": ("link", _link("per_class").save, LatentLink.load),
    "link with features": ("link", _link("fourier_features").save, LatentLink.load),
    "checkpoint": ("training", lambda path: save_run(path, RECIPE, _run()), lambda path: load_run(path, RECIPE)),
    "tensors": (
        "weights",
        lambda path: write_tensors(path, _convnet().state_dict(), kind="weights"),
        lambda path: read_tensors(path, kind="weights", writer="write_tensors()"),
    ),
}


@pytest.fixture(params=FILES)
def kind(request):
    return FILES[request.param]


def _header(content):
    (length,) = struct.unpack("<Q", content[:8])
    return 8 + length, json.loads(content[8 : 8 + length])


def _positions(content):
    """Places all over the header, and the first, middle and last byte of every tensor."""
    start, header = _header(content)
    offsets = [one["data_offsets"] for name, one in header.items() if name != "__metadata__"]
    inside = {start + p for a, b in offsets if b > a for p in (a, (a + b) // 2, b - 1)}
    return sorted({*range(0, start, 31), *range(8, 24), start - 1, *inside})


def test_a_missing_folder_is_created(kind, tmp_path):
    _, write, read = kind
    write(tmp_path / "new" / "folder" / "file")
    read(tmp_path / "new" / "folder" / "file")
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["file"]


def test_the_file_has_its_kind_a_version_and_equal_bytes_when_written_again(kind, tmp_path):
    name, write, _ = kind
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", "pt") as file:
        assert json.loads(file.metadata()["xinc_captum"])["format"] == f"xinc-captum-{name}-2"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_any_changed_byte_is_detected(kind, tmp_path):
    _, write, read = kind
    write(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    for position in _positions(whole):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 7
        (tmp_path / "file").write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(StoreError, match=r"file .*(copy|written by|update)"):
                read(tmp_path / "file")


def test_a_truncated_file_raises_an_error(kind, tmp_path):
    _, write, read = kind
    write(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    start, _ = _header(whole)
    for length in (0, 3, 8, start // 2, start, (start + len(whole)) // 2, len(whole) - 1):
        (tmp_path / "file").write_bytes(whole[:length])
        with pytest.raises(StoreError, match="is not a complete safetensors file"):
            read(tmp_path / "file")
    (tmp_path / "file").write_bytes(whole + b"\0")
    with pytest.raises(StoreError, match="is not a complete safetensors file"):
        read(tmp_path / "file")


def test_files_of_other_kinds_and_newer_versions_are_refused(kind, tmp_path):
    name, _, read = kind
    path = tmp_path / "file"
    write_tensors(path, {"a": torch.ones(2)}, kind="other")
    with pytest.raises(
        StoreError, match=f"is marked 'xinc-captum-other-2'; expected 'xinc-captum-{name}-2', a file wri"
    ):
        read(path)
    for metadata in (None, {"format": "pt"}, {"xinc_captum": "no JSON"}, {"xinc_captum": "[1]"}):
        save_file({"a": torch.ones(2)}, path, metadata=metadata)
        with pytest.raises(StoreError, match=f"is marked 'nothing'; expected 'xinc-captum-{name}-2'"):
            read(path)
    save_file({"a": torch.ones(2)}, path, metadata={"xinc_captum": json.dumps({"format": f"xinc-captum-{name}-3"})})
    with pytest.raises(StoreError, match=r"has version 3 of .*reads up to 2; update xinc-captum"):
        read(path)
    save_file({"a": torch.ones(2)}, path, metadata={"xinc_captum": json.dumps({"format": f"xinc-captum-{name}-1"})})
    with pytest.raises(StoreError, match="is not a format of this package"):
        read(path)


def test_files_whose_content_does_not_fit_are_refused(kind, tmp_path):
    """Checksums are right here: such files come from other programs, or other versions."""
    name, write, read = kind
    write(tmp_path / "file")
    tensors = load_file(tmp_path / "file")
    with safe_open(tmp_path / "file", "pt") as file:
        note = json.loads(file.metadata()["xinc_captum"])["metadata"]
    if name == "weights":
        return  # any tensors fit here
    first = next(key for key, value in tensors.items() if value.numel() > 1)
    for wrong in ({key: value for key, value in tensors.items() if key != first}, {}):
        write_tensors(tmp_path / "wrong", wrong, kind=name, metadata=note)
        with pytest.raises(StoreError, match="wrong .*(fit|represents another|holds|class)"):
            read(tmp_path / "wrong")
    write_tensors(tmp_path / "wrong", tensors, kind=name)
    with pytest.raises(StoreError, match="wrong (has content that does not fit together|holds)"):
        read(tmp_path / "wrong")


def test_a_write_that_fails_leaves_the_file_before(kind, tmp_path, monkeypatch):
    _, write, read = kind
    path = tmp_path / "file"
    write(path)
    before = path.read_bytes()

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    for method in ("replace", "open"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, full if method == "replace" else lambda self, mode: full(self, mode))
            with pytest.raises(StoreError, match=r"file cannot be written \(No space left on device\). The file that"):
                write(path)
            with pytest.raises(StoreError, match=r"other cannot be written \(.*\). Nothing was written"):
                write(tmp_path / "other")
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    read(path)


def test_leftovers_of_killed_processes_are_removed_and_those_of_running_ones_are_not(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, alive = (tmp_path / f".file.{platform.node()}-{pid}-1.part" for pid in (child.pid, os.getpid()))
    foreign = tmp_path / ".file.another-host-1-1.part"
    for path in (dead, alive, foreign):
        path.write_text("half")
    write_tensors(tmp_path / "file", {}, kind="demo")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive.name, foreign.name, "file"])


def test_paths_that_no_file_can_have(kind, tmp_path):
    _, write, _ = kind
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"below cannot be written \((Not a directory|File exists)\). Nothing was wr"):
        write(tmp_path / "file" / "below")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder is a folder; give the path of a file"):
        write(tmp_path / "folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder_keeps_its_file(tmp_path):
    _, write, read = FILES["tensors"]
    write(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\). The file that was there is un"):
            write(tmp_path / "file")
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "file").read_bytes() == before
    read(tmp_path / "file")


def test_a_pickle_is_not_opened(kind, tmp_path):
    name, _, read = kind
    torch.save({"a": torch.ones(2)}, tmp_path / "file")
    text = "is a pickle or an archive of torch.save"
    if name == "training":  # of which earlier versions wrote archives of torch.save
        text = "is marked None; expected a file written by a fit with checkpoint="
    with pytest.raises(StoreError, match=text):
        read(tmp_path / "file")


def test_missing_files(kind, tmp_path):
    name, _, read = kind
    if name == "training":
        assert read(tmp_path / "none") is None
        return
    with pytest.raises(FileNotFoundError, match="none is not a file; expected a file written by"):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "key", "unchecked"),
    [
        ("Siren", "network", "the values of its tensors and its settings"),
        ("TransINR", "network", "the values of its tensors and its settings"),
        ("NeRN", "nern", "the values of its tensors and its settings"),
        ("link", "link", "its settings"),
        ("style generator", "generator", "its settings"),
    ],
)
def test_files_of_version_1_are_read_with_a_warning_about_unchecked_content(name, key, unchecked, tmp_path):
    kind, write, read = FILES[name]
    write(tmp_path / "new")
    tensors = load_file(tmp_path / "new")
    with safe_open(tmp_path / "new", "pt") as file:
        note = json.loads(file.metadata()["xinc_captum"])["metadata"]
    note |= {"format": f"xinc-captum-{kind}-1"}
    if unchecked == "its settings":
        note["sha256"] = tensors_sha256(tensors)
    save_file(tensors, tmp_path / "old", metadata={key: json.dumps(note)})
    with pytest.warns(UserWarning, match=f"has format version 1, in which no sha256 covers {unchecked}; damage"):
        read(tmp_path / "old")
    first = next(key for key, value in tensors.items() if value.dtype == torch.float32 or value.dtype == torch.float64)
    tensors[first] = tensors[first] + 1
    save_file(tensors, tmp_path / "old", metadata={key: json.dumps(note)})
    if unchecked == "its settings":
        with pytest.raises(StoreError, match="the tensors of .*old were changed after it was written"):
            read(tmp_path / "old")
    tensors.pop(first)
    note.pop("sha256", None)
    save_file(tensors, tmp_path / "old", metadata={key: json.dumps(note)})
    with warnings.catch_warnings(record=True), pytest.raises(StoreError, match="fit|represents another|changed"):
        read(tmp_path / "old")
    note["format"] = f"xinc-captum-{kind}-2"
    save_file(tensors, tmp_path / "old", metadata={key: json.dumps(note)})
    with pytest.raises(StoreError, match="is not a format of this package"):
        read(tmp_path / "old")


def test_a_run_is_restored_completely(tmp_path):
    state = _run()
    save_run(tmp_path / "run", RECIPE, state)
    found = load_run(tmp_path / "run", RECIPE)
    assert list(found) == list(state) and found["losses"] == state["losses"] and found["step"] == 4
    assert torch.equal(found["bits"], state["bits"])
    inner, own = found["optimizer"]["state"][0], state["optimizer"]["state"][0]
    assert all(torch.equal(inner[key], own[key]) for key in own)
    assert found["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    torch.optim.Adam([nn.Parameter(torch.ones(3))]).load_state_dict(found["optimizer"])


def test_checkpoints_of_version_1_are_read_with_a_warning(tmp_path):
    torch.save({"format": "xinc-captum-training-1", "recipe": RECIPE, "state": _run()}, tmp_path / "run")
    with pytest.warns(UserWarning, match="a checkpoint of an earlier version without a checksum"):
        assert load_run(tmp_path / "run", RECIPE)["step"] == 4
    with (
        pytest.warns(UserWarning, match="earlier version"),
        pytest.raises(CheckpointError, match=r"it has lr 0.1 instead of 0.2"),
    ):
        load_run(tmp_path / "run", RECIPE | {"lr": 0.2})


def test_all_kinds_of_tensors_are_read_back(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {
        "shared": base,
        "again": base,
        "transposed": base.T,
        "row": base[1],
        "empty": torch.zeros(0, 3),
        "other empty": torch.zeros(2, 0),
        "number": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "bfloat16": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(2)),
        "zeros": torch.zeros(3, dtype=torch.uint8),
    }
    metadata = {"sha256": "0" * 64, "format": "mine", "text": "µ\n\"'", "nested": [1, {"a": None}]}
    write_tensors(tmp_path / "a", tensors, kind="demo", metadata=metadata)
    found, note = read_tensors(tmp_path / "a", kind="demo", writer="write_tensors()")
    assert note == metadata and found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v.detach()) and found[k].dtype == v.dtype for k, v in tensors.items())
    assert store.tensor_file_bytes(tensors, kind="demo", metadata=metadata) == (tmp_path / "a").stat().st_size


def test_conjugated_and_negated_views_keep_their_values(tmp_path):
    pending = torch.tensor([1 + 2j, 3 - 4j]).conj()  # a bit says that the memory is to be conjugated
    write_tensors(tmp_path / "a", {"conj": pending, "imag": pending.imag}, kind="demo")
    found = read_tensors(tmp_path / "a", kind="demo", writer="write_tensors()").tensors
    assert found["conj"].tolist() == [1 - 2j, 3 + 4j] and found["imag"].tolist() == [-2.0, 4.0]
    assert tensors_sha256(found) == tensors_sha256({"conj": pending, "imag": pending.imag})


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2, dtype=torch.complex128), torch.eye(2).to_sparse(), torch.empty(2, device="meta")],
    ids=["complex128", "sparse", "meta"],
)
def test_tensors_that_the_format_cannot_hold_are_refused_by_name(value, tmp_path):
    with pytest.raises(TypeError, match="'a' is a tensor of torch.*; a safetensors file holds dense tensors"):
        write_tensors(tmp_path / "a", {"a": value}, kind="demo")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_devices_and_pipes_are_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # as /dev/null, which root could replace
    with pytest.raises(StoreError, match="pipe is a device or pipe; give the path of a file"):
        write_tensors(tmp_path / "pipe", {}, kind="demo")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_names_that_are_too_long_and_links_in_a_circle(tmp_path):
    with pytest.raises(StoreError, match=r"n cannot be written \(.*[Ff]ile name too long"):
        write_tensors(tmp_path / ("n" * 300), {}, kind="demo")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(StoreError, match="circle cannot be written"):
        write_tensors(tmp_path / "circle", {}, kind="demo")


def test_a_file_that_is_replaced_while_it_is_read_is_not_called_changed(tmp_path, monkeypatch):
    write_tensors(tmp_path / "a", {"a": torch.zeros(3)}, kind="demo")
    load = tensor_files.load

    def replaced_meanwhile(data):
        write_tensors(tmp_path / "a", {"a": torch.ones(3)}, kind="demo")
        return load(data)

    monkeypatch.setattr(tensor_files, "load", replaced_meanwhile)
    assert read_tensors(tmp_path / "a", kind="demo", writer="write_tensors()").tensors["a"].tolist() == [0, 0, 0]


def test_metadata_that_json_cannot_hold_leaves_the_file_unchanged(tmp_path):
    write_tensors(tmp_path / "a", {}, kind="demo")
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_tensors(tmp_path / "a", {}, kind="demo", metadata={"a": torch.ones(1)})
    assert (tmp_path / "a").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_numpy_integers_in_metadata_are_read_as_ints(tmp_path):
    write_tensors(tmp_path / "a", {}, kind="demo", metadata={"seed": np.int64(3), "sizes": [np.int8(2)]})
    note = read_tensors(tmp_path / "a", kind="demo", writer="a test")[1]
    assert (note["seed"], note["sizes"]) == (3, [2])
    LatentLink(seed=np.int64(1)).fit(torch.rand(50, 3), torch.rand(50, 2)).save(tmp_path / "link.safetensors")
    assert LatentLink.load(tmp_path / "link.safetensors").seed == 1


def test_the_target_of_a_link_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_tensors(tmp_path / "link", {"a": torch.ones(1)}, kind="demo")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").is_file()


def test_weights_of_other_programs_and_of_this_one(tmp_path):
    network = _convnet()
    save_file(network.state_dict(), tmp_path / "plain", metadata={"format": "pt"})
    load_weights(_convnet(), tmp_path / "plain")
    write_tensors(tmp_path / "ours", network.state_dict(), kind="weights")
    load_weights(_convnet(), tmp_path / "ours")
    changed = bytearray((tmp_path / "ours").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "ours").write_bytes(changed)
    with pytest.raises(StoreError, match="was changed after it was written"):
        load_weights(_convnet(), tmp_path / "ours")


def test_the_files_of_the_package_have_a_checksum():
    import xinc_captum

    found = sorted(Path(xinc_captum.__file__).parent.rglob("*.safetensors"))
    assert len(found) == 6
    for path in found:
        with safe_open(path, "pt") as file:
            kind = json.loads(file.metadata()["xinc_captum"])["format"].removeprefix("xinc-captum-").removesuffix("-2")
        assert read_tensors(path, kind=kind, writer="the package").tensors


def write(path, text="one", **note):
    with bundle(path, note) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "times.json").write_text("{}")


def test_a_bundle_is_written_atomically_with_its_manifest(tmp_path):
    write(tmp_path / "deep" / "result", seed=3)
    result = tmp_path / "deep" / "result"
    manifest = json.loads((result / "manifest.json").read_text())
    assert manifest["outputs"] == {"a.txt": sha256(result / "a.txt")}
    assert manifest["seed"] == 3
    assert manifest["versions"]["torch"]
    assert manifest["command"]
    assert (result / "a.txt").stat().st_mode & 0o777 == 0o644


def test_an_earlier_result_is_replaced_completely(tmp_path):
    write(tmp_path / "result")
    write(tmp_path / "result", "two")
    assert sorted(p.name for p in (tmp_path / "result").iterdir()) == ["a.txt", "manifest.json", "times.json"]
    assert (tmp_path / "result" / "a.txt").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_earlier_result(tmp_path, fault):
    write(tmp_path / "result")
    with pytest.raises(fault), bundle(tmp_path / "result", {}) as folder:
        (folder / "a.txt").write_text("half")
        raise fault
    assert (tmp_path / "result" / "a.txt").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_a_failure_at_the_last_step_puts_the_earlier_result_back(tmp_path, monkeypatch, fault):
    write(tmp_path / "result")
    rename = Path.rename

    def fails(self, target):
        if self.name.startswith(".result.") and Path(target).name == "result":
            raise fault
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(fault):
        write(tmp_path / "result", "two")
    assert (tmp_path / "result" / "a.txt").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_folder_beside_it_is_never_removed(tmp_path):
    write(tmp_path / "result")
    (tmp_path / ".result.old").mkdir()
    (tmp_path / ".result.old" / "thesis.tex").write_text("mine")
    write(tmp_path / "result", "two")
    assert (tmp_path / ".result.old" / "thesis.tex").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".result.old", "result"]


def test_a_file_that_is_put_there_meanwhile_is_not_lost(tmp_path):
    write(tmp_path / "result")
    with pytest.raises(StoreError, match=r"'notes.txt' in it is not part of that"), bundle(tmp_path / "result", {}):
        (tmp_path / "result" / "notes.txt").write_text("mine")
    assert (tmp_path / "result" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "result" / "a.txt").read_text() == "one"


def test_places_that_cannot_take_a_result(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file; give a folder"):
        check_folder(tmp_path / "file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(StoreError, match="is a file; give a folder"):
            check_folder(tmp_path / "pipe")
    with pytest.raises(StoreError, match="file is a file, so no folder can be made below it"):
        check_folder(tmp_path / "file" / "below")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    for other in (None, '{"my": "web app"}', "no json"):
        if other:
            (foreign / "manifest.json").write_text(other)
        with pytest.raises(
            StoreError, match=r"holds files but no manifest.json of xinc-captum, so it is not an earlier result"
        ):
            check_folder(foreign)
    assert (foreign / "thesis.tex").exists()

    def refused(**_kwargs):  # a stand-in for a read-only place: root may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(StoreError, match=r"cannot be written to \(Permission denied\); give a folder that you own"):
        check_folder(tmp_path / "new")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where nobody can make files")
def test_a_place_where_even_root_cannot_write():
    with pytest.raises(StoreError, match="/proc cannot be written to"):
        check_folder("/proc/result")


def test_checking_leaves_no_files(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_users_file_inside_an_earlier_result_is_not_lost(tmp_path):
    write(tmp_path / "result")
    (tmp_path / "result" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="'notes.txt' in it is not part of that and would be lost"):
        write(tmp_path / "result", "two")
    assert (tmp_path / "result" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "result" / "a.txt").read_text() == "one"


def test_a_link_to_a_result_is_followed(tmp_path):
    write(tmp_path / "result")
    (tmp_path / "link").symlink_to(tmp_path / "result")
    write(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "result" / "a.txt").read_text() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "result"]


def test_an_empty_folder_is_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert (tmp_path / "empty" / "manifest.json").exists()


def test_a_full_disk_raises_an_error_and_keeps_the_earlier_result(tmp_path):
    with bundle(tmp_path / "out", {}) as folder:
        (folder / "a.txt").write_text("first")
    full = OSError(errno.ENOSPC, "No space left on device")
    text = r"no space for .*out \(No space left on device\); nothing was written"
    with pytest.raises(StoreError, match=text), bundle(tmp_path / "out", {}):
        raise full
    assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(PermissionError), bundle(tmp_path / "out", {}):
        raise PermissionError(errno.EACCES, "other errors go through")
