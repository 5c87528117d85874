"""Opening a saved canvas: queries, xarray, and errors for damaged files."""

import json
import shutil

import pytest
import torch
from rounding import assert_equal_but_for_rounding

from xinc_captum import NeuronCanvas, open_canvas
from xinc_captum.attributions.canvas.writer import CanvasStoreError
from xinc_captum.inr import FourierMLP, coordinates

SIZE = (9, 14)


def close(result, expected):
    """A canvas is saved in whole rows and queried in pieces of its memory budget, and products round by their size.

    Two products make the argument of a sine, up to 125 here (2 pi, scale 10, two deviations), so that its rounding
    counts 250 times; 10 encoded coordinates and three layers of 5 units add 25 products: under 300.
    """
    assert_equal_but_for_rounding(result, expected, terms=300)


@pytest.fixture(scope="module", params=["tangent", "secant"])
def pair(request, tmp_path_factory):
    """A canvas, and where it was saved in bands of two rows."""
    model = FourierMLP(hidden=5, seed=0)
    canvas = NeuronCanvas(model, "activation2", rule=request.param).canvas(
        coordinates(SIZE), size=SIZE, memory_budget=6_000
    )
    return canvas, canvas.save(tmp_path_factory.mktemp("store") / "c")


def test_queries_of_a_stored_canvas_equal_the_original(pair):
    canvas, place = pair
    stored = open_canvas(place)
    assert (stored.size, stored.units, stored.channels, stored.slots) == (SIZE, 5, 3, canvas.slots)
    assert (stored.rule, stored.layer) == (canvas.rule, "activation2")
    full = stored.to_tensor()
    close(full, canvas.to_tensor())
    for unit in (0, 4, -1):
        assert torch.equal(stored.map(unit), full[unit]), "both are read from the file"
        close(stored.map(unit), canvas.map(unit))
    assert torch.equal(stored.map(2, channel=1), full[2, 1])
    torch.testing.assert_close(stored.totals(), canvas.totals())
    masks = torch.rand(3, *SIZE)
    torch.testing.assert_close(stored.regions(masks), canvas.regions(masks))
    torch.testing.assert_close(stored.regions(masks, signed=True), canvas.regions(masks, signed=True))
    assert torch.equal(stored.top_units(2).indices, canvas.top_units(2).indices)
    here = [c.top_units(3, pixel=(4, -2)).values for c in (stored, canvas)]
    torch.testing.assert_close(*here)


def test_saving_a_stored_canvas_again_gives_the_same_values(pair, tmp_path):
    _, place = pair
    again = open_canvas(place).save(tmp_path / "again")
    assert torch.equal(open_canvas(again).to_tensor(), open_canvas(place).to_tensor())


@pytest.mark.parametrize("size", [(30,), (3, 4, 5)])
def test_signals_of_one_and_three_dimensions(size, tmp_path):
    model = FourierMLP(in_features=len(size), hidden=5, out_features=2, seed=0)
    canvas = NeuronCanvas(model, "activation1").canvas(coordinates(size), size=size)
    close(open_canvas(canvas.save(tmp_path / "c")).to_tensor(), canvas.to_tensor())


def test_float16_is_accurate_to_half_a_unit_in_the_last_place(pair, tmp_path):
    canvas, _ = pair
    near = open_canvas(canvas.save(tmp_path / "c", dtype="float16")).to_tensor()
    exact = canvas.to_tensor()
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() <= exact.abs().max() * 2**-10, "half a unit in the last place, and rounding"


def test_xarray_reads_the_store(pair):
    xarray = pytest.importorskip("xarray")
    _, place = pair
    with xarray.open_zarr(place, consolidated=False) as data:
        result = data["contribution"]
        assert result.dims == ("layer", "unit", "channel", "y", "x", "frame")
        one = result.isel(layer=0, frame=0).sel(unit=3, channel=1).values
        assert data.attrs["layer"] == "activation2"
    assert torch.equal(torch.from_numpy(one), open_canvas(place).map(3, channel=1))


