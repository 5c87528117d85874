import pytest
import torch
from torch import nn

from xinc_captum.zoo import Backbone, Normalise


def test_images_are_normalised_before_the_network():
    net = Backbone("mean", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), Normalise((0.5,) * 3, (0.25,) * 3), 8)
    images = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert net(images).tolist() == [[2.0, 0.0, -2.0]] * 2


def test_what_is_no_image_is_said():
    net = Backbone("mean", nn.Identity(), Normalise((0.5,) * 3, (0.25,) * 3), 8)
    with pytest.raises(ValueError, match=r"wanted floats in \[0, 1\] of shape \(N, 3, H, W\)"):
        net(torch.zeros(1, 1, 8, 8))


def test_it_is_shown_without_its_weights():
    assert repr(Backbone("b", nn.Linear(1, 1), torch.neg, 8)).startswith("Backbone(name='b', preprocess=")
