import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.generators import (
    EigenGenerator,
    Generator,
    check_generator,
    class_rows,
    from_callable,
    images_in_unit_range,
    normal,
    normal_latents,
    truncate,
)

LATENTS = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def painter(draw, image_range=(0.0, 1.0), **more):
    return from_callable(draw, normal_latents(4), image_range, **more)


def test_a_function_is_a_generator():
    paint = painter(lambda w: w.view(-1, 1, 2, 2).tanh(), (-1, 1), num_classes=3, differentiable=False)
    assert isinstance(paint, Generator)
    assert not isinstance(object(), Generator)
    assert (paint.num_classes, paint.differentiable, paint.image_range) == (3, False, (-1, 1))
    assert torch.equal(paint.synthesize(LATENTS), LATENTS.view(-1, 1, 2, 2).tanh())
    stream = torch.Generator().manual_seed(5)
    drawn = paint.sample_latents(2, truncation=0.5, generator=stream)
    assert torch.equal(drawn, 0.5 * torch.randn(2, 4, generator=torch.Generator().manual_seed(5)))


def test_unknown_members_are_absent():
    assert not hasattr(painter(torch.sigmoid), "latent_mean")
    known = painter(torch.sigmoid, latent_mean=lambda classes: torch.full((1, 4), float(classes)))
    assert known.latent_mean(2).tolist() == [[2.0] * 4]


def test_the_sampler_gets_everything():
    asked = []

    def sample(*args, **named):
        asked.append((args, named))
        return torch.zeros(2, 4)

    stream = torch.Generator()
    from_callable(torch.sigmoid, sample).sample_latents(2, 7, 0.3, generator=stream)
    assert asked == [((2, 7, 0.3), {"generator": stream})]


@pytest.mark.parametrize(
    ("image_range", "value", "expected"), [((-1, 1), 0.0, 0.5), ((0, 255), 51.0, 0.2), ((0.0, 1.0), 0.25, 0.25)]
)
def test_pictures_come_in_0_to_1_by_hand(image_range, value, expected):
    paint = painter(lambda w: torch.full((len(w), 3, 2, 2), value), image_range)
    drawn = images_in_unit_range(paint, LATENTS)
    assert drawn.shape == (3, 3, 2, 2)
    assert torch.allclose(drawn, torch.tensor(expected))


def test_the_gradient_goes_through():
    latents = LATENTS.double().requires_grad_()
    drawn = images_in_unit_range(painter(lambda w: w.view(-1, 1, 2, 2).tanh(), (-1, 1)), latents)
    (gradient,) = torch.autograd.grad(drawn.sum(), latents)
    assert drawn.dtype == torch.float64
    assert torch.allclose(gradient, (1 - latents.tanh() ** 2) / 2)
    assert images_in_unit_range(painter(lambda w: w.view(-1, 1, 2, 2)), latents[:0]).shape == (0, 1, 2, 2)


@pytest.mark.parametrize(
    ("draw", "text"),
    [
        (lambda w: w.view(-1, 1, 2, 2) * 0 + 1.5, r"lie in \[1.5, 1.5\], but its image_range is \[0, 1\]. Correct"),
        (lambda w: w.view(-1, 1, 2, 2) * 0 - 0.1, r"lie in \[-0.1, -0.1\], but"),
        (lambda w: w.view(-1, 1, 2, 2) * float("nan"), r"lie in \[nan, nan\].*nan means that the latents or the weigh"),
        (
            lambda w: w.sigmoid(),
            r"returned torch.float32 of shape \(3, 4\) for 3 latents; expected floats \(3, channels, H",
        ),
        (lambda w: torch.zeros(1, 1, 2, 2), r"shape \(1, 1, 2, 2\) for 3 latents; expected floats \(3"),
        (lambda w: torch.zeros(3, 1, 2, 2, dtype=torch.uint8), r"returned torch.uint8 of shape"),
    ],
)
def test_invalid_images_raise_errors(draw, text):
    with pytest.raises(ValueError, match=text):
        images_in_unit_range(painter(draw), LATENTS)


