import pytest
import torch

from xinc_captum.attributions.trans_inr import TransINR
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.small_pictures import SmallPictures
from xinc_captum.cli.trans_inr_model import loaded, settings_for, written_called
from xinc_captum.zoo import mnist_trans_inr

CPU = torch.device("cpu")


def some(count=40, channels=1, size=8, name="some"):
    images = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))
    return SmallPictures(name, images, tuple(f"p{i}" for i in range(count)), {})


def called(pictures, model=None, patch=None, steps=None):
    return written_called(pictures, model, patch, steps, 0, CPU)


def test_one_is_fitted_and_a_tenth_is_held_out():
    pictures = some()
    found = called(pictures, steps=2)
    assert found.name == "fit" and found.fit.steps == 2 and found.names == ("p0", "p10", "p20", "p30")
    torch.testing.assert_close(found.images, pictures.images[::10])
    train = pictures.images[torch.arange(40) % 10 != 0]
    torch.testing.assert_close(found.model.mean_image, train.mean(0), msg="of those that are not held out")
    assert "every tenth of 40" in found.words


def test_a_file_is_taken_as_it_is(tmp_path):
    model = TransINR(hidden=4, groups=2, seed=3)
    model.save(tmp_path / "m.safetensors")
    found = called(some(5), str(tmp_path / "m.safetensors"))
    assert found.fit is None and len(found.images) == 5 and "does not say" in found.words
    torch.testing.assert_close(found.model(found.images), model(found.images))


def test_the_shipped_one_is_for_the_digits_of_the_zoo_only():
    digits = some(20, size=28, name="mnist_digits")
    found = called(digits)
    assert found.name == "mnist_trans_inr" and found.names == ("p0", "p10")
    assert "held out" in found.words
    assert len(called(some(20, size=28), "mnist_trans_inr").images) == 20, "others are all shown, if it is asked for"
    with pytest.raises(UsageError, match="20 pictures to fit to"):
        called(some(20, size=28))
    with pytest.raises(UsageError, match="20 pictures to fit to"):
        called(digits, steps=2)
    assert loaded("mnist_trans_inr").config == mnist_trans_inr().config


@pytest.mark.parametrize(
    ("size", "patch", "highest"), [(8, 2, 4), (16, 2, 8), (28, 4, 14), (32, 4, 16), (64, 8, 32), (48, 6, 24)]
)
def test_settings_of_a_size(size, patch, highest):
    found = settings_for((size, size), 3, None)
    assert (found["patch"], found["highest"], found["channels"]) == (patch, highest, 3)
    TransINR(**found)


def test_oblong_pictures():
    assert settings_for((24, 32), 1, None)["patch"] == 4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: called(some(12)), r"12 pictures to fit to, of which a tenth is held out; wanted at least 40"),
        (lambda: called(some(1)), r"1 picture to fit to"),
        (lambda: called(some(40, size=29)), r"29 x 29 pixels \(high x wide\) do not tile .* say --size 28 or 32"),
        (lambda: called(some(40), patch=3), r"8 x 8 pixels do not tile into patches of --patch 3; choose among 2"),
        (
            lambda: called(some(), "mnist_trans_inr", steps=3),
            "--patch and --steps are of a fit, and mnist_trans_inr is",
        ),
        (lambda: called(some(2, 3, 28), "mnist_trans_inr"), "in colour, and mnist_trans_inr draws 1 channel"),
        (lambda: called(some(2, size=9), "mnist_trans_inr"), r"does not take these pictures: .* does not tile into"),
    ],
)
def test_pictures_that_do_not_fit(call, text):
    with pytest.raises(UsageError, match=text):
        call()


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none is not a file; wanted one that TransINR.save wrote, mnist_tr"):
        loaded("none")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(UsageError, match="--model: .* is no whole safetensors file"):
        loaded(str(tmp_path / "text"))


def test_a_checkpoint_of_another_configuration(tmp_path):
    model = TransINR(hidden=4, groups=2, seed=3)
    model.config["hidden"] = 8
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="--model: the tensors of .* do not fit: mean_modulation1 has shape"):
        loaded(str(tmp_path / "m.safetensors"))
