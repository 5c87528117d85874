import numpy as np
import pytest
import torch

from xinc_captum.inr import coordinates, pixel_centres, times


def test_the_longer_side_spans_the_range():
    grid = coordinates((3, 5)).reshape(3, 5, 2)
    assert grid[0, :, 1].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert grid[:, 0, 0].tolist() == [-1, -0.5, 0], "pixels are square: the shorter axis ends early"


def test_rows_of_the_papers_picture_end_just_below_zero():
    assert coordinates((128, 256))[:, 0].max().item() == pytest.approx(-0.0039, abs=1e-4)


def test_twice_the_size_covers_the_same_range():
    np.testing.assert_allclose(coordinates((9, 9)).reshape(9, 9, 2)[::2, ::2], coordinates((5, 5)).reshape(5, 5, 2))


def test_dims_dtypes_and_single_pixels():
    assert coordinates((2, 3, 4), dtype=torch.float64).shape == (24, 3)
    assert coordinates((4, 1), dtype=torch.float64).dtype == torch.float64
    assert coordinates((1,)).tolist() == [[-1.0]]
    for size in ((), (0, 3)):
        with pytest.raises(ValueError, match="wanted at least one side, each of at least 1 pixel"):
            coordinates(size)


def test_times_span_zero_to_one():
    assert times(5).flatten().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert times(1).tolist() == [[0.0]]
    assert times(2, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="frames is 0; wanted at least 1"):
        times(0)


def test_centres_of_pixels():
    """Edges at -1 and 1 on every axis: two rows at -1/2 and 1/2, four columns at -3/4, -1/4, 1/4, 3/4."""
    where = pixel_centres((2, 4), dtype=torch.float64)
    assert where[:, 0].tolist() == [-0.5] * 4 + [0.5] * 4
    assert where[:4, 1].tolist() == [-0.75, -0.25, 0.25, 0.75]
    with pytest.raises(ValueError, match=r"size is \(2, 0\); wanted at least one side"):
        pixel_centres((2, 0))
