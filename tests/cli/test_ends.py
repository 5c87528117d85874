from dataclasses import replace

import pytest
import torch

from xinc_captum import zoo
from xinc_captum.attributions import LinkedUnitVisualization
from xinc_captum.cli.ends import DIGITS, GENERATORS, MODELS, ends_called, generator_called
from xinc_captum.cli.failures import UsageError
from xinc_captum.hooks import LayerError

CPU = torch.device("cpu")


def test_both_ends_are_found_and_the_last_linear_layer(ends, tiny):
    assert (ends.model_name, ends.generator_name) == (f"{tiny}:net", f"{tiny}:draw")
    assert (ends.layer, ends.shape, ends.device) == ("2", (1, 8, 8), CPU)
    assert not any(module.training for module in (*ends.classifier.model.modules(), *ends.generator.modules()))
    assert ends_called(f"{tiny}:net", f"{tiny}:draw", "1", CPU).layer == "1"


def test_answers_are_probabilities_of_the_pictures(ends):
    """Each class is where its place is bright; the head has no other weights."""
    places = torch.zeros(4, 1, 8, 8)
    places[0, :, :4], places[1, :, 4:], places[2, :, :, :4], places[3, :, 2:6, 2:6] = 0.8, 0.8, 0.8, 0.8
    answers = ends.answers(places)
    assert answers.argmax(1).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(answers, ends.classifier(places).detach().softmax(1))
    assert not answers.requires_grad


def test_the_encoder_reads_the_input_of_the_layer(ends):
    pictures = torch.rand(3, 1, 8, 8)
    hidden = ends.classifier.model[1](pictures.flatten(1))
    torch.testing.assert_close(ends.encoder()(pictures), hidden)


def test_drawing_in_parts_is_drawing_at_once(ends):
    latents = ends.generator.sample_latents(5, torch.arange(5) % 4, generator=torch.Generator().manual_seed(0))
    parts = ends.draw(latents.double(), batch_size=2)
    assert parts.shape == (5, 1, 8, 8) and parts.dtype == torch.float32
    torch.testing.assert_close(parts, ends.generator.synthesize(latents))


def test_pictures_of_another_size_and_colour_are_brought_to_the_network(tiny):
    ends = ends_called(f"{tiny}:colours", f"{tiny}:draw", None, CPU)
    assert (ends.preprocess.size, ends.preprocess.channels) == (16, 3)
    white = ends.preprocess(torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(white, torch.ones(1, 3, 16, 16), msg="(1 - .5) / .5, resized and repeated")
    assert ends.answers(torch.ones(1, 1, 8, 8)).shape == (1, 2)


def test_only_as_many_classes_are_the_same_classes(ends, tiny):
    assert ends.share_classes
    assert not ends_called(f"{tiny}:colours", f"{tiny}:draw", None, CPU).share_classes, "two against four"
    assert not ends_called(f"{tiny}:net", f"{tiny}:classless", None, CPU).share_classes
    bare = replace(ends, classifier=replace(ends.classifier, labels=()))
    assert not bare.share_classes and bare.label(2) == "class 2"


def test_classes_without_a_name_have_a_number(ends):
    assert [ends.label(index) for index in (0, 3, 4, -1)] == ["upper", "middle", "class 4", "class -1"]


def test_the_method_draws_units_of_these_ends(ends, story):
    method = ends.method(story.link)
    assert isinstance(method, LinkedUnitVisualization) and method.layer is ends.classifier.model[2]


def test_the_zoo_holds_every_name():
    assert set(DIGITS) <= set(MODELS) and len(set(MODELS)) == len(MODELS)
    for name in (*DIGITS, *GENERATORS):
        assert callable(getattr(zoo, name))


def test_the_ends_of_the_zoo_fit():
    ends = ends_called("mnist_convnet", "mnist_generator", None, CPU)
    assert ends.share_classes and ends.layer == "head" and ends.label(7) == "7"
    assert ends.preprocess(torch.zeros(1, *ends.shape)).shape == (1, *ends.shape), "nothing is resized"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "generator 'nobody' is not in the zoo; wanted one of mnist_generator, .*as module:function"),
        ("{}:faulty", "generator {}:faulty: int has no image_range and no sample_latents and no synthesize"),
        ("{}:glaring", r"generator {}:glaring: the generator's pictures lie in \[2.*Correct image_range"),
        ("{}:nothing", "module '{}' has no function 'nothing'"),
        ("no_such_module:draw", "module 'no_such_module' cannot be imported"),
    ],
)
def test_generators_that_cannot_be_used(tiny, name, says):
    with pytest.raises(UsageError, match=says.format(tiny)):
        generator_called(name.format(tiny), CPU)


@pytest.mark.parametrize(
    ("model", "layer", "error", "says"),
    [
        ("efficientnet_lite7", None, UsageError, "model 'efficientnet_lite7' is no classifier of the zoo; wanted one"),
        ("{}:faulty", None, UsageError, r"{}:faulty returned a int; wanted a torch\.nn\.Module"),
        ("{}:headless", None, UsageError, "no linear layer to link the input of; say which one with --layer"),
        ("{}:net", "7", LayerError, "layer '7' is not in the model"),
        (
            "{}:narrow", None, UsageError,
            r"{}:narrow cannot look at what {}:draw draws, pictures of shape \(1, 8, 8\) in \[0, 1\] \(.*\); give a "
            "network whose preprocess takes them",
        ),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_linked(tiny, model, layer, error, says):
    with pytest.raises(error, match=says.format(tiny, tiny)):
        ends_called(model.format(tiny), f"{tiny}:draw", layer, CPU)


def test_a_network_that_ends_in_softmax_or_says_sigmoid_gives_its_own_probabilities(ends):
    places = torch.rand(3, 1, 8, 8)
    logits = ends.classifier(places).detach()
    model = torch.nn.Sequential(*ends.classifier.model, torch.nn.Softmax(1))
    shares = replace(ends, classifier=replace(ends.classifier, model=model))
    torch.testing.assert_close(shares.answers(places), logits.softmax(1))
    many = replace(ends, classifier=replace(ends.classifier, probability="sigmoid"))
    torch.testing.assert_close(many.answers(places), logits.sigmoid())
