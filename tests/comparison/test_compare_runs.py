import importlib

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from xinc_captum import FeatureAccentuation
from xinc_captum.comparison import as_maps, count_calls
from xinc_captum.comparison.compare import Runs, bind_method, run_once

PHOTOS = torch.rand(2, 3, 8, 8)


def twice(images):
    return 2 * images - 1


def test_inputs_of_each_kind_of_method(conv):
    seen = {}

    def two(images, target):
        seen["two"] = images
        return images

    def three(model, images, target, scale=1.0):
        seen["three"] = model(images)
        return images

    def named(model, images, target=None, scale=1.0):
        seen["named"] = model(images)
        return images

    def options(images, target, scale=1.0, *rest):
        seen["options"] = images
        return images

    for method in (two, three, named, options):
        bind_method(method, conv, twice, (8, 8), 0)(PHOTOS, 1)
    assert torch.equal(seen["two"], PHOTOS)
    assert torch.equal(seen["options"], PHOTOS)
    torch.testing.assert_close(seen["three"], conv(twice(PHOTOS)))
    torch.testing.assert_close(seen["named"], conv(twice(PHOTOS)))
    captum = bind_method(Saliency(conv), conv, twice, (8, 8), 0)(PHOTOS, 1)
    torch.testing.assert_close(captum, Saliency(conv).attribute(twice(PHOTOS), 1).sum(1))


def test_the_first_run_is_counted_and_the_rest_are_timed(conv):
    runs = Runs(bind_method(Saliency(conv), conv, None, (8, 8), 0))
    run_once(runs, conv, PHOTOS, 1)
    assert (runs.counts.forwards, runs.seconds) == (1, []) and runs.maps.shape == (2, 8, 8)
    run_once(runs, conv, PHOTOS, 1)
    assert len(runs.seconds) == 1 and runs.seconds[0][1] > 0


def test_slow_methods_are_timed_once(conv, monkeypatch):
    calls = []

    def slow(images, target):
        calls.append(1)
        return images

    monkeypatch.setattr(importlib.import_module("xinc_captum.comparison.compare"), "MAX_SECONDS", 0.0)
    runs = Runs(bind_method(slow, conv, None, (8, 8), 0))
    for _ in range(4):
        run_once(runs, conv, PHOTOS, 1)
    assert (len(calls), len(runs.seconds)) == (2, 1)


def test_methods_do_not_run_after_an_error(conv):
    calls = []

    def fails(images, target):
        calls.append(1)
        raise KeyError("x")

    runs = Runs(bind_method(fails, conv, None, (8, 8), 0))
    for _ in range(3):
        run_once(runs, conv, PHOTOS, 1)
    assert (len(calls), runs.error, runs.maps) == (1, "KeyError: 'x'", None)


def test_maps_are_copied(conv):
    kept = torch.rand(2, 8, 8)

    def again(images, target):
        return kept.mul_(2)

    runs = Runs(bind_method(again, conv, None, (8, 8), 0))
    for _ in range(3):
        run_once(runs, conv, PHOTOS, 1)
    torch.testing.assert_close(runs.maps, kept / 4)


def test_calls_and_backward_passes_are_counted():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    x = torch.rand(5, 2)
    with count_calls(model) as counts:
        model(x).sum().backward()
        y = model(x[:2])
        torch.autograd.grad(y[:, 0].sum(), model[0].weight, retain_graph=True)
        torch.autograd.grad(y[:, 1].sum(), model[0].weight)
        with torch.no_grad():
            model(x)
    assert (counts.forwards, counts.backwards, counts.rows) == (3, 3, 12)


def test_peak_memory_of_live_tensors():
    x = torch.rand(1000)  # there before: not counted
    with count_calls(nn.Identity()) as counts:
        a = x + 1  # 4 kB
        b = a * 2  # 8 kB at once
        del a
        c = b + 1  # 8 kB again
        c.view(10, 100).add_(1)  # in place: nothing new
        del b, c
    assert counts.peak_bytes == 8000


def test_memory_of_the_graph_is_counted():
    x = torch.rand(1000, requires_grad=True)
    with count_calls(nn.Identity()) as counts:
        x.exp().exp().sum().backward()
    with count_calls(nn.Identity()) as bare, torch.no_grad():
        x.exp().exp().sum()
    assert counts.peak_bytes > bare.peak_bytes


def test_functions_around_models_are_counted():
    model, x, v = nn.Linear(2, 3), torch.rand(1, 2), torch.rand(4, 1, 2)
    with count_calls(lambda x: model(x)[:, 0]) as counts:
        torch.func.vmap(lambda v: torch.func.jvp(model, (x,), (v,))[1])(v)
    assert (counts.forwards, counts.backwards) == (1, 0) and counts.peak_bytes > 0


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_removed(conv, found, fault):
    x, before = torch.rand(1, 3, 8, 8), found(conv)
    with pytest.raises(fault), count_calls(conv):
        conv(x)
        raise fault
    assert before.differences(conv) == []


def test_scripted_modules_are_not_counted():
    scripted, model, x = torch.jit.script(nn.Sequential(nn.ReLU())), nn.Linear(2, 3), torch.rand(5, 2)
    with count_calls(lambda x: model(scripted(x))) as counts:
        model(scripted(x)).sum().backward()
    assert (counts.forwards, counts.backwards, counts.rows) == (1, 1, 5)
    with count_calls(lambda x: scripted(x)) as counts:
        scripted(x)
    assert counts.forwards == 0


def test_two_modules_of_one_function_count_as_one_call():
    backbone, head, x = nn.Linear(2, 4), nn.Linear(4, 3), torch.rand(5, 2)

    def whole(x):
        return head(backbone(x))

    with count_calls(whole) as counts:
        whole(x).sum().backward()
        whole(x[:1])
    assert (counts.forwards, counts.backwards, counts.rows) == (2, 1, 6)


def test_feature_accentuation_with_preprocessing_gets_photos(conv):
    method = FeatureAccentuation(conv, preprocess=twice)
    maps = bind_method(method, conv, twice, (8, 8), 0)(PHOTOS, 1)
    torch.manual_seed(0)
    assert torch.equal(maps, as_maps(method.attribute(PHOTOS, target=1), PHOTOS, (8, 8)))