def test_rounding_is_no_error():
    assert images_in_unit_range(painter(lambda w: torch.full((3, 1, 2, 2), 1.0005)), LATENTS).max() > 1


def test_invalid_latents_and_ranges_raise_errors():
    paint = painter(lambda w: w.view(-1, 1, 2, 2).sigmoid())
    for wrong in (LATENTS[0], LATENTS.long(), LATENTS[None]):
        with pytest.raises(ValueError, match=r"latents are torch.\w+ of shape .*; expected floats \(n, latent_dim\)"):
            images_in_unit_range(paint, wrong)
    for wrong in ((1, 1), (1, -1), (0, float("nan"))):
        with pytest.raises(ValueError, match=r"image_range is \(.*expected \(low, high\) with low < high"):
            painter(torch.sigmoid, wrong)
    with pytest.raises(TypeError, match="synthesize is a Tensor; expected a function"):
        from_callable(LATENTS, normal_latents(4))
    with pytest.raises(TypeError, match="sample_latents is a int; expected a function"):
        from_callable(torch.sigmoid, 4)


def test_an_eigen_generator_is_one():
    assert isinstance(EigenGenerator(torch.rand(5, 1, 3, 3), components=2), Generator)


@given(st.floats(0, 2), st.integers(0, 99))
def test_truncation_shrinks_the_distance_to_the_centre(psi, seed):
    stream = torch.Generator().manual_seed(seed)
    latents, centre = torch.randn(3, 5, generator=stream).double(), torch.randn(5, generator=stream).double()
    drawn = truncate(latents, centre, psi)
    assert torch.allclose(drawn - centre, psi * (latents - centre))
    assert torch.equal(truncate(latents, centre, 1), latents)
    assert torch.equal(truncate(latents, centre, 0), centre.expand(3, 5))


def test_truncation_has_its_bounds():
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"truncation is .*; expected 0 \(the mean alone\) to 1"):
            truncate(torch.zeros(1, 2), 0.0, wrong)


def test_class_rows_by_hand():
    assert class_rows(3, 2, 10).tolist() == [3, 3]
    assert class_rows(torch.tensor([3, 0], dtype=torch.int16), 2, 10).tolist() == [3, 0]
    assert class_rows(torch.tensor(9), 1, 10).dtype == torch.int64
    assert class_rows(None, 4, 0) is None


@pytest.mark.parametrize(
    ("classes", "n", "num_classes", "error", "text"),
    [
        (None, 0, 0, ValueError, "n is 0; expected at least 1 latent"),
        (1, -3, 10, ValueError, "n is -3; expected at least 1 latent"),
        (1, 2, 0, ValueError, "classes were given, but this generator has none; leave them out"),
        (None, 2, 10, ValueError, r"this generator has 10 classes; give classes, one number or \(n,\)"),
        (10, 2, 10, ValueError, "class 10 is not a class of the generator; expected 0 to 9"),
        (torch.tensor([1, -2]), 2, 10, ValueError, "class -2 is not a class of the generator"),
        (
            torch.tensor([1, 2, 3]),
            2,
            10,
            ValueError,
            r"classes have shape \(3,\); expected one number, or \(2,\) for n=2",
        ),
        (torch.zeros(2, 10).long(), 2, 10, ValueError, r"classes have shape \(2, 10\)"),
        (1.0, 2, 10, TypeError, "classes are torch.float32; expected integers"),
        (torch.tensor([True, False]), 2, 10, TypeError, "classes are torch.bool"),
    ],
)
def test_class_rows_refuses_invalid_classes(classes, n, num_classes, error, text):
    with pytest.raises(error, match=text):
        class_rows(classes, n, num_classes)


def test_normal_numbers_have_a_stream_of_their_own():
    state = torch.get_rng_state()
    first, second = normal(2, 3), normal(2, 3)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    seeded = [normal(2, 3, torch.Generator().manual_seed(4), dtype=dtype) for dtype in (torch.float32, torch.float64)]
    assert seeded[1].dtype == torch.float64
    assert torch.equal(seeded[0].double(), seeded[1])
    assert torch.equal(seeded[0], torch.randn(2, 3, generator=torch.Generator().manual_seed(4)))


