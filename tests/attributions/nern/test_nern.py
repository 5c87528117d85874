import copy

import pytest
import torch
from rounding import assert_equal_but_for_rounding
from torch import nn

from xinc_captum import LayerError
from xinc_captum.attributions.nern import NeRN, feature_loss, logit_loss, reconstruction_loss
from xinc_captum.attributions.nern.losses import Distillation

from .conftest import our_name


def test_generated_weights_losses_and_one_steps_gradients_as_recorded(arrays, recorded, recorded_nern):
    weights = recorded_nern.weights()
    for i in range(4):
        expected = arrays[f"step/rec_weights/layer{i}"]
        torch.testing.assert_close(weights[f"conv{i + 1}"].detach(), expected, atol=1e-6, rtol=0)
    model = Distillation(recorded, recorded, recorded_nern.layers)
    own = recorded_nern.target_weights()
    recon = reconstruction_loss([weights[name] for name in own], list(own.values()))
    features, logits = model.losses(weights, arrays["step/images"])
    with torch.no_grad():
        for network, name in ((recorded, "orig"), (recorded_nern.rebuild(), "rec")):
            answer = network(arrays["step/images"])
            torch.testing.assert_close(answer, arrays[f"step/logits_{name}"], atol=1e-6, rtol=1e-5)
    a, b, g = arrays["step/loss_weights_rec_fmd_kd"].tolist()
    total = a * recon + b * features + g * logits
    for found, name in ((recon, "recon"), (features, "fmd"), (logits, "kd"), (total, "total")):
        torch.testing.assert_close(found.detach(), arrays[f"step/loss_{name}"], atol=0, rtol=1e-5)
    names = dict(recorded_nern.predictor.named_parameters())
    gradients = dict(zip(names, torch.autograd.grad(total, list(names.values())), strict=True))
    for key in (k for k in arrays if k.startswith("step/grad/")):
        found = gradients[our_name(key.removeprefix("step/grad/"))]
        assert (found - arrays[key]).norm() <= 1e-3 * arrays[key].norm()
        torch.testing.assert_close(found, arrays[key], atol=1e-3 * arrays[key].abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("permutation", ["cross-filter", "in-filter", "none"])
def test_embeddings_as_recorded_under_every_permutation(arrays, recorded, permutation):
    nern = NeRN(recorded, base=0.76, levels=10, hidden=32, permutation=permutation)
    name = {"cross-filter": "crossfilter", "in-filter": "infilter", "none": "local"}[permutation]
    for i in (0, 1, 3) if permutation != "none" else range(4):  # conv3: kernels of one number, many tie
        found = nern.embedded(f"conv{i + 1}")
        torch.testing.assert_close(found, arrays[f"embed/{name}/layer{i}"], atol=1e-6, rtol=0)


def test_any_kernel_size_is_represented(mixed):
    nern = NeRN(mixed, hidden=6)
    own = mixed.state_dict()
    assert {name: w.shape for name, w in nern.weights().items()} == {
        name: own[f"{name}.weight"].shape for name in ("stem", "wide", "depthwise", "point")
    }
    centre = nern.predicted("point")[:, 2, 2].view(5, 6, 1, 1)
    assert torch.equal(nern.weights()["point"], centre)


@pytest.mark.parametrize("how", ["center", "average", "max"])
def test_rebuilt_network_is_plain_and_independent(mixed, how, found):
    nern = NeRN(mixed, hidden=6, crop=how)
    before = found(mixed)
    model = nern.rebuild()
    assert before.differences(mixed) == []
    assert type(model) is type(mixed) and not any(p is q for p in model.parameters() for q in mixed.parameters())
    for name, weight in nern.weights().items():
        assert torch.equal(model.get_parameter(f"{name}.weight"), weight)
    assert torch.equal(model.fc.weight, mixed.fc.weight)
    kept = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        nern.predictor.output.bias.add_(1)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())


