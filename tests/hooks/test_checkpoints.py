import pytest
import torch
from torch import nn
from torch.utils import checkpoint as module
from torch.utils.checkpoint import checkpoint

from xinc_captum import FeatureAccentuation, LayerContribution, NeuronCanvas


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6))
        self.b = nn.Sequential(nn.Tanh(), nn.Linear(6, 6), nn.Sigmoid())
        self.c, self.reentrant = nn.Linear(6, 3), reentrant

    def forward(self, x):
        if self.reentrant is None:
            return self.c(self.b(self.a(x)))
        x = checkpoint(self.a, x, use_reentrant=self.reentrant)
        return self.c(checkpoint(self.b, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("layer", ["a.0", "a.1", "a", "b.1"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_contributions_are_those_without_checkpoints(layer, reentrant):
    plain, model, x = Checkpointed(None), Checkpointed(reentrant), torch.rand(5, 4)
    model.load_state_dict(plain.state_dict())

    def contributions(net):
        yield LayerContribution(net, layer).attribute(x, target=0)
        yield LayerContribution(net, layer).attribute(x, target=0, attribute_to_layer_input=True)
        for rule in ("tangent", "secant", "ablation"):
            yield NeuronCanvas(net, layer, rule=rule).attribute(x, target=0)

    for found, expected in zip(contributions(model), contributions(plain), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_images_are_accentuated_through_checkpoints(reentrant):
    def network(around):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

            def forward(self, x):
                return self.head(around(self.conv, x).relu().mean((2, 3)))

        return Network()

    plain = network(lambda part, x: part(x))
    model = network(lambda part, x: checkpoint(part, x, use_reentrant=reentrant))
    model.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 16, 16)
    found, expected = (FeatureAccentuation(net).accentuate(images, 1, n_steps=2).images for net in (model, plain))
    torch.testing.assert_close(found, expected)


def test_checkpoints_work_as_before_afterwards():
    before = dict(vars(module)), dict(vars(module.CheckpointFunction))
    model = Checkpointed(False)
    model.b[1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LayerContribution(model, "a.0").attribute(torch.rand(1, 4), target=0)
    assert (dict(vars(module)), dict(vars(module.CheckpointFunction))) == before
    runs = []
    model = Checkpointed(False)
    model.a[0].register_forward_hook(lambda *_: runs.append(1))
    model(torch.rand(1, 4)).sum().backward()
    assert len(runs) == 2, "once forward, and once again in the backward pass"
