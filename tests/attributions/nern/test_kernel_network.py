import copy
import math
from fractions import Fraction

import pytest
import torch
from rounding import assert_equal_but_for_rounding
from safetensors import safe_open
from torch import nn

from xinc_captum import LayerError, WeightContribution
from xinc_captum.attributions.nern import (
    KernelPredictor,
    NeRN,
    SmoothEmbedding,
    feature_loss,
    logit_loss,
    reconstruction_loss,
)
from xinc_captum.attributions.nern.losses import Distillation
from xinc_captum.hooks import capture

from .conftest import our_name


def test_activations_equal_the_recorded_ones(arrays, recorded_nern):
    predictor = recorded_nern.predictor
    assert sum(p.numel() for p in predictor.parameters()) == int(arrays["predictor/num_params"])
    names = [f"linear{i}" for i in (1, 2, 3, 4)] + ["output"]
    with capture(predictor, names) as captured:
        answer = predictor(arrays["predictor/input"])
    for i, name in enumerate(names):
        found = captured[predictor.get_submodule(name)].detach()
        torch.testing.assert_close(found, arrays[f"predictor/preact{i}"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(answer.detach(), arrays["predictor/output"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("inputs", "hidden", "count"), [(240, 160, 117_289), (240, 1256, 5_050_385)])
def test_sizes_of_the_paper(inputs, hidden, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in KernelPredictor(inputs, hidden).parameters()) == count


def test_seed_determines_weights_and_keeps_the_global_state():
    before = torch.get_rng_state()
    a, b, c = (KernelPredictor(6, 5, seed=s).output.weight for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kwargs", [{"blocks": 1}, {"hidden": 0}, {"kernel_size": 0}])
def test_invalid_sizes_are_refused(kwargs):
    name, value = next(iter(kwargs.items()))
    with pytest.raises(ValueError, match=rf"{name} {value}.*; expected at least 2 blocks"):
        KernelPredictor(6, **kwargs)


@pytest.mark.parametrize("name", ["smooth", "default", "this"])
@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_embedding_equals_the_recorded_one(arrays, name, fusion):
    base, levels = arrays[f"pe/{name}_{fusion}/base_levels"].tolist()
    embed = SmoothEmbedding(base, int(levels), fusion)
    for kind in ("unit", "int"):
        if f"pe/{name}_{fusion}/{kind}" in arrays:
            expected = arrays[f"pe/{name}_{fusion}/{kind}"]
            found = embed(arrays[f"pe/coords_{kind}"])
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
            assert found.shape[1] == embed.out_features


@pytest.mark.parametrize(("base", "levels"), [(1.25, 80), (0.95, 80), (0.85, 20), (3.7, 30)])
def test_every_frequency_is_the_float_nearest_to_the_power(base, levels):
    """On every processor: a frequency of 1e7 that is one unit in the last place off turns an angle about."""
    exact = Fraction(float(torch.tensor(base)))
    expected = torch.tensor([float(exact**level) for level in range(levels)], dtype=torch.float64).float()
    assert torch.equal(SmoothEmbedding(base, levels).frequencies, expected)


def test_embedding_equals_hand_computed_values():
    found = SmoothEmbedding(0.5, 2)(torch.tensor([[0.0, 1.0, 1.0]]))[0]
    level0, level1 = [math.sin(math.pi), math.cos(math.pi)], [1.0, 0.0]
    expected = torch.tensor([0.0, 1.0, 0.0, 1.0, *level0, *level1, *level0, *level1])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"base": 0.0}, "base is 0.0 and levels is 20; expected base > 0"),
        ({"levels": 0}, "levels is 0; expected base > 0 and at least 1 level"),
        ({"fusion": "mean"}, "fusion is 'mean'; expected 'concat' or 'sum'"),
    ],
)
def test_invalid_embeddings_are_refused(kwargs, text):
    with pytest.raises(ValueError, match=text):
        SmoothEmbedding(**kwargs)


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


def test_seed_of_a_nern_determines_weights_and_keeps_the_global_state(mixed):
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


@pytest.mark.parametrize("permutation", ["cross-filter", "in-filter", "none"])
def test_round_trip_into_other_weights(mixed, make_mixed, permutation, tmp_path):
    nern = NeRN(mixed, ["wide", "stem", "depthwise"], hidden=7, levels=5, permutation=permutation, crop="average")
    nern.fit(torch.rand(9, 2, 6, 6), steps=2, show_progress=False)
    assert nern.save(tmp_path / "a.safetensors") == tmp_path / "a.safetensors"
    other = make_mixed().eval()
    before = copy.deepcopy(other.state_dict())
    again = NeRN.load(tmp_path / "a.safetensors", other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert again.config == nern.config and again.layers == nern.layers
    x = torch.rand(3, 2, 6, 6)
    assert torch.equal(again.rebuild().eval()(x), nern.rebuild()(x)), "biases, statistics and classifier are the file's"
    nern.save(tmp_path / "b.safetensors")
    again.save(tmp_path / "c.safetensors")
    contents = {(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"}
    assert len(contents) == 1, "equal NeRNs are equal bytes"
    assert len(list(tmp_path.iterdir())) == 3


def test_half_and_double_precision(mixed, tmp_path):
    nern = NeRN(mixed.double(), hidden=7)
    nern.save(tmp_path / "half.safetensors", dtype=torch.float16)
    again = NeRN.load(tmp_path / "half.safetensors", mixed)
    assert next(again.predictor.parameters()).dtype == torch.float64
    torch.testing.assert_close(again.weights()["stem"], nern.weights()["stem"], atol=2e-3, rtol=0)


def test_shared_weights_are_stored_once(tmp_path):
    conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    nern = NeRN(model, hidden=4)
    nern.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("kept.")]  # noqa: SIM118
    x = torch.rand(1, 2, 5, 5)
    assert torch.equal(NeRN.load(tmp_path / "a.safetensors", model).rebuild()(x), nern.rebuild()(x))


def test_targets_of_another_architecture_are_refused(mixed, make_mixed, tmp_path):
    NeRN(mixed, hidden=4).save(tmp_path / "a.safetensors")
    other = make_mixed()
    other.point = nn.Conv2d(6, 7, 1)
    with pytest.raises(
        ValueError, match=r"another network than this Mixed: it has point.weight \(7, 6, 1, 1\) instead of"
    ):
        NeRN.load(tmp_path / "a.safetensors", other)
    with pytest.raises(ValueError, match=r"it has stem.weight missing instead of \(4, 2, 5, 5\); .*and \d+ more"):
        NeRN.load(tmp_path / "a.safetensors", nn.Linear(1, 1))
    more = make_mixed()
    more.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match=r"extra.weight \(2, 2\) that is not in the file"):
        NeRN.load(tmp_path / "a.safetensors", more)


def test_target_can_be_a_single_convolution(tmp_path):
    conv = nn.Conv2d(2, 3, 3)
    nern = NeRN(conv, hidden=4)
    nern.fit(torch.rand(6, 2, 5, 5), steps=1, show_progress=False)
    nern.save(tmp_path / "a.safetensors")
    again = NeRN.load(tmp_path / "a.safetensors", nn.Conv2d(2, 3, 3))
    x = torch.rand(1, 2, 5, 5)
    assert torch.equal(again.rebuild()(x), nern.rebuild()(x))
    found = WeightContribution(again, "", mode="gradient").attribute(x, target=(1, 2, 2))
    assert found.shape == (1, 5, 1) and found.abs().sum() > 0
