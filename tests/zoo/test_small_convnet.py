import pytest
import torch

from xinc_captum.hooks import capture
from xinc_captum.zoo import small_convnet, train_small_convnet


def test_the_head_takes_128_rectified_units():
    model = small_convnet(7, 16, 3)
    with capture(model, "relu4") as taken:
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    units = taken[model.relu4]
    assert units.shape == (2, 128) and units.min() == 0
    with pytest.raises(ValueError, match="size is 7; wanted at least 8"):
        small_convnet(10, 7)


def test_it_learns_and_a_seed_makes_the_weights():
    labels = torch.arange(60) % 2
    images = torch.zeros(60, 1, 8, 8)
    images[labels == 0, :, :4] = 1.0
    images[labels == 1, :, 4:] = 1.0
    state = torch.get_rng_state()
    first, again, other = (train_small_convnet(images, labels, epochs=6, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert (first(images).argmax(1) == labels).all() and not first.training
    assert torch.equal(first.head.weight, again.head.weight) and not torch.equal(first.head.weight, other.head.weight)
    assert all(p.grad is None for p in first.parameters())
