"""Arrays recorded from the original (faccent 1.0.3 on a random network), and that network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from xinc_captum.attributions.accentuation.activations import ModelInputs


class Recorded(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        self.conv3, self.relu3 = nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU()
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.fc(self.relu3(self.conv3(x)).mean((2, 3)))


@pytest.fixture(scope="session")
def recorded():
    """The arrays by name, as tensors."""
    with np.load(Path(__file__).parents[2] / "data" / "accentuation.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="session")
def tiny(recorded):
    """The recorded network, with the original's way of feeding it images in [0, 1]."""
    net = Recorded()
    net.load_state_dict({k[2:].replace("_", "."): v for k, v in recorded.items() if k.startswith("w_")})
    model_range = lambda x: interpolate(x, (64, 64), mode="bilinear", antialias=True, align_corners=True) * 4 - 2
    return ModelInputs(net.requires_grad_(False), model_range)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
