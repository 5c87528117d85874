import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum import FeatureAccentuation
from xinc_captum.attributions.accentuation import (
    Ball,
    Crops,
    FeatureDistance,
    Fourier,
    Noise,
    Options,
    Settings,
    Steepest,
    faccent,
)
from xinc_captum.attributions.accentuation.settings import settings_of


def test_every_option_is_a_setting():
    assert set(Options.__annotations__) == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("name", ["n_steps", "n_draws", "mask_every", "internal_batch_size"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected a whole number, at least 1"):
        Settings(**{name: 0})


def test_impossible_settings_raise():
    for lr in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr is .*; expected a finite number above 0"):
            Settings(lr=lr)
    with pytest.raises(ValueError, match="dose and activation are both given; expected at most one"):
        Settings(dose=1, activation=2.0)
    with pytest.raises(TypeError, match="steps"):
        Settings(steps=3)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"steps": 3}, TypeError, r"'steps' is not an option; expected some of n_steps, lr, optimizer"),
        (
            {"regularizer": "layer2"},
            TypeError,
            r"regularizer is 'layer2'; expected FeatureDistance\(layer, weight\), Ball",
        ),
        ({"regularizer": 1.0}, TypeError, r"regularizer is 1.0; expected FeatureDistance"),
        (
            {"transforms": Crops(2)},
            TypeError,
            r"transforms is Crops\(.*; expected a list or tuple of transforms, such as \[Crop",
        ),
        ({"optimizer": "adam"}, TypeError, "optimizer is 'adam'; expected a class such as torch.optim.Adam"),
        ({"n_steps": 2.5}, ValueError, "n_steps is 2.5; expected a whole number, at least 1"),
        ({"seed": None}, TypeError, "seed is None; expected a whole number"),
        ({"seed": 1.0}, TypeError, "seed is 1.0; expected a whole number"),
    ],
    ids=lambda value: "" if isinstance(value, type | str) else next(iter(value)),
)
def test_invalid_options_raise(options, error, text):
    with pytest.raises(error, match=text):
        settings_of(options)
    assert settings_of({"n_steps": 3}) == Settings(n_steps=3)


def test_faccent_has_the_settings_of_the_original():
    settings = Settings(**faccent("layer2", weight=0.5))
    assert (settings.n_steps, settings.lr, settings.mask_every) == (99, 0.05, 1)
    assert settings.n_draws >= settings.n_steps, "new views every step"
    assert settings.parameterization == Fourier(decay=1.0, desaturation=5.0, margin=1e-6)
    crops, noise = settings.transforms
    assert isinstance(crops, Crops) and (crops.count, crops.side, crops.edge) == (16, (0.05, 0.99), 0)
    two_kinds = 0.02 * torch.randn(200_000) + 0.02 * (torch.rand(200_000) - 0.5)
    assert noise == Noise(pytest.approx(float(two_kinds.std()), rel=0.01), 0.0)
    assert settings.regularizer == FeatureDistance("layer2", 0.5, smooth=0.0)
    assert faccent()["regularizer"] is None


def test_faccent_options_can_be_changed(smooth):
    x = torch.rand(1, 3, 12, 12)
    result = FeatureAccentuation(smooth).accentuate(x, target=1, **faccent("1") | {"n_steps": 3})
    assert result.layer == "1" and result.distances.shape == (3, 1)
    assert result.after > result.before


def run_steepest(*gradients, **kwargs):
    p = torch.zeros(2, 1, 2, requires_grad=True)
    optimizer = Steepest([p], **kwargs)
    for gradient in gradients:
        p.grad = torch.tensor(gradient).reshape(2, 1, 2)
        optimizer.step()
    return p.detach().reshape(2, 2)


def test_steps_of_all_rows_have_the_same_size():
    moved = run_steepest([[3.0, 4.0], [-0.003, 0.004]], lr=0.1)
    assert moved.square().mean(1).sqrt().tolist() == pytest.approx([0.1, 0.1])
    assert (moved[0] / moved[0].norm()).tolist() == pytest.approx([-0.6, -0.8])
    assert (moved[1] / moved[1].norm()).tolist() == pytest.approx([0.6, -0.8])


