import pytest
import torch

from xinc_captum.metrics import magnitudes, participation
from xinc_captum.metrics.amounts import check_clip, check_masks


def test_channels_do_not_cancel():
    canvas = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)
    assert magnitudes(canvas).tolist() == [[[5.0]]], "a signed sum would say 1"
    clip = canvas.expand(4, 1, 2, 1, 1)
    assert magnitudes(clip).shape == (4, 1, 1, 1)
    assert magnitudes(canvas.half()).dtype == torch.float32


def test_what_is_no_canvas_is_said():
    with pytest.raises(ValueError, match=r"canvas has shape \(2, 3\); wanted \(units, channels, H, W\)"):
        magnitudes(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        (torch.ones(3), r"amounts have shape \(3,\); wanted \(units, H, W\)"),
        (torch.ones(3, 0), r"amounts have shape \(3, 0\); wanted"),
        (-torch.ones(2, 2), r"amounts go down to -1; wanted magnitudes >= 0.*magnitudes\(canvas\)"),
        (torch.full((2, 2), torch.nan), "amounts have values that are not finite"),
    ],
)
def test_what_are_no_amounts_is_said(amounts, message):
    with pytest.raises(ValueError, match=message):
        participation(amounts)


def test_what_is_no_clip_is_said():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\); wanted a clip, \(frames, units, H, W\)"):
        check_clip(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match="1 frame; wanted at least 2: what happens in time needs something to compare"):
        check_clip(torch.ones(1, 2, 3, 4))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.ones(2, 3, 5), r"masks have shape \(2, 3, 5\) for a picture of \(3, 4\); wanted \(regions, 3, 4\)"),
        (torch.ones(3, 4), r"masks have shape \(3, 4\) for a picture"),
        (torch.arange(12.0).view(1, 3, 4), r"masks go from 0 to 11; wanted bool.*as_masks\(labels\)"),
        (torch.zeros(2, 3, 4).index_fill(0, torch.tensor(1), 1), r"masks \[0\] are empty"),
    ],
)
def test_what_are_no_masks_is_said(masks, message):
    with pytest.raises(ValueError, match=message):
        check_masks(masks, (3, 4))


def test_masks_that_are_no_numbers_are_refused():
    masks = torch.tensor([[1.0, torch.nan, 0.0]])
    with pytest.raises(ValueError, match="masks go from nan to nan; wanted bool, or weights"):
        check_masks(masks, (3,))
