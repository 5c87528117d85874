import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from xinc_captum import untouched


def disturb(model):
    model.train()
    model(torch.rand(4, 3, 6, 6)).sum().backward()
    for p in model.parameters():
        p.requires_grad_(not p.requires_grad)
    np.random.rand(3), random.random(), torch.rand(3)
    model.norm.running_mean = torch.ones(4)
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("fault", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("with_grad", [False, True])
def test_everything_comes_back(conv, found, fault, with_grad):
    conv.norm.train()
    conv.conv.weight.requires_grad_(False)
    if with_grad:
        conv(torch.rand(4, 3, 6, 6)).sum().backward()
    before, benchmark = found(conv), torch.backends.cudnn.benchmark
    try:
        with untouched(conv):
            disturb(conv)
            assert before.differences(conv), "the disturbance must be one"
            if fault:
                raise fault
    except (RuntimeError, KeyboardInterrupt) as error:
        assert fault is not None and isinstance(error, fault)  # noqa: PT017
    assert before.differences(conv) == []
    assert torch.backends.cudnn.benchmark is benchmark


def test_autocast_comes_back(net):
    with torch.autocast("cpu", torch.bfloat16):
        with untouched(net):
            torch.set_autocast_enabled("cpu", False)
        assert torch.is_autocast_enabled("cpu")


def test_either_way_of_setting_tf32():
    code = "import torch; from xinc_captum import untouched, LayerContribution\n{}\nn = torch.nn.Linear(2, 2)\n"
    code += "LayerContribution(n, n).attribute(torch.ones(1, 2), target=0)"
    ways = ["torch.backends.cuda.matmul.allow_tf32 = True"]
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        ways += [
            'torch.backends.cuda.matmul.fp32_precision = "tf32"',
            'torch.backends.cudnn.conv.fp32_precision = "ieee"',
        ]
    for way in ways:
        subprocess.run([sys.executable, "-c", code.format(way)], check=True)


def test_modules_behind_a_function_are_protected(conv, found):
    before = found(conv)
    with untouched(lambda x: conv(x)):
        conv.train()(torch.rand(4, 3, 6, 6))
    assert before.differences(conv) == []


def test_a_hook_that_is_not_ours_is_left_alone(net):
    with untouched(net):
        handle = net[0].register_forward_hook(lambda *_: None)
    assert list(net[0]._forward_hooks) == [handle.id]
