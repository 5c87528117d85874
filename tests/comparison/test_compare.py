import random
import warnings

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, NoiseTunnel, Saliency
from torch import nn

from xinc_captum.comparison import (
    ALL,
    Column,
    as_maps,
    compare,
    grad_cam,
    guided_grad_cam,
    integrated_gradients,
    random_map,
)
from xinc_captum.metrics import deletion_insertion, energy_in_mask, target_score

PHOTOS = torch.rand(2, 3, 8, 8)
MEASURES = ("deletion", "insertion", "agreement", "energy")


def twice(images):
    return 2 * images - 1


def defaults(model, preprocess=None):
    return {
        "Grad-CAM": grad_cam(model, "conv", preprocess),
        "guided": guided_grad_cam(model, "conv", preprocess),
        "IG": integrated_gradients(model, preprocess, steps=4),
        "random": random_map(1),
    }


def quick(*args, **kwargs):
    return compare(*args, **{"rounds": 1, "steps": 4, "baselines": (), "metrics": MEASURES, **kwargs})


def test_what_comes_out(conv):
    masks = torch.rand(2, 8, 8) > 0.5
    result = quick(defaults(conv, twice), conv, PHOTOS, [0, 2], preprocess=twice, segmentation=masks)
    assert list(result.maps) == [row.method for row in result.table] == ["Grad-CAM", "guided", "IG", "random"]
    assert all(m.shape == (2, 8, 8) and m.dtype == torch.float32 and not m.is_cuda for m in result.maps.values())
    torch.testing.assert_close(result.confidence, target_score(lambda p: conv(twice(p)), PHOTOS, [0, 2]))
    grey = PHOTOS.mean((2, 3), keepdim=True)
    for row in result.table:
        curves = deletion_insertion(
            lambda p: conv(twice(p)), PHOTOS, result.maps[row.method], [0, 2], baseline=grey, steps=4
        )
        assert row.scores["deletion"].value == pytest.approx(curves.deletion.mean().item(), abs=1e-6)
        assert row.scores["insertion"].value == pytest.approx(curves.insertion.mean().item(), abs=1e-6)
        assert row.scores["energy"].value == pytest.approx(
            energy_in_mask(result.maps[row.method], masks).mean().item(), abs=1e-6
        )
        assert row.seconds > 0 and row.cpu_seconds >= 0
    agreement = [row.scores["agreement"].value for row in result.table]
    assert agreement[0] == pytest.approx(1.0) and abs(agreement[3]) < 0.9


def test_a_perfect_map_beats_a_wrong_one():
    """Class 1 is the light on the left half: who points there wins on every count."""

    class Left(nn.Module):
        def forward(self, x):
            light = x[..., :4].mean((1, 2, 3))
            return torch.stack([0 * light, 8 * light - 4], 1)

    left = torch.zeros(2, 8, 8)
    left[..., :4] = 1
    methods = {"left": lambda x, t: left + 0.1 * torch.rand(2, 8, 8), "right": lambda x, t: 1 - left}
    photos = torch.zeros(2, 3, 8, 8)
    photos[..., :4] = 1
    table = quick(
        methods, Left(), photos, 1, segmentation=left, metrics=[name for name in ALL if name != "sensitivity"], steps=16
    ).table
    good, bad = ({name: found.value for name, found in row.scores.items()} for row in table)
    assert good["deletion"] < bad["deletion"] and good["insertion"] > bad["insertion"]
    assert good["road"] > 0 > bad["road"] and good["infidelity"] < bad["infidelity"]
    assert good["energy"] > 0.85 and bad["energy"] == 0
    assert (good["pointing"], bad["pointing"]) == (1, 0) and good["overlap"] == 1


def test_captum_objects_get_what_their_forward_takes(conv):
    methods = {
        "Grad-CAM": grad_cam(conv, "conv", twice),
        "of the model": LayerGradCam(conv, conv.conv),
        "of a function": LayerGradCam(lambda p: conv(twice(p)), conv.conv),
        "Saliency": Saliency(conv),
    }
    maps = quick(methods, conv, PHOTOS, 1, preprocess=twice).maps
    torch.testing.assert_close(maps["of the model"], maps["Grad-CAM"])
    torch.testing.assert_close(maps["of a function"], maps["Grad-CAM"])
    torch.testing.assert_close(maps["Saliency"], Saliency(conv).attribute(twice(PHOTOS), 1).sum(1))