def test_steepest_momentum_by_hand():
    """m = (1, 0), then (β, 1)."""
    moved = run_steepest([[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2, lr=1.0, momentum=0.75)
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.75, 1.0])
    expected = -(first / first.square().mean().sqrt() + second / second.square().mean().sqrt())
    torch.testing.assert_close(moved[0], expected)


def test_rows_without_a_gradient_stay_unchanged():
    assert run_steepest([[0.0, 0.0], [1.0, 1.0]], lr=0.5).tolist() == [[0, 0], [-0.5, -0.5]]
    p = torch.zeros(1, 2, requires_grad=True)
    Steepest([p]).step()
    assert p.tolist() == [[0, 0]]


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_impossible_momentum_raises(momentum):
    with pytest.raises(ValueError, match=f"momentum is {momentum}; expected 0 <= momentum < 1"):
        Steepest([torch.zeros(1)], momentum=momentum)


def test_steps_of_shared_leaves_are_normalised_over_the_tensor():
    """Weights and biases that all images share: one rms over the whole tensor, of any number of axes."""
    bias, weight, number = torch.zeros(2), torch.zeros(2, 1, 2), torch.zeros(())
    bias.grad, weight.grad = torch.tensor([3.0, 4.0]), torch.tensor([[[1.0, 0.0]], [[0.0, -7.0]]])
    number.grad = torch.tensor(-5.0)
    Steepest([bias, weight, number], lr=0.1, rows=1).step()
    torch.testing.assert_close(bias, -0.1 * torch.tensor([3.0, 4.0]) / 12.5**0.5)
    torch.testing.assert_close(weight, -0.1 * torch.tensor([[[1.0, 0.0]], [[0.0, -7.0]]]) / 12.5**0.5)
    torch.testing.assert_close(number, torch.tensor(0.1))


def test_leaves_with_one_axis_have_one_number_for_each_row():
    p = torch.zeros(3)
    p.grad = torch.tensor([5.0, -0.01, 0.0])
    Steepest([p], lr=0.1).step()
    torch.testing.assert_close(p, torch.tensor([-0.1, 0.1, 0.0]))


def test_feature_distance_by_hand():
    """At one position the channels differ by 3 and 4, at the other by 0."""
    seed = torch.zeros(1, 2, 1, 2)
    candidate = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert FeatureDistance(smooth=0).distance(candidate, seed).tolist() == [2.5]
    assert FeatureDistance(smooth=0).distance(candidate[..., 0, 0], seed[..., 0, 0]).tolist() == [5.0]
    seed = torch.tensor([[[[3.0, 3.0]], [[4.0, 4.0]]]])  # ε = 1 · 5
    assert FeatureDistance(smooth=1).distance(seed * 0, seed).tolist() == pytest.approx([50**0.5 - 5])


def test_distance_of_tokens_equals_that_of_positions():
    """(rows, tokens, channels), as transformers have them, equals (rows, channels, tokens) transposed."""
    a, b = torch.rand(2, 5, 3), torch.rand(2, 5, 3)
    for smooth in (0.0, 0.01):
        as_map = FeatureDistance(smooth=smooth).distance(a.mT[..., None], b.mT[..., None])
        torch.testing.assert_close(FeatureDistance(smooth=smooth).distance(a, b), as_map)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "relu2", "relu3", "fc"])
def test_recorded_distances(recorded, tiny, layer):
    image = Fourier(margin=1e-6).decode((recorded["perturbed_params"],), (64, 64))
    module = tiny.module(layer)
    value = tiny.run(torch.cat([image, recorded["seed_image"]]), (), [module], to_output=False)(module)
    ours = FeatureDistance(smooth=0).distance(value[:1], value[1:])
    # a distance of nearly equal activations: each of the C values rounds by some units in the last place, whatever is left
    rounding = 8 * torch.finfo(value.dtype).eps * value.shape[1] ** 0.5 * float(value.detach().abs().max())
    torch.testing.assert_close(-ours[0].double(), recorded[f"loss_l2_{layer}"], atol=rounding, rtol=1e-5)
    assert rounding < 1e-2 * float(ours.detach()), "and the bound still tells distances apart"


