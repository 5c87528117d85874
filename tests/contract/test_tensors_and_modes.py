"""Lines 17 to 19: dtypes, memory formats, and modes of autograd."""

import copy

import pytest
import torch
from contract.methods import attribute, every


@every
def test_line_17_double_and_bfloat16(method, net, x):
    plain = attribute(method, net, x)
    double = attribute(method, copy.deepcopy(net).double(), x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain, atol=1e-6, rtol=1e-4)
    half = attribute(method, copy.deepcopy(net).bfloat16(), x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0.1)


@every
def test_line_17_autocast_returns_float32(method, net, x):
    with torch.autocast("cpu", torch.bfloat16):
        answer = attribute(method, net, x)
        assert torch.is_autocast_enabled("cpu")
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, attribute(method, net, x), atol=0.05, rtol=0.1)


@every
@pytest.mark.parametrize("kind", ["channels_last", "strided", "expanded"])
def test_line_18_memory_formats(method, net, x, kind):
    plain = attribute(method, net, x)
    other = {
        "channels_last": x.to(memory_format=torch.channels_last),
        "strided": torch.stack([x, x], -1)[..., 0],
        "expanded": x,
    }[kind]
    if kind == "expanded":
        other = x[:1].expand(2, -1, -1, -1)
        plain = attribute(method, net, other.contiguous())
    answer = attribute(method, net, other)
    assert answer.is_contiguous()
    torch.testing.assert_close(answer, plain, atol=1e-6, rtol=1e-5)


@every
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_line_19_modes(method, net, x, mode):
    plain = attribute(method, net, x)
    with mode():
        again = attribute(method, net, torch.rand_like(x).copy_(x))
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
    torch.testing.assert_close(again, plain)


@every
def test_line_19_a_model_made_under_inference_mode(method, net, x):
    plain = attribute(method, net, x)
    with torch.inference_mode():
        there = copy.deepcopy(net)
    torch.testing.assert_close(attribute(method, there, x), plain)


@every
def test_line_19_frozen_and_graded_parameters(method, net, x, found):
    plain = attribute(method, net, x)
    net(x).sum().backward()
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    before = found(net)
    torch.testing.assert_close(attribute(method, net, x), plain)
    assert before.differences(net) == []