def test_preprocessing_may_resize(conv):
    def larger(images):
        return nn.functional.interpolate(images, (12, 12), mode="bilinear")

    methods = {**defaults(conv, larger), "of the model": Saliency(conv)}
    assert {m.shape for m in quick(methods, conv, PHOTOS, 1, preprocess=larger).maps.values()} == {(2, 8, 8)}


def test_rows_do_not_see_each_other(conv):
    whole = quick(defaults(conv), conv, PHOTOS, [0, 2])
    alone = quick(defaults(conv), conv, PHOTOS[:1], 0)
    for name, maps in alone.maps.items():
        torch.testing.assert_close(maps, whole.maps[name][:1])
        torch.testing.assert_close(alone.scores[name]["insertion"], whole.scores[name]["insertion"][:1])


def test_chance_depends_on_the_seed_alone(conv):
    def draws(images, target):
        return torch.rand(2, 8, 8) + float(np.random.rand()) + random.random()

    methods = {"a": draws, "tunnel": NoiseTunnel(Saliency(conv)), "b": draws}
    first = quick(methods, conv, PHOTOS, 1)
    torch.rand(5), np.random.rand(3), random.random()
    again = quick(dict(reversed(methods.items())), conv, PHOTOS, 1, reference="a", rounds=2)
    for name in methods:
        assert torch.equal(first.maps[name], again.maps[name])
    assert torch.equal(first.maps["a"], first.maps["b"])
    assert not torch.equal(first.maps["a"], quick(methods, conv, PHOTOS, 1, seed=1).maps["a"])


def test_methods_take_turns_and_cannot_disturb_each_other(conv):
    calls, seen = [], []

    def spoils(images, target):
        calls.append("spoils")
        conv.train()
        images.zero_()
        torch.set_grad_enabled(False)
        return torch.rand(2, 8, 8)

    def looks(images, target):
        calls.append("looks")
        seen.append((conv.training, torch.is_grad_enabled(), torch.equal(images, PHOTOS)))
        return images.sum(1)

    photos = PHOTOS.clone()
    quick({"spoils": spoils, "looks": looks}, conv, photos, 1, rounds=3)
    assert calls == ["spoils", "looks"] * 4, "one counted, three timed"
    assert seen == [(False, True, True)] * 4
    assert torch.equal(photos, PHOTOS)


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_is_a_row_an_interrupt_ends_it_and_the_model_is_left_as_found(conv, found, fault):
    def explodes(images, target):
        conv.train()
        conv(images).sum().backward()
        conv.conv.weight.requires_grad_(False)
        torch.manual_seed(9)
        raise fault("mid-way")

    conv.fc.weight.grad = torch.ones_like(conv.fc.weight)
    before = found(conv)
    if fault is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt, match="mid-way"):
            quick({**defaults(conv), "explodes": explodes}, conv, PHOTOS, 1)
    else:
        with pytest.warns(UserWarning, match="explodes failed and has no map: RuntimeError: mid-way"):
            result = quick({**defaults(conv), "explodes": explodes}, conv, PHOTOS, 1)
        assert result.table[-1].error == "RuntimeError: mid-way" and result.table[-1].scores == {}
        assert list(result.maps) == list(defaults(conv)) and "failed: RuntimeError: mid-way" in result.to_markdown()
    assert before.differences(conv) == []


def test_what_was_done_is_counted(conv):
    rows = {row.method: row.counts for row in quick(defaults(conv), conv, PHOTOS, 1).table}
    assert (rows["Grad-CAM"].forwards, rows["Grad-CAM"].backwards) == (1, 1)
    assert (rows["IG"].forwards, rows["IG"].backwards, rows["IG"].rows) == (1, 1, 8)
    assert (rows["random"].forwards, rows["random"].backwards) == (0, 0)
    assert rows["IG"].peak_bytes > rows["Grad-CAM"].peak_bytes > rows["random"].peak_bytes > 0


