import functools
import types
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from xinc_captum import LayerContribution, patch
from xinc_captum.hooks import (
    LayerError,
    find_layer,
    layer_name,
    modules_behind,
    unwrap,
)


class Wrapped:
    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)

    def method(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    "around",
    [
        lambda net: net,
        lambda net: net.forward,
        lambda net: lambda x: net(x)[:, :1],
        lambda net: functools.partial(net, 1),
        lambda net: functools.partial(lambda n, x: n(x), net),
        lambda net: Wrapped(net),
        lambda net: Wrapped(net).method,
        lambda net: nn.DataParallel(net),
        lambda net: torch.compile(net, backend="eager"),
    ],
)
def test_the_model_is_found_behind_functions(net, around):
    assert net in modules_behind(around(net))
    assert find_layer(around(net), "3") is net[3]


def test_a_global_model_is_found_behind_a_function():
    namespace = {"model": nn.Linear(2, 2)}
    exec("def forward(x):\n    return model(x)", namespace)
    assert modules_behind(namespace["forward"]) == [namespace["model"]]


def test_wrappers_come_off(net):
    assert unwrap(nn.DataParallel(torch.compile(net, backend="eager"))) is net
    assert find_layer(nn.DataParallel(net), "module.0") is net[0]
    assert find_layer(torch.compile(net, backend="eager"), "_orig_mod.0") is net[0]


def test_a_wrong_name_lists_the_nearest_ones(conv):
    with pytest.raises(LayerError, match=r"layer 'rellu' is not in the model Conv; did you mean 'relu'"):
        find_layer(conv, "rellu")
    with pytest.raises(LayerError, match="did you mean"):
        find_layer(conv, "zzzzzzz")
    with pytest.raises(LayerError, match="no submodules"):
        find_layer(nn.ReLU(), "relu")


def test_a_foreign_module_is_refused(net):
    with pytest.raises(
        LayerError, match="layer ReLU is not part of the model Sequential; give one of that model's own"
    ):
        find_layer(net, nn.ReLU())


def test_a_name_without_a_visible_model_asks_for_the_module():
    with pytest.raises(LayerError, match="no torch.nn.Module is visible.*give the layer as a module"):
        find_layer(torch.relu, "fc")


def test_another_type_is_refused(net):
    with pytest.raises(TypeError, match="layer must be a torch.nn.Module or a dotted name, got int"):
        find_layer(net, 3)


def test_a_name_in_two_models_is_refused():
    encoder, decoder = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(
        LayerError, match="layer '0' is in several models behind this function .*give the layer as a module"
    ):
        find_layer(lambda x: decoder(encoder(x)), "0")


def test_attributes_are_not_mistaken_for_globals():
    namespace = {"net": nn.Sequential(nn.Linear(2, 2)), "head": nn.Linear(2, 2)}
    exec("forward = lambda x: [net.head(y) for y in net(x)]", namespace)
    assert modules_behind(namespace["forward"]) == [namespace["net"]]


def test_a_compiled_child_and_a_method_of_a_plain_object():
    model = nn.Sequential(nn.Linear(2, 2), torch.compile(nn.ReLU(), backend="eager"))
    assert isinstance(find_layer(model, "1"), nn.ReLU)

    class Holder:
        def __init__(self, net):
            self.net = net

        def predict(self, x):
            return self.net(x)

    assert modules_behind(Holder(model).predict) == [model]


def test_names_for_messages(conv):
    assert layer_name(conv, conv.fc) == "'fc'"
    assert layer_name(conv, conv) == "Conv"
    assert layer_name(torch.relu, conv.fc) == "Linear module"


def test_every_name_of_a_shared_module_finds_it():
    act = nn.ReLU()
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), act), nn.Sequential(nn.Linear(2, 2), act))
    assert find_layer(model, "0.1") is act and find_layer(model, "1.1") is act
    assert find_layer(lambda x: model(x), "1.1") is act


class Kept:
    """An object that is no module, as wrappers in scripts are."""

    def __init__(self, **held):
        self.__dict__.update(held)

    def __call__(self, x):
        return self.inner(x)

    def inner(self, x):
        return self.net(x)

    @property
    def named(self):
        return self.net


KEPT = {}


@pytest.mark.parametrize(
    "around",
    [
        lambda net: lambda x, model=net: model(x),
        lambda net: lambda x, *, model=net: model(x),
        lambda net: lambda x, nets=[net]: nets[0](x),
        lambda net: (lambda kept: lambda x: kept(x))(Kept(net=net)),
        lambda net: (lambda kept: lambda x: kept.named(x))(Kept(net=net)),
        lambda net: (lambda kept: lambda x: kept.net(x))(Kept(net=net)),
        lambda net: (lambda kept: lambda x: kept.inside["a"][0](x))(Kept(inside={"a": (net,)})),
        lambda net: Kept(net=lambda x: net(x)),
        lambda net: KEPT.update(net=net) or (lambda x: KEPT["net"](x)),
        lambda net: functools.partial(lambda nets, x: nets[0](x), [net]),
        lambda net: Hiding(net),
    ],
)
def test_the_model_is_found_in_defaults_containers_and_objects(net, around):
    function = around(net)
    assert any(net is m for root in modules_behind(function) for m in (root,)), modules_behind(function)
    assert find_layer(function, "3") is net[3]


class Hiding(nn.Module):
    """Keeps its model in a list, so that torch does not register it."""

    def __init__(self, net):
        super().__init__()
        self.nets = [net]

    def forward(self, x):
        return self.nets[0](x)


def test_objects_lead_only_to_the_modules_that_the_code_uses(net):
    kept = Kept(net=net, critic=nn.Linear(2, 2))
    assert modules_behind(lambda x: kept(x)) == [net]


def test_a_module_that_is_named_directly_comes_before_one_in_a_container():
    near, far = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    nets = [far]
    function = lambda x: near(nets[0](x))
    assert modules_behind(function) == [near, far]
    assert find_layer(function, "0") is near[0]


def test_a_submodule_of_another_root_is_no_root(net):
    first = net[0]
    assert modules_behind(lambda x: net(x) + first(x)) == [net]


def test_references_in_a_circle_come_to_an_end(net):
    ring = [net]
    ring.append(ring)
    assert modules_behind(lambda x: ring[0](x)) == [net]


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
def test_the_model_is_found_and_unchanged(around):
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


def test_modules_in_hooks_of_a_call_are_not_found():
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with patch(net, net, lambda value: other(value)):
        assert modules_behind(net) == [net]
        net(torch.rand(1, 2))
