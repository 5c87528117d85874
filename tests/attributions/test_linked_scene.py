import copy

import pytest
import torch
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.generators import from_callable, normal_latents


def test_modules_inside_a_generator_are_left_as_found_too(digits, found):
    paint = nn.Sequential(nn.Linear(24, 64), nn.Dropout(0.5), nn.Sigmoid()).eval()
    generator = from_callable(lambda w: paint(w).view(-1, 1, 8, 8), normal_latents(24))
    paint(torch.rand(2, 24)).sum().backward()
    before = found(paint)
    units = LinkedUnitVisualization(digits.net, "5", generator, digits.link)
    units.attribute(digits.pictures(2), digits.unit)
    units.counterfactual(digits.pictures(2), 3, "latent")
    assert before.differences(paint) == []


def test_a_generator_in_training_mode_is_warned_of(digits):
    paint = nn.Sequential(nn.Linear(24, 64), nn.Dropout(0.5), nn.Sigmoid())
    units = LinkedUnitVisualization(
        digits.net, "5", from_callable(lambda w: paint(w).view(-1, 1, 8, 8), normal_latents(24)), digits.link
    )
    with pytest.warns(UserWarning, match="Dropout '1' is in training mode"):
        units.perturb(digits.pictures(2), digits.unit, 1.0)


def test_a_per_class_link_gets_what_the_model_predicts(digits):
    classes = torch.arange(3000) % 10
    w = digits.generator.sample_latents(3000, classes, 0.7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        r = digits.net[:5](digits.generator.synthesize(w))
    link = LatentLink("per_class").fit(r, w, classes, manifest=digits.link.manifest)
    units = LinkedUnitVisualization(digits.net, "5", digits.generator, link)
    x = digits.pictures(10)
    found = units.sweep(x, digits.unit)
    with torch.no_grad():
        seen = digits.net[:5](x).double()
        predicted = digits.net(x).argmax(1)
    torch.testing.assert_close(
        found.base, digits.generator.synthesize(link(seen, predicted).float()), atol=1e-5, rtol=0
    )
    assert units.counterfactual(x, 3).images.shape == x.shape


def test_a_link_solved_under_inference_mode_is_differentiated(digits):
    with torch.inference_mode():
        link = copy.deepcopy(digits.link)
        link.map.weight = link.map.weight.clone()
    units = LinkedUnitVisualization(digits.net, "5", digits.generator, link)
    plain = digits.units.attribute(digits.pictures(2), digits.unit)
    torch.testing.assert_close(units.attribute(digits.pictures(2), digits.unit), plain)


def test_the_layer_may_have_a_longer_name_in_a_larger_model(digits):
    outer = nn.Sequential(nn.Identity(), digits.net)
    units = LinkedUnitVisualization(outer, "1.5", digits.generator, digits.link)
    x = digits.pictures(2)
    torch.testing.assert_close(units.perturb(x, digits.unit, 1.0), digits.units.perturb(x, digits.unit, 1.0))
