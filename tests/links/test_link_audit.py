"""An audit is judged as its numbers say, and is written down in plain numbers that any reader of JSON takes."""

import json
import re
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file

from xinc_captum.attributions.linking import LinkAudit
from xinc_captum.attributions.linking.ridge import RankReport
from xinc_captum.metrics.bootstrap import Interval
from xinc_captum.metrics.semantic_order import SemanticOrder
from xinc_captum.store import StoreError

SOUND = {
    "pairs": 30,
    "classes": 10,
    "r2": Interval(0.9, 0.8, 0.95),
    "r2_within": Interval(0.7, 0.6, 0.8),
    "class_mean_r2": 0.5,
    "shuffled_within": -0.1,
    "left_out_r2": 0.9,
    "duplicates": 0.0,
    "leaked": 0.0,
    "generated": Interval(0.98, 0.95, 1.0),
    "real": Interval(0.9, 0.85, 0.95),
    "class_mean_agreement": 1.0,
    "cycle_r2": 0.8,
    "cycle_cosine": 0.9,
    "unit_cycle": torch.tensor([0.5, torch.nan], dtype=torch.float64),
    "unit_tolerance": torch.tensor([0.25, torch.nan], dtype=torch.float64),
    "order": SemanticOrder(None, None, 0.5, 0.01, 0.4, 0.1, 0.02),
    "mlp_r2_within": None,
    "search_cycle_r2": None,
    "search_from": None,
    "searched": 0,
    "report": RankReport(100, 2, 1, 1, 1.0, 1.0, 0),
    "manifest": {"layer": "fc"},
}


def audit(**changed):
    return LinkAudit(**SOUND | changed)


@pytest.mark.parametrize(
    ("changed", "verdict", "because"),
    [
        ({}, "holds", "it explains 0.70 .* within classes, shuffled -0.10, and 0.90 .* of real pictures keep their"),
        ({"leaked": 0.2}, "fails", "20% of the held-out pairs were in the fit"),
        ({"shuffled_within": 0.78}, "fails", "within classes it explains nothing .*shuffled 0.78"),
        ({"generated": Interval(0.3, 0.2, 0.4)}, "fails", "only 0.30 .* of generated pictures"),
        ({"real": None}, "weak", "no real pictures were looked at"),
        ({"duplicates": 0.24}, "weak", "24% of the fitted pairs repeat others"),
        ({"held_out_duplicates": 0.1}, "weak", "10% of the held-out pairs repeat others"),
        ({"cycle_r2": 0.2}, "weak", "gives back 0.20 of the representation"),
        ({"classes": 1}, "weak", "all held-out pairs are of one class, so that keeping it says nothing"),
        ({"r2_within": None}, "weak", "may be that of class means"),
    ],
)
def test_every_figure_of_the_verdict_reaches_it(changed, verdict, because):
    found = audit(**changed)
    assert found.trust.verdict == verdict
    assert re.search(because, found.trust.because)
    assert found.trust is found.trust


def test_plain_numbers_by_hand():
    told = audit().to_dict()
    assert list(told) == ["trust", *(one.name for one in fields(LinkAudit))]
    assert told["trust"]["verdict"] == "holds"
    assert told["r2"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    assert told["unit_cycle"] == [0.5, None]
    assert told["unit_tolerance"] == [0.25, None]
    assert told["order"]["within"] == 0.5
    assert told["report"]["pairs"] == 100
    assert told["mlp_r2_within"] is None


def test_what_cannot_be_told_is_none_and_never_nan():
    nothing = float("nan")
    found = audit(r2=Interval(nothing, nothing, nothing), class_mean_r2=nothing, cycle_r2=-float("inf"))
    told = found.to_dict()
    assert told["r2"] == {"value": None, "low": None, "high": None}
    assert told["class_mean_r2"] is None
    assert told["cycle_r2"] is None
    json.dumps(told, allow_nan=False)


def test_a_folder_of_it(tmp_path):
    path = audit().save(str(tmp_path / "audit"))
    assert path == tmp_path / "audit"
    told = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["audit"]
    whole = audit().to_dict()
    assert told == {name: value for name, value in whole.items() if not name.startswith("unit_")}
    held = load_file(path / "units.safetensors")
    assert torch.equal(held["unit_cycle"][:1], SOUND["unit_cycle"][:1])
    assert set(held) == {"unit_cycle", "unit_tolerance"}
    audit(unit_cycle=None).save(path)
    assert set(load_file(path / "units.safetensors")) == {"unit_tolerance"}


def test_other_things_in_the_way_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="so it is not an earlier result and is left alone"):
        audit().save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
