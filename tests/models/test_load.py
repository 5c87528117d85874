"""load_model: names, weights, labels, preprocessing and errors of every source but transformers."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xinc_captum import ImageModel, load_model, zoo
from xinc_captum.models import ModelError, default_layer, describe, list_models, load

TIMM = "timm:vit_tiny_patch16_224"


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs timm: pip install 'xinc-captum[timm]'")


@pytest.fixture
def own(tmp_path, monkeypatch):
    name = f"own_models_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        """
import torch
from torch import nn
from xinc_captum import ImageModel

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), nn.Dropout())

def wrapped():
    return ImageModel("wrapped", net(), lambda images: 2 * images, 8, ("a", "b"), layer="0")

def number():
    return 7

def broken():
    raise KeyError("weights")
"""
    )
    monkeypatch.chdir(tmp_path)
    return name


def test_torchvision_has_the_preprocessing_of_its_default_weights():
    from torchvision.models import ResNet18_Weights

    model = load_model("torchvision:resnet18", weights="random")
    assert (model.size, model.crop, model.layer, model.labels[281]) == (224, 224 / 256, "layer4", "tabby")
    photo = torch.rand(3, 256, 256)
    expected = ResNet18_Weights.DEFAULT.transforms()(photo)[None]
    torch.testing.assert_close(model.preprocess(photo[None, :, 16:240, 16:240]), expected)
    assert model.source == "weights: random, with seed 0; preprocessing: ResNet18_Weights.IMAGENET1K_V1"
    assert not any(module.training for module in model.model.modules())


def test_a_torchvision_transformer_resizes_images_of_other_sizes():
    model = load_model("torchvision:vit_b_32", weights="random")
    assert model.preprocess.size == (224, 224)
    assert model(torch.rand(1, 3, 100, 200)).shape == (1, 1000)
    assert model.tokens == "7 x 7 patches after 1 other token, 768 channels"
    torch.nn.init.normal_(model.model.heads.head.weight)  # initially zero: no layer has a gradient
    assert default_layer(model) == "encoder.layers.encoder_layer_11.ln_1"


def test_torchvision_downloads_the_default_weights_or_says_what_is_missing(monkeypatch, tmp_path):
    from torchvision.models import resnet18

    asked = []

    def download(url, **_):
        asked.append(url)
        if len(asked) > 2:
            raise OSError("Name or service not known")
        return resnet18().state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    for weights in (None, "DEFAULT"):
        assert "resnet18" in load_model("torchvision:resnet18", weights=weights).source
    assert len(set(asked)) == 1 and "resnet18-f37072fd.pth" in asked[0]
    with pytest.raises(
        ModelError, match=r"cannot be loaded \(Name or .* missing file is https://.*resnet18-f37072fd.pth"
    ):
        load_model("torchvision:resnet18")


def test_timm_has_the_preprocessing_of_its_configuration(timm):
    model = load_model(TIMM, weights="random")
    assert (model.preprocess.mean, model.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (model.preprocess.size, model.preprocess.interpolation, model.crop) == ((224, 224), "bicubic", 0.9)
    assert model.labels == zoo.classifiers.imagenet_labels() and model.layer == "blocks.11.norm1"
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.model((image - 0.5) / 0.5))
        assert model(torch.rand(2, 3, 60, 80)).shape == (2, 1000)


def test_timm_says_which_file_is_missing(timm, monkeypatch):
    def fail(*_, **options):
        raise OSError("offline") if options["pretrained"] else AssertionError

    monkeypatch.setattr(timm, "create_model", fail)
    text = r"weights of timm:vit_tiny_patch16_224 cannot be loaded \(offline\). The missing file is https://huggingface.co/tim"
    with pytest.raises(ModelError, match=text):
        load_model(TIMM)


def test_weights_of_a_file_are_loaded_and_those_of_another_architecture_named(timm, tmp_path):
    network = timm.create_model("resnet10t", pretrained=False).eval()
    with torch.no_grad():
        network.fc.bias.copy_(torch.arange(1000.0))
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pt")
    model = load_model("timm:resnet10t", weights=tmp_path / "w.pt")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(images), network(model.preprocess(images)))
    assert model.source.startswith(f"weights: {tmp_path / 'w.pt'}; preprocessing: timm")
    with pytest.raises(ModelError, match=r"w.pt do not fit torchvision:resnet18. Keys: \d+ missing \(conv1.weight"):
        load_model("torchvision:resnet18", weights=tmp_path / "w.pt")


def test_a_fine_tuned_model_has_the_classes_of_its_weights(timm, tmp_path):
    network = timm.create_model("resnet10t", pretrained=False, num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model = load_model("timm:resnet10t", weights=str(tmp_path / "w.safetensors"))
    assert model.labels == ("class 0", "class 1", "class 2")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(images), network(model.preprocess(images)))
    named = load_model("timm:resnet10t", weights=tmp_path / "w.safetensors", labels=["cat", "dog", "cow"])
    assert named.find("cow") == 2
    with pytest.raises(
        ModelError, match=r"labels= has 2 names, and timm:resnet10t has 3 outputs; expected one name for"
    ):
        load_model("timm:resnet10t", weights=tmp_path / "w.safetensors", labels=["cat", "dog"])


def test_weights_in_the_format_of_the_authors_are_renamed_as_timm_does(timm, tmp_path):
    network = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=28).eval()
    state = network.state_dict()
    full = timm.create_model("vit_small_patch14_dinov2", pretrained=False)
    theirs = {**full.state_dict(), "mask_token": torch.zeros(1, 384)}  # as in the file of the authors
    torch.save(theirs, tmp_path / "dinov2.pth")
    found = load._with_weights("timm:x", load.SOURCES["timm"]("vit_small_patch14_dinov2"), tmp_path / "dinov2.pth")
    assert torch.equal(found.state_dict()["norm.bias"], state["norm.bias"])
    assert torch.equal(found.pos_embed, full.pos_embed)


def test_random_weights_take_the_number_of_labels(timm):
    model = load_model("timm:resnet10t", weights="random", labels=("a", "b"))
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2) and model.labels == ("a", "b")


def test_open_clip_returns_the_image_embedding(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip: pip install 'xinc-captum[clip]'")
    config = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-for-tests.json")
    model = load_model("open_clip:tiny-for-tests", weights="random")
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 6) and model.labels[5] == "feature 5"
    assert model.preprocess.mean == open_clip.OPENAI_DATASET_MEAN and model.probability == "none"
    for weights, text in (
        (None, "open_clip has no default weights for tiny-for-tests"),
        ("openai", "no default weights"),
    ):
        with pytest.raises(ModelError, match=text):
            load_model("open_clip:tiny-for-tests", weights=weights)
    network = open_clip.create_model("tiny-for-tests").eval()
    torch.save(network.state_dict(), tmp_path / "clip.pt")
    loaded = load_model("open_clip:tiny-for-tests", weights=tmp_path / "clip.pt")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), network.encode_image(loaded.preprocess(image)))


def test_a_function_returns_a_module_or_an_image_model(own, tmp_path):
    path = list(sys.path)
    bare = load_model(f"{own}:net")
    assert sys.path == path and (bare.size, bare.labels, bare.layer) == (None, ("class 0", "class 1"), "0")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(bare(images), bare.model(images)) and not bare.model[4].training
    wrapped = load_model(f"{own}:wrapped")
    assert isinstance(wrapped, ImageModel) and (wrapped.labels, wrapped.layer) == (("a", "b"), "0")
    torch.testing.assert_close(wrapped(images), wrapped.model(2 * images))
    torch.save(bare.model.state_dict(), tmp_path / "w.pt")
    again = load_model(f"{own}:wrapped", weights=tmp_path / "w.pt")
    torch.testing.assert_close(again(images), bare(2 * images))
    assert again.source == f"weights: {tmp_path / 'w.pt'}; architecture and preprocessing: {own}:wrapped"


def test_a_name_of_the_zoo():
    model = load_model("mnist_convnet")
    assert (model.labels, model.size, model.layer) == (tuple("0123456789"), 16, "pool3")
    assert load_model("mnist_convnet", device="meta").model.conv1.weight.device.type == "meta"


@pytest.mark.parametrize(
    ("name", "weights", "text"),
    [
        (
            "resnet50",
            None,
            r"model 'resnet50' is not known; expected torchvision:NAME, .* names: 'torchvision:resnet50'",
        ),
        ("squeezenet1_2", None, "Closest names: 'squeezenet1_1'"),
        (
            "keras:resnet50",
            None,
            r"module 'keras' cannot be imported .*or torchvision:NAME, timm:NAME, hf:NAME, open_clip",
        ),
        ("torchvision:resnet5", "random", "torchvision has no model 'resnet5'. Closest names: 'resnet50'"),
        ("torchvision:qqqq", "random", r"torchvision has no model 'qqqq'. list_models\(\) lists all names"),
        (
            "torchvision:fasterrcnn_resnet50_fpn",
            "random",
            r"preprocessing is ObjectDetection\); expected a classifier or",
        ),
        ("mnist_convnet", "random", "weights='random' is given, but mnist_convnet sets its own weights"),
        ("torchvision:resnet18", "nowhere.pt", "weights='nowhere.pt' is not a file"),
        ("{}:number", None, "returned a int; expected a torch.nn.Module that takes images"),
        ("{}:nett", None, "has no function 'nett'; did you mean 'net'"),
    ],
)
def test_names_that_cannot_be_resolved_are_errors(own, name, weights, text):
    with pytest.raises(ModelError, match=text):
        load_model(name.format(own), weights=weights)


def test_errors_of_your_function_are_kept(own):
    with pytest.raises(KeyError, match="weights") as caught:
        load_model(f"{own}:broken")
    assert caught.value.__notes__ == [f"Raised by the function {own}:broken of --model."]


@pytest.mark.parametrize(("scheme", "module", "extra"), [("timm", "timm", "timm"), ("hf", "transformers", "hf"), ("open_clip", "open_clip", "clip")])  # fmt: skip
def test_a_missing_library_names_its_extra(monkeypatch, scheme, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{scheme}:x needs {module}, .*pip install 'xinc-captum\[{extra}\]'"
    ):
        load_model(f"{scheme}:x")


def test_names_are_listed_and_filtered(monkeypatch):
    names = list_models()
    assert {"efficientnet_lite0", "mnist_cnn", "torchvision:resnet50"} <= set(names)
    assert list_models("ResNet152") == [name for name in names if "resnet152" in name] != []
    for library in ("timm", "open_clip"):
        monkeypatch.setitem(sys.modules, library, None)
    assert not any(name.startswith(("timm:", "open_clip:")) for name in list_models())


def test_the_description_has_one_field_a_line():
    text = str(describe(load_model("torchvision:squeezenet1_1", weights="random"))).splitlines()
    assert [line.partition(":")[0] for line in text] == [
        "name", "network", "source", "input", "preprocessing", "outputs", "layer",
    ]  # fmt: skip
    assert text[1] == "network: SqueezeNet, 1,235,496 parameters, on cpu"
    assert text[5].startswith(
        "outputs: 1000 labels: 'tench', 'goldfish', 'great white shark' …, probability='auto' (over"
    )
    bare = ImageModel("bare", nn.Flatten(), lambda images: images, None, ())
    assert "no device" in str(describe(bare)) and "layer: none found" in str(describe(bare))
    with pytest.raises(TypeError, match="model is a Flatten; expected an ImageModel, as load_model returns it"):
        describe(nn.Flatten())
