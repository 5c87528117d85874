"""Saving a canvas: layout, resuming after kill -9, and errors."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounding import assert_equal_but_for_rounding

from xinc_captum import NeuronCanvas, open_canvas
from xinc_captum.attributions.canvas import writer
from xinc_captum.attributions.canvas.writer import (
    CHUNK_BYTES,
    DTYPES,
    CanvasStoreError,
    Layout,
    plan_bands,
    plan_units,
)
from xinc_captum.inr import FourierMLP, coordinates


def make_layout(**changes):
    given = {
        "size": (10, 6), "units": 8, "slots": 1, "channels": 3, "frames": 2, "pairs": None,
        "dtype": "float16", "band": 4, "units_a_block": 6, "units_a_chunk": 3, "rule": "Secant()", "layer": "a",
    }  # fmt: skip
    return Layout(**{**given, **changes})


def test_layout_by_hand():
    layout = make_layout()
    assert layout.shape == (1, 9, 3, 10, 6, 2) and layout.chunk == (1, 3, 3, 4, 6, 1)
    rows, units = ((0, 4), (4, 8), (8, 10)), ((0, 6), (6, 9))
    assert layout.blocks == [(f, *u, *r) for f in (0, 1) for u in units for r in rows]
    assert layout.axis_names == ("layer", "unit", "channel", "y", "x", "frame")
    assert make_layout(size=(10,)).axis_names[3:] == ("x", "frame")
    assert make_layout(size=(2, 3, 4)).axis_names[3:] == ("z", "y", "x", "frame")


def test_pairs_have_one_remainder_for_each_output():
    assert make_layout(units=12, pairs=(4, 3)).unit_axis == 15


def test_layout_from_its_own_attributes(tmp_path):
    layout = make_layout(pairs=(2, 4))
    assert Layout.from_attributes(layout.attributes(), tmp_path) == layout


PICTURE = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(PICTURE, st.integers(1, 10**7), st.integers(1, 4), st.integers(1, 4096), st.sampled_from(["float16", "float32"]))
def test_bands_and_chunks_respect_their_limits(size, pixels, channels, count, dtype):
    plan = plan_bands(size, pixels, channels, count, dtype)
    assert 1 <= plan["band"] <= size[0] and plan["units_a_block"] == count and 1 <= plan["units_a_chunk"] <= count
    assert plan["band"] == 1 or plan["band"] * size[1] <= pixels
    one = channels * plan["band"] * size[1] * DTYPES[dtype]
    assert plan["units_a_chunk"] * one <= max(CHUNK_BYTES, one)


@given(PICTURE, st.integers(0, 10**5), st.integers(1, 4), st.integers(1, 4096), st.sampled_from(["float16", "float32"]))
def test_blocks_of_maps_consist_of_complete_chunks(size, maps, channels, count, dtype):
    plan = plan_units(size, maps, channels, count, dtype)
    assert plan["band"] == size[0] and 1 <= plan["units_a_chunk"] <= plan["units_a_block"] <= max(1, min(maps, count))
    assert plan["units_a_block"] % plan["units_a_chunk"] == 0
    one = channels * size[0] * size[1] * DTYPES[dtype]
    assert plan["units_a_chunk"] * one <= max(CHUNK_BYTES, one)


def test_unknown_dtype_raises(tmp_path):
    with pytest.raises(ValueError, match="dtype is 'int8'; expected 'float32' or 'float16'"):
        make_canvas().save(tmp_path / "canvas", dtype="int8")


SIZE = (12, 20)


def make_canvas(seed=0, rule="tangent", size=SIZE, hidden=6, **options):
    model = FourierMLP(hidden=hidden, seed=seed)
    return NeuronCanvas(model, "activation1", rule=rule).canvas(
        coordinates(size), size=size, memory_budget=20_000, **options
    )


def close(result, expected):
    """Saving takes whole rows and a query takes pieces; for the 300 see test_reader.py."""
    assert_equal_but_for_rounding(result, expected, terms=300)


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


def test_attributes_of_the_store(tmp_path):
    make_canvas().save(tmp_path / "c")
    about = json.loads((tmp_path / "c" / "zarr.json").read_text())["attributes"]
    assert (
        about["band"] < SIZE[0]
        and about["frames"] == 0
        and about["layer"] == "activation1"
        and about["rule"] == "Tangent()"
    )
    assert len(about["checksum"]) == 64 and about["size"] == list(SIZE)
    assert not (tmp_path / "c.part").exists()


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_resumed_canvas_has_the_same_bytes(tmp_path, monkeypatch, after, dtype):
    canvas = make_canvas()
    canvas.save(tmp_path / "whole", dtype=dtype)
    put, count = writer._write_block, [0]

    def fault(*args):
        if count[0] == after:
            raise Stop
        count[0] += 1
        return put(*args)

    monkeypatch.setattr(writer, "_write_block", fault)
    with pytest.raises(Stop):
        canvas.save(tmp_path / "c", dtype=dtype)
    assert not (tmp_path / "c").exists()
    monkeypatch.setattr(writer, "_write_block", put)
    canvas.save(tmp_path / "c", dtype=dtype)
    assert digest(tmp_path / "c") == digest(tmp_path / "whole")


@pytest.mark.own_kernels("half of the file is another process's, which has torch's kernels")
def test_killed_process_is_resumed(tmp_path):
    """A real kill -9 in the middle; what comes after has the same bytes as a run that nobody stopped."""
    script = tmp_path / "child.py"
    script.write_text(
        "import sys, time\n"
        "from xinc_captum.attributions.canvas import writer\n"
        "from xinc_captum import NeuronCanvas\n"
        "from xinc_captum.inr import FourierMLP, coordinates\n"
        "note = writer._write_journal\n"
        "def slowly(*args):\n"
        "    note(*args)\n"
        "    print(len(args[1]), flush=True)\n"
        "    time.sleep(0.2)\n"
        "writer._write_journal = slowly\n"
        "canvas = NeuronCanvas(FourierMLP(hidden=6, seed=0), 'activation1').canvas(\n"
        f"    coordinates({SIZE}), size={SIZE}, memory_budget=20_000)\n"
        "canvas.save(sys.argv[1])\n"
    )
    place = tmp_path / "c"
    child = subprocess.Popen([sys.executable, str(script), str(place)], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.strip() == "2":
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    assert (tmp_path / "c.part").exists() and not place.exists()
    with pytest.raises(FileNotFoundError, match="is unfinished: save the same canvas again to resume it"):
        open_canvas(place)
    with pytest.raises(FileNotFoundError, match=r"c\.part is an unfinished canvas: save the same canvas to .*c again"):
        open_canvas(tmp_path / "c.part")
    make_canvas().save(place)
    make_canvas().save(tmp_path / "whole")
    assert digest(place) == digest(tmp_path / "whole"), "the same machine, as many threads"
    close(open_canvas(place).to_tensor(), make_canvas().to_tensor())


def test_different_canvas_is_not_resumed(tmp_path, monkeypatch):
    note = writer._write_journal

    def stop(part, digests):
        note(part, digests)
        if len(digests) == 2:
            raise Stop

    monkeypatch.setattr(writer, "_write_journal", stop)
    with pytest.raises(Stop):
        make_canvas().save(tmp_path / "c")
    monkeypatch.setattr(writer, "_write_journal", note)
    with pytest.raises(CanvasStoreError, match="of other weights or inputs, or of another machine or number of"):
        make_canvas(seed=1).save(tmp_path / "c")
    with pytest.raises(
        CanvasStoreError, match=r"of another kind \(rule: 'Tangent\(\)' there, 'Ablation.* here\)\. Save to"
    ):
        make_canvas(rule="ablation").save(tmp_path / "c")
    with pytest.raises(CanvasStoreError, match=r"\(dtype: 'float32' there, 'float16' here\)"):
        make_canvas().save(tmp_path / "c", dtype="float16")
    with pytest.raises(CanvasStoreError, match=r"\(units: 6 there, 5 here\)"):
        make_canvas(hidden=5).save(tmp_path / "c")
    (tmp_path / "c.part" / "journal.json").write_text("{")
    with pytest.raises(CanvasStoreError, match="unfinished canvas .* cannot be resumed"):
        make_canvas().save(tmp_path / "c")


def test_existing_path_raises(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(CanvasStoreError, match=r"exists already; use another path, or delete it first"):
        make_canvas().save(tmp_path / "c")


def test_full_disk_raises_and_can_be_resumed(tmp_path, monkeypatch):
    put, count = writer._write_block, [0]

    def full(*args):
        count[0] += 1
        if count[0] == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(*args)

    monkeypatch.setattr(writer, "_write_block", full)
    with pytest.raises(
        OSError, match=r"the disk is full after 2 of \d+ blocks of c .*free disk space and save again"
    ) as caught:
        make_canvas().save(tmp_path / "c")
    assert caught.value.errno == errno.ENOSPC
    make_canvas().save(tmp_path / "c")
    close(open_canvas(tmp_path / "c").to_tensor(), make_canvas().to_tensor())


def test_values_beyond_float16_raise(tmp_path):
    model = FourierMLP(hidden=6, seed=0).requires_grad_(False)
    model.output.weight *= 1e7
    canvas = NeuronCanvas(model, "activation1").canvas(coordinates(SIZE), size=SIZE)
    with pytest.raises(
        OverflowError, match=r"a contribution of .*e\+\d+ does not fit into float16; save with dtype='f"
    ):
        canvas.save(tmp_path / "c", dtype="float16")
    canvas.save(tmp_path / "d")
    with pytest.raises(ValueError, match="dtype is 'int8'; expected 'float32' or 'float16'"):
        canvas.save(tmp_path / "e", dtype="int8")


def test_missing_zarr_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ModuleNotFoundError, match=r"saving a canvas needs zarr.*pip install 'xinc-captum\[store\]'"):
        make_canvas().save(tmp_path / "c")
