import math

import pytest
import torch
from torch import nn

from xinc_captum.generators import BigGANAdapter, Generator, check_generator
from xinc_captum.hooks import capture


class Inner(nn.Module):
    """The package's inner generator in small: it is called with the condition and a truncation."""

    def __init__(self):
        super().__init__()
        self.gen_z = nn.Linear(12, 8 * 16)
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)])
        self.asked = []

    def forward(self, cond_vector, truncation):
        self.asked.append(truncation)
        maps = self.gen_z(cond_vector).view(-1, 8, 4, 4)
        for layer in self.layers:
            maps = layer(nn.functional.interpolate(maps, scale_factor=2))
        return (maps * truncation).tanh()


class BigGAN(nn.Module):
    """With the members of pytorch-pretrained-biggan's model."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Linear(5, 6, bias=False)
        self.generator = Inner()

    def forward(self, z, class_label, truncation):
        return self.generator(torch.cat((z, self.embeddings(class_label)), dim=1), truncation)


def test_it_is_a_generator_that_keeps_its_word():
    adapter = BigGANAdapter(BigGAN().eval())
    assert isinstance(adapter, Generator) and adapter.num_classes == 5
    assert check_generator(adapter, classes=torch.tensor([4, 0, 1])) == (12, (3, 16, 16))


def test_it_draws_what_the_network_itself_draws():
    network = BigGAN().eval()
    adapter = BigGANAdapter(network, statistics=0.5)
    latents = adapter.sample_latents(3, torch.tensor([4, 0, 4]), 0.5)
    own = network(latents[:, :6], torch.eye(5)[[4, 0, 4]], 0.5)
    assert torch.equal(adapter(latents), own)
    assert network.generator.asked == [0.5, 0.5]


def test_the_noise_is_a_truncated_normal():
    adapter = BigGANAdapter(BigGAN().eval())
    drawn = adapter.sample_latents(40000, 1, generator=torch.Generator().manual_seed(0))[:, :6]
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    assert drawn.abs().max() <= 2
    assert drawn.var().item() == pytest.approx(1 - 4 * density / math.erf(2 / math.sqrt(2)), abs=0.01)
    half = adapter.sample_latents(40000, 1, 0.5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(half[:, :6], drawn / 2)
    torch.testing.assert_close(adapter.latent_mean(1), torch.cat([torch.zeros(1, 6), half[:1, 6:]], 1))


def test_blocks_can_be_tapped():
    adapter = BigGANAdapter(BigGAN().eval())
    assert adapter.feature_layers() == ["network.generator.layers.0", "network.generator.layers.1"]
    with capture(adapter, adapter.feature_layers()) as taken:
        adapter(adapter.sample_latents(2, 3))
    assert taken[adapter.network.generator.layers[0]].shape == (2, 8, 8, 8)


def test_bad_input_is_said():
    with pytest.raises(TypeError, match=r"Linear has no embeddings \(a linear layer\) and generator\(w, truncation\)"):
        BigGANAdapter(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="network is a str; wanted an nn.Module"):
        BigGANAdapter("biggan-deep-128.bin")
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"statistics is {wrong}; wanted a truncation above 0 and up to 1"):
            BigGANAdapter(BigGAN(), statistics=wrong)
    adapter = BigGANAdapter(BigGAN().eval())
    with pytest.raises(ValueError, match="class 5 is not one that the generator knows; wanted 0 to 4"):
        adapter.sample_latents(2, 5)
    with pytest.raises(ValueError, match="n is -1"):
        adapter.sample_latents(-1, 0)
    with pytest.raises(ValueError, match=r"latents have shape \(2, 6\); wanted \(n, 12\)"):
        adapter.synthesize(torch.zeros(2, 6))
