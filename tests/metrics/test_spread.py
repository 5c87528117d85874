from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import participation, pixels_per_unit, running_share, units_for, units_per_pixel
from xinc_captum.metrics.shuffles import shuffled_pixels, shuffled_units

DATA = Path(__file__).parents[1] / "data" / "xinc_ffn_small.npz"


def test_by_hand():
    amounts = torch.tensor([[6.0, 1.0, 0.0], [3.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert pixels_per_unit(amounts).tolist() == [1, 0, 0], "a third each is no more than its share"
    assert units_for(amounts, 0.5).tolist() == [1, 2, 0]
    assert units_for(amounts, 0.9).tolist() == [2, 3, 0]
    assert units_for(amounts, 1.0).tolist() == [3, 3, 0]
    assert units_per_pixel(amounts, 0.6).tolist() == [2, 0, 0], "6 + 3 of 13"
    assert units_per_pixel(amounts, 1.0).tolist() == [3, 3, 0]
    effective = participation(amounts)
    assert effective[:2].tolist() == pytest.approx([100 / 46, 3]) and effective[2].isnan()
    assert running_share(amounts).tolist() == pytest.approx([0, (0.6 + 1 / 3) / 2, (0.9 + 2 / 3) / 2, 1])


@given(units=st.integers(1, 8), pixels=st.integers(1, 20), seed=st.integers(0, 999), part=st.floats(0.05, 1))
def test_definitions_in_numpy(units, pixels, seed, part):
    a = np.random.default_rng(seed).gamma(0.5, size=(units, pixels))
    tensor = torch.from_numpy(a)
    fair = (a / a.sum(0) > 1 / units).sum(1)
    assert np.abs(pixels_per_unit(tensor).numpy() - fair).max() == 0 or units == 1
    for p in range(pixels):
        ordered = np.sort(a[:, p])[::-1].cumsum()
        assert int(units_for(tensor, part)[p]) == int((ordered < part * ordered[-1] * (1 - 1e-12)).sum()) + 1
    counted = a[a >= np.sort(a.ravel())[::-1][int(units_per_pixel(tensor, part).sum()) - 1]]
    assert counted.sum() >= part * a.sum() * (1 - 1e-9), "the counted ones make up the part"
    assert counted.sum() - counted.min() < part * a.sum() * (1 + 1e-9), "and the last of them is needed"
    effective = participation(tensor)
    assert (effective >= 1 - 1e-9).all() and (effective <= units + 1e-9).all()


def test_participation_does_not_depend_on_the_scale():
    amounts = torch.rand(5, 7, dtype=torch.float64)
    torch.testing.assert_close(participation(amounts * 1e-200), participation(amounts))


def test_controls_take_away_what_they_should():
    own = torch.eye(6).repeat_interleave(5, 1) + 0.01  # each unit has five pixels of its own
    own[0] += 0.05
    generator = torch.Generator().manual_seed(0)
    specialised = torch.rand(6, 30, generator=generator) * torch.tensor([10, 5, 1, 1, 1, 1])[:, None]
    assert pixels_per_unit(specialised).double().std() > 5
    assert pixels_per_unit(shuffled_units(specialised, generator)).double().std() < 4
    assert units_for(own, 0.5).max() == 1
    assert units_for(shuffled_pixels(own, generator), 0.5).max() > 1, "units that share out the pixels no longer do"


def test_the_paper_s_counts_on_its_own_maps():
    """Pixels per neuron, on the recorded maps of the released code; its rule in its own words."""
    with np.load(DATA) as data:
        for name in ("layer1", "layer2", "layer3"):
            a = np.abs(data[name]).astype(np.float64)
            with np.errstate(invalid="ignore"):
                fair = np.nan_to_num(a / a.sum(0)) > 1 / len(a)
            assert pixels_per_unit(torch.from_numpy(a)).tolist() == fair.sum((1, 2)).tolist()
            assert 0 < fair.mean() < 1


def test_parts_are_parts():
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"covering is {wrong}; wanted a part of the whole"):
            units_per_pixel(torch.ones(2, 2), wrong)
        with pytest.raises(ValueError, match=f"part is {wrong}; wanted a part"):
            units_for(torch.ones(2, 2), wrong)
