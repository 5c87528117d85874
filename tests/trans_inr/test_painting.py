import torch

from xinc_captum.attributions.trans_inr import Weights, as_module, painted, stacked
from xinc_captum.inr import HypoNet, pixel_centres


def given(recorded, where):
    names = sorted(name for name in recorded if name.startswith(f"{where}/params/"))
    return Weights(tuple(recorded[n][:, :-1].mT for n in names), tuple(recorded[n][:, -1][:, None] for n in names))


def test_recorded_weights_draw_what_was_recorded(recorded):
    where = recorded["given/coords"].flatten(1, 2)
    encode = HypoNet(2, 3, hidden=8, layers=3, count=3).encoding
    torch.testing.assert_close(encode(where), recorded["given/posenc"], atol=1e-5, rtol=1e-5)
    drawn = painted(encode(where), given(recorded, "given"), 0.5)
    torch.testing.assert_close(drawn, recorded["given/output"].flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_recorded_weights_without_an_encoding(recorded):
    drawn = painted(recorded["given/coords"].flatten(1, 2), given(recorded, "given_nope"))
    torch.testing.assert_close(drawn, recorded["given_nope/output"].flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_recorded_grids(recorded):
    assert torch.equal(pixel_centres((8, 8)).reshape(8, 8, 2), recorded["grid"])
    low, high = torch.tensor([0.0, -2.0]), torch.tensor([1.0, 2.0])
    grid = low + (pixel_centres((3, 5)) + 1) / 2 * (high - low)
    torch.testing.assert_close(grid.reshape(3, 5, 2), recorded["grid_rect"])


def test_stacking_and_taking_apart():
    nets = [HypoNet(hidden=5, layers=3, count=2, seed=s) for s in range(3)]
    x, weights = torch.rand(7, 2), stacked(nets)
    drawn = painted(nets[0].encoding(x), weights)
    state = torch.get_rng_state()
    for i, net in enumerate(nets):
        torch.testing.assert_close(drawn[i], net(x))
        one = Weights(weights.matrices, tuple(b[i, 0] for b in weights.biases))
        again = as_module(net, one, i, out_bias=0.25)
        torch.testing.assert_close(again(x), net(x) + 0.25)
        assert all(p.requires_grad and p.is_leaf for p in again.parameters())
    assert torch.equal(torch.get_rng_state(), state)
