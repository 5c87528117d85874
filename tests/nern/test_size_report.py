import math

import pytest
import torch
from torch import nn

from xinc_captum.nern import NeRN


@pytest.mark.parametrize("permutation", ["cross-filter", "in-filter", "none"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_equal_to_the_file_to_the_byte(mixed, permutation, dtype, tmp_path):
    nern = NeRN(mixed, hidden=7, levels=5, permutation=permutation)
    report = nern.size_report(dtype=dtype)
    assert report.total == nern.save(tmp_path / "a.safetensors", dtype=dtype).stat().st_size
    weights = sum(p.numel() for p in nern.predictor.parameters())
    assert report.parameters == weights and report.predictor == weights * (2 if dtype else 4)
    kept = sum(t.numel() * t.element_size() for n, t in mixed.state_dict().items()) - 4 * report.represented
    assert report.kept == kept and report.represented == 4 * 2 * 25 + 6 * 4 * 3 + 6 * 9 + 5 * 6
    bits = {"none": 0, "cross-filter": 8 * 3 + 24 * 5 + 6 * 3 + 30 * 5}
    if permutation in bits:
        assert math.isclose(report.permutation, bits[permutation] / 8, abs_tol=4)
    assert report.header > 500


def test_int8_by_hand():
    target = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False))
    report = NeRN(target, hidden=4).size_report()
    assert 0 < report.int8 - (8 * 4 * 9 + 8 * 4) < 200, "integers, scales, header"
    assert report.target > 4 * 8 * 4 * 9
    assert report.int8_relative_error < 0.01


def test_shown_with_the_error(mixed):
    nern = NeRN(mixed, hidden=4)
    text = str(nern.size_report())
    assert f"weight error {nern.relative_error():.4f}" in text
    assert [line.split(":")[0].split(" ")[0] for line in text.splitlines()] == ["target", "NeRN", "int8"]
