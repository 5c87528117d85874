import pytest
import torch

from xinc_captum.attributions.linking.unit_columns import columns, one_column

ALIVE = torch.ones(24, dtype=torch.bool)


def test_ints_are_columns_and_tuples_places():
    assert columns(5, (2, 3, 4), ALIVE) == [5]
    assert columns(-1, (24,), ALIVE) == [23]
    assert columns((1, 2, 3), (2, 3, 4), ALIVE) == [23]
    assert columns((1, slice(None), 0), (2, 3, 4), ALIVE) == [12, 16, 20]
    assert columns((7,), (24, 9, 9), ALIVE) == [7], "a pooled map has lost its places"
    assert one_column((0, 1, 1), (2, 3, 4), ALIVE) == 5


@pytest.mark.parametrize(
    ("selector", "error", "text"),
    [
        (24, IndexError, r"neuron_selector 24 is out of range: the linked dims are \(24,\)"),
        ((0, 3, 0), IndexError, r"out of range: the linked dims are \(2, 3, 4\), so 3 must lie in \[-3, 2\]"),
        ((1, 1), IndexError, r"has 2 entries; the linked dims are \(2, 3, 4\)"),
        ((slice(1, 1), 0, 0), IndexError, "names no unit"),
        (True, TypeError, "is a bool; wanted an int"),
        (lambda a: a, TypeError, "is a function; wanted an int"),
        (slice(0, 2), TypeError, "is a slice; wanted an int"),
        ([1, 2], TypeError, "is a list of 2; give one unit here"),
        ((0, 0, slice(None)), ValueError, "names 4 units, and a value is set to one"),
    ],
)
def test_bad_selectors(selector, error, text):
    with pytest.raises(error, match=text):
        one_column(selector, (2, 3, 4), ALIVE)


def test_dead_units():
    with pytest.raises(ValueError, match="unit 3 is dead: it never varied"):
        columns(3, (24,), ALIVE & (torch.arange(24) != 3))
