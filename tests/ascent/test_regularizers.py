import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.accentuation import Ball, FeatureDistance, Fourier


def test_by_hand():
    """At one position the channels differ by 3 and 4, at the other by nothing."""
    seed = torch.zeros(1, 2, 1, 2)
    candidate = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert FeatureDistance(smooth=0).distance(candidate, seed).tolist() == [2.5]
    assert FeatureDistance(smooth=0).distance(candidate[..., 0, 0], seed[..., 0, 0]).tolist() == [5.0]
    seed = torch.tensor([[[[3.0, 3.0]], [[4.0, 4.0]]]])  # ε = 1 · 5
    assert FeatureDistance(smooth=1).distance(seed * 0, seed).tolist() == pytest.approx([50**0.5 - 5])


def test_tokens_are_positions():
    """(rows, tokens, channels), as transformers have them, is (rows, channels, tokens) turned."""
    a, b = torch.rand(2, 5, 3), torch.rand(2, 5, 3)
    for smooth in (0.0, 0.01):
        as_map = FeatureDistance(smooth=smooth).distance(a.mT[..., None], b.mT[..., None])
        torch.testing.assert_close(FeatureDistance(smooth=smooth).distance(a, b), as_map)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "relu2", "relu3", "fc"])
def test_recorded_distances(recorded, tiny, layer):
    image = Fourier(margin=1e-6).decode((recorded["perturbed_params"],), (64, 64))
    module = tiny.module(layer)
    value = tiny.read(torch.cat([image, recorded["seed_image"]]), (), [module], whole=False)(module)
    ours = FeatureDistance(smooth=0).distance(value[:1], value[1:])
    # a distance of nearly equal activations: each of the C values rounds by some units in the last place, whatever is left
    rounding = 8 * torch.finfo(value.dtype).eps * value.shape[1] ** 0.5 * float(value.detach().abs().max())
    torch.testing.assert_close(-ours[0].double(), recorded[f"loss_l2_{layer}"], atol=rounding, rtol=1e-5)
    assert rounding < 1e-2 * float(ours.detach()), "and the bound still tells distances apart"


def test_recorded_gradient(recorded, tiny):
    params = recorded["perturbed_params"].clone().requires_grad_()
    image = Fourier(margin=1e-6).decode((params,), (64, 64))
    module = tiny.module("relu1")
    value = tiny.read(torch.cat([image, recorded["seed_image"]]), (), [module], whole=False)(module)
    (slope,) = torch.autograd.grad(-FeatureDistance(smooth=0).distance(value[:1], value[1:]).sum(), params)
    theirs = recorded["grad_params_l2relu1"]
    assert (slope - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("smooth", [0.0, 0.01])
def test_at_the_seed_there_is_no_slope(smooth):
    seed = torch.randn(2, 4, 3, 3)
    here = seed.clone().requires_grad_()
    distance = FeatureDistance(smooth=smooth).distance(here, seed)
    (slope,) = torch.autograd.grad(distance.sum(), here)
    assert distance.abs().max() <= torch.finfo(torch.float32).eps and slope.abs().max() == 0


def test_beside_the_seed_rounding_stays_rounding():
    """The plain norm's gradient there is a unit vector; ours is as small as the distance."""
    seed = torch.randn(1, 4, 3, 3)
    slopes = []
    for smooth in (0.0, 0.01):
        near = (seed * (1 + 1e-7)).requires_grad_()
        (slope,) = torch.autograd.grad(FeatureDistance(smooth=smooth).distance(near, seed).sum(), near)
        slopes.append(float(slope.norm(dim=1).mean()) * 9)
    assert slopes[0] > 0.5 and slopes[1] < 1e-3


@given(seed=st.integers(0, 99), smooth=st.floats(0, 1), half=st.booleans())
def test_a_distance_is_finite_and_at_least_nothing(seed, smooth, half):
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
def test_projecting_twice_is_projecting_once(seed, radius, norm):
    torch.manual_seed(seed)
    seeds, images = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    ball = Ball(radius, norm)
    once = ball.project(images, seeds)
    size = (once - seeds).flatten(1).norm(dim=1, p=2 if norm == "L2" else torch.inf)
    assert (size <= radius * (1 + 1e-5)).all()
    torch.testing.assert_close(ball.project(once, seeds), once, atol=1e-6, rtol=0)


def test_as_captums_pgd_projects():
    seeds, images = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    clip = lambda images, seeds, radius: seeds + (images - seeds).renorm(p=2, dim=0, maxnorm=radius)
    torch.testing.assert_close(Ball(0.5).project(images, seeds), clip(images, seeds, 0.5))


def test_impossible_ones():
    for wrong in ({"weight": -1}, {"smooth": -0.1}):
        with pytest.raises(ValueError, match=r"FeatureDistance\(weight=.*wanted both at least 0"):
            FeatureDistance(**wrong)
    for wrong in ((0.0, "L2"), (1.0, "L1")):
        with pytest.raises(ValueError, match=r'Ball\(.*wanted a radius above 0, and "L2" or "Linf"'):
            Ball(*wrong)
