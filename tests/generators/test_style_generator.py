import pytest
import torch
import torch.nn.functional as F

from xinc_captum.generators import Generator, StyleGenerator, check_generator
from xinc_captum.generators.style_generator import StyledBlock
from xinc_captum.hooks import capture


def small(**more):
    stream = torch.Generator().manual_seed(more.pop("seed", 0))
    return StyleGenerator(4, 16, channels=(8, 6, 4), latent_dim=12, noise_dim=5, generator=stream, **more)


def test_it_is_a_generator_that_keeps_its_word():
    style = small()
    assert isinstance(style, Generator)
    assert check_generator(style, classes=torch.tensor([0, 3, 1])) == (12, (1, 16, 16))
    assert check_generator(small(image_channels=3), classes=2)[1] == (3, 16, 16)


def test_a_block_by_hand():
    block = StyledBlock((3, 2), 4, grow=True)
    maps, latents = torch.rand(2, 3, 5, 5), torch.randn(2, 4)
    seen = block.conv(maps.repeat_interleave(2, 2).repeat_interleave(2, 3))
    seen = (seen - seen.mean((2, 3), keepdim=True)) / (seen.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    style = block.style(latents)
    wanted = F.leaky_relu((1 + style[:, :2, None, None]) * seen + style[:, 2:, None, None], 0.2)
    assert torch.allclose(block(maps, latents), wanted, atol=1e-5)


def test_truncation_is_towards_the_mean_of_the_class():
    style, classes = small(), torch.tensor([3, 0, 0])
    full, half, none = (
        style.sample_latents(3, classes, psi, generator=torch.Generator().manual_seed(1)) for psi in (1, 0.5, 0)
    )
    assert torch.equal(none, style.class_means[classes])
    assert torch.allclose(half, (full + none) / 2, atol=1e-6)
    assert torch.equal(style.latent_mean(3), style.class_means[3:4])
    drawn = style.sample_latents(20000, 2, generator=torch.Generator().manual_seed(9))
    assert torch.allclose(drawn.mean(0), style.latent_mean(2)[0], atol=0.15)


def test_every_level_can_be_tapped():
    style = small()
    assert style.feature_layers() == ["blocks.0", "blocks.1", "blocks.2"]
    with capture(style, style.feature_layers()) as taken:
        style(style.sample_latents(2, 1))
    assert [tuple(taken[style.get_submodule(name)].shape) for name in style.feature_layers()] == [
        (2, 8, 4, 4),
        (2, 6, 8, 8),
        (2, 4, 16, 16),
    ]


def test_the_gradient_reaches_the_latent():
    style = small().requires_grad_(False).double()
    latents = style.sample_latents(2, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(style.synthesize(latents).sum(), latents)
    assert latents.dtype == torch.float64 and (gradient.abs().sum(1) > 0).all()


def test_a_seed_makes_the_weights():
    state = torch.get_rng_state()
    first, again, other = small(), small(), small(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.const, other.const)
    assert first.class_means.abs().sum() > 0
    assert torch.equal(torch.get_rng_state(), state), "torch's own stream is not touched"


def test_bad_sizes_and_classes_are_said():
    with pytest.raises(ValueError, match=r"size is 18; wanted 4 \(2\^\(levels - 1\)\) times 2 or more, since 3 levels"):
        StyleGenerator(4, 18)
    with pytest.raises(ValueError, match="size is 4; wanted 4"):
        StyleGenerator(4, 4)
    for wrong in ({"num_classes": 0}, {"num_classes": 2, "channels": ()}, {"num_classes": 2, "latent_dim": -1}):
        with pytest.raises(ValueError, match=r"got num_classes=.*wanted positive numbers, and at least one level"):
            StyleGenerator(**wrong)
    style = small()
    with pytest.raises(ValueError, match="class 4 is not one that the generator knows; wanted 0 to 3"):
        style.sample_latents(1, 4)
    with pytest.raises(ValueError, match="draws one of 4 classes; give classes"):
        style.sample_latents(1)
    with pytest.raises(ValueError, match="n is 0"):
        style.sample_latents(0, 1)
