import stat

import pytest
import torch
import torch.nn.functional as F

from xinc_captum.generators import (
    Generator,
    Recipe,
    StyleGenerator,
    check_generator,
    images_in_unit_range,
    load_style_generator,
    save_style_generator,
    train_style_generator,
)
from xinc_captum.generators.style import ProjectionDiscriminator, StyledBlock
from xinc_captum.hooks import capture
from xinc_captum.store import tensors_sha256


def small(**more):
    stream = torch.Generator().manual_seed(more.pop("seed", 0))
    return StyleGenerator(4, 16, channels=(8, 6, 4), latent_dim=12, noise_dim=5, generator=stream, **more)


def test_it_satisfies_the_generator_protocol():
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
    expected = F.leaky_relu((1 + style[:, :2, None, None]) * seen + style[:, 2:, None, None], 0.2)
    assert torch.allclose(block(maps, latents), expected, atol=1e-5)


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


def test_invalid_sizes_and_classes_raise_errors():
    with pytest.raises(
        ValueError, match=r"size is 18; expected 4 \(2\^\(levels - 1\)\) times 2 or more, since 3 levels"
    ):
        StyleGenerator(4, 18)
    with pytest.raises(ValueError, match="size is 4; expected 4"):
        StyleGenerator(4, 4)
    for wrong in ({"num_classes": 0}, {"num_classes": 2, "channels": ()}, {"num_classes": 2, "latent_dim": -1}):
        with pytest.raises(ValueError, match=r"got num_classes=.*expected positive numbers, and at least one level"):
            StyleGenerator(**wrong)
    style = small()
    with pytest.raises(ValueError, match="class 4 is not a class of the generator; expected 0 to 3"):
        style.sample_latents(1, 4)
    with pytest.raises(ValueError, match="has 4 classes; give classes"):
        style.sample_latents(1)
    with pytest.raises(ValueError, match="n is 0"):
        style.sample_latents(0, 1)


def test_the_score_by_hand():
    critic = ProjectionDiscriminator(3, 8, 2, width=5, generator=torch.Generator().manual_seed(0))
    images, classes = torch.rand(4, 2, 8, 8), torch.tensor([2, 0, 1, 2])
    seen = critic.backbone(images)
    expected = (seen * (critic.real.weight + critic.direction.weight[classes])).sum(1) + critic.real.bias
    assert torch.allclose(critic(images, classes), expected, atol=1e-5)
    assert not torch.allclose(critic(images, classes), critic(images, (classes + 1) % 3))


def test_sizes():
    assert ProjectionDiscriminator(3, 28)(torch.rand(2, 1, 28, 28), torch.tensor([0, 1])).shape == (2,)
    for wrong in (0, 18):
        with pytest.raises(ValueError, match=f"size is {wrong}; expected a multiple of 4"):
            ProjectionDiscriminator(3, wrong)


LABELS = torch.arange(40) % 2


def halves():
    """Bright above for class 0, bright below for class 1, by more or less."""
    images = torch.zeros(40, 1, 8, 8)
    strength = 0.7 + 0.3 * torch.rand(40, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    images[LABELS == 0, :, :4] = 1.0
    images[LABELS == 1, :, 4:] = 1.0
    return images * strength


def trained(steps, seed=0, **more):
    return train_style_generator(halves(), LABELS, Recipe(steps=steps, seed=seed, **more), channels=(8, 4))


def test_training_learns_the_classes():
    style = trained(120, batch=8, decay=0.9)
    with torch.no_grad():
        drawn = [images_in_unit_range(style, style.sample_latents(20, c, 0.7)).mean((0, 1, 3)) for c in (0, 1)]
    assert drawn[0][:4].mean() > drawn[0][4:].mean() + 0.5
    assert drawn[1][4:].mean() > drawn[1][:4].mean() + 0.5


def test_the_result_is_in_eval_mode():
    state = torch.get_rng_state()
    style = trained(3)
    assert torch.equal(torch.get_rng_state(), state), "the global state is as found"
    assert not style.training and not any(p.requires_grad for p in style.parameters())
    assert check_generator(style, classes=1) == (64, (1, 8, 8))
    means = style.class_means.clone()
    style.measure_means()
    assert torch.equal(means, style.class_means), "means of the kept weights, not of the first ones"


def test_train_style_a_seed_makes_the_weights():
    first, again, other = (trained(9, seed, batch=4).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["const"], other["const"])


def test_the_pictures_are_left_alone():
    images = halves()
    before = images.clone()
    train_style_generator(images, LABELS, Recipe(steps=2, batch=4), channels=(8, 4))
    assert torch.equal(images, before) and not images.requires_grad


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (torch.rand(40, 8, 8), LABELS, r"images are torch.float32 of shape \(40, 8, 8\); expected floats"),
        (torch.rand(40, 1, 8, 12), LABELS, r"expected floats \(n, channels, size, size\)"),
        (torch.rand(40, 1, 8, 8) * 2 - 1, LABELS, r"images lie in .*; expected \[0, 1\]"),
        (torch.full((40, 1, 8, 8), torch.nan), LABELS, r"images lie in \[nan, nan\]"),
        (torch.rand(40, 1, 8, 8), LABELS[:5], r"labels are torch.int64 of shape \(5,\)"),
        (torch.rand(40, 1, 8, 8), LABELS - 1, "integers from 0 on"),
        (torch.rand(40, 1, 8, 8), LABELS * 2, "class 1 has no image"),
    ],
)
def test_invalid_input_raises_errors(images, labels, text):
    with pytest.raises(ValueError, match=text):
        train_style_generator(images, labels, Recipe(steps=1))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": -1}, {"rate": 0.0}, {"decay": 1.0}, {"penalty_every": 0}])
def test_invalid_recipes_raise_errors(wrong):
    with pytest.raises(ValueError, match="got Recipe.*expected positive numbers, and a decay"):
        Recipe(**wrong)


RECIPE = {"data": "noise", "seed": 3, "steps": 7}


@pytest.fixture
def saved(tmp_path):
    model = StyleGenerator(3, 8, channels=(6, 4), generator=torch.Generator().manual_seed(0)).eval()
    save_style_generator(model, tmp_path / "g.safetensors", recipe=RECIPE)
    return model, tmp_path / "g.safetensors"


def test_saved_tensors_are_loaded_bit_identically(saved):
    model, path = saved
    again, recipe = load_style_generator(path)
    assert recipe == RECIPE and not again.training and again.config == model.config
    latents = model.sample_latents(4, 2, 0.7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(latents, again.sample_latents(4, 2, 0.7, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(model.synthesize(latents), again.synthesize(latents))
    assert [p.name for p in path.parent.iterdir()] == ["g.safetensors"], "no half-written file is left"
    assert path.stat().st_mode & stat.S_IRUSR


def test_equal_generators_make_equal_files(saved, tmp_path):
    model, path = saved
    save_style_generator(model, tmp_path / "again.safetensors", recipe=RECIPE)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_loading_leaves_the_random_state(saved):
    state = torch.get_rng_state()
    load_style_generator(saved[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hash_is_of_names_types_shapes_and_numbers():
    base = {"a": torch.arange(4.0), "b": torch.tensor(1)}
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].view(2, 2), "b": base["b"]},
        {"a": base["a"] + 1, "b": base["b"]},
    ]
    assert len({tensors_sha256(tensors) for tensors in (base, *others)}) == 5
    assert tensors_sha256(dict(reversed(base.items()))) == tensors_sha256(base)
