"""ImageModel and its preprocessing: labels, probabilities, crops, resizing and devices."""

import copy
import pickle
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from xinc_captum import ImageModel
from xinc_captum.hooks import capture
from xinc_captum.image_model import Normalise, ResizeAndNormalise
from xinc_captum.zoo.classifiers import imagenet_labels


def channel_means(labels=("red", "green", "blue")):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False)).eval()
    nn.init.eye_(model[2].weight)
    return ImageModel("means", model, Normalise((0.5, 0.25, 0.0), (0.5, 0.5, 1.0)), 8, tuple(labels))


def imagenet():
    return ImageModel("toy", nn.Identity(), Normalise((0.5,) * 3, (0.5,) * 3), 8, imagenet_labels())


def test_normalise_by_hand():
    images = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)
    out = Normalise((0.5, 0.25, 0.0), (0.5, 0.5, 1.0))(images)
    assert out.flatten().tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_normalise_keeps_dtype_and_gradient(dtype):
    images = torch.rand(2, 3, 4, 4, dtype=dtype, requires_grad=True)
    out = Normalise((0.5,) * 3, (0.25,) * 3)(images)
    assert out.dtype == dtype
    (gradient,) = torch.autograd.grad(out.sum(), images)
    assert (gradient == 4).all()
    assert Normalise((0.5,) * 3, (0.25,) * 3)(torch.rand(3, 4, 4)).shape == (3, 4, 4)


def test_normalise_copies_and_compares():
    one = Normalise((0.5,) * 3, (0.25,) * 3)
    assert copy.deepcopy(one) == one == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(copy.deepcopy(one))


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, 3), torch.zeros(3, 2)]
)
def test_normalise_refuses_invalid_images(images):
    with pytest.raises(
        ValueError, match=r"images are torch.\w+ of shape .*; expected floats in \[0, 1\] of shape \(N, 3"
    ):
        Normalise((0.5,) * 3, (0.5,) * 3)(images)


def test_a_classifier_is_called_with_images():
    images = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert channel_means()(images).tolist() == [[1.0, 0.5, 0.25]]


def test_top_by_hand():
    images = torch.stack([torch.tensor(c).view(3, 1, 1).expand(3, 8, 8) for c in ([1.0, 0.0, 0.0], [0.5, 0.0, 1.0])])
    top = channel_means().top(images, k=2)
    first, last = (torch.tensor(logits).softmax(0).max().item() for logits in ([1.0, -0.5, 0.0], [0.0, -0.5, 1.0]))
    assert [[label for label, _ in row] for row in top][1] == ["blue", "red"]
    assert top[0][0] == ("red", pytest.approx(first))
    assert top[1][0] == ("blue", pytest.approx(last))
    assert channel_means().top(images[:0]) == []


def test_top_takes_images_to_the_model():
    half = channel_means()
    half.model.double()
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert len(half.top(image, k=3)[0]) == 3
    assert image.grad is None
    assert len(half.top(image)[0]) == 3, "no more than there are"


def test_top_refuses_invalid_input():
    means = channel_means()
    with pytest.raises(ValueError, match=r"images have shape \(3, 8, 8\); expected \(N, 3, H, W\).*\[None\]"):
        means.top(torch.rand(3, 8, 8))
    for wrong in (255.0, -2.0, float("nan")):
        with pytest.raises(
            ValueError, match=r"images lie in \[.*\]; expected \[0, 1\], since means normalises them itself"
        ):
            means.top(torch.full((1, 3, 8, 8), wrong))
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        means.top(torch.rand(1, 3, 8, 8), k=0)


def test_label_and_its_range():
    assert channel_means().label(2) == "blue"
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"class {index} is not one of means; expected 0 to 2"):
            channel_means().label(index)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("281", 281),
        (" 0 ", 0),
        ("tabby", 281),
        ("TABBY", 281),
        ("egyptian c", 285),
        ("crane", 517),  # a whole label, although "crane bird" has it as a part
        ("cardigan", 474),  # the jacket
        ("Cardigan", 264),  # the dog
    ],
)
def test_find(text, index):
    assert imagenet().find(text) == index


def test_find_lists_the_nearest_labels():
    with pytest.raises(
        ValueError, match=r"'shark' fits 2 classes of toy: 2 'great white shark', 3 'tiger shark'. Give more"
    ):
        imagenet().find("shark")
    with pytest.raises(
        ValueError, match=r"'CARDIGAN' fits 2 classes of toy: 264 'Cardigan', 474 'cardigan'. Give more"
    ):
        imagenet().find("CARDIGAN")
    with pytest.raises(ValueError, match=r"'' fits 1000 classes of toy: 0 'tench', .* and 992 more"):
        imagenet().find("")
    with pytest.raises(ValueError, match=r"'goldfsh' is in no label of toy; the nearest are 1 'goldfish'"):
        imagenet().find("goldfsh")
    with pytest.raises(ValueError, match=r"'0x19' is in no label of toy; they run from 0 'tench' on"):
        imagenet().find("0x19")
    for number in ("1000", "-1"):
        with pytest.raises(ValueError, match=f"class {number} is not one of toy; expected 0 to 999"):
            imagenet().find(number)


def test_the_repr_is_one_line():
    assert repr(channel_means()).startswith("ImageModel(name='means', preprocess=Normalise(mean=(0.5, 0.25, 0.0)")
    assert len(repr(imagenet())) < 150


