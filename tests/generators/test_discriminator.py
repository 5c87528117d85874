import pytest
import torch

from xinc_captum.generators.discriminator import ProjectionDiscriminator


def test_the_score_by_hand():
    critic = ProjectionDiscriminator(3, 8, 2, width=5, generator=torch.Generator().manual_seed(0))
    images, classes = torch.rand(4, 2, 8, 8), torch.tensor([2, 0, 1, 2])
    seen = critic.seen(images)
    wanted = (seen * (critic.real.weight + critic.direction.weight[classes])).sum(1) + critic.real.bias
    assert torch.allclose(critic(images, classes), wanted, atol=1e-5)
    assert not torch.allclose(critic(images, classes), critic(images, (classes + 1) % 3))


def test_sizes():
    assert ProjectionDiscriminator(3, 28)(torch.rand(2, 1, 28, 28), torch.tensor([0, 1])).shape == (2,)
    for wrong in (0, 18):
        with pytest.raises(ValueError, match=f"size is {wrong}; wanted a multiple of 4"):
            ProjectionDiscriminator(3, wrong)
