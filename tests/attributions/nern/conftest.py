"""The network and arrays recorded from the released code, and a small target of every kernel size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern import NeRN


class Recorded(nn.Module):
    """The recorded network: four convolutions with ReLU between, global mean, linear."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(8, 8, 1, bias=False)
        self.conv4 = nn.Conv2d(8, 10, 3, padding=1)
        self.fc = nn.Linear(10, 7)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="session")
def arrays():
    path = Path(__file__).parents[2] / "data" / "nern.npz"
    return {name: torch.from_numpy(np.array(value)) for name, value in np.load(path).items()}


@pytest.fixture
def recorded(arrays):
    model = Recorded()
    prefix = "net/state/"
    model.load_state_dict({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
    return model.eval()


LINEARS = {"layers.0": "linear1", "layers.1": "linear2", "layers.2": "linear3", "layers.3": "linear4"}


def our_name(name):
    """Of a parameter of the recorded predictor."""
    part, end = name.rsplit(".", 1)
    return f"{LINEARS.get(part, 'output')}.{end}"


@pytest.fixture
def recorded_nern(recorded, arrays):
    """As recorded: base .76, 10 levels, 32 hidden units, no permutation."""
    nern = NeRN(recorded, base=0.76, levels=10, hidden=32, permutation="none")
    prefix = "predictor/state/"
    state = {our_name(k.removeprefix(prefix)): v for k, v in arrays.items() if k.startswith(prefix)}
    nern.predictor.load_state_dict(state)
    return nern


class Mixed(nn.Module):
    """1 x 1, 3 x 3, 5 x 5, 1 x 3 and grouped kernels, batch norm, biases and a classifier."""

    def __init__(self, bias=True):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 5, padding=2, bias=bias)
        self.norm = nn.BatchNorm2d(4) if bias else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.wide = nn.Conv2d(4, 6, (1, 3), padding=(0, 1), bias=False)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=bias)
        self.point = nn.Conv2d(6, 5, 1, bias=bias)
        self.fc = nn.Linear(5, 3, bias=bias)

    def forward(self, x, scale=1.0):
        x = self.relu(self.norm(self.stem(x)))
        x = torch.relu(self.depthwise(torch.relu(self.wide(x))))
        return self.fc(torch.relu(self.point(x)).mean((2, 3))) * scale


@pytest.fixture
def mixed():
    torch.manual_seed(5)
    return Mixed().eval()


@pytest.fixture
def make_mixed():
    return Mixed


def drawn(nern, scale=4.0):
    """Weights as large as a trained predictor's: the first ones draw kernels that hardly differ."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in nern.predictor.parameters():
            p += scale * torch.randn(p.shape, generator=generator, dtype=p.dtype) / max(p.shape) ** 0.5 * 0.3
    return nern


@pytest.fixture
def make_drawn():
    return drawn
