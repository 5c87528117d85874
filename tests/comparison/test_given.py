import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comparison.shortly import quick
from torch import nn
from torchvision import transforms

from xinc_captum.comparison import random_map
from xinc_captum.comparison.given import check_photos, check_preprocess, checked_masks
from xinc_captum.zoo import Classifier

WIDE = torch.rand(2, 3, 24, 48)
NORMALISE = transforms.Normalize((0.5,) * 3, (0.2,) * 3)


def standardised(x):
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (transforms.CenterCrop(24), "0 to 23", "12 to 35"),
        (transforms.Compose([transforms.Resize(12), transforms.CenterCrop(12), NORMALISE]), "0 to 23", r"1\d to 3\d"),
        (lambda x: x[..., 4:, :20], "4 to 23", "0 to 19"),
    ],
)
def test_what_crops_is_said(crop, rows, columns):
    with pytest.raises(
        ValueError,
        match=f"preprocess looks at rows {rows} and columns {columns} of photos of 48 x 24 pixels.*Crop the photos first",
    ):
        check_preprocess(nn.Identity(), crop, WIDE)


@pytest.mark.parametrize(
    "whole",
    [
        None,
        NORMALISE,
        standardised,
        transforms.Resize((16, 16)),
        lambda x: F.interpolate(x, (7, 9)),  # nearest: most pixels go nowhere, evenly
        lambda x: F.avg_pool2d(x, 5),  # the last rows and columns fill no window
        lambda x: F.pad(x, (4, 4, 4, 4)),
        lambda x: x[:, [2, 1, 0]],
        lambda x: x.detach() * 2,
        lambda x: {"pixels": x},
        lambda x: nn.Conv2d(3, 3, 1)(x.detach()),
        lambda x: (x * 255).byte(),
    ],
)
def test_what_does_not_is_left_alone(whole):
    state = torch.get_rng_state()
    with torch.inference_mode():
        check_preprocess(nn.Identity(), whole, WIDE)
    check_preprocess(nn.Identity(), whole, WIDE)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_random_crop_is_one_and_draws_nothing():
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="Crop the photos first"):
        check_preprocess(nn.Identity(), transforms.RandomCrop(16), WIDE)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_wants_pictures_is_said():
    with pytest.raises(
        TypeError, match=r"failed on a tensor of photos \(1, 3, 24, 48\): .*leave out what opens or conv"
    ):
        check_preprocess(nn.Identity(), transforms.ToTensor(), WIDE)


def test_a_classifier_is_not_normalised_twice(conv):
    net = Classifier("tiny", conv, NORMALISE, 8, ("a", "b", "c"))
    with pytest.raises(ValueError, match="tiny is a Classifier, which preprocesses itself; give its .model with"):
        quick({"random": random_map()}, net, torch.rand(2, 3, 8, 8), 1, preprocess=NORMALISE)
    quick({"random": random_map()}, net, torch.rand(2, 3, 8, 8), 1)


def test_photos():
    check_photos(torch.rand(1, 3, 2, 2))
    for wrong in (torch.rand(3, 2, 2), torch.ones(1, 3, 2, 2, dtype=torch.uint8), torch.rand(0, 3, 2, 2)):
        with pytest.raises(
            ValueError, match=f"inputs are {wrong.dtype} of shape {re.escape(str(tuple(wrong.shape)))}; w"
        ):
            check_photos(wrong)


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray, lambda masks: masks.tolist()])
def test_masks_of_any_kind(kind):
    masks = torch.rand(2, 24, 48) > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(checked_masks(kind(masks), WIDE), masks)
    assert checked_masks(None, WIDE) is None


def test_empty_masks_are_said_and_left_out(conv):
    masks = torch.zeros(2, 24, 48)
    masks[1, :, :24] = 1
    with pytest.warns(
        UserWarning, match="segmentation shows nothing in image 0 of 2: pointing game and energy in mask"
    ):
        found = quick({"random": random_map()}, conv, WIDE, 1, segmentation=masks, metrics=["energy"])
    assert found.scores["random"]["energy"].isnan().tolist() == [True, False]
    assert 0 < found.table[0].scores["energy"].value < 1
