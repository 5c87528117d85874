import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.trans_inr import TransINR, WeightWriter
from xinc_captum.inr import HypoNet


def weights_of(scale=None, layer=None, **arguments):
    torch.manual_seed(0)
    model = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0).double()
    modulations = [x.detach() for x in model.modulations(torch.rand(2, 3, 6, 6).double())]
    if scale is not None:
        modulations[layer] = modulations[layer] * scale
    return model.weights(tuple(modulations))


def test_known_answer():
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
def test_i6_the_length_of_a_modulation_means_nothing(scale, layer):
    for a, b in zip(weights_of().matrices, weights_of(scale, layer).matrices, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_the_bases_first_weights_are_the_originals(recorded):
    """Recorded with the seed 5: six inputs and a bias below one another, four outputs beside one another."""
    base = HypoNet(6, 4, layers=1, count=0, seed=5).output
    drawn = torch.cat([base.weight.mT, base.bias[None]]).detach()
    torch.testing.assert_close(drawn, recorded["init_wb/7x4"], atol=1e-7, rtol=0)


def test_i7_biases_are_the_bases_own():
    model = TransINR(seed=0).double()
    nets = model.generate(torch.rand(3, 1, 8, 8))
    for name, linear in model.writer.base.linears().items():
        own = [getattr(net, name).bias - (0.5 if name == "output" else 0.0) for net in nets]
        assert torch.equal(own[0], own[1]) and torch.equal(own[1], own[2])
        torch.testing.assert_close(own[0], linear.bias, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["dim", "depth", "heads", "ff"])
def test_numbers_below_one(name):
    sizes = {"dim": 4, "depth": 1, "heads": 1, "ff": 4, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        WeightWriter(HypoNet(2, 2, layers=1, count=0), **sizes, groups=1)


def test_layers_by_number_and_name():
    writer = TransINR(seed=0).writer
    assert [writer.layer_index(one) for one in (0, -1, "linear2", "output")] == [0, 2, 1, 2]
    for wrong in (3, -4, "linear9", None):
        with pytest.raises(ValueError, match=r"layer is .*; expected one of linear1, linear2, output, or -3 to 2"):
            writer.layer_index(wrong)
