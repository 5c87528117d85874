import functools
import types
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from xinc_captum import LayerContribution, patch
from xinc_captum.hooks import find_layer, modules_behind


@dataclass(slots=True)
class Slotted:
    net: nn.Module

    def __call__(self, x):
        return self.net(x)

    def predict(self, x):
        return self.net(x)


class Handing:
    """Hands on the attributes of another object."""

    def __init__(self, net):
        self.inner = Slotted(net)

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Keeping(nn.Module):
    """Calls a function or an object that it does not register."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Nested(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.nets = {"first": [(net,)]}

    def forward(self, x):
        return self.nets["first"][0][0](x)


def with_class_attribute(model):
    class Holder:
        net = model

        @classmethod
        def of_class(cls, x):
            return cls.net(x)

        def __call__(self, x):
            return self.net(x)

    return Holder


def with_list_in_the_class(net):
    class Holder(nn.Module):
        nets = [net]

        def forward(self, x):
            return self.nets[0](x)

    return Holder()


def in_a_python_module(net):
    code = types.ModuleType("models_of_a_user")
    code.net = net
    exec("def predict(x):\n    return net(x)", code.__dict__)
    return code


def inside(function):
    return lambda x: function(x)


def with_hook(net):
    model = nn.Sequential(nn.Identity())
    model[0].register_forward_hook(lambda _module, _args, output: net(output))
    return model


def with_own_forward(net):
    model = nn.Identity()
    model.forward = types.MethodType(lambda _self, x: net(x), model)
    return model


AROUND = {
    "cache": lambda net: functools.lru_cache(lambda x: net(x)),
    "cache inside a function": lambda net: inside(functools.cache(net)),
    "grad mode inside a function": lambda net: inside(torch.enable_grad()(net)),
    "bound method inside a function": lambda net: inside(net.forward),
    "slots": Slotted,
    "method of slots": lambda net: Slotted(net).predict,
    "slots inside a function": lambda net: inside(Slotted(net)),
    "class method": lambda net: with_class_attribute(net).of_class,
    "class attribute": lambda net: with_class_attribute(net)(),
    "class inside a function": lambda net: (lambda holder: lambda x: holder.net(x))(with_class_attribute(net)),
    "Python module": lambda net: (lambda code: lambda x: code.net(x))(in_a_python_module(net)),
    "function of a Python module": lambda net: (lambda code: lambda x: code.predict(x))(in_a_python_module(net)),
    "weak reference": lambda net: (lambda reference: lambda x: reference()(x))(weakref.ref(net)),
    "__getattr__": lambda net: (lambda handing: lambda x: handing.net(x))(Handing(net)),
    "function in a module": lambda net: nn.Sequential(nn.Identity(), Keeping(lambda x: net(x))),
    "bound method in a module": lambda net: Keeping(net.forward),
    "partial in a module": lambda net: Keeping(functools.partial(net)),
    "object in a module": lambda net: Keeping(Slotted(net)),
    "nested containers in a module": Nested,
    "list in the class of a module": with_list_in_the_class,
    "forward hook": with_hook,
    "forward of one object": with_own_forward,
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_the_model_is_found_and_left_as_it_is(around):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    function, x = around(net), torch.rand(5, 3)
    assert net in modules_behind(function)
    assert find_layer(function, net[2]) is net[2]
    with pytest.warns(UserWarning, match="training mode"):
        found = LayerContribution(function, net[2]).attribute(x, target=1)
    assert net[1].running_mean.tolist() == [0, 0, 0, 0] and int(net[1].num_batches_tracked) == 0
    torch.testing.assert_close(found, net[:3](x) * net[3].weight[1])


def test_a_configuration_that_all_layers_share_costs_little():
    class Configured(nn.Linear):
        configuration = types.SimpleNamespace(**{f"entry{i}": i for i in range(100)})

    model = nn.Sequential(*[Configured(1, 1) for _ in range(50)])
    for layer in model:
        layer.settings, layer.shapes = Configured.configuration, [1, 2, 3]
    assert modules_behind(model) == [model]


def test_hooks_of_a_call_lead_nowhere():
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with patch(net, net, lambda value: other(value)):
        assert modules_behind(net) == [net]
        net(torch.rand(1, 2))
