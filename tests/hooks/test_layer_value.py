"""Float tensors are taken out of what a layer returns, and everything else goes on as it was."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from xinc_captum import LayerContribution, LayerError, NeuronCanvas, capture, patch
from xinc_captum.hooks.layer_value import floats_of, one_tensor

Pair = namedtuple("Pair", "hidden mask")


@dataclass(frozen=True)
class Output:
    hidden: torch.Tensor
    length: int
    mask: torch.Tensor


MASK = torch.tensor([True, False])
KINDS = {
    "tensor and None": lambda z: (z, None),
    "tensor and tuple": lambda z: (z, (z * 0, z + 1)),
    "tensor and mask": lambda z: (z, MASK),
    "mask and tensor": lambda z: (MASK, z),
    "one": lambda z: (z,),
    "list": lambda z: [z, 3],
    "namedtuple": lambda z: Pair(z, MASK),
    "dict": lambda z: {"mask": MASK, "hidden": z},
    "ordered dict": lambda z: OrderedDict(hidden=z, length=2),
    "dataclass": lambda z: Output(z, 2, MASK),
}


class Wrapping(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(3, 4), wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


class Net(nn.Module):
    """Takes the hidden tensor out of the layer's value, and notes the value that it received."""

    def __init__(self, wrap):
        super().__init__()
        self.part, self.head = Wrapping(wrap), nn.Linear(4, 2)
        self.received = []  # its entries stay; an attribute would be restored

    def forward(self, x):
        value = self.part(x)
        self.received.append(value)
        if isinstance(value, dict):
            return self.head(value["hidden"])
        if hasattr(value, "hidden"):
            return self.head(value.hidden)
        return self.head(next(v for v in value if isinstance(v, torch.Tensor) and v.is_floating_point()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensor_is_explained_alone_and_the_rest_passes_through(kind):
    net, x = Net(KINDS[kind]).eval(), torch.rand(5, 3)
    hidden = net.part.linear(x)
    by_hand = hidden * net.head.weight[1]
    assert torch.allclose(LayerContribution(net, "part").attribute(x, target=1), by_hand, atol=1e-6)
    plain = type(net.part(x))
    assert type(net.received[-1]) is plain, "the model goes on with a container of the same kind"
    canvas = NeuronCanvas(net, "part").attribute(x)
    assert torch.allclose(canvas[..., 1], by_hand, atol=1e-6)
    without = NeuronCanvas(net, "part", rule="ablation").attribute(x, neuron_selector=2)
    assert torch.allclose(without[:, 0, 1], by_hand[:, 2], atol=1e-6)
    with capture(net, "part") as seen:
        net(x)
    assert torch.equal(seen[net.part], hidden) and type(net.received[-1]) is plain
    with capture(net, "part", offload="cpu") as seen:
        net(x)
    assert torch.equal(seen[net.part], hidden)
    with patch(net, "part", torch.zeros_like):
        assert torch.allclose(net(x), net.head.bias.expand(5, 2))


def test_what_is_not_a_float_tensor_is_the_same_object():
    states = (torch.zeros(1), [torch.ones(1)])
    value = (torch.ones(2), MASK, states, None)
    found, rebuild = floats_of(value, nn.Identity(), lambda: "'0'")
    assert len(found) == 1 and found[0] is value[0]
    new = rebuild((torch.zeros(2),))
    assert new[1] is MASK and new[2] is states and new[3] is None and new[0].sum() == 0
    assert value[0].sum() == 2, "the layer's own value is not written into"
    frozen = Output(torch.ones(2), 3, MASK)
    _, rebuild = floats_of(frozen, nn.Identity(), lambda: "'0'")
    assert rebuild((torch.zeros(2),)) is not frozen and frozen.hidden.sum() == 2


def test_several_float_tensors_are_a_tuple():
    class Two(nn.Module):
        def forward(self, x):
            return {"a": x, "mask": MASK, "b": 2 * x}

    net = nn.Sequential(Two())
    with capture(net, "0") as seen:
        net(torch.ones(1, 2))
    assert torch.equal(seen[net[0]][1], torch.full((1, 2), 2.0))
    with pytest.raises(LayerError, match="layer 'x' returns 2 floating-point tensors; wanted one"):
        one_tensor(seen[net[0]], lambda: "'x'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            torch.ones(2, dtype=torch.long),
            r"layer '0' returns \(torch.int64\); wanted a floating-point tensor, or a tuple",
        ),
        ((None, MASK), r"returns \(NoneType, torch.bool\)"),
        ((None, (torch.ones(1),)), "and tensors inside a nested container are not explained. Explain what enters"),
        ((), r"returns \(\)"),
        (object(), "returns object; wanted"),
        ({"a": [torch.ones(1)]}, "inside a nested container are not explained"),
    ],
)
def test_values_without_a_float_tensor_are_refused(value, text):
    with pytest.raises(LayerError, match=text):
        floats_of(value, nn.Identity(), lambda: "'0'")


def test_inputs_without_a_float_tensor_are_refused():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with (
        pytest.raises(LayerError, match=r"layer '0' takes \(torch.int64\); wanted a floating-point tensor"),
        capture(net, "0", at_input=True),
    ):
        net(torch.tensor([1, 2]))
    assert not net[0]._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_layers_are_refused():
    net = nn.Sequential(torch.jit.script(nn.Linear(3, 3)), nn.Linear(3, 2))
    for reading in (lambda: capture(net, "0"), lambda: patch(net, "0", torch.zeros_like)):
        with pytest.raises(LayerError, match="layer '0' is scripted .*scripted modules run no Python hooks"), reading():
            net(torch.rand(2, 3))
