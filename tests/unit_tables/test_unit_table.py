import csv
import json
import sys
from dataclasses import replace

import pytest
import torch

from xinc_captum.attributions.linking.unit_tables import UnitTable

NAN = float("nan")


def table(null=True):
    change = torch.tensor([[[[1.0], [NAN]], [[3.0], [0.5]]], [[[-9.0], [2.0]], [[-1.0], [0.0]]]])
    return UnitTable(
        torch.tensor([4, 7]),
        (0, 5),
        ("ear", "tail"),
        ("area",),
        change,
        change.abs() / 2,
        torch.full(change.shape, 3, dtype=torch.int32),
        torch.ones(2, 2, 1),
        torch.zeros(1, 2, 2, 1) if null else None,
        {"reach": 0.5},
    )


def test_columns_over_classes():
    assert table().column("ear", "area").tolist() == [2, -5]
    assert table().column("ear", "area", classes=[5]).tolist() == [3, -1]
    assert table().column("tail", "area").tolist() == [0.5, 1], "the class that has no tail says nothing about it"
    assert table().strongest("ear", "area", 1).tolist() == [7]
    assert table().strongest("ear", "area", 9, classes=[5]).tolist() == [4, 7]


def test_long_form_in_a_file(tmp_path):
    table().save(tmp_path / "out")
    with (tmp_path / "out" / "units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 + 4
    assert rows[0] == {
        "link": "fitted", "unit": "4", "class": "0", "part": "ear", "measure": "area", "change": "1.0", "sd": "0.5",
        "bases": "3", "base_value": "1.0",
    }  # fmt: skip
    assert rows[1]["change"] == "" and rows[-1]["link"] == "shuffled" and rows[-1]["sd"] == ""
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["reach"] == 0.5


def test_parquet_says_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table(null=False).save(tmp_path / "out", format="parquet")
    rows = parquet.read_table(tmp_path / "out" / "units.parquet").to_pylist()
    assert [r["change"] for r in rows] == [1, None, 3, 0.5, -9, 2, -1, 0]
    assert {r["class"] for r in rows} == {0, 5} and {r["part"] for r in rows} == {"ear", "tail"}


def test_without_pyarrow_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"Parquet needs pyarrow.*xinc-captum\[table\]"):
        table().save(tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()


def test_what_is_not_in_it_is_said(tmp_path):
    with pytest.raises(ValueError, match="part 'nose' is not in this table; it has ear, tail"):
        table().column("nose", "area")
    with pytest.raises(ValueError, match="measure 'red' is not in this table; it has area"):
        table().where("ear", "red")
    with pytest.raises(ValueError, match="class 3 is not in this table; it has 0, 5"):
        table().strongest("ear", "area", 1, classes=[3])
    with pytest.raises(ValueError, match="part 'sky' is not"):
        table().where("ear", "area", only=True, ignoring=["sky"])
    with pytest.raises(ValueError, match="this table has no null"):
        table(null=False).where("ear", "area")
    with pytest.raises(ValueError, match="format is 'xls'"):
        table().save(tmp_path / "out", format="xls")


def test_a_table_is_said_in_one_line():
    values = torch.zeros(5, 1, 2, 1)
    parts, measures = ("eye", "mouth"), ("luminance",)
    bare = UnitTable(torch.arange(5), (None,), parts, measures, values, values, values.int(), values[0])
    words = "UnitTable(5 units, 1 classes, parts: eye, mouth; measures: luminance; "
    assert repr(bare) == f"{words}no null)" and repr(replace(bare, null=values[:3])) == f"{words}a null of 3 units)"
