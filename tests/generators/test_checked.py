import pytest
import torch
from torch import nn

from xinc_captum.generators import EigenGenerator, check_generator, from_callable, normal_latents


def painter(draw, sample=None):
    return from_callable(draw, sample or normal_latents(4))


def square(w):
    return w.view(-1, 1, 2, 2).sigmoid()


def test_a_good_one_tells_its_sizes():
    assert check_generator(painter(square)) == (4, (1, 2, 2))
    eigen = EigenGenerator(torch.rand(12, 3, 4, 5), torch.arange(12) % 3, components=7)
    assert check_generator(eigen, classes=2) == (7, (3, 4, 5))
    assert check_generator(eigen, classes=torch.tensor([0, 2, 1])) == (7, (3, 4, 5))


def test_no_generator_at_all():
    with pytest.raises(TypeError, match=r"Linear has no image_range and no sample_latents and no synthesize; wanted"):
        check_generator(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("draw", "sample", "text"),
    [
        (square, lambda n, *_, **__: torch.zeros(n), r"sample_latents\(3\) gave torch.float32 of shape \(3,\)"),
        (square, lambda n, *_, **__: torch.zeros(2, 4), r"of shape \(2, 4\); wanted finite floats \(3, latent_dim\)"),
        (square, lambda n, *_, **__: torch.full((n, 4), torch.inf), r"wanted finite floats"),
        (square, lambda n, *_, **__: torch.rand(n, 4), r"the same seed gave other latents; wanted .* generator= alone"),
        (lambda w: torch.rand(len(w), 1, 2, 2), None, r"the same latents gave other pictures; wanted no noise"),
        (lambda w: square(w - w.mean(0)), None, r"depends on the latents beside it, as with BatchNorm in train mode"),
        (lambda w: square(w) * 2, None, r"image_range says \[0, 1\]"),
        (lambda w: square(w) * torch.nan, None, r"nan means that the latents"),
        (lambda w: w.sigmoid(), None, r"wanted floats \(3, channels, H, W\)"),
    ],
)
def test_each_broken_word_is_named(draw, sample, text):
    with pytest.raises(ValueError, match=text):
        check_generator(painter(draw, sample))


def test_a_network_in_train_mode_is_found():
    network = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1), nn.Sigmoid())
    with pytest.raises(ValueError, match="as with BatchNorm in train mode"):
        check_generator(painter(network))
    assert check_generator(painter(network.eval())) == (4, (1, 2, 2))


def test_the_random_state_stays_as_found():
    state = torch.get_rng_state()
    check_generator(painter(square))
    assert torch.equal(torch.get_rng_state(), state)


class Averaging(nn.Module):
    """Moves its mean latent in training mode, as the mapping of a StyleGAN does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(4))

    def forward(self, z):
        if self.training:
            self.w_avg.copy_(z.mean(0).lerp(self.w_avg, 0.9))
        return z


def test_a_mapping_that_moves_its_mean_is_found_and_restored():
    mapping = Averaging()
    averaging = painter(square, lambda n, *_, generator, **__: mapping(torch.randn(n, 4, generator=generator)))
    with pytest.raises(
        ValueError, match=r"changed the buffer 'w_avg' of Averaging.*call eval\(\) on the network first"
    ):
        check_generator(averaging)
    assert torch.equal(mapping.w_avg, torch.zeros(4))
    mapping.eval()
    assert check_generator(averaging) == (4, (1, 2, 2))
