import pytest
import torch
from captum.attr import Saliency
from torch import nn

from xinc_captum.comparison import as_maps, grad_cam
from xinc_captum.comparison.named import BASELINES, by_name, known, untrained

PHOTOS = torch.rand(2, 3, 8, 8)


def test_names_become_methods(conv):
    found = by_name(["Grad-CAM", "Integrated Gradients", *BASELINES], conv, PHOTOS, None, "conv", 3)
    for name, method in found.items():
        assert as_maps(method(PHOTOS, 1), PHOTOS, (8, 8)).shape == (2, 8, 8), name
    assert torch.equal(found["Grad-CAM"](PHOTOS, 1), grad_cam(conv, "conv")(PHOTOS, 1))


def test_objects_bring_their_names_and_twins_are_numbered(conv):
    def mine(images, target):
        return images

    assert list(by_name([Saliency(conv), mine, mine], conv, PHOTOS, None, None, 0)) == ["Saliency", "mine", "mine 2"]
    assert list(by_name({"a": "edge map"}, conv, PHOTOS, None, None, 0)) == ["a"]
    assert list(by_name("edge map", conv, PHOTOS, None, None, 0)) == ["edge map"]


def test_a_layer_is_found_or_asked_for(conv):
    assert by_name(["Grad-CAM"], conv, PHOTOS, None, None, 0)["Grad-CAM"](PHOTOS, 1).shape[2:] == (2, 2)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(
        ValueError, match=r"Grad-CAM needs a layer, and no layer of this model has maps .*; give layer="
    ):
        by_name(["Grad-CAM"], flat, PHOTOS, None, None, 0)


def test_what_is_wrong_is_said(conv):
    with pytest.raises(
        ValueError, match="no method is called 'saliency'; known are 'Grad-CAM', 'Guided Grad-CAM', 'grad-cam'"
    ):
        by_name(["saliency"], conv, PHOTOS, None, None, 0)
    with pytest.raises(ValueError, match="'accentuation'; did you mean 'Feature Accentuation'. Known are 'Grad-CAM'"):
        by_name("accentuation", conv, PHOTOS, None, None, 0)
    with pytest.raises(ValueError, match="did you mean 'Grad-CAM' or 'Guided Grad-CAM' or 'grad-cam'. Known"):
        by_name(["grad_cam"], conv, PHOTOS, None, None, 0)
    assert {"Grad-CAM", "torchcam", "edge map"} <= set(known())


def test_what_knows_nothing_is_told_by_what_it_is_not_by_its_name(conv):
    assert untrained({"noise": "random map", "edge map": Saliency(conv), "Grad-CAM": "Grad-CAM"}) == ["noise"]
    assert untrained(["edge map", "Grad-CAM", "edge map"]) == ["edge map", "edge map 2"]
