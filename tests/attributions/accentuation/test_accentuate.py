"""Both classes: results, errors, and the restored state of models and process."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerError, NeuronFeatureAccentuation
from xinc_captum.attributions.accentuation import (
    Ball,
    Crops,
    FeatureDistance,
    Fourier,
    Phase,
    Pixel,
    Settings,
    feature_accentuation,
    optimization,
)
from xinc_captum.attributions.accentuation.activations import ModelInputs
from xinc_captum.attributions.accentuation.objectives import Feature
from xinc_captum.attributions.accentuation.optimization import Problem
from xinc_captum.batch import Batch

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def solve(net, *, seeds=X, **options):
    options = {"n_steps": 4, "lr": 0.05, "optimizer": torch.optim.Adam, "regularizer": None, **options}
    return FeatureAccentuation(net).accentuate(seeds, 1, shape=X.shape if seeds is None else None, **options)


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (X * 5 - 2, ValueError, r"images lie in \[-\d.*\]; expected \[0, 1\].*preprocess="),
        (X * torch.nan, ValueError, "images hold NaN or infinity"),
        (X[0], ValueError, r"images have shape \(3, 12, 12\): expected \(N, C, H, W\)"),
        (X[:0], ValueError, "no rows to explain"),
        ((X * 255).byte(), ValueError, "images are torch.uint8; expected floats"),
        ([X], TypeError, "inputs are a list; expected one tensor of images"),
        ((X, X), TypeError, "inputs are a tuple; expected one tensor"),
        (X[:, :1], ValueError, r"the model cannot process images of shape \(2, 1, 12, 12\): .*3 channels, but got 1"),
        (X.double(), ValueError, r"the model cannot process images of shape \(2, 3, 12, 12\): .*dtype"),
    ],
    ids=lambda v: str(v)[:20] if isinstance(v, str) else "",
)
def test_invalid_images_raise(conv, found, images, error, text):
    before = found(conv)
    with pytest.raises(error, match=text):
        FeatureAccentuation(conv).attribute(images, target=1)
    assert before.differences(conv) == []


def test_a_dead_unit_is_named(conv):
    with torch.no_grad():
        conv.norm.weight[2], conv.norm.bias[2] = 0, -1
    text = r"ReLU:2 does not respond: its gradient is zero everywhere in image 0, 1 \(a dead or saturated unit\)"
    with pytest.raises(ValueError, match=text):
        NeuronFeatureAccentuation(conv, "relu").attribute(X, 2)
    with pytest.raises(ValueError, match=r"in image 1 \("):
        NeuronFeatureAccentuation(conv, "relu").attribute(X, [1, 2], internal_batch_size=1)
    assert NeuronFeatureAccentuation(conv, "conv").attribute(X, 2, n_steps=1).sum() > 0, "as the text advises"


def test_layers_that_run_twice_or_never_raise(conv):
    conv.idle = nn.ReLU()
    twice = nn.Sequential(conv.conv, conv.relu, nn.Conv2d(4, 4, 1), conv.relu)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        NeuronFeatureAccentuation(conv, "idle").attribute(X, 0)
    with pytest.raises(LayerError, match="layer '1' runs more than once"):
        NeuronFeatureAccentuation(twice, "1").attribute(X, 0)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        FeatureAccentuation(conv).attribute(X, target=1, regularizer=FeatureDistance("idle"))


@pytest.mark.parametrize("selector", [None, True, "cat", 9, (9, 0, 0), [0, 1, 2], torch.ones(3)], ids=repr)
def test_invalid_units_raise(conv, found, selector):
    before = found(conv)
    with pytest.raises((ValueError, TypeError, IndexError), match="neuron_selector|direction|objective"):
        NeuronFeatureAccentuation(conv, "relu").attribute(X, selector)
    assert before.differences(conv) == []


def test_a_model_in_training_mode_warns_and_is_restored(conv, found):
    conv.train()
    before = found(conv)
    with pytest.warns(UserWarning, match="BatchNorm2d 'norm' is in training mode"):
        FeatureAccentuation(conv).accentuate(X, target=1, n_steps=2)
    assert before.differences(conv) == []


@pytest.mark.parametrize("where", ["conv", "relu", "fc"])
@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("pass_", [0, 3, 5])
def test_state_is_restored_when_the_model_fails(conv, found, where, fault, pass_):
    conv(X).sum().backward()
    conv.conv.weight.requires_grad_(False)
    passes = []

    def raising(*_):
        passes.append(1)
        if len(passes) > pass_:
            raise fault("mine")

    handle = conv.get_submodule(where).register_forward_hook(raising)
    before = found(conv)
    with pytest.raises((fault, ValueError), match="mine"):
        FeatureAccentuation(conv).attribute(X, target=1, n_steps=1)
    assert before.differences(conv) == []
    assert list(conv.get_submodule(where)._forward_hooks) == [handle.id]


@pytest.mark.parametrize("options", [{}, {"regularizer": Ball(0.1)}, {"contrast": 2}, {"dose": 0.01}], ids=str)
@pytest.mark.parametrize("size", [(6, 6), (65, 65), (9, 20)], ids=str)
def test_state_of_the_model_is_restored(conv, found, options, size):
    """User hooks, flags, .grad, buffers and random states; any size."""
    conv(torch.rand(2, 3, 8, 8)).sum().backward()
    conv.fc.weight.requires_grad_(False)
    called = []
    conv.relu.register_forward_hook(lambda *_: called.append(1))
    before = found(conv)
    x = torch.rand(2, 3, *size)
    untouched = x.clone()
    state = found(conv).rng
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = FeatureAccentuation(conv).accentuate(x, target=1, n_steps=2, **options)
        before.rng = state
        assert result.trust.verdict in ("holds", "weak", "fails")
    assert before.differences(conv) == []
    assert called and torch.equal(x, untouched) and not x.requires_grad
    assert not result.images.requires_grad and not result.masks.requires_grad


def test_state_of_second_models_is_restored(conv, found):
    other = copy.deepcopy(conv).train()
    other(X).sum().backward()
    before = found(other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = FeatureAccentuation(conv).accentuate(X, target=1, n_steps=2, contrast=other, transfer=other)
        assert result.trust.rows[0].transfer is not None
    assert before.differences(other) == []


@pytest.mark.parametrize("dose", [None, [0.5, -0.5]])
def test_ctrl_c_returns_the_result_so_far(smooth, found, dose):
    before = found(smooth)

    def interrupt(step, images, scores):
        if step == 3:
            raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"optimizer": torch.optim.Adam, "transforms": (), "regularizer": FeatureDistance(weight=0.01)}
        result = FeatureAccentuation(smooth).accentuate(
            X, target=1, dose=dose, on_step=interrupt, n_steps=9, lr=0.05, **options
        )
    assert result.interrupted and result.steps == 3 and result.scores.shape == result.distances.shape == (3, 2)
    way = torch.tensor([1.0, 1.0 if dose is None else -1.0])
    assert ((result.after - result.before) * way > 0).all()
    assert before.differences(smooth) == []


def test_ctrl_c_before_the_first_step_is_raised(smooth, found):
    before = found(smooth)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureAccentuation(smooth).attribute(X, target=1, on_step=interrupt)
    assert before.differences(smooth) == []


def test_ctrl_c_while_a_later_chunk_is_set_up_keeps_the_first(smooth, found):
    before = found(smooth)
    calls = []

    def model(x):
        calls.append(len(x))
        if len(calls) == at:
            raise KeyboardInterrupt
        return smooth(x)

    at, options = 0, {"target": 1, "n_steps": 2, "internal_batch_size": 1, "transforms": (), "regularizer": None}
    FeatureAccentuation(model).accentuate(X[:1], **options)
    at, _ = len(calls) + 1, calls.clear()
    result = FeatureAccentuation(model).accentuate(X, **options)
    assert result.interrupted
    assert torch.equal(result.images[1], X[1]) and not torch.equal(result.images[0], X[0])
    assert result.after[0] > result.before[0] and result.after[1] == result.before[1]
    assert before.differences(smooth) == []


def test_ctrl_c_stops_all_chunks(smooth):
    calls = []

    def interrupt(step, images, scores):
        calls.append(step)
        if step == 2:
            raise KeyboardInterrupt

    result = FeatureAccentuation(smooth).accentuate(
        torch.rand(3, 3, 12, 12), target=1, n_steps=9, on_step=interrupt, internal_batch_size=1
    )
    assert result.interrupted and result.images.shape[0] == 3
    assert calls == [0, 1, 2], "the rows that had not begun are not begun"


def test_on_step_is_called_and_can_stop(smooth):
    calls = []
    result = FeatureAccentuation(smooth).accentuate(
        X,
        target=1,
        n_steps=9,
        on_step=lambda step, images, scores: calls.append((step, images.shape, scores.shape)) or step == 2,
    )
    assert calls == [(step, X.shape, (2,)) for step in range(3)]
    assert result.steps == 2 and not result.interrupted and len(result.scores) == 3


@pytest.mark.parametrize("parameterization", [None, Pixel(), Phase()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_double_and_half_precision(smooth, dtype, parameterization):
    options = {} if parameterization is None else {"parameterization": parameterization}
    net, x = copy.deepcopy(smooth).to(dtype), X.to(dtype)
    result = FeatureAccentuation(net).accentuate(x, target=1, n_steps=3, **options)
    assert result.images.dtype == result.masks.dtype == result.seeds.dtype == dtype
    plain = FeatureAccentuation(smooth).accentuate(x.float(), target=1, n_steps=3, **options)
    close = {"atol": 1e-3, "rtol": 0} if dtype == torch.float64 else {"atol": 0.1, "rtol": 0}
    torch.testing.assert_close(result.images.float(), plain.images, **close)
    assert torch.equal(FeatureAccentuation(net).perturb(x, target=1, dose=0), x)


def test_autocast_applies_to_the_model_alone(smooth):
    first = []
    with torch.autocast("cpu", torch.bfloat16):
        result = FeatureAccentuation(smooth).accentuate(
            X, target=1, n_steps=3, on_step=lambda step, images, scores: first.append(images)
        )
    assert result.images.dtype == result.masks.dtype == torch.float32
    assert (first[0] - X).abs().max() < 1e-6
    moved = first[1] - X
    steps = moved[moved != 0].abs()
    assert len(steps) > 0.99 * moved.numel() and steps.unique().numel() > 0.5 * steps.numel(), "not rounded to 8 bits"


def test_additional_arguments_are_used_in_every_pass(conv):
    scale = torch.tensor([[2.0], [3.0]])
    options = {"n_steps": 2, "regularizer": FeatureDistance("relu"), "contrast": 2}
    method = FeatureAccentuation(conv)
    result = method.accentuate(X, target=1, additional_forward_args=scale, **options)
    rows = [
        method.accentuate(X[i : i + 1], target=1, additional_forward_args=(scale[i : i + 1],), **options)
        for i in range(2)
    ]
    torch.testing.assert_close(result.images, torch.cat([row.images for row in rows]), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.before, (conv(X, scale)[:, 1] - conv(X, scale)[:, 2]).detach())


def test_the_progress_bar_advances_with_every_step(smooth, monkeypatch):
    outputs = []

    def bar(steps, what, *, show):
        for step in steps:
            outputs.append((what, show, step))
            yield step

    monkeypatch.setattr(optimization, "progress", bar)
    FeatureAccentuation(smooth).attribute(X, target=1, n_steps=2, show_progress=True)
    assert outputs == [("optimization", True, 0), ("optimization", True, 1)]
    FeatureAccentuation(smooth).attribute(X, target=1, n_steps=1)
    assert len(outputs) == 2, "no bar unless asked for"


def test_arguments_without_effect_raise(smooth):
    method = FeatureAccentuation(smooth)
    with pytest.raises(
        ValueError, match=r"inputs and shape=\(1, 3, 8, 8\) are both given; expected shape= only for images from n"
    ):
        method.accentuate(X, 1, shape=(1, 3, 8, 8))
    for name in ("dose", "activation"):
        with pytest.raises(ValueError, match=f"{name}= is a target level relative to a seed image, and inputs is None"):
            method.accentuate(None, 1, shape=(1, 3, 8, 8), **{name: 1.0})


def test_a_model_that_returns_nan_raises(smooth, found):
    before = found(smooth)
    with pytest.raises(FloatingPointError, match="the score's gradient is NaN or infinite in image 0; look for NaN"):
        FeatureAccentuation(lambda x: smooth(x) * torch.nan).accentuate(X, 1, n_steps=2)
    assert before.differences(smooth) == []


@pytest.mark.parametrize("selector", [torch.tensor([2, 0]), [np.int64(2), torch.tensor(0)]], ids=["tensor", "numpy"])
def test_integer_tensors_and_numpy_integers_are_selectors(smooth, selector):
    method = NeuronFeatureAccentuation(smooth, "1")
    options = {"n_steps": 2, "regularizer": None}
    plain = method.accentuate(X, [2, 0], **options)
    assert torch.equal(method.accentuate(X, selector, **options).images, plain.images)


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel(), Phase()], ids=lambda p: type(p).__name__)
def test_the_score_rises(smooth, parameterization):
    result = solve(smooth, parameterization=parameterization)
    assert (result.after > result.before).all()
    assert result.images.min() >= 0 and result.images.max() <= 1 and not result.images.requires_grad
    assert result.masks.shape == X.shape and result.scores.shape == (4, 2)


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel()])
@pytest.mark.parametrize("seeds", [X, (X > 0.5).float()], ids=["normal", "saturated"])
def test_a_ball_larger_than_any_change_has_no_effect(smooth, parameterization, seeds):
    free = solve(smooth, seeds=seeds, parameterization=parameterization)
    inside = solve(smooth, seeds=seeds, parameterization=parameterization, regularizer=Ball(100.0))
    torch.testing.assert_close(inside.images, free.images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel(), Phase()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("norm", "radius"), [("L2", 0.3), ("Linf", 0.02)])
def test_a_ball_keeps_its_radius(smooth, parameterization, norm, radius):
    result = solve(smooth, parameterization=parameterization, regularizer=Ball(radius, norm), n_steps=8, lr=0.2)
    change = (result.images - X).flatten(1)
    size = change.norm(dim=1) if norm == "L2" else change.abs().amax(1)
    assert (size <= radius * (1 + 1e-6)).all() and (size > 0.5 * radius).all()
    assert (result.after > result.before).all()


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel()])
def test_every_step_begins_inside_the_ball_also_where_pixels_are_saturated(smooth, parameterization):
    seeds, distances = (X > 0.5).float(), []
    solve(
        smooth,
        seeds=seeds,
        parameterization=parameterization,
        regularizer=Ball(0.05, "Linf"),
        lr=10.0,
        transforms=(),
        on_step=lambda step, images, scores: distances.append((images - seeds).abs().max()),
    )
    assert max(distances) <= 0.05 + 1e-5 and distances[-1] > 0.04, distances


def distance_weight(net, **regularizer):
    distance = FeatureDistance(net[1], **regularizer)
    settings = Settings(regularizer=distance, optimizer=torch.optim.Adam)
    problem = Problem(ModelInputs(net, size=(12, 12)), Feature(1), settings, Batch.of(X))
    return feature_accentuation._distance_weight(problem, distance, feature_accentuation._start(problem))


def test_the_weight_is_balanced_or_fixed(smooth):
    smooth.requires_grad_(False)
    torch.testing.assert_close(distance_weight(smooth, weight=2.0), 2 * distance_weight(smooth, weight=1.0))
    assert distance_weight(smooth, weight=2.0, balance=0.5).tolist() == 1.0


def test_a_heavier_distance_stays_nearer(smooth):
    far = [
        solve(smooth, regularizer=FeatureDistance("1", weight=w), n_steps=8, transforms=()).distances
        for w in (0.01, 1.0)
    ]
    assert (far[1][-1] < far[0][-1]).all()


def test_levels_are_met(smooth):
    levels = smooth(X)[:, 1].detach() + torch.tensor([0.01, -0.02])
    result = solve(smooth, activation=levels, n_steps=30, lr=0.1)
    torch.testing.assert_close(result.after, levels, atol=2e-5, rtol=0)
    torch.testing.assert_close(result.level, levels)


def test_images_at_their_level_are_not_changed(smooth):
    result = solve(smooth, dose=0.0)
    assert torch.equal(result.images, X) and result.steps == 0 and result.scores.shape == (0, 2)
    assert result.masks.abs().sum() == 0 and result.dose.tolist() == [0, 0]
    assert solve(smooth, activation=result.before).dose is None


def test_from_noise(smooth):
    result = solve(smooth, seeds=None)
    assert result.images.shape == X.shape and result.before is None and result.distances is None
    assert torch.equal(result.images, solve(smooth, seeds=None).images)
    assert not torch.equal(result.images, solve(smooth, seeds=None, seed=1).images)
    (params,), decode = Fourier().random(tuple(X.shape), torch.Generator().manual_seed(0))
    start = smooth(decode((params,)))[:, 1]
    assert (result.after > start).all()


def test_a_param_f_starts_from_noise_alone(smooth):
    params = torch.zeros(2, 3, 12, 12, requires_grad=True)
    param_f = lambda: ([params], lambda: torch.sigmoid(params))
    assert (solve(smooth, seeds=None, parameterization=param_f, transforms=(Crops(2),)).images != 0.5).any()
    with pytest.raises(ValueError, match="is a function without an image .*cannot start from inputs; give inputs=None"):
        solve(smooth, parameterization=param_f)


def test_noise_does_not_depend_on_how_the_batch_is_cut(smooth):
    options = {"n_steps": 2, "lr": 0.05, "transforms": (), "shape": (3, 3, 8, 8)}
    for parameterization in (Fourier(), Pixel(), Phase()):
        together, cut = (
            FeatureAccentuation(smooth).accentuate(
                None, [0, 1, 2], parameterization=parameterization, internal_batch_size=size, **options
            )
            for size in (None, 1)
        )
        torch.testing.assert_close(cut.images, together.images, atol=1e-5, rtol=0)
        assert (together.images[0] - together.images[1]).abs().max() > 1e-3
