"""The small classifier and the inputs of the contract tests."""

import pytest
import torch
from contract.methods import Net


@pytest.fixture
def net():
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 6, 6)
