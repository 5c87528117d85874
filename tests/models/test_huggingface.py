"""Models of transformers from local folders: class, preprocessing, labels, output and errors."""

import json

import pytest
import torch
from safetensors.torch import save_file

from xinc_captum import load_model
from xinc_captum.models import ModelError

HALF = {
    "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 48, "width": 48}, "resample": 3,
    "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
}  # fmt: skip


def test_a_classifier_has_its_labels_size_and_preprocessing(folder):
    path = folder("vit", HALF)
    model = load_model(f"hf:{path}", weights="random")
    assert type(model.model).__name__ == "ViTForImageClassification"
    assert (model.labels, model.size, model.crop, model.channels) == (("cat", "dog", "cow"), 48, 1.0, 3)
    preprocess = model.preprocess
    assert preprocess.mean == pytest.approx([0.5] * 3) and preprocess.std == pytest.approx([0.25] * 3)
    assert (preprocess.size, preprocess.interpolation) == ((48, 48), "bicubic"), "position embeddings are fixed"
    assert (model.layer, model.probability) == ("vit.layers.2.layernorm_before", "auto")
    assert model.source == "weights: random, with seed 0; preprocessing: preprocessor_config.json"
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = model.model(pixel_values=(images - 0.5) / 0.25).logits
        torch.testing.assert_close(model(images), expected)
    assert model(torch.rand(1, 3, 60, 70)).shape == (1, 3), "other sizes are resized"


def test_random_weights_are_the_same_each_time_and_the_random_state_is_unchanged(folder):
    path = folder("vit", HALF)
    state = torch.random.get_rng_state()
    one, two = (load_model(f"hf:{path}", weights="random") for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    image = torch.rand(1, 3, 48, 48)
    assert torch.equal(one(image), two(image)) and one(image).std() > 0


def test_a_model_without_a_head_returns_its_pooled_features(folder):
    with pytest.warns(UserWarning, match="is the ImageNet standard, because hf:.* has no preprocessor_config.json"):
        model = load_model(f"hf:{folder('dinov2')}", weights="random")
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.model(model.preprocess(images)).pooler_output)
    assert (model.probability, model.labels[1], len(model.labels)) == ("none", "feature 1", 32)
    assert model.preprocess.mean == (0.485, 0.456, 0.406) and "the ImageNet standard" in model.source
    assert model.preprocess.size is None, "DINOv2 interpolates its position embeddings"
    assert (model.layer, model.tokens) == ("encoder.layer.2.norm1", "4 x 4 patches after 1 other token, 32 channels")


def test_a_segmentation_model_returns_maps_also_in_a_second_call(folder):
    """transformers registers hooks in the first pass; a state that is restored without them breaks the second one."""
    model = load_model(f"hf:{folder('segformer', HALF)}", weights="random")
    assert type(model.model).__name__ == "SegformerForSemanticSegmentation"
    for _ in range(2):
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5, 16, 16)
    assert model.layer.startswith("decode_head") and model.labels == tuple(f"class {i}" for i in range(5))


def test_weights_come_from_the_folder_or_from_a_file(folder, tmp_path):
    path = folder("vit", HALF)
    image = torch.rand(1, 3, 48, 48)
    with pytest.raises(
        ModelError, match=rf"pretrained weights of hf:{path} cannot be loaded .*{path}/model.safetensors"
    ):
        load_model(f"hf:{path}")
    random = load_model(f"hf:{path}", weights="random")
    with torch.no_grad():
        random.model.classifier.bias += 1
    save_file(random.model.state_dict(), tmp_path / "w.safetensors")
    expected = random(image).detach()
    torch.testing.assert_close(load_model(f"hf:{path}", weights=tmp_path / "w.safetensors")(image), expected)
    random.model.save_pretrained(path)
    torch.testing.assert_close(load_model(f"hf:{path}", weights="DEFAULT")(image), expected)
    assert (
        load_model(f"hf:{path}").source == f"weights: {path}/model.safetensors; preprocessing: preprocessor_config.json"
    )


def test_weights_that_lack_layers_are_an_error(folder):
    path = folder("vit", HALF)
    load_model(f"hf:{path}", weights="random").model.vit.save_pretrained(path / "bare")
    config = json.loads((path / "config.json").read_text())
    (path / "bare" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"have no classifier.bias, classifier.weight of ViTForImageClassification"):
        load_model(f"hf:{path / 'bare'}")


@pytest.mark.parametrize(
    ("processor", "size", "crop", "mean", "std"),
    [
        ({"size": {"shortest_edge": 60}, "crop_size": {"height": 48, "width": 48}, "do_center_crop": True}, 48, 0.8, 0.485, 0.229),
        ({"size": 64, "do_normalize": False}, 64, 1.0, 0.0, 1.0),
        ({"size": {"shortest_edge": 56}, "crop_pct": 0.875, "image_mean": [0.1] * 3, "image_std": [0.5] * 3}, 56, 0.875, 0.1, 0.5),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, 56, 1.0, 0.5, 0.5),
        ({"do_rescale": False, "image_mean": [51.0] * 3, "image_std": [25.5] * 3}, 56, 1.0, 0.2, 0.1),
    ],
)  # fmt: skip
def test_preprocessing_is_read_from_the_configuration(folder, processor, size, crop, mean, std):
    model = load_model(f"hf:{folder('dinov2', processor)}", weights="random")
    assert (model.size, model.crop) == (size, pytest.approx(crop))
    assert model.preprocess.mean[0] == pytest.approx(mean) and model.preprocess.std[0] == pytest.approx(std)


def test_preprocessing_inside_the_configuration_of_a_processor(folder):
    path = folder("dinov2")
    (path / "processor_config.json").write_text(json.dumps({"image_processor": HALF, "processor_class": "X"}))
    model = load_model(f"hf:{path}", weights="random")
    assert model.size == 48 and model.source.endswith("preprocessing: processor_config.json")


def test_a_fine_tuned_model_has_the_classes_of_its_weights(folder, tmp_path):
    big = load_model(f"hf:{folder('vit', HALF)}", weights="random", labels=list("abcde"))
    save_file(big.model.state_dict(), tmp_path / "w.safetensors")
    model = load_model(f"hf:{folder('vit', HALF)}", weights=tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(model(image), big(image))
    assert model.labels == tuple(f"class {i}" for i in range(5))


def test_configurations_that_cannot_be_resolved_are_errors(folder, tmp_path):
    with pytest.raises(
        ModelError, match=r"has 5 labels and no architectures, so it may describe a classifier or a seg"
    ):
        load_model(f"hf:{folder('segformer', architectures=None)}", weights="random")
    with pytest.raises(ModelError, match=r"cannot be run on an image of shape \(1, 3, 224, 224\) .*a model of images"):
        load_model(f"hf:{folder('bert', HALF | {'size': 224})}", weights="random")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config.json of hf:.*empty cannot be read .* give hf:FOLDER"):
        load_model(f"hf:{tmp_path / 'empty'}")
