import pytest
import torch
from torch import nn

from xinc_captum import LayerContribution, NeuronCanvas
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.batch import Batch
from xinc_captum import LayerError


def test_activation_and_output_of_one_run(net):
    x = torch.rand(3, 2)
    activation, output = Tail(net, net[1]).run(Batch.of(x))
    assert torch.equal(activation, net[:2](x))
    assert torch.equal(output, net(x))


def test_an_edit_changes_the_output(net):
    x = torch.rand(3, 2)
    edited = Tail(net, net[4], at_input=True).edited(Batch.of(x), torch.zeros_like)
    torch.testing.assert_close(edited, net[4].bias.expand(3, -1))


def test_a_tuple_of_tensors_is_no_single_activation():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    model = nn.Sequential(Two())
    with pytest.raises(LayerError, match="layer '0' returns 2 floating-point tensors; wanted one"):
        Tail(model, model[0]).single((torch.zeros(1), torch.zeros(1)))


class Attention(nn.Module):
    """Hands over a tuple of one, as transformer blocks do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return (self.linear(x),)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = Attention(), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(x + self.attention(x)[0])


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_a_layer_that_hands_over_a_tuple_of_one(rule):
    model, x = Block(), torch.rand(5, 4)
    ours = NeuronCanvas(model, "attention", rule=rule).attribute(x, target=0)[:, :4]
    theirs = LayerContribution(model, "attention").attribute(x, target=0)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("outputs", [3, 20])
def test_folded_rows_are_refused(outputs):
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.out = nn.Linear(4, 6), nn.Linear(6, outputs)

        def forward(self, x):
            b, t, d = x.shape
            return self.out(self.linear(x.reshape(b * t, d)).reshape(b, t, -1).mean(1))

    with pytest.raises(
        LayerError, match=r"layer 'linear' returns shape \((28|35), 6\) for (4|5) input rows; wanted rows first"
    ):
        NeuronCanvas(Folded(), "linear").attribute(torch.rand(5, 7, 4))