def test_every_label_is_found():
    toy = imagenet()
    for index, label in enumerate(toy.labels):
        if toy.labels.count(label) == 1:
            assert toy.find(label) == index
    assert len(toy.labels) == 1000


def test_a_copy_is_its_own():
    first = channel_means()
    second = copy.deepcopy(first)
    nn.init.zeros_(second.model[2].weight)
    image = torch.rand(1, 3, 8, 8)
    assert first(image).abs().sum() > 0
    assert second(image).abs().sum() == 0
    assert pickle.loads(pickle.dumps(first))(image).equal(first(image))


def test_hooks_find_the_model_inside():
    means = channel_means()
    with capture(means, "1") as taken:
        means(torch.ones(1, 3, 8, 8))
    assert taken


def test_top_of_one_logit_is_its_sigmoid():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)).eval()
    image = torch.rand(2, 3, 8, 8)
    with pytest.warns(UserWarning, match="one output column"):
        found = ImageModel("cat", model, lambda x: x, 8, ("cat",)).top(image)
    expected = model(image).sigmoid()[:, 0].tolist()
    assert found == [[("cat", pytest.approx(p))] for p in expected]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageModel("cat", model, lambda x: x, 8, ("cat",), "sigmoid").top(image) == found


def test_top_of_probabilities_are_these():
    layers = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)
    image = torch.tensor([0.9, 0.1, 0.4]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    found = ImageModel("shares", nn.Sequential(*layers), lambda x: x, 8, ("a", "b", "c")).top(image)
    expected = torch.tensor([0.9, 0.1, 0.4]).softmax(0).tolist()
    assert found == [
        [("a", pytest.approx(expected[0])), ("c", pytest.approx(expected[2])), ("b", pytest.approx(expected[1]))]
    ]


def test_top_needs_one_label_for_each_output_and_probabilities():
    for labels in (("red", "green"), ("background", "red", "green", "blue")):
        with pytest.raises(
            ValueError, match=f"means has {len(labels)} labels for 3 outputs; expected one label for each"
        ):
            channel_means(labels).top(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="has probability='none', so its outputs rank no labels"):
        replace(channel_means(), probability="none").top(torch.rand(1, 3, 8, 8))
    with pytest.raises(TypeError, match=r"the model returned a dict with"):
        ImageModel("dict", Wrapped(), lambda x: x, 8, ("a",)).top(torch.rand(1, 3, 8, 8))


class Wrapped(nn.Module):
    def forward(self, x):
        return {"y": x.mean((2, 3)), "z": x.amax((2, 3))}


def test_the_logits_of_a_mapping_are_the_output_and_output_fn_chooses_another():
    model = ImageModel("dict", Wrapped(), lambda x: x, 8, (), output_fn=lambda output: output["z"])
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(images), images.amax((2, 3)))

    class Logits(nn.Module):
        def forward(self, x):
            return {"logits": x.mean((2, 3)), "aux": x}

    assert torch.equal(ImageModel("logits", Logits(), lambda x: x, 8, ())(images), images.mean((2, 3)))


def test_resizing_is_that_of_torch_and_keeps_the_gradient():
    preprocess = ResizeAndNormalise((0.5,) * 3, (0.25,) * 3, (8, 6), "bicubic")
    images = torch.rand(2, 3, 20, 30, requires_grad=True)
    expected = nn.functional.interpolate((images - 0.5) / 0.25, (8, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(preprocess(images), expected)
    torch.testing.assert_close(preprocess(images[0]), expected[0])
    (gradient,) = torch.autograd.grad(preprocess(images).sum(), images)
    assert gradient.abs().amin((0, 1)).gt(0).any() and gradient.shape == images.shape


@pytest.mark.parametrize("size", [None, (20, 30)])
def test_images_of_the_right_size_are_only_normalised(size):
    images = torch.rand(2, 3, 20, 30)
    expected = Normalise((0.5,) * 3, (0.25,) * 3)(images)
    assert torch.equal(ResizeAndNormalise((0.5,) * 3, (0.25,) * 3, size)(images), expected)


def test_prepare_crops_the_centre_of_a_photo_and_converts_channels():
    photo = torch.zeros(3, 16, 32)
    photo[1, :, 8:24] = 0.9  # the central square is green
    whole = replace(channel_means(), crop=1.0).prepare(photo)
    assert whole.shape == (1, 3, 8, 8)
    torch.testing.assert_close(whole[0, 1, :, 2:6], torch.full((8, 4), 0.9), atol=0.02, rtol=0)
    grey = channel_means().prepare(torch.full((5, 1, 9, 9), 0.5))
    torch.testing.assert_close(grey, torch.full((5, 3, 8, 8), 0.5))
    one = ImageModel("grey", nn.Identity(), Normalise((0.0,), (1.0,)), None, ())
    torch.testing.assert_close(one.prepare(photo), photo.mean(0).view(1, 1, 16, 32))
    assert (one.channels, channel_means().channels) == (1, 3)
    with pytest.raises(ValueError, match=r"image is torch.uint8 of shape .*; expected floats"):
        channel_means().prepare(torch.zeros(3, 9, 9, dtype=torch.uint8))


def test_it_moves_to_a_device_and_prepares_photos_there():
    means = channel_means()
    assert means.to("meta") is means
    assert means.model[2].weight.device.type == "meta"
    assert means.prepare(torch.rand(3, 9, 9)).device.type == "meta"
