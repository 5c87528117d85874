import pytest
import torch

from xinc_captum.generators import EigenGenerator, Generator, from_callable, normal_latents, pictures_in_unit_range

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


def test_what_is_unknown_is_absent():
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
    ("image_range", "value", "wanted"), [((-1, 1), 0.0, 0.5), ((0, 255), 51.0, 0.2), ((0.0, 1.0), 0.25, 0.25)]
)
def test_pictures_come_in_0_to_1_by_hand(image_range, value, wanted):
    paint = painter(lambda w: torch.full((len(w), 3, 2, 2), value), image_range)
    drawn = pictures_in_unit_range(paint, LATENTS)
    assert drawn.shape == (3, 3, 2, 2)
    assert torch.allclose(drawn, torch.tensor(wanted))


def test_the_gradient_goes_through():
    latents = LATENTS.double().requires_grad_()
    drawn = pictures_in_unit_range(painter(lambda w: w.view(-1, 1, 2, 2).tanh(), (-1, 1)), latents)
    (gradient,) = torch.autograd.grad(drawn.sum(), latents)
    assert drawn.dtype == torch.float64
    assert torch.allclose(gradient, (1 - latents.tanh() ** 2) / 2)
    assert pictures_in_unit_range(painter(lambda w: w.view(-1, 1, 2, 2)), latents[:0]).shape == (0, 1, 2, 2)


@pytest.mark.parametrize(
    ("draw", "text"),
    [
        (lambda w: w.view(-1, 1, 2, 2) * 0 + 1.5, r"lie in \[1.5, 1.5\], but its image_range says \[0, 1\]. Correct"),
        (lambda w: w.view(-1, 1, 2, 2) * 0 - 0.1, r"lie in \[-0.1, -0.1\], but"),
        (lambda w: w.view(-1, 1, 2, 2) * float("nan"), r"lie in \[nan, nan\].*nan means that the latents or the weigh"),
        (lambda w: w.sigmoid(), r"drew torch.float32 of shape \(3, 4\) of 3 latents; wanted floats \(3, channels, H"),
        (lambda w: torch.zeros(1, 1, 2, 2), r"shape \(1, 1, 2, 2\) of 3 latents; wanted floats \(3"),
        (lambda w: torch.zeros(3, 1, 2, 2, dtype=torch.uint8), r"drew torch.uint8 of shape"),
    ],
)
def test_wrong_pictures_are_said(draw, text):
    with pytest.raises(ValueError, match=text):
        pictures_in_unit_range(painter(draw), LATENTS)


def test_rounding_is_no_error():
    assert pictures_in_unit_range(painter(lambda w: torch.full((3, 1, 2, 2), 1.0005)), LATENTS).max() > 1


def test_wrong_latents_and_ranges_are_said():
    paint = painter(lambda w: w.view(-1, 1, 2, 2).sigmoid())
    for wrong in (LATENTS[0], LATENTS.long(), LATENTS[None]):
        with pytest.raises(ValueError, match=r"latents are torch.\w+ of shape .*; wanted floats \(n, latent_dim\)"):
            pictures_in_unit_range(paint, wrong)
    for wrong in ((1, 1), (1, -1), (0, float("nan"))):
        with pytest.raises(ValueError, match=r"image_range is \(.*wanted its lowest value first, then a higher one"):
            painter(torch.sigmoid, wrong)
    with pytest.raises(TypeError, match="synthesize is a Tensor; wanted a function"):
        from_callable(LATENTS, normal_latents(4))
    with pytest.raises(TypeError, match="sample_latents is a int; wanted a function"):
        from_callable(torch.sigmoid, 4)


def test_an_eigen_generator_is_one():
    assert isinstance(EigenGenerator(torch.rand(5, 1, 3, 3), components=2), Generator)
