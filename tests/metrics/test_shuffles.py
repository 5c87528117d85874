import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import shifts, shuffled_pixels, shuffled_units, shuffled_within


@given(units=st.integers(1, 6), pixels=st.integers(1, 9), seed=st.integers(0, 99))
def test_values_stay_where_they_must(units, pixels, seed):
    amounts = torch.rand(units, pixels, 2, generator=torch.Generator().manual_seed(seed))
    by_unit = shuffled_units(amounts, torch.Generator().manual_seed(seed))
    by_pixel = shuffled_pixels(amounts, torch.Generator().manual_seed(seed))
    assert torch.equal(by_unit.sort(0).values, amounts.sort(0).values), "each pixel keeps its values"
    assert torch.equal(by_pixel.flatten(1).sort(1).values, amounts.flatten(1).sort(1).values), "each unit keeps its own"
    assert by_pixel.shape == amounts.shape


def test_they_shuffle_by_their_own_generator():
    amounts = torch.rand(20, 30, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    first, again, other = (shuffled_units(amounts, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, amounts)
    assert torch.equal(torch.get_rng_state(), state)
    columns = shuffled_pixels(amounts, torch.Generator().manual_seed(0))
    assert len({tuple(row.argsort().tolist()) for row in columns}) == 20, "each unit by itself"


def test_shifts_are_never_nothing():
    drawn = shifts((2, 3), 200, torch.Generator().manual_seed(0))
    assert set(drawn) == {(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}
    with pytest.raises(ValueError, match=r"got 1 pixel\(s\) and 3 repeats; a shifted control wants at least 2 and 1"):
        shifts((1, 1), 3, torch.Generator())


def test_shuffled_within_keeps_each_class_and_moves_most_rows():
    classes = torch.arange(60) % 3
    rows = torch.stack([torch.arange(60.0), classes.float()], 1)
    shuffled = shuffled_within(rows, classes, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled[:, 1], rows[:, 1])
    assert torch.equal(shuffled[:, 0].sort().values, rows[:, 0])
    assert (shuffled[:, 0] != rows[:, 0]).float().mean() > 0.8
    with pytest.raises(ValueError, match=r"got classes of shape \(2,\) for 60 rows"):
        shuffled_within(rows, classes[:2], torch.Generator())
