import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import as_masks, colour_regions, grid_cells, outside
from xinc_captum.metrics.partitions import grouped


@given(h=st.integers(1, 12), w=st.integers(1, 12), gh=st.integers(1, 5), gw=st.integers(1, 5))
def test_cells_are_rectangles_that_cover_everything_once(h, w, gh, gw):
    gh, gw = min(gh, h), min(gw, w)
    masks = as_masks(grid_cells((h, w), (gh, gw)))
    assert len(masks) == gh * gw and (masks.sum(0) == 1).all()
    for mask in masks:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask.sum() == len(rows) * len(columns), "a full rectangle"
        assert rows[-1] - rows[0] + 1 == len(rows) and columns[-1] - columns[0] + 1 == len(columns), "no comb"
    areas = masks.sum((1, 2))
    assert areas.max() <= -(-h // gh) * -(-w // gw)


def test_uneven_sizes_drop_nothing():
    labels = grid_cells((4, 256), (1, 6))
    assert labels.unique(return_counts=True)[1].tolist() == [172, 172, 168, 172, 172, 168]


def test_labels_and_what_is_left():
    masks = as_masks(torch.tensor([[5, -1, 2]]))
    assert masks.tolist() == [[[False, False, True]], [[True, False, False]]]
    assert outside(masks).tolist() == [[[False, True, False]]], "not the union of the objects"


def test_colours_wherever_they_are():
    picture = torch.zeros(3, 4, 6)
    picture[0, :, ::2] = 1  # red and black columns in turn
    labels = colour_regions(picture, 2)
    assert (labels[:, ::2] == labels[0, 0]).all() and (labels[:, 1::2] == labels[0, 1]).all()
    assert labels[0, 0] != labels[0, 1]
    clip = torch.stack([picture, picture.flip(2)])
    both = colour_regions(clip, 2)
    assert both.shape == (2, 4, 6) and torch.equal(both[1], both[0].flip(1)), "one colour, one number, at every frame"


def test_k_means_leaves_the_random_state_and_repeats_itself():
    import numpy as np

    features = torch.rand(300, 4)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(grouped(features, 5, seed=1), grouped(features, 5, seed=1))
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy_state).all()


def test_centres_learnt_from_some_hold_for_all(monkeypatch):
    monkeypatch.setattr("xinc_captum.metrics.partitions.LEARNT_FROM", 50)
    rows = torch.cat([torch.randn(200, 2), torch.randn(200, 2) + 40])
    labels = grouped(rows, 2)
    assert len(labels[:200].unique()) == len(labels[200:].unique()) == 1 and labels[0] != labels[-1]


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"grid is \(3, 1\) for a picture of \(2, 9\); wanted at least one pixel"):
        grid_cells((2, 9), (3, 1))
    with pytest.raises(ValueError, match=r"labels are torch.float32, shape \(2, 2\); wanted integers|wanted integers"):
        as_masks(torch.ones(2, 2))
    with pytest.raises(ValueError, match="wanted integers, some of them >= 0"):
        as_masks(-torch.ones(2, 2).long())
    with pytest.raises(ValueError, match=r"picture is torch.uint8 of shape \(3, 2, 2\); wanted floats"):
        colour_regions(torch.zeros(3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="wanted 3 groups of 4 rows, of which 1 differ; ask for fewer"):
        grouped(torch.ones(4, 2), 3)
    with pytest.raises(ValueError, match="features have values that are not finite"):
        grouped(torch.full((4, 2), torch.inf), 2)
