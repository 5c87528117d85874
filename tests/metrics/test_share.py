import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import as_masks, grid_cells, pooled, share


def test_shares_by_hand():
    amounts = torch.tensor([[[3.0, 0.0]], [[1.0, 4.0]]])
    assert share(amounts).tolist() == [3 / 8, 5 / 8]
    masks = torch.tensor([[[1.0, 0.0]], [[0.5, 1.0]]])
    assert share(amounts, masks).tolist() == [[0.75, 0.25], [1.5 / 6, 4.5 / 6]]
    assert share(torch.zeros(2, 3)).isnan().all(), "nobody has a part of nothing"


@given(h=st.integers(1, 9), w=st.integers(1, 9), gh=st.integers(1, 9), gw=st.integers(1, 9))
def test_pooled_cells_are_the_grid_s(h, w, gh, gw):
    gh, gw = min(gh, h), min(gw, w)
    amounts = torch.rand(3, h, w, dtype=torch.float64)
    masks = as_masks(grid_cells((h, w), (gh, gw))).double()
    means = torch.einsum("uyx,ryx->ur", amounts, masks) / masks.sum((1, 2))
    torch.testing.assert_close(pooled(amounts, (gh, gw)).flatten(1), means)


def test_even_cells_are_torch_s_and_clips_go_frame_by_frame():
    clip = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    answer = pooled(clip, (2, 4))
    torch.testing.assert_close(answer, torch.nn.functional.avg_pool2d(clip, (4, 3)))
    torch.testing.assert_close(pooled(clip[1], (2, 4)), answer[1])


def test_what_does_not_fit_is_said():
    with pytest.raises(
        ValueError, match=r"grid is \(4, 4\) for pictures of \(2, 8\); wanted at least one pixel a cell"
    ):
        pooled(torch.ones(1, 2, 8), (4, 4))
    with pytest.raises(ValueError, match=r"amounts have shape \(2, 8\); wanted \(units, H, W\), or \(frames"):
        pooled(torch.ones(2, 8))
    with pytest.raises(ValueError, match=r"masks have shape \(1, 3\)"):
        share(torch.ones(2, 4), torch.ones(1, 3))
