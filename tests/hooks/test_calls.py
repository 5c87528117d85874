"""One call of a layer that runs several times in a forward pass."""

import pytest
import torch
from torch import nn

from xinc_captum import LayerError, capture, patch


@pytest.fixture
def shared():
    torch.manual_seed(0)
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(2, 4), relu, nn.Linear(4, 5), relu, nn.Linear(5, 6), relu)


@pytest.fixture
def x():
    return torch.randn(3, 2)


@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.parametrize("at_input", [False, True])
def test_only_the_chosen_call_is_recorded(shared, x, call, at_input):
    with capture(shared, "1", call=call, at_input=at_input) as captured:
        y = shared(x)
    expected = shared[: 2 * call + (1 if at_input else 2)](x)
    torch.testing.assert_close(captured[shared[1]], expected)
    (gradient,) = torch.autograd.grad(y.sum(), captured[shared[1]])
    assert gradient.shape == expected.shape


@pytest.mark.parametrize("at_input", [False, True])
def test_only_the_chosen_call_is_edited(shared, x, at_input):
    with patch(shared, "1", torch.zeros_like, call=1, at_input=at_input):
        y = shared(x)
    torch.testing.assert_close(y, shared[4:](torch.zeros(3, 5)))


def test_calls_are_counted_for_each_layer_and_also_without_gradients(shared, x):
    with torch.no_grad(), capture(shared, ["1"], call=2) as captured:
        y = shared(x)
    torch.testing.assert_close(captured[shared[1]], y)
    with capture(shared, ["0", "2"], call=0, offload="cpu") as captured:
        shared(x)
    torch.testing.assert_close(captured[shared[2]], shared[:3](x).detach())


def test_the_error_lists_the_calls(shared, x):
    text = "layer '1' runs more than once in a forward pass, and which of its 3 calls is meant is not clear. "
    text += "Give call=0 to call=2 of NeuronCanvas, LayerContribution, capture or patch, "
    with pytest.raises(LayerError) as error, capture(shared, "1"):
        shared(x)
    assert str(error.value).startswith(text)


def test_the_error_lists_the_calls_also_where_it_is_raised_by_reading(shared, x):
    with pytest.raises(LayerError, match="its 2 calls"), capture(shared, "1") as captured:
        shared[:4](x)
        captured[shared[1]]


@pytest.mark.parametrize(("layer", "known"), [("1", "3 calls .* expected call=0 to call=2"), ("0", "1 call .* call=0")])
def test_a_call_that_does_not_occur(shared, x, layer, known):
    with pytest.raises(LayerError, match=f"call is 3, but layer '{layer}' has {known}"), capture(shared, layer, call=3):
        shared(x)
    with (
        pytest.raises(LayerError, match=f"call is 3, but layer '{layer}' has {known}"),
        patch(shared, layer, abs, call=3),
    ):
        shared(x)


@pytest.mark.parametrize("call", [-1, True, 1.0])
def test_a_call_is_a_number_from_0(shared, call):
    with pytest.raises(ValueError, match=f"call is {call}; expected None, or the number of one call"):
        capture(shared, "1", call=call).__enter__()


def test_complex_tensors_are_values_only_if_requested(x):
    layer = nn.Linear(2, 3, dtype=torch.complex64)
    z = torch.view_as_complex(torch.stack([x, x], -1))
    with (
        pytest.raises(LayerError, match=r"returns \(torch\.complex64\); expected a floating-point tensor"),
        capture(layer, layer),
    ):
        layer(z)
    with capture(layer, layer, complex_values=True) as captured:
        y = layer(z)
    torch.testing.assert_close(captured[layer], y)
    with patch(layer, layer, torch.zeros_like, complex_values=True, at_input=True):
        torch.testing.assert_close(layer(z), layer.bias.expand(3, 3))


def test_real_tensors_come_before_complex_ones(x):
    class Both(nn.Module):
        def forward(self, x):
            return x, torch.complex(x, x)

    model = Both()
    with capture(model, model, complex_values=True) as captured:
        model(x)
    assert captured[model].dtype == torch.float32
