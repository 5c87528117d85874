"""Small models, and a snapshot of all state that an explanation must restore."""

import os
import random

import numpy as np
import pytest
import rounding
import slow
import torch
from hypothesis import HealthCheck, settings
from torch import nn

settings.register_profile("repository", deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
settings.load_profile("repository")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # tiny networks: one thread by default


def pytest_addoption(parser):
    parser.addoption("--rounding-by-shape", action="store_true", help="let results round differently for each shape")
    parser.addoption("--write-slow", action="store_true", help="measure every test and write tests/slow.txt")
    parser.addoption("--check-slow", action="store_true", help="print slow tests that tests/slow.txt does not name")


def pytest_configure(config):
    if config.getoption("--rounding-by-shape"):
        rounding.install()
    config.pluginmanager.register(slow.Slow(config), "slow-tests")


def pytest_report_header(config):
    """Print what the results of floating point depend on, next to what was asked for by environment variables."""
    instructions = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "no limit")
    kernels = "tests/rounding.py" if config.getoption("--rounding-by-shape") else "torch"
    threads = torch.get_num_threads()
    return f"floats: {threads} threads, {instructions}, oneDNN {limit}, kernels of {kernels}"


def pytest_collection_modifyitems(items):
    unstable = sorted(item.nodeid for item in items if " at 0x" in item.nodeid)
    if unstable:  # workers of pytest-xdist run in other processes and have to find the same names
        raise pytest.UsageError(f"test names contain memory addresses; pass ids= to parametrize: {unstable}")
    if rounding.installed():
        for item in items:
            if marker := item.get_closest_marker("own_kernels"):
                item.add_marker(pytest.mark.skip(reason=f"--rounding-by-shape: {marker.args[0]}"))
    if not torch.cuda.is_available():
        no_gpu = pytest.mark.skip(reason="needs an NVIDIA GPU (make test-cuda)")
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(no_gpu)


def pytest_collectstart(collector):
    """Inputs that a test file draws when it is imported do not depend on the files imported before it."""
    _seed()


def _seed():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(autouse=True)
def _seeded():
    _seed()


class Conv(nn.Module):
    """conv → batch norm → in-place ReLU → pool → linear, and every public wrinkle of a small classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, 3)

    def forward(self, x, scale=1.0):
        return self.fc(self.drop(self.pool(self.relu(self.norm(self.conv(x))))).flatten(1)) * scale


def mlp(width=5, channels=3):
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, channels))


@pytest.fixture
def conv():
    return Conv().eval()


@pytest.fixture
def net():
    return mlp()


@pytest.fixture
def smooth():
    """conv → softplus → strided conv → softplus → pool → linear: no kinks, so that rounding stays rounding."""
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 6, 3, 2), nn.Softplus()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)).eval()


class Found:
    """Everything about a model and the process that an explanation must not change."""

    def __init__(self, model):
        self.modules = list(model.modules())
        self.flags = [m.training for m in self.modules]
        self.hooks = [self._hooks(m) for m in self.modules]
        self.parameters = [
            (p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone(), p.detach().clone())
            for p in model.parameters()
        ]
        self.buffers = [(b, b.clone()) for b in model.buffers()]
        self.places = self._places()
        self.rng = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self.numpy = np.random.get_state()
        self.python = random.getstate()
        self.grad = torch.is_grad_enabled()
        self.autocast = torch.is_autocast_enabled("cpu")

    def _places(self):
        """The object behind every name of every parameter and buffer, and its version."""
        dicts = [tensors for m in self.modules for tensors in (m._parameters, m._buffers)]
        return [
            (name, tensor, None if tensor is None or tensor.is_inference() else tensor._version)
            for tensors in dicts
            for name, tensor in tensors.items()
        ]

    @staticmethod
    def _hooks(m):
        return [dict(d) for d in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)]

    def differences(self, model):
        """Names of what changed; empty when everything is as found."""
        wrong = []
        if [m.training for m in self.modules] != self.flags:
            wrong.append("train flags")
        if [self._hooks(m) for m in self.modules] != self.hooks:
            wrong.append("hooks")
        for p, requires_grad, grad, value, weight in self.parameters:
            if p.requires_grad is not requires_grad:
                wrong.append("requires_grad")
            if p.grad is not grad or (grad is not None and not torch.equal(p.grad, value)):
                wrong.append(".grad")
            if not torch.equal(p.detach(), weight):
                wrong.append("weights")
        for (name, tensor, version), (_, same, later) in zip(self.places, self._places(), strict=True):
            if tensor is not same:
                wrong.append(f"another tensor in place of {name}")
            elif version != later:
                wrong.append(f"version of {name}")
        now = list(model.buffers())
        if len(now) != len(self.buffers) or any(
            a is not b or not torch.equal(a, v) for a, (b, v) in zip(now, self.buffers, strict=True)
        ):
            wrong.append("buffers")
        if not torch.equal(torch.get_rng_state(), self.rng):
            wrong.append("torch rng")
        if any(
            not torch.equal(a, b)
            for a, b in zip(torch.cuda.get_rng_state_all() if self.cuda else [], self.cuda, strict=True)
        ):
            wrong.append("cuda rng")
        state = np.random.get_state()
        if state[2:] != self.numpy[2:] or not np.array_equal(state[1], self.numpy[1]):
            wrong.append("numpy rng")
        if random.getstate() != self.python:
            wrong.append("python rng")
        if torch.is_grad_enabled() is not self.grad or torch.is_autocast_enabled("cpu") is not self.autocast:
            wrong.append("modes")
        return wrong


@pytest.fixture
def found():
    return Found


@pytest.fixture
def hand_net():
    """x=(2,1) → a=(3,4) → y = 5·3 − 1·4 + 7 = 18 and 0·3 + 2·4 − 1 = 7."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
        net[0].bias.zero_()
        net[2].weight.copy_(torch.tensor([[5.0, -1.0], [0.0, 2.0]]))
        net[2].bias.copy_(torch.tensor([7.0, -1.0]))
    return net, torch.tensor([[2.0, 1.0]])


class Decoder(nn.Module):
    """A small NeRV as a plain module: time → stem → blocks of conv, PixelShuffle, GELU → head."""

    def __init__(self, widths=(3, 4, 2), strides=(2, 2), low=(2, 3), activation=nn.GELU, out=torch.sigmoid):
        super().__init__()
        self.low, self.width, self.out = low, widths[0], out
        self.stem = nn.Linear(1, widths[0] * low[0] * low[1])
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b * s * s, 3, padding=1), nn.PixelShuffle(s), activation())
            for a, b, s in zip(widths, widths[1:], strides, strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, t):
        x = torch.tanh(self.stem(t)).view(-1, self.width, *self.low)
        for block in self.blocks:
            x = block(x)
        return self.out(self.head(x))


@pytest.fixture
def decoder():
    """Frames of 8x12 from 4 kinds of layers, and the times of three frames, in float64."""
    torch.manual_seed(4)
    return Decoder().double(), torch.rand(3, 1, dtype=torch.float64)


@pytest.fixture
def make_decoder():
    return Decoder