def test_normal_latents_have_no_classes():
    sample = normal_latents(5)
    assert sample(3).shape == (3, 5)
    assert sample(3, truncation=0.0).abs().max() == 0
    with pytest.raises(ValueError, match="generator has none"):
        sample(3, 1)
    with pytest.raises(ValueError, match="n is 0"):
        sample(0)
    with pytest.raises(ValueError, match="width is 0; expected at least 1"):
        normal_latents(0)


def checked_painter(draw, sample=None):
    return from_callable(draw, sample or normal_latents(4))


def square(w):
    return w.view(-1, 1, 2, 2).sigmoid()


def test_a_valid_generator_returns_its_sizes():
    assert check_generator(checked_painter(square)) == (4, (1, 2, 2))
    eigen = EigenGenerator(torch.rand(12, 3, 4, 5), torch.arange(12) % 3, components=7)
    assert check_generator(eigen, classes=2) == (7, (3, 4, 5))
    assert check_generator(eigen, classes=torch.tensor([0, 2, 1])) == (7, (3, 4, 5))


def test_no_generator_at_all():
    with pytest.raises(TypeError, match=r"Linear has no image_range and no sample_latents and no synthesize; expected"):
        check_generator(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("draw", "sample", "text"),
    [
        (square, lambda n, *_, **__: torch.zeros(n), r"sample_latents\(3\) returned torch.float32 of shape \(3,\)"),
        (square, lambda n, *_, **__: torch.zeros(2, 4), r"of shape \(2, 4\); expected finite floats \(3, latent_dim\)"),
        (square, lambda n, *_, **__: torch.full((n, 4), torch.inf), r"expected finite floats"),
        (
            square,
            lambda n, *_, **__: torch.rand(n, 4),
            r"the same seed gave other latents; expected sample_latents to use only its generator=",
        ),
        (lambda w: torch.rand(len(w), 1, 2, 2), None, r"the same latents gave other images; expected no noise"),
        (
            lambda w: square(w - w.mean(0)),
            None,
            r"depends on the other latents of its batch, as with BatchNorm in training mode",
        ),
        (lambda w: square(w) * 2, None, r"image_range is \[0, 1\]"),
        (lambda w: square(w) * torch.nan, None, r"nan means that the latents"),
        (lambda w: w.sigmoid(), None, r"expected floats \(3, channels, H, W\)"),
    ],
)
def test_each_violation_of_the_protocol_is_named(draw, sample, text):
    with pytest.raises(ValueError, match=text):
        check_generator(checked_painter(draw, sample))


def test_a_network_in_training_mode_is_detected():
    network = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1), nn.Sigmoid())
    with pytest.raises(ValueError, match="as with BatchNorm in training mode"):
        check_generator(checked_painter(network))
    assert check_generator(checked_painter(network.eval())) == (4, (1, 2, 2))


def test_the_random_state_is_restored():
    state = torch.get_rng_state()
    check_generator(checked_painter(square))
    assert torch.equal(torch.get_rng_state(), state)


class Averaging(nn.Module):
    """Moves its mean latent in training mode, as the mapping of a StyleGAN does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(4))

    def forward(self, z):
        if self.training:
            self.w_avg.copy_(z.mean(0).lerp(self.w_avg, 0.9))
        return z


def test_a_mapping_that_updates_its_mean_is_detected_and_restored():
    mapping = Averaging()
    averaging = checked_painter(square, lambda n, *_, generator, **__: mapping(torch.randn(n, 4, generator=generator)))
    with pytest.raises(
        ValueError, match=r"changed the buffer 'w_avg' of Averaging.*call eval\(\) on the network first"
    ):
        check_generator(averaging)
    assert torch.equal(mapping.w_avg, torch.zeros(4))
    mapping.eval()
    assert check_generator(averaging) == (4, (1, 2, 2))
