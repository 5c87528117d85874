import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from xinc_captum.attributions.trans_inr import TransINR, Weights, WeightWriter, as_module, run_networks, stack_weights
from xinc_captum.attributions.trans_inr.writer import Attention, Encoder
from xinc_captum.inr import HypoNet, pixel_centres


def recorded_weights(recorded, where):
    names = sorted(name for name in recorded if name.startswith(f"{where}/params/"))
    return Weights(tuple(recorded[n][:, :-1].mT for n in names), tuple(recorded[n][:, -1][:, None] for n in names))


def test_recorded_weights_give_the_recorded_image(recorded):
    where = recorded["given/coords"].flatten(1, 2)
    encode = HypoNet(2, 3, hidden=8, layers=3, count=3).encoding
    torch.testing.assert_close(encode(where), recorded["given/posenc"], atol=1e-5, rtol=1e-5)
    drawn = run_networks(encode(where), recorded_weights(recorded, "given"), 0.5)
    torch.testing.assert_close(drawn, recorded["given/output"].flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_recorded_weights_without_an_encoding(recorded):
    drawn = run_networks(recorded["given/coords"].flatten(1, 2), recorded_weights(recorded, "given_nope"))
    torch.testing.assert_close(drawn, recorded["given_nope/output"].flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_recorded_grids(recorded):
    assert torch.equal(pixel_centres((8, 8)).reshape(8, 8, 2), recorded["grid"])
    low, high = torch.tensor([0.0, -2.0]), torch.tensor([1.0, 2.0])
    grid = low + (pixel_centres((3, 5)) + 1) / 2 * (high - low)
    torch.testing.assert_close(grid.reshape(3, 5, 2), recorded["grid_rect"])


def test_weights_are_stacked_and_unstacked():
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


def test_attention_equals_torchs():
    attention, x = Attention(12, 3).double(), torch.rand(2, 5, 12).double()
    q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (attention.query, attention.key, attention.value))
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    y, weights = attention(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5).double())


def test_masked_tokens_have_no_effect():
    encoder, x = Encoder(12, 2, 3, 24).double(), torch.rand(2, 5, 12).double()
    seen = torch.tensor([True, False, True, True, False]).expand(2, -1)
    y, routing = encoder.forward_with_routing(x, seen)
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
    with pytest.raises(ValueError, match="dim 10 is not divisible by heads 3; expected heads of equal width, or their"):
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


def weights_of(scale=None, layer=None, **arguments):
    torch.manual_seed(0)
    model = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0).double()
    modulations = [x.detach() for x in model.modulations(torch.rand(2, 3, 6, 6).double())]
    if scale is not None:
        modulations[layer] = modulations[layer] * scale
    return model.weights(tuple(modulations))


def test_weights_equal_hand_computed_ones():
    """Base rows (3, 4) and (1, 0), one modulation (1, 1): (.6, .8) and (1, 0)."""
    writer = WeightWriter(HypoNet(2, 2, layers=1, count=0), 4, 1, 1, 4, groups=1)
    with torch.no_grad():
        writer.base.output.weight.copy_(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    made = writer.weights((torch.ones(1, 1, 2),)).matrices[0]
    torch.testing.assert_close(made, torch.tensor([[[0.6, 0.8], [1.0, 0.0]]]))
    doubled = writer.weights((torch.tensor([[[4.0 / 3, -1.0]]]),)).matrices[0]  # (4, -4) and (4/3, 0)
    torch.testing.assert_close(doubled, torch.tensor([[[0.5**0.5, -(0.5**0.5)], [1.0, 0.0]]]))


def test_neuron_j_takes_modulation_j_mod_g():
    writer = WeightWriter(HypoNet(1, 6, layers=1, count=0), 4, 1, 1, 4, groups=3)
    signs = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1)
    with torch.no_grad():
        writer.base.output.weight.fill_(2.0)
    assert writer.weights((signs,)).matrices[0].flatten().tolist() == [1, -1, 1, 1, -1, 1]


def test_i5_every_neurons_weights_have_length_one():
    for matrix in weights_of().matrices:
        torch.testing.assert_close(matrix.norm(dim=-1), torch.ones(matrix.shape[:2]).double(), atol=1e-10, rtol=0)


@given(st.floats(1e-3, 1e3), st.integers(0, 2))
def test_i6_length_of_a_modulation_has_no_effect(scale, layer):
    for a, b in zip(weights_of().matrices, weights_of(scale, layer).matrices, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_initial_weights_of_the_base_equal_the_originals(recorded):
    """Recorded with the seed 5: six inputs and a bias below one another, four outputs beside one another."""
    base = HypoNet(6, 4, layers=1, count=0, seed=5).output
    drawn = torch.cat([base.weight.mT, base.bias[None]]).detach()
    torch.testing.assert_close(drawn, recorded["init_wb/7x4"], atol=1e-7, rtol=0)


def test_i7_biases_are_those_of_the_base():
    model = TransINR(seed=0).double()
    nets = model.generate(torch.rand(3, 1, 8, 8))
    for name, linear in model.writer.base.linears().items():
        own = [getattr(net, name).bias - (0.5 if name == "output" else 0.0) for net in nets]
        assert torch.equal(own[0], own[1]) and torch.equal(own[1], own[2])
        torch.testing.assert_close(own[0], linear.bias, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["dim", "depth", "heads", "ff"])
def test_numbers_below_one_are_refused(name):
    sizes = {"dim": 4, "depth": 1, "heads": 1, "ff": 4, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        WeightWriter(HypoNet(2, 2, layers=1, count=0), **sizes, groups=1)


def test_layers_by_index_and_name():
    writer = TransINR(seed=0).writer
    assert [writer.layer_index(one) for one in (0, -1, "linear2", "output")] == [0, 2, 1, 2]
    for wrong in (3, -4, "linear9", None):
        with pytest.raises(ValueError, match=r"layer is .*; expected one of linear1, linear2, output, or -3 to 2"):
            writer.layer_index(wrong)
