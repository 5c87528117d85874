"""The fingerprint of a model changes with any of its weights."""

import copy
import warnings

import pytest
import torch
from torch import nn

from xinc_captum.generators import from_callable, normal_latents
from xinc_captum.store import model_sha256, models_with_other_weights, other_weights, warn_of_other_models


def test_any_weight_or_buffer_counts(conv):
    first = model_sha256(conv)
    assert first == model_sha256(lambda x: conv(x))
    conv.norm.running_mean[0] += 1
    assert model_sha256(conv) != first
    assert model_sha256(torch.sin) is None


def ends():
    net, paint = nn.Linear(3, 2), nn.Linear(2, 3)
    return net, paint, {"model_sha256": model_sha256(net), "generator_sha256": model_sha256(paint)}


def test_models_with_other_weights_are_named():
    net, paint, manifest = ends()
    assert models_with_other_weights(manifest, net, paint) == []
    assert models_with_other_weights(manifest, nn.Linear(3, 2), paint) == ["network"]
    assert models_with_other_weights(manifest, net, nn.Linear(2, 3)) == ["generator"]
    assert models_with_other_weights(manifest, nn.Linear(3, 2), nn.Linear(2, 3)) == ["network", "generator"]
    assert models_with_other_weights(manifest, copy.deepcopy(net), copy.deepcopy(paint)) == []
    assert models_with_other_weights(manifest, copy.deepcopy(net).double(), paint) == ["network"]


def test_undecidable_axes_raise_errors():
    net, paint, manifest = ends()
    assert (
        models_with_other_weights({}, net, paint)
        == []
        == models_with_other_weights(dict.fromkeys(manifest), net, paint)
    )
    assert models_with_other_weights(manifest, torch.sin, from_callable(torch.sin, normal_latents(2))) == []


def test_a_function_around_several_models_may_hold_the_links():
    net, paint, manifest = ends()
    before, other = nn.Linear(3, 3), nn.Linear(3, 2)
    assert models_with_other_weights(manifest, lambda x: net(before(x)), paint) == []
    assert models_with_other_weights(manifest, lambda x: other(before(x)), paint) == ["network"]


def test_the_warning_names_the_model_and_the_remedy():
    net, paint, manifest = ends()
    assert other_weights(manifest, net, paint) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_other_models(manifest, net, paint)
    with pytest.warns(
        UserWarning, match=r"the generator given has other weights .* give the generator of the link, or"
    ):
        warn_of_other_models(manifest, net, nn.Linear(2, 3))
    with pytest.warns(UserWarning, match="the network and generator given have other weights"):
        warn_of_other_models(manifest, nn.Linear(3, 2), nn.Linear(2, 3))
