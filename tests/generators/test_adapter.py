import pytest
import torch
from torch import nn

from xinc_captum.generators.adapter import Adapter


def test_its_mode_is_that_of_the_network():
    assert not Adapter(nn.Sequential(nn.BatchNorm2d(2)).eval(), (-1, 1), 0).training
    assert Adapter(nn.Linear(1, 1), (0, 1), 0).training, "nothing in it depends on the mode"


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(2), nn.Dropout(0.1)])
def test_layers_that_would_mix_pictures_up(layer):
    name = type(layer).__name__
    with pytest.raises(
        ValueError, match=rf"{name} '0' of the network is in training mode.*call network.eval\(\) first"
    ):
        Adapter(nn.Sequential(layer), (-1, 1), 0)


def test_each_family_says_how_it_draws():
    with pytest.raises(NotImplementedError):
        Adapter(nn.Identity(), (0, 1), 0)(torch.zeros(1, 1))
    assert Adapter(nn.Identity(), (0, 1), 0).like().dtype == torch.float32
    assert Adapter(nn.BatchNorm1d(1).double().eval(), (0, 1), 0).like().dtype == torch.float64


def test_a_module_of_another_kind_in_training_mode():
    """Such as the mapping of a StyleGAN, which moves its mean latent while it trains."""

    class Mapping(nn.Module):
        def forward(self, z):
            return z

    network = nn.Sequential(nn.Linear(2, 2), Mapping().train())
    with pytest.raises(ValueError, match="Mapping '1' of the network is in training mode"):
        Adapter(network, (-1, 1), 0)
    Adapter(network.eval().requires_grad_(False), (-1, 1), 0)
