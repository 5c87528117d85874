import functools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.attributions.accentuation import Crops, Jitter, Noise, Rotation, Schedule
from xinc_captum.attributions.accentuation.transforms import (
    generators_in,
    resample,
    same_draws,
    seed_all,
    value_at,
    view,
)

EYE = torch.eye(3)[None]


def maps(half_x, half_y, x=0.0, y=0.0):
    return torch.tensor([[[half_x, 0, x], [0, half_y, y], [0, 0, 1.0]]])


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_box_of_the_full_image_is_the_identity():
    x = torch.rand(2, 3, 7, 10)
    torch.testing.assert_close(resample(x, EYE, (7, 10))[0], x, atol=1e-6, rtol=0)
    assert torch.equal(view([], (7, 10), (7, 10), generator=gen())(x)[0], x), "not resampled at all"


def test_a_box_by_hand():
    """The right half of a ramp 0 … 4, five columns wide, is the ramp 2 … 4."""
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    calls = resample(ramp, maps(0.5, 1, x=0.5), (4, 5))
    assert calls[0, 0, 0, 2].tolist() == pytest.approx([2, 2.5, 3, 3.5, 4])


def test_a_shift_by_one_pixel_mirrors_at_the_edge():
    x = torch.rand(1, 2, 5, 6)
    right = resample(x, maps(1, 1, x=2 / 5), (5, 6))[0]
    torch.testing.assert_close(right[..., :-1], x[..., 1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(right[..., -1], x[..., -2], atol=1e-6, rtol=0)


def test_shrinking_averages_pixels():
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float()[None, None]
    calls = resample(board, EYE, (16, 16))
    assert (calls - 0.5).abs().max() < 0.1, "a chessboard finer than the view is grey"


def test_recorded_crops(recorded):
    """As the original's, but for half a pixel that its antialiased resizing shifts by, and away from the edges."""
    top, left, bottom, right = recorded["crop_boxes"].double().T
    height, width, side = bottom - top, right - left, 63
    half = torch.stack([(width - 1) / side, (height - 1) / side], 1)
    shift = torch.stack([(width - 1) / side - 1, (height - 1) / side - 1], 1) / 2
    centre = 2 * (torch.stack([left + (width - 1) / 2, top + (height - 1) / 2], 1) + shift) / side - 1
    boxes = torch.eye(3).repeat(len(half), 1, 1)
    boxes[:, :2, :2], boxes[:, :2, 2] = torch.diag_embed(half), centre
    calls = resample(recorded["seed_image"], boxes, (64, 64))[:, 0, :, 6:-6, 6:-6]
    torch.testing.assert_close(calls, recorded["crops_inside"], atol=1e-5, rtol=0)


@given(
    canvas=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    out=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    count=st.integers(1, 9),
    low=st.floats(0.05, 0.9),
    seed=st.integers(0, 99),
)
def test_boxes_are_inside_and_have_the_aspect_of_the_view(canvas, out, count, low, seed):
    result = Crops(count, (low, 1.0)).matrices(count, canvas, out, 0.0, gen(seed))
    half, centre = torch.diagonal(result[:, :2, :2], dim1=1, dim2=2), result[:, :2, 2]
    assert (centre.abs() + half <= 1 + 1e-5).all()
    pixels = half * torch.tensor([canvas[1], canvas[0]])
    torch.testing.assert_close(pixels[:, 0] * out[0], pixels[:, 1] * out[1], atol=1e-3, rtol=1e-4)
    sides, strata = half.amax(1).sort().values, torch.arange(count + 1) / count * (1 - low) + low
    assert (strata[:-1] - 1e-5 <= sides).all() and (sides <= strata[1:] + 1e-5).all(), "one box in each stratum"


@pytest.mark.parametrize("canvas", [(20, 20), (20, 41)])
def test_a_rotation_rotates_pixels(canvas):
    (turn,) = Rotation(180).matrices(1, canvas, canvas, 0.0, gen(1))[:, :2, :2]
    scale = torch.diag(torch.tensor([canvas[1] - 1.0, canvas[0] - 1.0]))
    pixels = scale @ turn @ scale.inverse()
    torch.testing.assert_close(pixels @ pixels.T, torch.eye(2), atol=1e-5, rtol=0)
    assert abs(float(pixels[0, 0])) < 0.999


def test_range_of_shifts_and_rotations():
    shifts = Jitter(4).matrices(500, (21, 41), (21, 41), 0.0, gen())[:, :2, 2] * torch.tensor([20.0, 10.0])
    assert 3.9 < shifts.abs().max() <= 4.0
    turns = Rotation(10).matrices(500, (9, 9), (9, 9), 0.0, gen())
    assert 9.9 < torch.atan2(turns[:, 1, 0], turns[:, 0, 0]).abs().max() * 180 / math.pi <= 10.001


def test_noise_is_the_same_for_all_rows_and_images():
    show = view([Crops(3), Noise(0.1, 0.2)], (12, 12), (6, 6), generator=gen())
    quiet = view([Crops(3)], (12, 12), (6, 6), generator=gen())
    first, second = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 12, 12)
    noise = show(first) - quiet(first)
    assert noise.abs().max() > 0.05
    torch.testing.assert_close(noise[:, 0], noise[:, 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(show(second) - quiet(second), noise, atol=1e-6, rtol=0)


def test_noise_has_its_standard_deviation():
    draws = Noise(0.02).draw((4, 3, 50, 50), 0.0, gen())
    assert float(draws.std()) == pytest.approx(0.02, rel=0.05)
    bright = Noise(0.0, 0.5).draw((2000, 1, 1, 1), 0.0, gen())
    assert -0.25 <= bright.min() < -0.24 and 0.24 < bright.max() <= 0.25


def test_rows_have_the_same_views_and_are_independent():
    x = torch.rand(3, 3, 9, 14)
    draw = lambda: view([Crops(4), Rotation(), Jitter(2)], (9, 14), (8, 8), generator=gen())
    torch.testing.assert_close(draw()(x)[:, 1:2], draw()(x[1:2]))
    assert not torch.equal(draw()(x), view([Crops(4)], (9, 14), (8, 8), generator=gen(1))(x))


def test_a_users_function():
    show = view([lambda x: 1 - x, Noise(0.0)], (4, 4), (4, 4), generator=gen())
    x = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(show(x)[0], 1 - x)


def test_gradients_are_right():
    show = view([Crops(2), Rotation(20)], (5, 6), (4, 4), generator=gen())
    x = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(show, (x,))


def test_schedules_are_linear():
    assert [value_at(Schedule(0.7, 0.1), p) for p in (0, 0.5, 1)] == pytest.approx([0.7, 0.4, 0.1])
    assert value_at(0.3, 0.9) == 0.3
    late = Crops(1, (Schedule(0.2, 0.5), Schedule(0.2, 0.5))).matrices(1, (9, 9), (9, 9), 1.0, gen())
    assert float(late[0, 0, 0]) == pytest.approx(0.5)


def test_impossible_crops_raise():
    with pytest.raises(ValueError, match=r"Crops\(count=0\): expected at least 1 view for each step"):
        Crops(0)
    for side in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1)):
        with pytest.raises(ValueError, match=r"Crops\(side=.*expected 0 < smallest <= largest <= 1"):
            Crops(1, side).matrices(1, (4, 4), (4, 4), 0.0, gen())


def test_a_random_function_draws_the_same_for_every_image():
    show = view([lambda x: x + torch.rand(()), lambda x: x * torch.rand(())], (4, 4), (4, 4), generator=gen())
    x = torch.rand(1, 1, 4, 4)
    state = torch.get_rng_state()
    first, second = show(x), show(x)
    assert torch.equal(first, second) and not torch.equal(first[0], x)
    assert torch.equal(state, torch.get_rng_state()), "the caller's random state is as found"
    other = view([lambda x: x + torch.rand(())], (4, 4), (4, 4), generator=gen(1))
    assert not torch.equal(show(x), other(x))


def numpy_shift(x):
    return torch.roll(x, (int(np.random.randint(-4, 5)), random.randint(-4, 4)), (2, 3))


def test_numpy_and_python_draws_are_the_same_for_every_image():
    show = view([numpy_shift], (16, 16), (16, 16), generator=gen(1))
    states = np.random.get_state()[1].copy(), random.getstate()
    x = torch.rand(2, 1, 16, 16)
    first, other = show(x), show(1 - x)
    torch.testing.assert_close(other, 1 - first)
    assert not torch.equal(first[0], x)
    assert (states[0] == np.random.get_state()[1]).all() and states[1] == random.getstate()


def test_a_users_generator_draws_the_same_for_every_image():
    rng = np.random.default_rng(3)
    show = view([lambda x: x * rng.random()], (4, 4), (4, 4), generator=gen())
    x = torch.rand(1, 1, 4, 4)
    assert torch.equal(show(x), show(x))
    assert rng.random() == np.random.default_rng(3).random()


def test_draws_do_not_depend_on_the_batch():
    show = view([Crops(2), lambda x: x + torch.rand_like(x)], (9, 9), (6, 6), generator=gen())
    x = torch.rand(3, 2, 9, 9)
    torch.testing.assert_close(show(x)[:, 1:2], show(x[1:2]), atol=1e-6, rtol=0)


def test_a_function_that_changes_its_input_in_place():
    x = torch.rand(2, 1, 4, 4)
    result, leaf = x.clone(), x.clone().requires_grad_()
    show = view([lambda y: y.mul_(2)], (4, 4), (4, 4), generator=gen())
    torch.testing.assert_close(show(result)[0], 2 * x)
    assert torch.equal(result, x), "the caller's images are not changed"
    (slope,) = torch.autograd.grad(show(leaf).sum(), leaf)
    assert torch.equal(slope, torch.full_like(x, 2))


def test_results_of_another_size_are_resized():
    pad = lambda y: torch.nn.functional.pad(y, [3, 3, 1, 1], value=0.5)
    x = torch.full((2, 3, 6, 10), 0.5)
    for transforms, views in (([pad], 1), ([Crops(2), pad, lambda y: y[..., 1:]], 2), ([pad, Noise(0.0)], 1)):
        calls = view(transforms, (6, 10), (6, 10), generator=gen())(x)
        torch.testing.assert_close(calls, torch.full((views, 2, 3, 6, 10), 0.5))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    half = view([lambda y: y.repeat_interleave(2, -1).repeat_interleave(2, -2)], (8, 8), (8, 8), generator=gen())
    torch.testing.assert_close(half(ramp)[0, 0, 0, 3, 1:-1], ramp[0, 0, 3, 1:-1])


@pytest.mark.parametrize(
    ("transform", "kind", "text"),
    [
        (lambda x: None, TypeError, r"returned a NoneType; expected float images \(2, C, h, w\) on cpu"),
        (lambda x: x.numpy(), TypeError, "returned a ndarray; expected float images"),
        (lambda x: (x * 255).byte(), TypeError, r"returned torch.uint8; .*Divide bytes by 255"),
        (lambda x: x[0], ValueError, r"returned shape \(3, 4, 4\) for \(2, 3, 4, 4\)"),
        (lambda x: x[:1], ValueError, r"returned shape \(1, 3, 4, 4\) for \(2, 3, 4, 4\)"),
        (lambda x: x[..., :0], ValueError, r"returned shape \(2, 3, 4, 0\)"),
        (lambda x: x.to("meta"), ValueError, "returned a tensor on meta; expected float images"),
        (lambda x: x[..., : 2 + int(x.mean() > 0.5)], ValueError, r"for image 1 and \(2, 3, 4, 2\) for image 0"),
    ],
)
def test_invalid_results_of_functions_raise(transform, kind, text):
    show = view([Crops(2), transform], (4, 4), (4, 4), generator=gen())
    x = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    with pytest.raises(kind, match=text):
        show(x)


def test_a_function_without_a_gradient_raises():
    x = torch.rand(1, 1, 4, 4)
    show = view([lambda y: torch.from_numpy(y.detach().numpy())], (4, 4), (4, 4), generator=gen())
    assert torch.equal(show(x)[0], x), "the seed's views need no gradient"
    with pytest.raises(ValueError, match=r"transform test_a_function.*<lambda> returned a tensor without a gradient"):
        show(x.requires_grad_())


def test_another_float_type_is_cast_back():
    show = view([lambda y: y.double() * 2], (4, 4), (4, 4), generator=gen())
    assert show(torch.rand(1, 1, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("canvas", "raw", "aligned"), [(224, 0.012, 1e-4), (512, 0.010, 0.006), (1024, 0.014, 0.009)], ids=str
)
def test_crops_agree_with_the_originals(canvas, raw, aligned):
    """Whole-pixel boxes resized as the original does: the difference in the docstring of faccent(), rounded up."""
    photo = pytest.importorskip("skimage.data", reason="pip install '.[demo]'").chelsea()
    image = torch.from_numpy(photo[:, 75:375]).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, (canvas, canvas), mode="bicubic", antialias=True).clamp(0, 1)
    away, beside = [], []
    for top, left, side in ((0.0, 0.1, 0.9), (0.3, 0.2, 0.55), (0.1, 0.5, 0.3), (0.6, 0.4, 0.2)):
        y, x, n = (int(share * canvas) for share in (top, left, side))
        crop = image[:, :, y : y + n, x : x + n]
        theirs = torch.nn.functional.interpolate(crop, (224, 224), mode="bilinear", antialias=True, align_corners=True)
        half, shift = (n - 1) / (canvas - 1), ((n - 1) / 223 - 1) / 2
        for result, by in ((away, 0.0), (beside, shift)):
            centre = [2 * (start + (n - 1) / 2 + by) / (canvas - 1) - 1 for start in (x, y)]
            ours = resample(image, maps(half, half, *centre), (224, 224))[0]
            result.append(float((ours - theirs)[..., 4:-4, 4:-4].abs().mean()))
    assert sum(away) / 4 < raw and sum(beside) / 4 < aligned


def draw():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_global_generators_repeat_and_are_restored():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    draws = []
    for seed in (3, 3, 4):
        with same_draws(seed):
            draws.append(draw())
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all() and states[2] == random.getstate()


@pytest.mark.parametrize("seed", [-1, 0, 2**33 + 5])
def test_any_int_is_a_seed(seed):
    with same_draws(0):
        seed_all(seed)
        first = draw()
        seed_all(seed)
        assert draw() == first


def test_states_are_restored_after_an_exception():
    rng = np.random.default_rng(7)
    expected, state = np.random.default_rng(7).random(), torch.get_rng_state()
    with pytest.raises(KeyError), same_draws(0, [rng]):
        rng.random()
        torch.rand(3)
        raise KeyError
    assert rng.random() == expected and torch.equal(state, torch.get_rng_state())


GENERATORS = {
    "numpy": (lambda: np.random.default_rng(5), lambda g: g.random()),
    "legacy": (lambda: np.random.RandomState(5), lambda g: g.rand()),
    "python": (lambda: random.Random(5), lambda g: g.random()),
    "torch": (lambda: torch.Generator().manual_seed(5), lambda g: float(torch.rand((), generator=g))),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_users_generators_repeat_and_are_restored(kind):
    make, value = GENERATORS[kind]
    rng, draws = make(), []
    for _ in range(2):
        with same_draws(1, [rng]):
            draws.append(value(rng))
    assert draws[0] == draws[1]
    assert value(rng) == value(make()), "its own stream goes on where it was"


class Shaky(nn.Module):
    def __init__(self, rng):
        super().__init__()
        self.steps = nn.ModuleList([nn.Identity()])
        self.parts = {"rng": [rng]}

    def forward(self, x):
        return x + self.parts["rng"][0].random()


class Caller:
    def __init__(self, rng):
        self.rng = rng

    def __call__(self, x):
        return x + self.rng.random()

    def shifted(self, x):
        return self(x)


RNG = np.random.default_rng(2)


def from_a_global(x):
    return x + RNG.random()


class FromAGlobal:
    def __call__(self, x):
        return from_a_global(x)


def test_generators_in_closures_attributes_and_containers():
    own = np.random.default_rng(0)
    retained = [
        lambda x: x + own.random(),
        lambda x, rng=own: x + rng.random(),
        functools.partial(lambda rng, x: x + rng.random(), own),
        Caller(own),
        Caller(own).shifted,
        nn.Sequential(Shaky(own)),
        [Caller(own), None, 3],
        own.random,
    ]
    for thing in retained:
        assert generators_in(thing) == [own], thing
    assert generators_in(from_a_global, FromAGlobal()) == [RNG]
    assert generators_in(lambda x: torch.rand(()) * np.float32(1), nn.Conv2d(1, 1, 1), None, "x") == []
