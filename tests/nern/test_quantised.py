import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern import quantised
from xinc_captum.attributions.nern.quantised import packed_integers, rounded


def test_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, (1, 2), bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[7.0, -3.4], [0.7, 0.02]]).view(2, 1, 1, 2))
    found = quantised(model, bits=4)
    wanted = torch.tensor([[7.0, -3.0], [0.7, 0.0]]).view(2, 1, 1, 2)
    torch.testing.assert_close(found.model[0].weight.detach(), wanted)
    own = torch.tensor([7.0, -3.4, 0.7, 0.02])
    assert found.relative_error == pytest.approx(((own - wanted.flatten()).norm() / own.norm()).item(), rel=1e-5)
    assert model[0].weight[0, 0, 0, 1].item() == pytest.approx(-3.4), "a copy was changed"
    assert packed_integers(torch.tensor([7.0, -3.0, 7.0, 0.0]), 4).tolist() == [0x7D, 0x70]


def test_fewer_bits_fewer_bytes_more_error(mixed):
    found = [quantised(mixed, bits=bits) for bits in (8, 6, 4, 2)]
    assert [f.bytes for f in found] == sorted((f.bytes for f in found), reverse=True)
    assert [f.relative_error for f in found] == sorted(f.relative_error for f in found)
    x = torch.rand(2, 2, 6, 6)
    torch.testing.assert_close(found[0].model(x), mixed(x), atol=0.02, rtol=0.02)


def test_dead_filters_stay_dead():
    scale, whole = rounded(torch.zeros(2, 1, 3, 3), 8)
    assert torch.isfinite(scale).all() and (whole == 0).all()
    assert quantised(zeroed()).relative_error == 0


def zeroed():
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    nn.init.zeros_(model[0].weight)
    return model


def test_bits():
    with pytest.raises(ValueError, match="bits is 16; wanted 2 to 8"):
        quantised(nn.Conv2d(1, 1, 1), bits=16)
