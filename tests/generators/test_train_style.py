import pytest
import torch

from xinc_captum.generators import Recipe, check_generator, pictures_in_unit_range, train_style_generator

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


def test_it_learns_what_the_classes_look_like():
    style = trained(120, batch=8, decay=0.9)
    with torch.no_grad():
        drawn = [pictures_in_unit_range(style, style.sample_latents(20, c, 0.7)).mean((0, 1, 3)) for c in (0, 1)]
    assert drawn[0][:4].mean() > drawn[0][4:].mean() + 0.5
    assert drawn[1][4:].mean() > drawn[1][:4].mean() + 0.5


def test_what_comes_back_is_ready_for_use():
    state = torch.get_rng_state()
    style = trained(3)
    assert torch.equal(torch.get_rng_state(), state), "the global state is as found"
    assert not style.training and not any(p.requires_grad for p in style.parameters())
    assert check_generator(style, classes=1) == (64, (1, 8, 8))
    means = style.class_means.clone()
    style.measure_means()
    assert torch.equal(means, style.class_means), "means of the kept weights, not of the first ones"


def test_a_seed_makes_the_weights():
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
        (torch.rand(40, 8, 8), LABELS, r"images are torch.float32 of shape \(40, 8, 8\); wanted floats"),
        (torch.rand(40, 1, 8, 12), LABELS, r"wanted floats \(n, channels, size, size\)"),
        (torch.rand(40, 1, 8, 8) * 2 - 1, LABELS, r"images lie in .*; wanted \[0, 1\]"),
        (torch.full((40, 1, 8, 8), torch.nan), LABELS, r"images lie in \[nan, nan\]"),
        (torch.rand(40, 1, 8, 8), LABELS[:5], r"labels are torch.int64 of shape \(5,\)"),
        (torch.rand(40, 1, 8, 8), LABELS - 1, "whole numbers from 0 on"),
        (torch.rand(40, 1, 8, 8), LABELS * 2, "class 1 has no picture"),
    ],
)
def test_bad_input_is_said(images, labels, text):
    with pytest.raises(ValueError, match=text):
        train_style_generator(images, labels, Recipe(steps=1))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": -1}, {"rate": 0.0}, {"decay": 1.0}, {"penalty_every": 0}])
def test_bad_recipes_are_said(wrong):
    with pytest.raises(ValueError, match="got Recipe.*wanted positive numbers, and a decay"):
        Recipe(**wrong)
