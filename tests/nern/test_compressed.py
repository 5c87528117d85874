import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern import NeRN, compressed


@pytest.fixture
def nern():
    torch.manual_seed(0)
    return NeRN(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), hidden=60, levels=6)


def test_fewer_bits_and_weights_fewer_bytes(nern):
    before = [p.clone() for p in nern.predictor.parameters()]
    sizes = [compressed(nern, keep=keep, bits=bits).bytes for keep, bits in ((1, 8), (1, 4), (0.5, 4), (0.2, 2))]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] < nern.size_report().total
    assert all(torch.equal(p, q) for p, q in zip(nern.predictor.parameters(), before, strict=True))
    weights = sum(p.numel() for p in nern.predictor.parameters() if p.dim() == 2)
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, abs=60), "half a byte a weight less, but for the header"


def test_what_stays(nern):
    found = compressed(nern, keep=0.25, bits=8)
    matrices = [p for p in found.nern.predictor.parameters() if p.dim() == 2]
    kept = sum(int((p != 0).sum()) for p in matrices) / sum(p.numel() for p in matrices)
    assert kept == pytest.approx(0.25, abs=0.01)
    own = torch.cat([p.flatten() for p in nern.predictor.parameters() if p.dim() == 2])
    new = torch.cat([p.flatten() for p in matrices])
    assert own[new == 0].abs().median() < own[new != 0].abs().min() * 1.01
    for a, b in zip(nern.predictor.parameters(), found.nern.predictor.parameters(), strict=True):
        if a.dim() == 1:
            assert torch.equal(a, b), "biases are not rounded"
    assert found.relative_error == found.nern.relative_error()


def test_eight_bits_hardly_change_anything(nern):
    found = compressed(nern).nern.weights()
    for name, weight in nern.weights().items():
        assert (found[name] - weight).norm() / weight.norm() < 0.02


@pytest.mark.parametrize(
    ("kwargs", "text"), [({"keep": 0.0}, "keep is 0.0; wanted"), ({"bits": 9}, "bits is 9; wanted")]
)
def test_errors(nern, kwargs, text):
    with pytest.raises(ValueError, match=text):
        compressed(nern, **kwargs)
