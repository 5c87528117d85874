import pytest
import torch

from xinc_captum.inr import HypoNet, load, pixel_centres, save


def test_the_parts_and_their_shapes():
    net = HypoNet(2, 3, hidden=16, layers=3, count=4)
    assert [name for name, _ in net.named_children()] == [
        "encoding", "linear1", "activation1", "linear2", "activation2", "output",
    ]  # fmt: skip
    assert [tuple(m.weight.shape) for m in net.linears().values()] == [(16, 16), (16, 16), (3, 16)]
    assert [tuple(m.weight.shape) for m in HypoNet(3, 2, layers=1, count=0).linears().values()] == [(2, 3)]


def test_published_size():
    """Five layers of 256 units on 256 features draw a colour: 263,939 parameters, as the original's base."""
    assert sum(p.numel() for p in HypoNet().parameters()) == 263_939


def test_round_trip(tmp_path):
    net = HypoNet(hidden=5, layers=3, count=2, highest=7.0, seed=0)
    save(net, tmp_path / "net", size=(4, 6))
    again = load(tmp_path / "net")
    where = pixel_centres((4, 6))
    assert again.size == (4, 6) and torch.equal(again.model(where), net(where))
    assert torch.equal(HypoNet(hidden=5, layers=3, count=2, highest=7.0, seed=0)(where), net(where))


def test_no_layers():
    with pytest.raises(ValueError, match="layers is 0; wanted at least 1, the output layer"):
        HypoNet(layers=0)
