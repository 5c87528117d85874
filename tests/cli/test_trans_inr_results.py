import pytest
import torch

from xinc_captum.attributions.trans_inr import TransINR, mean_psnr
from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.photos import SmallPictures
from xinc_captum.cli.trans_inr_results import (
    Written,
    explained,
    loaded,
    masks_of,
    picture_of,
    settings_for,
    story_of,
    telling,
    written_called,
)
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
        (lambda: called(some(12)), r"12 pictures to fit to, of which a tenth is held out; expected at least 40"),
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
    with pytest.raises(FileNotFoundError, match=r"none is not a file; expected one that TransINR.save wrote, mnist_tr"):
        loaded("none")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(UsageError, match="--model: .* is not a complete safetensors file"):
        loaded(str(tmp_path / "text"))


def test_a_checkpoint_of_another_configuration(tmp_path):
    model = TransINR(hidden=4, groups=2, seed=3)
    model.config["hidden"] = 8
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="--model: the tensors of .* do not fit: mean_modulation1 has shape"):
        loaded(str(tmp_path / "m.safetensors"))


def written(count, channels=1):
    g = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, 8, 8, generator=g)
    model = TransINR(channels, (8, 8), 4, hidden=4, dim=16, heads=2, ff=16, count=2, groups=4, seed=0)
    model.fit(images, steps=2, validation=None, show_progress=False)
    return Written(model, "fit", images, tuple(map(str, range(count))), "seen", None)


@pytest.fixture(scope="module")
def story():
    return story_of(written(11, 3), "noise", 0)


def test_shown_pictures_are_spread_over_all(story):
    assert story.rows[0] == 0 and story.rows[-1] == 10 and len(story.rows) == 8
    torch.testing.assert_close(story.shown, story.written.images[list(story.rows)])
    assert len(explained(story)) == 4 and len(masks_of(story)) == 4


def test_decibels_are_of_what_they_say(story):
    images, model = story.written.images, story.written.model
    with torch.no_grad():
        drawn = mean_psnr(model(images), images)
    flat = mean_psnr(images.mean(0).expand_as(images), images)
    (mean, n), (own, m), (more, k), (scratch, _) = story.decibels.values()
    assert (n, m, k) == (11, 11, 8)
    assert mean == pytest.approx(flat, abs=1e-4) and own == pytest.approx(drawn, abs=1e-4)
    assert more > sum(story.drawn["as drawn by the written network"][1]) / 8, "steps help"
    assert scratch == pytest.approx(sum(story.drawn["10 steps from random weights"][1]) / 8)


def test_networks_draw_what_is_shown(story):
    pictures, decibels = story.drawn["as drawn by the written network"]
    with torch.no_grad():
        torch.testing.assert_close(pictures, story.written.model(story.shown), atol=1e-5, rtol=0)
    torch.testing.assert_close(picture_of(story.networks[2], (8, 8)), pictures[2])
    assert decibels[1] == pytest.approx(mean_psnr(pictures[1:2], story.shown[1:2]))


def test_parts_add_up_and_say_by_how_much_not(story):
    with torch.no_grad():
        drawn = story.written.model(explained(story))
    assert story.token.values.shape == (4, 5, 3, 8, 8) and story.token.gap < 1e-5
    assert story.modulation.values.shape == (4, 4 + 4 + 3 + 1, 3, 8, 8)
    for parts in (story.token, story.modulation, story.patch):
        missed = (parts.values.sum(1) - drawn[: len(parts.values)]).abs().sum()
        change = (drawn[: len(parts.values)] - parts.values[:, -1]).abs().sum()
        assert parts.gap == pytest.approx(float(missed / change), rel=1e-3, abs=1e-9)
    assert story.modulation.gap < 0.2 and story.patch.gap < 0.2


def test_the_route_is_of_the_strongest_patches(story):
    amounts = story.patch.values[0, :-1].abs().sum((1, 2, 3))
    assert story.route.patches == tuple(amounts.argsort(descending=True)[:3].tolist())
    torch.testing.assert_close(
        story.route.values.sum(1), story.patch.values[0, list(story.route.patches)], atol=1e-5, rtol=0
    )
    assert story.route.gap < 1e-4


def test_neurons_are_compared_with_their_controls(story):
    assert list(story.found) == [
        "written by the transformer",
        "random starts, 100 steps each",
        "written before any fit",
    ]
    assert story.neurons.shape == (8, 4, 3, 8, 8) and story.layer == "linear2"
    assert story.found["written by the transformer"].retrieval > story.found["random starts, 100 steps each"].retrieval


def test_a_single_picture_has_nothing_to_be_compared_with():
    alone = written(2)
    one = Written(alone.model, "m", alone.images[:1], ("0",), "seen", None)
    story = story_of(one, "one", 0)
    assert not story.found and len(story.shown) == len(story.patch.values) == 1


def test_those_that_tell_pictures_apart():
    maps = torch.zeros(2, 4, 1, 2, 2)
    maps[:, 0] = 9.0  # large, and always the same
    maps[0, 2], maps[1, 1] = 2.0, 1.0
    maps[:, 3] = torch.tensor([10.0, 6.0])[:, None, None, None]  # differs as much as entry 2, in a large background
    assert telling(maps, 4) == [2, 1, 3, 0]
    assert telling(maps[:1], 2) == [3, 0]