def test_missing_file_raises(pair, tmp_path):
    _, place = pair
    broken = tmp_path / "c"
    shutil.copytree(place, broken)
    next(p for p in sorted((broken / "contribution" / "c").rglob("*")) if p.is_file()).unlink()
    canvas = open_canvas(broken)
    with pytest.raises(CanvasStoreError, match=r"is damaged: a file of rows 0 to \d+ of frame 0 is missing; save the"):
        canvas.totals()


def test_corrupt_file_raises(pair, tmp_path):
    _, place = pair
    broken = tmp_path / "c"
    shutil.copytree(place, broken)
    file = next(p for p in sorted((broken / "contribution" / "c").rglob("*")) if p.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(CanvasStoreError, match=r"is damaged: rows 0 to \d+ of frame 0 cannot be read \("):
        open_canvas(broken).totals()


def edit_attributes(place, folder, change):
    shutil.copytree(place, folder)
    file = folder / "zarr.json"
    content = json.loads(file.read_text())
    change(content["attributes"])
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda a: a.update(version=2),
            "is a canvas of version 2, and this xinc_captum reads version 1; install the r",
        ),
        (lambda a: a.pop("format"), r"is a zarr store, but not a canvas \(its format is None\)"),
        (lambda a: a.pop("band"), "is damaged: its attributes lack 'band'; save the canvas again"),
        (lambda a: a.update(units=7), r"is damaged: its array has shape \(1, .*\), but its attributes have \(1, "),
    ],
    ids=["newer", "foreign", "without band", "other size"],
)
def test_other_attributes_raise(pair, tmp_path, change, text):
    with pytest.raises(CanvasStoreError, match=text):
        open_canvas(edit_attributes(pair[1], tmp_path / "c", change))


def test_folders_that_are_not_canvases_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no canvas at .*nowhere\.$"):
        open_canvas(tmp_path / "nowhere")
    with pytest.raises(CanvasStoreError, match=r"is not a zarr store: it has no zarr\.json; expected a folder"):
        open_canvas(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(CanvasStoreError, match=r"is damaged: its zarr\.json is not a canvas's; save the canvas"):
        open_canvas(tmp_path)
    with pytest.raises(CanvasStoreError, match=r"zarr\.json is a file; expected a folder that Canvas\.save wrote"):
        open_canvas(tmp_path / "zarr.json")


def test_missing_array_raises(pair, tmp_path):
    shutil.copytree(pair[1], tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "contribution")
    with pytest.raises(CanvasStoreError, match="is damaged: its array cannot be read"):
        open_canvas(tmp_path / "c")


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Linear(1, 4 * 2 * 3)
        self.inner = torch.nn.Conv2d(4, 12, 3, padding=1)
        self.head = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, t):
        x = self.stem(t).reshape(-1, 4, 2, 3)
        return self.head(torch.nn.functional.pixel_shuffle(self.inner(x), 2).relu())


@pytest.mark.parametrize("unit", ["neuron", "pair"])
@pytest.mark.parametrize("rule", ["tangent", "secant"])
def test_stored_frames(rule, unit, tmp_path):
    method = NeuronCanvas(Decoder(), "inner", rule=rule, unit=unit)
    times = torch.linspace(0, 1, 3)[:, None]
    canvas = method.canvas(times, size=(4, 6), attribute_to_layer_input=True, memory_budget=100_000)
    stored = open_canvas(canvas.save(tmp_path / "c"))
    assert (stored.frames, stored.pairs, stored.layer) == (3, (4, 12) if unit == "pair" else None, "inner")
    torch.testing.assert_close(stored.to_tensor(), canvas.to_tensor(), atol=1e-6, rtol=1e-5)
    one = (3, 7) if unit == "pair" else 2
    torch.testing.assert_close(stored.map(one, frame=1), canvas.map(one, frame=1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(stored.totals(), canvas.totals(), atol=1e-5, rtol=1e-5)
    masks = torch.rand(2, 4, 6)
    for signed in (True, False):
        result = [c.regions(masks, signed=signed) for c in (stored, canvas)]
        torch.testing.assert_close(*result, atol=1e-5, rtol=1e-5)
    result = [c.top_units(2, pixel=(1, 2)).values for c in (stored, canvas)]
    torch.testing.assert_close(*result, atol=1e-6, rtol=1e-5)
