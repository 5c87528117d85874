import copy

import pytest
import torch
from torch import nn

from xinc_captum.hooks import exchange


def test_answers_as_a_model_with_these_weights(conv, found):
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
