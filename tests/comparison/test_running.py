import torch
from captum.attr import Saliency

from xinc_captum.comparison import running
from xinc_captum.comparison.running import Runs, bound, run_once

PHOTOS = torch.rand(2, 3, 8, 8)


def twice(images):
    return 2 * images - 1


def test_who_gets_what(conv):
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
        bound(method, conv, twice, (8, 8), 0)(PHOTOS, 1)
    assert torch.equal(seen["two"], PHOTOS)
    assert torch.equal(seen["options"], PHOTOS)
    torch.testing.assert_close(seen["three"], conv(twice(PHOTOS)))
    torch.testing.assert_close(seen["named"], conv(twice(PHOTOS)))
    captum = bound(Saliency(conv), conv, twice, (8, 8), 0)(PHOTOS, 1)
    torch.testing.assert_close(captum, Saliency(conv).attribute(twice(PHOTOS), 1).sum(1))


def test_the_first_run_is_counted_and_the_rest_are_timed(conv):
    runs = Runs(bound(Saliency(conv), conv, None, (8, 8), 0))
    run_once(runs, conv, PHOTOS, 1)
    assert (runs.counts.forwards, runs.seconds) == (1, []) and runs.maps.shape == (2, 8, 8)
    run_once(runs, conv, PHOTOS, 1)
    assert len(runs.seconds) == 1 and runs.seconds[0].wall > 0


def test_what_takes_long_is_timed_once(conv, monkeypatch):
    calls = []

    def slow(images, target):
        calls.append(1)
        return images

    monkeypatch.setattr(running, "LONG", 0.0)
    runs = Runs(bound(slow, conv, None, (8, 8), 0))
    for _ in range(4):
        run_once(runs, conv, PHOTOS, 1)
    assert (len(calls), len(runs.seconds)) == (2, 1)


def test_nothing_runs_after_a_failure(conv):
    calls = []

    def fails(images, target):
        calls.append(1)
        raise KeyError("x")

    runs = Runs(bound(fails, conv, None, (8, 8), 0))
    for _ in range(3):
        run_once(runs, conv, PHOTOS, 1)
    assert (len(calls), runs.error, runs.maps) == (1, "KeyError: 'x'", None)


def test_a_map_that_the_method_keeps_and_changes_is_copied(conv):
    kept = torch.rand(2, 8, 8)

    def again(images, target):
        return kept.mul_(2)

    runs = Runs(bound(again, conv, None, (8, 8), 0))
    for _ in range(3):
        run_once(runs, conv, PHOTOS, 1)
    torch.testing.assert_close(runs.maps, kept / 4)
