import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from xinc_captum.attributions.trans_inr import Weights, as_module, run_networks, stack_weights
from xinc_captum.attributions.trans_inr.writer import Attention, Encoder
from xinc_captum.inr import HypoNet, pixel_centres


def given(recorded, where):
    names = sorted(name for name in recorded if name.startswith(f"{where}/params/"))
    return Weights(tuple(recorded[n][:, :-1].mT for n in names), tuple(recorded[n][:, -1][:, None] for n in names))


def test_recorded_weights_draw_what_was_recorded(recorded):
    where = recorded["given/coords"].flatten(1, 2)
    encode = HypoNet(2, 3, hidden=8, layers=3, count=3).encoding
    torch.testing.assert_close(encode(where), recorded["given/posenc"], atol=1e-5, rtol=1e-5)
    drawn = run_networks(encode(where), given(recorded, "given"), 0.5)
    torch.testing.assert_close(drawn, recorded["given/output"].flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_recorded_weights_without_an_encoding(recorded):
    drawn = run_networks(recorded["given/coords"].flatten(1, 2), given(recorded, "given_nope"))
    torch.testing.assert_close(drawn, recorded["given_nope/output"].flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_recorded_grids(recorded):
    assert torch.equal(pixel_centres((8, 8)).reshape(8, 8, 2), recorded["grid"])
    low, high = torch.tensor([0.0, -2.0]), torch.tensor([1.0, 2.0])
    grid = low + (pixel_centres((3, 5)) + 1) / 2 * (high - low)
    torch.testing.assert_close(grid.reshape(3, 5, 2), recorded["grid_rect"])


def test_stacking_and_taking_apart():
    nets = [HypoNet(hidden=5, layers=3, count=2, seed=s) for s in range(3)]
    x, weights = torch.rand(7, 2), stack_weights(nets)
    drawn = run_networks(nets[0].encoding(x), weights)
    state = torch.get_rng_state()
    for i, net in enumerate(nets):
        torch.testing.assert_close(drawn[i], net(x))
        one = Weights(weights.matrices, tuple(b[i, 0] for b in weights.biases))
        again = as_module(net, one, i, out_bias=0.25)
        torch.testing.assert_close(again(x), net(x) + 0.25)
        assert all(p.requires_grad and p.is_leaf for p in again.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_attention_is_torchs_own():
    attention, x = Attention(12, 3).double(), torch.rand(2, 5, 12).double()
    q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (attention.query, attention.key, attention.value))
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    y, weights = attention(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5).double())


def test_tokens_that_are_not_seen_might_as_well_not_be_there():
    encoder, x = Encoder(12, 2, 3, 24).double(), torch.rand(2, 5, 12).double()
    seen = torch.tensor([True, False, True, True, False]).expand(2, -1)
    y, routing = encoder.routed(x, seen)
    assert torch.equal(encoder(x, seen), y) and routing.shape == (2, 2, 3, 5, 5)
    fewer = encoder(x[:, [0, 2, 3]])
    torch.testing.assert_close(y[:, [0, 2, 3]], fewer)
    assert (routing[..., [1, 4]] == 0).all()


def test_forward_mode_equals_reverse_mode():
    encoder, x, way = Encoder(8, 2, 2, 12).double(), torch.rand(1, 4, 8).double(), torch.rand(1, 4, 8).double()
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(encoder(forward_ad.make_dual(x, way))).tangent
    jacobian = torch.autograd.functional.jacobian(encoder, x)
    torch.testing.assert_close(moved, torch.einsum("abcdef,def->abc", jacobian, way))


def test_heads_must_divide():
    with pytest.raises(ValueError, match="dim 10 is not divisible by heads 3; expected heads of equal width, or give"):
        Attention(10, 3)
    with pytest.raises(ValueError, match="head_dim is 0; expected at least 1, or None for dim / heads"):
        Attention(10, 3, 0)


def test_heads_of_any_width():
    """By hand: two heads of width 1 on one token of width 3, which attends to itself."""
    attention = Attention(3, 2, head_dim=1)
    with torch.no_grad():
        attention.value.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        attention.out.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 3.0], [5.0, 0.0]]))
        attention.out.bias.zero_()
    y, weights = attention(torch.tensor([[[1.0, 10.0, 100.0]]]))
    assert y.flatten().tolist() == [21, 60, 5] and weights.shape == (1, 2, 1, 1)
    assert attention.query.weight.shape == attention.key.weight.shape == (2, 3)
    attention, x = Attention(12, 3, head_dim=5).double(), torch.rand(2, 4, 12).double()
    q, k, v = (f(x).unflatten(-1, (3, 5)).transpose(1, 2) for f in (attention.query, attention.key, attention.value))
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x)[0], expected)
