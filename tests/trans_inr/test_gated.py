import pytest
import torch

from xinc_captum import NeuronCanvas
from xinc_captum.attributions.trans_inr import Weights
from xinc_captum.attributions.trans_inr.gated import group_sums, neuron_shares
from xinc_captum.inr import pixel_centres


def test_known_answer():
    """One point, γ = 1; two neurons with 2 and -1, so one is silent; then 3 · 2 + 1 = 7 and 0.5 at the end."""
    weights = Weights(
        (torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[3.0, 10.0]]])), (torch.zeros(2), torch.tensor([1.0]))
    )
    shares, rest = neuron_shares(torch.ones(1, 1), weights, 0, 0.5)
    assert shares.tolist() == [[[[6.0, 0.0]]]] and rest.tolist() == [[[1.5]]]
    shares, rest = neuron_shares(torch.ones(1, 1), weights, 1, 0.5)
    assert shares.tolist() == [[[[7.0]]]] and rest.tolist() == [[[0.5]]]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_i1_i2_neurons_and_rest_are_the_picture_at_every_layer(tiny, layer):
    images = torch.rand(2, 3, 6, 6).double()
    with torch.no_grad():
        weights = tiny.weights(tiny.modulations(images))
        shares, rest = neuron_shares(tiny.encoded((6, 6)), weights, layer, 0.5)
        drawn = tiny(images).flatten(2).mT
    torch.testing.assert_close(shares.sum(-1) + rest, drawn, atol=1e-10, rtol=0)
    assert shares.shape == (2, 36, 3, 3 if layer == 2 else 6)


def test_the_same_as_the_canvas_of_one_picture(tiny):
    """The tangent rule on a generated network, neuron by neuron."""
    images = torch.rand(2, 3, 6, 6).double()
    where = pixel_centres((6, 6), dtype=torch.float64)
    for layer, name in enumerate(("activation1", "activation2")):
        with torch.no_grad():
            shares, _ = neuron_shares(tiny.encoded((6, 6)), tiny.weights(tiny.modulations(images)), layer)
        for net, mine in zip(tiny.generate(images), shares, strict=True):
            canvas = NeuronCanvas(net, name).attribute(where)  # (pixels, neurons, channels)
            torch.testing.assert_close(mine.mT, canvas, atol=1e-10, rtol=0)


def test_i14_silent_neurons_have_no_part(tiny):
    with torch.no_grad():
        tiny.writer.base.linear2.bias[1] = -100.0
        weights = tiny.weights(tiny.modulations(torch.rand(2, 3, 6, 6).double()))
        shares, _ = neuron_shares(tiny.encoded((6, 6)), weights, 1)
    assert (shares[..., 1] == 0).all() and shares[..., 0].abs().sum() > 0


def test_parts_of_the_last_hidden_layer_are_bounded_by_its_neurons(tiny):
    """|C| <= h since no weight of a column of length 1 exceeds 1."""
    with torch.no_grad():
        weights = tiny.weights(tiny.modulations(torch.rand(2, 3, 6, 6).double()))
        shares, _ = neuron_shares(tiny.encoded((6, 6)), weights, 1)
        h = tiny.encoded((6, 6))
        for matrix, bias in zip(weights.matrices[:2], weights.biases[:2], strict=True):
            h = (h @ matrix.mT + bias).relu()
    assert (shares.abs() <= h[:, :, None] + 1e-12).all()


def test_i4_groups_partition_the_neurons():
    eye = torch.eye(6)
    members = group_sums(eye, 3)  # (neuron, token)
    assert (members.sum(1) == 1).all() and (members.sum(0) == 2).all()
    assert members.argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
