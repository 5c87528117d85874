import pytest
import torch
from torch import nn

from xinc_captum.generators import DCGAN, DCGANAdapter, Generator, check_generator
from xinc_captum.hooks import capture


def eyes(**more):
    return DCGANAdapter(DCGAN(13, (8, 6), dropout=0.2).eval(), 10, num_classes=3, **more)


def test_the_two_published_architectures_by_their_names():
    with torch.device("meta"):
        faces, eight = DCGAN().state_dict(), DCGAN(108, (1024, 512, 256, 128, 64), dropout=0.2).state_dict()
    assert faces["main.0.weight"].shape == (100, 512, 4, 4) and faces["main.12.weight"].shape == (64, 3, 4, 4)
    assert eight["main.0.weight"].shape == (108, 1024, 4, 4) and eight["main.16.weight"].shape == (64, 3, 4, 4)
    assert "main.4.weight" in eight and "main.3.weight" not in eight, "the dropout has a number"
    assert sum(v.numel() for k, v in faces.items() if "running" not in k and "num_b" not in k) == 3_576_704


def test_size_doubles_with_every_layer():
    for levels in (1, 2, 3):
        assert DCGAN(5, (4,) * levels, 1).eval()(torch.randn(2, 5, 1, 1)).shape == (2, 1, *[4 * 2**levels] * 2)


def test_it_is_a_generator_that_keeps_its_word():
    assert isinstance(eyes(), Generator)
    assert check_generator(eyes(), classes=torch.tensor([2, 0, 0])) == (13, (3, 16, 16))
    plain = DCGANAdapter(DCGAN(10, (8, 6)).eval(), 10)
    assert check_generator(plain) == (10, (3, 16, 16))
    assert plain.latent_mean().abs().max() == 0


def test_the_latent_is_noise_and_class():
    noise = torch.randn(2, 10, generator=torch.Generator().manual_seed(7))
    drawn = eyes().sample_latents(2, torch.tensor([2, 0]), 0.5, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn[:, :10], noise * 0.5)
    assert drawn[:, 10:].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert eyes().latent_mean(1).tolist() == [[0.0] * 10 + [0, 1, 0]]
    assert torch.equal(eyes().latent_mean(torch.tensor([2, 0]))[:, 10:], drawn[:, 10:])


def test_the_network_is_called_as_it_expects_and_left_alone():
    network = DCGAN(13, (8, 6), dropout=0.2).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    adapter = DCGANAdapter(network, 10, num_classes=3)
    latents = adapter.sample_latents(4, 1)
    assert torch.equal(adapter(latents), network(latents.view(4, 13, 1, 1)))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_every_level_can_be_tapped():
    adapter = eyes()
    with capture(adapter, adapter.feature_layers()) as taken:
        adapter(adapter.sample_latents(2, 1))
    assert [tuple(taken[adapter.get_submodule(name)].shape[1:]) for name in adapter.feature_layers()] == [
        (8, 4, 4),
        (6, 8, 8),
    ]


def test_double_precision_goes_through():
    adapter = DCGANAdapter(DCGAN(10, (8,)).double().eval(), 10)
    assert adapter(adapter.sample_latents(2)).dtype == torch.float64


def test_bad_input_is_said():
    with pytest.raises(
        ValueError, match=r"BatchNorm2d 'main.1' of the network is in training mode.*call network.eval\(\)"
    ):
        DCGANAdapter(DCGAN(10, (8, 6)), 10)
    with pytest.raises(TypeError, match=r"network is a str; wanted an nn.Module .*load_weights\(network, path\)"):
        DCGANAdapter("weights.pkl", 10)
    with pytest.raises(ValueError, match="got noise_dim=0, num_classes=0; wanted at least 1 and 0"):
        DCGANAdapter(nn.Identity(), 0)
    with pytest.raises(ValueError, match=r"latents have shape \(2, 10\); wanted \(n, 13\)"):
        eyes().synthesize(torch.zeros(2, 10))
    with pytest.raises(ValueError, match="class 3 is not one that the generator knows; wanted 0 to 2"):
        eyes().sample_latents(2, 3)
    with pytest.raises(ValueError, match="n is 0"):
        eyes().sample_latents(0, 1)
    with pytest.raises(ValueError, match="draws one of 3 classes"):
        eyes().latent_mean()
    with pytest.raises(ValueError, match=r"image_range is \(1, -1\)"):
        check_generator(eyes(image_range=(1, -1)), classes=0)
