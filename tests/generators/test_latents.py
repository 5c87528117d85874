import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.generators import class_rows, normal, normal_latents, truncate


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
        with pytest.raises(ValueError, match=r"truncation is .*; wanted 0 \(the mean alone\) to 1"):
            truncate(torch.zeros(1, 2), 0.0, wrong)


def test_class_rows_by_hand():
    assert class_rows(3, 2, 10).tolist() == [3, 3]
    assert class_rows(torch.tensor([3, 0], dtype=torch.int16), 2, 10).tolist() == [3, 0]
    assert class_rows(torch.tensor(9), 1, 10).dtype == torch.int64
    assert class_rows(None, 4, 0) is None


@pytest.mark.parametrize(
    ("classes", "n", "num_classes", "error", "text"),
    [
        (None, 0, 0, ValueError, "n is 0; wanted at least 1 latent"),
        (1, -3, 10, ValueError, "n is -3; wanted at least 1 latent"),
        (1, 2, 0, ValueError, "classes were given, but this generator knows none; leave them out"),
        (None, 2, 10, ValueError, r"this generator draws one of 10 classes; give classes, one number or \(n,\)"),
        (10, 2, 10, ValueError, "class 10 is not one that the generator knows; wanted 0 to 9"),
        (torch.tensor([1, -2]), 2, 10, ValueError, "class -2 is not one that the generator knows"),
        (
            torch.tensor([1, 2, 3]),
            2,
            10,
            ValueError,
            r"classes have shape \(3,\); wanted one number, or \(2,\) for n=2",
        ),
        (torch.zeros(2, 10).long(), 2, 10, ValueError, r"classes have shape \(2, 10\)"),
        (1.0, 2, 10, TypeError, "classes are torch.float32; wanted whole numbers"),
        (torch.tensor([True, False]), 2, 10, TypeError, "classes are torch.bool"),
    ],
)
def test_class_rows_say_what_they_want(classes, n, num_classes, error, text):
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
    with pytest.raises(ValueError, match="knows none"):
        sample(3, 1)
    with pytest.raises(ValueError, match="n is 0"):
        sample(0)
    with pytest.raises(ValueError, match="width is 0; wanted at least 1"):
        normal_latents(0)