def test_methods_by_name_with_baselines_beside_them(conv):
    result = compare(["Grad-CAM", Saliency(conv), "Grad-CAM"], conv, PHOTOS, 1, layer="conv", rounds=1, steps=2)
    names = ["Grad-CAM", "Saliency", "Grad-CAM 2", "random map", "centre blob", "edge map"]
    assert list(result.maps) == names == [row.method for row in result.table]
    assert result.reference == "Grad-CAM"
    assert torch.equal(result.maps["Grad-CAM"], result.maps["Grad-CAM 2"])
    found = compare(["Grad-CAM"], conv, PHOTOS, 1, rounds=1, steps=2, baselines=()).maps["Grad-CAM"]
    last = as_maps(grad_cam(conv, "relu")(PHOTOS, 1), PHOTOS, (8, 8))  # the pool's map is smaller; it comes after
    assert found.shape == last.shape


def test_functions_may_want_the_model(conv):
    def gradient(model, x, y):
        x = x.requires_grad_()
        return torch.autograd.grad(model(x)[:, y].sum(), x)[0]

    result = quick(
        {"theirs": gradient, "Captum": Saliency(lambda x: conv(twice(x)))}, conv, PHOTOS, 1, preprocess=twice
    )
    torch.testing.assert_close(result.maps["theirs"], result.maps["Captum"])


def test_measures_of_ones_own(conv):
    bright = Column("bright", "brightness under it", "", lambda case: (case.maps * case.photos.mean(1)).mean((1, 2)))
    result = quick(defaults(conv), conv, PHOTOS, 1, metrics=["sparseness", bright])
    assert list(result.table[0].scores) == ["sparseness", "bright"]
    assert "| brightness under it |" in result.to_markdown()


def test_a_method_that_jumps_is_sensitive(conv):
    methods = {"steady": lambda x, t: torch.arange(64.0).view(1, 8, 8).expand(len(x), -1, -1),
               "jumps": lambda x, t: ((1e4 * x) % 1).sum(1)}  # fmt: skip
    steady, jumps = quick(methods, conv, PHOTOS, [0, 2], metrics=["sensitivity"]).table
    assert steady.scores["sensitivity"].value == 0 and jumps.scores["sensitivity"].value > 0.1


def test_the_model_is_left_as_found(conv, found):
    handle = conv.relu.register_forward_hook(lambda *_: None)
    conv.fc.weight.grad = torch.ones_like(conv.fc.weight)
    conv.norm.weight.requires_grad_(False)
    before = found(conv)
    quick({**defaults(conv), "tunnel": NoiseTunnel(Saliency(conv))}, conv, PHOTOS, 1)
    assert before.differences(conv) == []
    handle.remove()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_any_surroundings_and_frozen_models(conv, mode):
    expected = quick(defaults(conv), conv, PHOTOS, 1)
    conv.requires_grad_(False)
    with mode():
        got = quick(defaults(conv), conv, PHOTOS.clone(), 1)
    for name, maps in expected.maps.items():
        torch.testing.assert_close(got.maps[name], maps)


def test_maps_that_say_nothing_are_said_and_left_out(conv):
    maps = torch.rand(2, 8, 8)
    nan, half = maps * torch.nan, maps.clone()
    half[1] = 0.5
    methods = {
        "good": lambda x, t: maps,
        "half": lambda x, t: half,
        "zero": lambda x, t: 0 * maps,
        "nan": lambda x, t: nan,
    }
    with pytest.warns(UserWarning, match="ranks no pixels") as caught:
        good, one, zero, broken = quick(
            methods, conv, PHOTOS, 1, reference="good", segmentation=torch.ones(2, 8, 8)
        ).table
    texts = [str(w.message) for w in caught]
    assert any(t.startswith("half answered a map that is constant for image 1 of 2: it ranks no pixels") for t in texts)
    assert any(t.startswith("zero answered a map that is constant for image 0, 1 of 2") for t in texts)
    assert any(t.startswith("nan answered a map that is not finite for image 0, 1 of 2") for t in texts)
    assert (good.left_out, one.left_out, zero.left_out, broken.left_out) == (0, 1, 2, 2)
    assert (one.fault, broken.fault) == ("constant", "not finite")
    assert one.scores["agreement"].value == pytest.approx(1.0) and one.scores["energy"].value == pytest.approx(1.0)
    for row in (zero, broken):
        assert np.isnan([found.value for found in row.scores.values()]).all() and len(row.scores) == 4