def test_dtype_device_and_modes_follow_the_target(mixed):
    double = NeRN(copy.deepcopy(mixed).double(), hidden=6)
    assert double.weights()["stem"].dtype == torch.float64
    with torch.inference_mode():
        inside = NeRN(mixed, hidden=6)
    assert not any(p.is_inference() for p in inside.parameters())
    torch.testing.assert_close(double.weights()["stem"].float(), inside.weights()["stem"], atol=1e-6, rtol=1e-5)


def test_seed_determines_weights_and_keeps_the_global_state(mixed):
    before = torch.get_rng_state()
    a, b, c = (NeRN(mixed, hidden=4, seed=s).weights()["stem"] for s in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_relative_error_equals_a_hand_computed_one(mixed):
    nern = NeRN(mixed, ["point"], hidden=4)
    w, own = nern.weights()["point"], mixed.point.weight
    assert nern.relative_error() == pytest.approx(((w - own).norm() / own.norm()).item(), rel=1e-5)


def test_layers_by_name_by_module_and_by_default(mixed):
    nern = NeRN(mixed, ["point", "wide"])
    assert nern.layer(mixed.wide) == nern.layer("wide") == nern.layers[1]
    with pytest.raises(
        LayerError, match="layer 'stem' is a Conv2d that this NeRN does not represent; expected one of 'po"
    ):
        nern.layer("stem")


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"crop": "mean"}, "crop is 'mean'"),
        ({"permutation": "both"}, "permutation is 'both'"),
        ({"coordinates": "unit"}, "scale is 'unit'"),
        ({"hidden": 0}, "hidden 0"),
        ({"base": -1.0}, "base is -1.0"),
    ],
)
def test_invalid_settings_are_refused(mixed, kwargs, text):
    with pytest.raises(ValueError, match=text):
        NeRN(mixed, **kwargs)


def test_i3_permuted_filters_only_permute_coordinates(mixed):
    """Which kernel gets which coordinate is a property of the kernels: reorder them and each keeps its neighbours."""
    conv = nn.Conv2d(3, 5, 3)
    order = torch.tensor([0, 3, 1, 4, 2])  # the path starts at kernel 0, so it stays
    other = copy.deepcopy(conv)
    with torch.no_grad():
        other.weight.copy_(conv.weight[order])
    first, second = (NeRN(nn.Sequential(c), hidden=5, permutation="cross-filter") for c in (conv, other))
    a, b = (n.coordinates("0").view(5, 3, 3) for n in (first, second))
    assert torch.equal(a[order], b)
    found, expected = (w.detach() for w in (second.weights()["0"], first.weights()["0"][order]))
    assert_equal_but_for_rounding(
        found, expected, terms=300
    )  # other rows of one product; 240 coordinates, four layers of 5


def test_losses_equal_those_of_forward_passes(mixed):
    nern, images = NeRN(mixed, hidden=6), torch.rand(4, 2, 6, 6)
    features, logits = Distillation(mixed, mixed, nern.layers, ["stem", "point"]).losses(nern.weights(), images)
    rebuilt, maps = nern.rebuild(), {}
    for key, model in (("own", mixed), ("rebuilt", rebuilt)):
        for layer in ("stem", "point"):
            model.get_submodule(layer).register_forward_hook(
                lambda _m, _i, out, k=(key, layer): maps.__setitem__(k, out.detach().clone())
            )
    own, found = mixed(images), rebuilt(images)
    torch.testing.assert_close(logits, logit_loss(found, own))
    expected = feature_loss(*([maps[k, name] for name in ("stem", "point")] for k in ("rebuilt", "own")))
    torch.testing.assert_close(features, expected)


def test_targets_must_return_logits(mixed):
    nern = NeRN(lambda x: {"logits": mixed(x)}, ["stem"], hidden=4)
    with pytest.raises(LayerError, match="the target returns dict; expected logits"):
        nern.fit(torch.rand(4, 2, 6, 6), steps=1, show_progress=False)
    picked = NeRN(lambda x: {"logits": mixed(x)}["logits"], ["stem"], hidden=4)
    assert picked.fit(torch.rand(4, 2, 6, 6), steps=1, show_progress=False).steps == 1
