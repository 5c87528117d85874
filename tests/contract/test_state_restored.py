"""The state of the model is restored, also after exceptions."""

import pytest
from contract.methods import Broken, attribute, every
from torch import nn


@every
@pytest.mark.parametrize("where", ["conv", "norm", "relu", "pool", "flat", "fc"])
@pytest.mark.parametrize("fault", [Broken, KeyboardInterrupt])
def test_state_is_restored_when_any_submodule_raises(method, net, x, found, where, fault):
    net.norm.train()
    net(x).sum().backward()
    net.conv.weight.requires_grad_(False)

    def raising(*_):
        raise fault

    handle = net.get_submodule(where).register_forward_hook(raising)
    before = found(net)
    with pytest.raises(fault), pytest.warns(UserWarning, match="in training mode"):
        attribute(method, net, x)
    assert before.differences(net) == []
    assert list(net.get_submodule(where)._forward_hooks) == [handle.id]


@every
def test_state_is_restored_in_training_mode(method, net, x, found):
    net.train()
    before = found(net)
    with pytest.warns(UserWarning, match="BatchNorm2d 'norm' is in training mode"):
        if method.name == "NeuronCanvas secant":
            attribute(method, nn.Sequential(net, nn.Dropout(0.0).eval()) and net, x)
        else:
            attribute(method, net, x)
    assert before.differences(net) == []
