"""Input validation of links: errors, and valid inputs that are returned unchanged."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.link import (
    check_classes,
    check_pairs,
    check_units,
)
from xinc_captum.attributions.linking.loop import check_image_size
from xinc_captum.attributions.linking.moments import Moments

R, W = torch.rand(6, 3), torch.rand(6, 2)


@pytest.fixture
def moments():
    """Three units of which the middle one was always 0.25."""
    own = Moments(3, 2)
    own.add(torch.tensor([[0.0, 0.25, 1.0], [1.0, 0.25, 3.0]]), torch.zeros(2, 2))
    return own


def broken(rows, row, column, value):
    rows = rows.clone()
    rows[row, column] = value
    return rows


def test_valid_pairs_are_returned_unchanged():
    r, w = check_pairs(R.half(), W.double())
    assert (r.dtype, w.dtype) == (torch.float16, torch.float64)
    assert check_pairs(R, W, Moments(3, 2)) == (R, W)


@pytest.mark.parametrize(
    ("r", "w", "kind", "text"),
    [
        ([[1.0]], W, TypeError, "representations are list; expected a float tensor"),
        (R, W.long(), TypeError, "latents are torch.int64; expected a float tensor"),
        (R[0], W, ValueError, r"representations have shape \(3,\); expected \(n, units\), none of them 0"),
        (R, W[:, :0], ValueError, r"latents have shape \(6, 0\); expected \(n, latent_dim\), none of them 0"),
        (R, W[1:], ValueError, "got 6 representations and 5 latents; expected one latent for each"),
        (broken(R, 4, 1, torch.nan), W, ValueError, "representations hold 1 values .* first at row 4, column 1. Leave"),
        (
            R,
            torch.full_like(W, torch.inf),
            ValueError,
            "latents hold 12 values that are not finite, .* row 0, column 0",
        ),
    ],
)
def test_mismatched_pairs_raise(r, w, kind, text):
    with pytest.raises(kind, match=text):
        check_pairs(r, w)


def test_sizes_other_than_the_links_raise():
    with pytest.raises(ValueError, match=r"got pairs of \(3 units, 2 latents\); the link has \(3 units, 4 latents\)"):
        check_pairs(R, W, Moments(3, 4))
    link = LatentLink(ridge=0.0).fit(torch.rand(20, 5), torch.rand(20, 2))
    with pytest.raises(ValueError, match=r"have shape \(6, 3\); the link has 5 units, expected \(n, 5\)"):
        link(R)
    with pytest.raises(ValueError, match="have shape list; the link has 5 units"):
        link([1.0])


def test_integer_representations_raise():
    link = LatentLink(ridge=0.0).fit(torch.rand(20, 3), torch.rand(20, 2))
    with pytest.raises(TypeError, match="representations are torch.int64; expected a float tensor"):
        link(torch.ones(2, 3, dtype=torch.long))


def test_a_single_class_is_used_for_all_samples():
    assert check_classes(None, 3) is None
    for one in (4, torch.tensor(4)):
        assert check_classes(one, 3).tolist() == [4, 4, 4]
    assert check_classes([2, 0, 1], 3).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        (torch.zeros(3), r"classes are torch.float32 of shape \(3,\); expected integers, \(3,\)"),
        ([True, False, True], "classes are torch.bool of shape"),
        ([0, 1], r"classes are torch.int64 of shape \(2,\); expected integers, \(3,\)"),
    ],
)
def test_invalid_classes_raise(classes, text):
    with pytest.raises(ValueError, match=text):
        check_classes(classes, 3)


@given(st.lists(st.sampled_from([-3, -1, 0, 2]), min_size=1, max_size=6), st.booleans())
def test_units_count_from_either_end(units, as_tensor):
    own = Moments(3, 1)
    own.add(torch.rand(4, 3), torch.rand(4, 1))
    result = check_units(torch.tensor(units) if as_tensor else units, own)
    assert result.tolist() == [unit % 3 for unit in units]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_units_of_any_integer_dtype(dtype):
    own = Moments(300, 1)
    own.add(torch.rand(4, 300), torch.rand(4, 1))
    result = check_units(torch.tensor([0, 7], dtype=dtype), own)
    assert (result.tolist(), result.dtype) == ([0, 7], torch.long)
    assert check_units(range(2), own).tolist() == [0, 1]
    assert check_units(7, own).tolist() == [7]


@pytest.mark.parametrize(
    ("units", "kind", "text"),
    [
        ([], ValueError, "units is empty; give at least one"),
        (1.5, TypeError, "units are 1.5; expected an integer or a list of integers"),
        ([True, False, True], TypeError, r"units are \[True, False, True\]"),
        ([[0, 1]], TypeError, r"units are \[\[0, 1\]\]"),
        ([0, 3], IndexError, r"unit 3 is out of range: the link has 3 units; expected a number in \[-3, 2\]"),
        (-4, IndexError, "unit -4 is out of range"),
        ([0, -2], ValueError, "unit 1 is dead: its value is 0.25 in all 2 pairs, so it has no direction"),
    ],
)
def test_invalid_units_raise(units, kind, text, moments):
    with pytest.raises(kind, match=text):
        check_units(units, moments)


def test_only_another_image_size_is_reported_as_the_cause():
    error = RuntimeError("first line\nsecond line")
    check_image_size(torch.rand(2, 1, 4, 4), torch.rand(1, 1, 4, 4), error)
    with pytest.raises(
        ValueError, match=r"of shape \(3, 4, 4\) \(first line\); the link's generator generates"
    ) as caught:
        check_image_size(torch.rand(2, 3, 4, 4), torch.rand(1, 1, 4, 4), error)
    assert caught.value.__cause__ is error