def test_a_constant_reference_leaves_the_others_their_scores(conv):
    methods = {"flat": lambda x, t: torch.zeros(2, 8, 8), "good": lambda x, t: torch.rand(2, 8, 8)}
    with pytest.warns(UserWarning, match="flat answered a map that is constant"):
        _, good = quick(methods, conv, PHOTOS, 1, reference="flat").table
    assert np.isnan(good.scores["agreement"].value) and good.scores["deletion"].value > 0 and good.left_out == 0


def test_a_measure_that_fails_is_said_and_leaves_the_others(conv):
    fixed = torch.rand(2, 8, 8)
    with pytest.warns(UserWarning, match="sensitivity of fixed could not be measured: ValueError: .*answered shape"):
        (row,) = quick({"fixed": lambda x, t: fixed}, conv, PHOTOS, 1, metrics=["sensitivity", "sparseness"]).table
    assert np.isnan(row.scores["sensitivity"].value) and row.scores["sparseness"].value > 0 and not row.error


def test_good_maps_are_silent(conv):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(defaults(conv), conv, PHOTOS, 1)


def test_training_mode_is_said(conv):
    with pytest.warns(UserWarning, match=r"in training mode.*call model.eval\(\)"):
        quick({"random": random_map()}, conv.train(), PHOTOS, 1)


@pytest.mark.cuda
def test_on_a_gpu(conv):
    here = quick(defaults(conv), conv, PHOTOS, 1)
    there = quick(defaults(conv.cuda()), conv, PHOTOS.cuda(), 1, segmentation=torch.ones(2, 8, 8))
    for name, maps in there.maps.items():
        assert not maps.is_cuda
        torch.testing.assert_close(maps, here.maps[name], atol=1e-3, rtol=1e-2)


def test_what_does_not_fit_is_said_before_anything_runs(conv):
    def never(images, target):
        pytest.fail("checked too late")

    one = {"Grad-CAM": never}
    wrong = [
        (ValueError, r"methods is empty; give at least one: 'Grad-CAM'", {}, PHOTOS, {}),
        (
            TypeError,
            r"method 'x' is a int; wanted a function \(images, target\)",
            {"x": 3},
            PHOTOS,
            {"reference": None},
        ),
        (ValueError, r"reference 'y' is not among the methods 'x'; give one", {"x": never}, PHOTOS, {"reference": "y"}),
        (ValueError, r"inputs are torch.float32 of shape \(3, 8, 8\); wanted photos", one, PHOTOS[0], {}),
        (ValueError, r"inputs are torch.uint8 of shape", one, PHOTOS.byte(), {}),
        (ValueError, r"inputs go from -.* wanted photos in \[0, 1\]. Give what normalises", one, twice(PHOTOS), {}),
        (ValueError, r"inputs go from nan to nan", one, PHOTOS * torch.nan, {}),
        (
            ValueError,
            r"segmentation has shape \(8, 8\); wanted one mask for each photo, \(2, 8, 8\)",
            one,
            PHOTOS,
            {"segmentation": torch.ones(8, 8)},
        ),
        (ValueError, r"masks go from 255 to 255", one, PHOTOS, {"segmentation": torch.full((2, 8, 8), 255)}),
        (ValueError, r"rounds or steps is 0; wanted at least 1 of each", one, PHOTOS, {"rounds": 0}),
        (ValueError, r"rounds or steps is 0", one, PHOTOS, {"steps": 0}),
        (ValueError, r"for 2 images; wanted a class number", one, PHOTOS, {"target": [0, 1, 2]}),
        (IndexError, r"target 7 is no class of a model with 3 classes", one, PHOTOS, {"target": 7}),
    ]
    for error, text, methods, inputs, options in wrong:
        target = options.pop("target", 1)
        with pytest.raises(error, match=text):
            quick(methods, conv, inputs, target, **options)


def test_a_wrong_map_is_a_failure_of_its_method(conv):
    with pytest.warns(UserWarning, match=r"units failed .*answered shape \(2, 4, 8, 8\) for inputs"):
        result = quick({"units": lambda x, t: torch.rand(2, 4, 8, 8)}, conv, PHOTOS, 1)
    assert result.maps == {} and "answered shape" in result.table[0].error


def test_the_maps_are_those_of_the_method(conv):
    result = quick({"Grad-CAM": grad_cam(conv, "conv")}, conv, PHOTOS, 1)
    assert torch.equal(result.maps["Grad-CAM"], as_maps(grad_cam(conv, "conv")(PHOTOS, 1), PHOTOS, (8, 8)))
