import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import untouched
from xinc_captum import LayerError


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


def test_a_backward_pass_from_before_the_block_still_works(conv):
    loss = conv(torch.rand(4, 3, 6, 6)).sum()
    with untouched(conv):
        conv.train()(torch.rand(4, 3, 6, 6))
    loss.backward()
    assert conv.conv.weight.grad.abs().sum() > 0


class Caching(nn.Module):
    """Keeps what it computed, and how large it was."""

    def __init__(self):
        super().__init__()
        self.size, self.grid = 0, None
        self.register_buffer("mean", None)

    def forward(self, x):
        if self.size != x.shape[-1]:
            self.size, self.grid = x.shape[-1], torch.linspace(0, 1, x.shape[-1])
            self.register_buffer("mean", self.grid.mean())
            self.new, self.count = self.grid, getattr(self, "count", 0) + 1
            self.register_buffer("late", self.grid)
        return x * self.grid


def test_caches_of_modules_come_back_together():
    model = Caching()
    with untouched(model):
        model(torch.rand(5))
    assert (model.size, model.grid, model.mean) == (0, None, None)
    assert not hasattr(model, "new") and not hasattr(model, "count") and "late" not in model._buffers
    model(torch.rand(5))
    grid, late = model.grid, model.late
    with untouched(model):
        model(torch.rand(3))
    assert model.size == 5 and model.grid is grid and model.late is late and model.count == 1


def test_a_forward_pass_that_rewrites_its_weights_is_named():
    model = nn.Sequential(nn.Embedding(3, 2, max_norm=0.1))
    with pytest.warns(UserWarning, match="parameter 'weight' of an Embedding layer was changed in"), untouched(model):
        model(torch.tensor([0, 1]))


def test_a_lazy_module_is_refused():
    model = nn.Sequential(nn.LazyLinear(3))
    with (
        pytest.raises(LayerError, match=r"LazyLinear has parameters or buffers without.*Call the model once"),
        untouched(model),
    ):
        pass


@pytest.mark.parametrize(
    "buffer",
    [
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        torch.tensor([[1.0, math.nan]]).expand(3, 2),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["sparse", "sparse rows", "expanded", "nested"],
)
def test_buffers_that_torch_cannot_compare_or_write_to(buffer):
    model = nn.Linear(2, 1)
    model.register_buffer("extra", buffer)
    with untouched(model):
        if not buffer.is_nested and buffer.layout is torch.strided:
            buffer.as_strided((2,), (1,)).zero_()
    assert model.extra is buffer
    if buffer.layout is torch.strided and not buffer.is_nested:
        torch.testing.assert_close(buffer, torch.tensor([[1.0, math.nan]]).expand(3, 2), equal_nan=True)
    elif not buffer.is_nested:
        assert buffer.to_dense().tolist() == torch.eye(3).tolist()


def test_a_buffer_gets_its_shape_back():
    model = nn.Module()
    model.register_buffer("low", torch.tensor([3.0]))
    low = model.low
    with untouched(model):
        model.low.resize_(4).fill_(1.0)  # as the observers of torch's quantization
    assert model.low is low and low.tolist() == [3.0]


def test_gradients_stay_where_the_block_cannot_begin():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d(affine=False))
    gradient = model[0].weight.grad = torch.ones(2, 2)
    with pytest.raises(LayerError, match="LazyBatchNorm1d has parameters or buffers without a shape"), untouched(model):
        pass
    assert model[0].weight.grad is gradient

    class Unclonable(torch.Tensor):
        def clone(self, **_options):
            raise MemoryError

    model = nn.Linear(2, 2)
    model.weight.grad = gradient
    model.register_buffer("bank", torch.ones(2).as_subclass(Unclonable))
    with pytest.raises(MemoryError), untouched(model):
        pass
    assert model.weight.grad is gradient
