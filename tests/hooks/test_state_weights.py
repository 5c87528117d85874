import copy

import pytest
import torch
from rounding import assert_equal_but_for_rounding
from torch import nn

from xinc_captum.hooks import exchange, layer_name, snapshot


def test_the_snapshot_keeps_the_output_from_before_training(conv):
    x = torch.rand(2, 3, 6, 6)
    before, frozen = conv(x), snapshot(conv)
    with torch.no_grad():
        for tensor in (*conv.parameters(), *conv.buffers()):
            tensor.add_(1)
    conv.train()
    assert torch.equal(frozen(x), before)
    assert conv.training and conv.fc.training, "the user's flags are put back"


def test_around_a_function_and_with_shared_weights():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    forward = lambda x: {"y": model(x)}
    frozen, x = snapshot(forward, first), torch.rand(3, 2)
    before = forward(x)["y"]
    nn.init.zeros_(first.weight)
    assert torch.equal(frozen(x)["y"], before)
    assert torch.equal(model[1].weight, torch.zeros(2, 2))


def test_weights_can_be_changed_in_the_copy_alone(conv, found):
    x, before = torch.rand(2, 3, 6, 6), found(conv)
    zeroed = snapshot(conv, change=torch.zeros_like)
    assert torch.equal(zeroed(x), torch.zeros(2, 3))
    assert conv(x).abs().sum() > 0
    assert before.differences(conv) == []
    seen = []
    snapshot(conv, change=lambda weight: seen.append(weight.shape) or weight)
    assert seen == [p.shape for p in conv.parameters()], "every parameter, no buffer"


def test_layers_keep_the_names_their_owner_gave():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert layer_name(snapshot(model), model[1]) == "'1'"


class Twice(nn.Module):
    """One convolution under two names, a tied weight, a batch norm, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Conv2d(3, 3, 1)
        self.c = nn.Conv2d(3, 3, 1)
        self.c.weight = self.a.weight
        self.norm = nn.BatchNorm2d(3)
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x):
        return self.rnn(self.norm(self.c(self.b(self.a(x)))).flatten(2).transpose(1, 2))[0]


@pytest.mark.parametrize("also", [(), ("a",), ("a", "norm"), ("rnn",)])
@pytest.mark.parametrize("fault", [False, True])
def test_the_same_objects_come_back_under_every_name(found, also, fault):
    model, x = Twice().eval(), torch.rand(2, 3, 2, 2)
    layers = [model.get_submodule(name) for name in also]
    expected, before = model(x), found(model)
    second = list(model.rnn._flat_weights)
    frozen = snapshot(lambda x: model(x), *layers)
    for p in model.parameters():
        p.data.zero_()
    before = found(model)
    if fault:
        handle = model.norm.register_forward_hook(lambda *_: 1 / 0)
        before = found(model)
        with pytest.raises(ZeroDivisionError):
            frozen(x)
        assert before.differences(model) == []
        handle.remove()
    else:
        # a product may round by the address of its operands, and the copy's weights have other addresses
        assert_equal_but_for_rounding(frozen(x), expected, terms=4 * 3 * 5)
        assert before.differences(model) == []
    assert all(a is b for a, b in zip(second, model.rnn._flat_weights, strict=True))


def test_a_parameter_that_the_user_replaces_later_is_kept(conv):
    frozen, x = snapshot(conv), torch.rand(1, 3, 6, 6)
    before = conv(x)
    new = conv.fc.weight = nn.Parameter(torch.zeros_like(conv.fc.weight))
    other = conv.relu = nn.Tanh()
    assert torch.equal(frozen(x), before)
    assert conv.fc.weight is new and conv.relu is other


def test_buffers_in_training_mode_start_every_call_with_the_same_values():
    torch.manual_seed(0)
    model = nn.utils.spectral_norm(nn.Linear(4, 4)).train()
    frozen, x = snapshot(model), torch.rand(2, 4)
    assert torch.equal(frozen(x), frozen(x))


def test_exchange_computes_the_model_with_these_weights(conv, found):
    x, weight = torch.rand(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
    other = copy.deepcopy(conv)
    with torch.no_grad():
        other.conv.weight.copy_(weight)
    before = found(conv)
    torch.testing.assert_close(exchange(conv)({"conv.weight": weight})(x), other(x))
    torch.testing.assert_close(exchange(lambda t: conv(t) * 2)({"conv.weight": weight})(x), 2 * other(x))
    torch.testing.assert_close(exchange(conv)({})(x), conv(x))
    assert before.differences(conv) == []


def test_gradients_reach_the_weights_and_only_them(conv):
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    exchange(conv)({"conv.weight": weight})(torch.rand(2, 3, 6, 6)).sum().backward()
    assert weight.grad.abs().sum() > 0 and conv.conv.weight.grad is None


def test_a_weight_that_is_used_twice_is_exchanged_twice():
    layer = nn.Linear(1, 1, bias=False)
    model = nn.Sequential(layer, layer)
    assert exchange(model)({"0.weight": torch.full((1, 1), 3.0)})(torch.ones(1, 1)).item() == 9


def test_back_after_an_exception(conv, found):
    conv.fc.register_forward_hook(lambda *_: 1 / 0)
    x, before = torch.rand(1, 3, 6, 6), found(conv)
    with pytest.raises(ZeroDivisionError):
        exchange(conv)({"conv.weight": torch.zeros(4, 3, 3, 3)})(x)
    assert before.differences(conv) == []


def test_models_made_under_inference_mode(conv):
    x, weight = torch.rand(1, 3, 6, 6), torch.zeros(4, 3, 3, 3, requires_grad=True)
    with torch.inference_mode():
        there = copy.deepcopy(conv)
    exchange(there)({"conv.weight": weight})(x).sum().backward()
    exchange(conv)({"conv.weight": weight})(x)
    assert weight.grad.abs().sum() > 0


def test_a_weight_is_exchanged_under_each_of_its_names(found):
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[1].weight = model[0].weight
    model.add_module("again", model[0])
    before, three = found(model), torch.full((1, 1), 3.0)
    for name in ("0.weight", "1.weight", "again.weight"):
        assert exchange(model)({name: three})(torch.ones(1, 1)).item() == 27
    assert before.differences(model) == []


def test_a_wrong_name_and_two_values_for_one_tensor_are_refused():
    layer = nn.Linear(1, 1)
    model = nn.Sequential(layer, layer)
    with pytest.raises(KeyError, match="'2.weight' is not a parameter or buffer of Sequential"):
        exchange(model)({"2.weight": torch.ones(1, 1)})
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' are one tensor of the model; give it one"):
        exchange(model)({"0.weight": torch.ones(1, 1), "1.weight": torch.zeros(1, 1)})
