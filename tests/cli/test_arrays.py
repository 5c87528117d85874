import pytest
import torch
from safetensors.torch import save_file

from xinc_captum.cli.arrays import compared

NAN = float("nan")


def words(tmp_path, before, after):
    for name, tensors in (("a", before), ("b", after)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "x.safetensors")
    return {
        one.name.removeprefix("x.safetensors: "): (one.same, one.words)
        for one in compared(tmp_path / "a", tmp_path / "b")
    }


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([1.0, NAN], [1.0, NAN], (True, "same bits")),
        ([1.0, 2.0], [1.0, 2.5], (False, "differs by up to 0.5 in 1 of 2 places")),
        ([1.0, 2.0], [NAN, 2.0], (False, "differs by up to nan in 1 of 2 places")),
        ([0.0, 2.0], [-0.0, 2.0], (False, "equal, but for signs of zeros or kinds of NaN")),
        ([1.0], [1.0, 2.0], (False, "torch.float32 (1,) then, torch.float32 (2,) now")),
        ([], [], (True, "same bits")),
    ],
)
def test_words(tmp_path, before, after, said):
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
    (found,) = compared(tmp_path / "a", tmp_path / "b", 1e-4)
    assert found.same is same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_other_dtypes(tmp_path, dtype):
    t = torch.tensor([0, 1, 1]).to(dtype)
    found = words(tmp_path, {"s": t, "t": t.clone()}, {"s": t, "t": t.flip(0)})
    assert found == {"s": (True, "same bits"), "t": (False, "differs by up to 1 in 2 of 3 places")}


def test_an_array_of_one_folder_alone(tmp_path):
    found = words(tmp_path, {"s": torch.ones(1)}, {"t": torch.ones(1)})
    assert found == {"s": (False, "only in the bundle"), "t": (False, "only in the replay")}


def test_tables_by_their_columns(tmp_path):
    for name, rows in (("a", "unit,size,kind\n0,1.5,x\n1,2.5,y\n"), ("b", "unit,size,kind\n0,1.5,x\n1,2.75,z\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "units.csv").write_text(rows)
    assert [(one.name, one.words) for one in compared(tmp_path / "a", tmp_path / "b")] == [
        ("units.csv: unit", "same bits"),
        ("units.csv: size", "differs by up to 0.25 in 1 of 2 places"),
        ("units.csv: kind", "other text"),
    ]


def test_arrays_of_zarr_stores(tmp_path):
    zarr = pytest.importorskip("zarr", reason="pip install 'xinc-captum[store]'")
    for name, last in (("a", 1.0), ("b", 3.0)):
        group = zarr.open_group(tmp_path / name / "canvas.zarr", mode="w")
        group.create_array("maps", data=torch.tensor([1.0, last]).numpy())
        group.create_array("deep/pixels", data=torch.arange(3).numpy())
    assert [(one.name, one.words) for one in compared(tmp_path / "a", tmp_path / "b")] == [
        ("canvas.zarr: deep/pixels", "same bits"),
        ("canvas.zarr: maps", "differs by up to 2 in 1 of 2 places"),
    ]
