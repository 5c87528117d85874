"""What compare() says when something is wrong, and what it leaves behind."""

import warnings

import numpy as np
import pytest
import torch
from comparison.fast_compare import PHOTOS, defaults, quick, twice

from xinc_captum.comparison import random_map


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_errors_are_rows_and_the_model_state_is_restored(conv, found, fault):
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


def test_invalid_maps_are_excluded_with_a_warning(conv):
    maps = torch.rand(2, 8, 8)
    nan, half = maps * torch.nan, maps.clone()
    half[1] = 0.5
    methods = {
        "good": lambda x, t: maps,
        "half": lambda x, t: half,
        "zero": lambda x, t: 0 * maps,
        "nan": lambda x, t: nan,
    }
    with pytest.warns(UserWarning, match="no ranking of pixels") as caught:
        good, one, zero, broken = quick(
            methods, conv, PHOTOS, 1, reference="good", segmentation=torch.ones(2, 8, 8)
        ).table
    texts = [str(w.message) for w in caught]
    assert any(
        t.startswith("half returned a map that is constant for image 1 of 2: such a map gives no ranking of pixels")
        for t in texts
    )
    assert any(t.startswith("zero returned a map that is constant for image 0, 1 of 2") for t in texts)
    assert any(t.startswith("nan returned a map that is not finite for image 0, 1 of 2") for t in texts)
    assert (good.left_out, one.left_out, zero.left_out, broken.left_out) == (0, 1, 2, 2)
    assert (one.fault, broken.fault) == ("constant", "not finite")
    assert one.scores["agreement"].value == pytest.approx(1.0) and one.scores["energy"].value == pytest.approx(1.0)
    for row in (zero, broken):
        assert np.isnan([interval.value for interval in row.scores.values()]).all() and len(row.scores) == 4


def test_a_constant_reference_does_not_affect_other_scores(conv):
    methods = {"flat": lambda x, t: torch.zeros(2, 8, 8), "good": lambda x, t: torch.rand(2, 8, 8)}
    with pytest.warns(UserWarning, match="flat returned a map that is constant"):
        _, good = quick(methods, conv, PHOTOS, 1, reference="flat").table
    assert np.isnan(good.scores["agreement"].value) and good.scores["deletion"].value > 0 and good.left_out == 0


def test_a_failing_measure_does_not_affect_the_others(conv):
    fixed, calls = torch.rand(2, 8, 8), []

    def twice_then_never(images, target):
        calls.append(1)
        return fixed if len(calls) < 3 else fixed[:1]

    with pytest.warns(UserWarning, match="sensitivity of fixed could not be measured: ValueError: .*returned shape"):
        (row,) = quick({"fixed": twice_then_never}, conv, PHOTOS, 1, metrics=["sensitivity", "sparseness"]).table
    assert np.isnan(row.scores["sensitivity"].value) and row.scores["sparseness"].value > 0 and not row.error


def test_valid_maps_cause_no_warning(conv):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(defaults(conv), conv, PHOTOS, 1)


def test_training_mode_causes_a_warning(conv):
    with pytest.warns(UserWarning, match=r"in training mode.*call model.eval\(\)"):
        quick({"random": random_map()}, conv.train(), PHOTOS, 1)


def test_wrong_arguments_are_rejected_before_any_run(conv):
    def never(images, target):
        pytest.fail("checked too late")

    one = {"Grad-CAM": never}
    wrong = [
        (ValueError, r"methods is empty; expected at least one: 'Grad-CAM'", {}, PHOTOS, {}),
        (
            TypeError,
            r"method 'x' is a int; expected a function \(images, target\)",
            {"x": 3},
            PHOTOS,
            {"reference": None},
        ),
        (
            ValueError,
            r"reference 'y' is not among the methods 'x'; expected one",
            {"x": never},
            PHOTOS,
            {"reference": "y"},
        ),
        (ValueError, r"inputs are torch.float32 of shape \(3, 8, 8\); expected photos", one, PHOTOS[0], {}),
        (ValueError, r"inputs are torch.uint8 of shape", one, PHOTOS.byte(), {}),
        (
            ValueError,
            r"inputs have values from -.* expected photos in \[0, 1\]. Pass their normalisation",
            one,
            twice(PHOTOS),
            {},
        ),
        (ValueError, r"inputs have values from nan to nan", one, PHOTOS * torch.nan, {}),
        (
            ValueError,
            r"segmentation has shape \(8, 8\); expected one mask per photo, \(2, 8, 8\)",
            one,
            PHOTOS,
            {"segmentation": torch.ones(8, 8)},
        ),
        (ValueError, r"masks go from 255 to 255", one, PHOTOS, {"segmentation": torch.full((2, 8, 8), 255)}),
        (ValueError, r"rounds or steps is 0; expected at least 1 of each", one, PHOTOS, {"rounds": 0}),
        (ValueError, r"rounds or steps is 0", one, PHOTOS, {"steps": 0}),
        (TypeError, r"rounds, steps and seed are 1, 2.5 and 0; expected whole", one, PHOTOS, {"steps": 2.5}),
        (TypeError, r"rounds, steps and seed are 1, 4 and None; expected whole", one, PHOTOS, {"seed": None}),
        (TypeError, r"inputs are a ndarray; expected a tensor of photos", one, PHOTOS.numpy(), {}),
        (ValueError, r"for 2 images; expected a class number", one, PHOTOS, {"target": [0, 1, 2]}),
        (IndexError, r"target 7 is not a class of a model with 3 classes", one, PHOTOS, {"target": 7}),
    ]
    for error, text, methods, inputs, options in wrong:
        target = options.pop("target", 1)
        with pytest.raises(error, match=text):
            quick(methods, conv, inputs, target, **options)


def test_a_map_of_wrong_shape_is_an_error_of_its_method(conv):
    with pytest.warns(UserWarning, match=r"units failed .*returned shape \(2, 4, 8, 8\) for inputs"):
        result = quick({"units": lambda x, t: torch.rand(2, 4, 8, 8)}, conv, PHOTOS, 1)
    assert result.maps == {} and "returned shape" in result.table[0].error