def test_recorded_gradient(recorded, tiny):
    params = recorded["perturbed_params"].clone().requires_grad_()
    image = Fourier(margin=1e-6).decode((params,), (64, 64))
    module = tiny.module("relu1")
    value = tiny.run(torch.cat([image, recorded["seed_image"]]), (), [module], to_output=False)(module)
    (slope,) = torch.autograd.grad(-FeatureDistance(smooth=0).distance(value[:1], value[1:]).sum(), params)
    theirs = recorded["grad_params_l2relu1"]
    assert (slope - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("smooth", [0.0, 0.01])
def test_the_distance_has_no_gradient_at_the_seed(smooth):
    seed = torch.randn(2, 4, 3, 3)
    here = seed.clone().requires_grad_()
    distance = FeatureDistance(smooth=smooth).distance(here, seed)
    (slope,) = torch.autograd.grad(distance.sum(), here)
    assert distance.abs().max() <= torch.finfo(torch.float32).eps and slope.abs().max() == 0


def test_the_smooth_distance_has_a_small_gradient_near_the_seed():
    """The plain norm's gradient there is a unit vector; ours is as small as the distance."""
    seed = torch.randn(1, 4, 3, 3)
    slopes = []
    for smooth in (0.0, 0.01):
        near = (seed * (1 + 1e-7)).requires_grad_()
        (slope,) = torch.autograd.grad(FeatureDistance(smooth=smooth).distance(near, seed).sum(), near)
        slopes.append(float(slope.norm(dim=1).mean()) * 9)
    assert slopes[0] > 0.5 and slopes[1] < 1e-3


@given(seed=st.integers(0, 99), smooth=st.floats(0, 1), half=st.booleans())
def test_a_distance_is_finite_and_not_negative(seed, smooth, half):
    torch.manual_seed(seed)
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    b[1] = 0
    if half:
        a, b = a.bfloat16(), b.bfloat16()
    distance = FeatureDistance(smooth=smooth).distance(a, b)
    assert distance.dtype == torch.float32 and (distance > 0).all() and distance.isfinite().all()
    plain = FeatureDistance(smooth=0).distance(a, b)
    assert (distance <= plain + 1e-6).all()


def test_balls_by_hand():
    seeds = torch.zeros(2, 1, 1, 2)
    images = torch.tensor([[[[3.0, 4.0]]], [[[0.3, 0.4]]]])
    assert Ball(1).project(images, seeds).flatten().tolist() == pytest.approx([0.6, 0.8, 0.3, 0.4])
    assert Ball(0.35, "Linf").project(images, seeds).flatten().tolist() == pytest.approx([0.35, 0.35, 0.3, 0.35])


@given(seed=st.integers(0, 99), radius=st.floats(0.01, 5), norm=st.sampled_from(["L2", "Linf"]))
def test_projection_is_idempotent(seed, radius, norm):
    torch.manual_seed(seed)
    seeds, images = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    ball = Ball(radius, norm)
    once = ball.project(images, seeds)
    size = (once - seeds).flatten(1).norm(dim=1, p=2 if norm == "L2" else torch.inf)
    assert (size <= radius * (1 + 1e-5)).all()
    torch.testing.assert_close(ball.project(once, seeds), once, atol=1e-6, rtol=0)


def test_projection_equals_that_of_captums_pgd():
    seeds, images = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    clip = lambda images, seeds, radius: seeds + (images - seeds).renorm(p=2, dim=0, maxnorm=radius)
    torch.testing.assert_close(Ball(0.5).project(images, seeds), clip(images, seeds, 0.5))


def test_impossible_regularizers_raise():
    for wrong in ({"weight": -1}, {"smooth": -0.1}):
        with pytest.raises(ValueError, match=r"FeatureDistance\(weight=.*expected both at least 0"):
            FeatureDistance(**wrong)
    for wrong in ((0.0, "L2"), (1.0, "L1")):
        with pytest.raises(ValueError, match=r'Ball\(.*expected a radius above 0, and "L2" or "Linf"'):
            Ball(*wrong)
