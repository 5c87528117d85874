import pytest
import torch

from xinc_captum.units import listed, replace, select

A = torch.arange(24.0).reshape(2, 3, 4)


def test_every_kind_of_selector():
    assert torch.equal(select(A, None), A.sum(2))
    assert torch.equal(select(A, 1), A[:, 1].sum(1)[:, None])
    assert torch.equal(select(A, -1), A[:, 2].sum(1)[:, None])
    assert torch.equal(select(A, [2, 0]), A[:, [2, 0]].sum(2))
    assert torch.equal(select(A, (1, 2)), A[:, 1, 2][:, None])
    assert torch.equal(select(A, (slice(0, 2), 3)), A[:, 0:2, 3].sum(1)[:, None])
    assert torch.equal(select(A, lambda a: a[:, 0, 0]), A[:, 0, 0][:, None])
    assert torch.equal(select(A, [0, (1, 2)]), torch.stack([A[:, 0].sum(1), A[:, 1, 2]], 1))


@pytest.mark.parametrize("one", [1, (1, 2), (slice(None), 0), lambda a: a[:, 2].sum(1)])
def test_replacing_a_unit_takes_exactly_its_share(one):
    left = replace(A, one, torch.zeros(()))
    assert torch.equal(select(A, one) - select(left, one), select(A, one))
    assert torch.allclose(A.sum((1, 2)) - left.sum((1, 2)), select(A, one)[:, 0])


@pytest.mark.parametrize(
    ("selector", "error", "text"),
    [
        (
            3,
            IndexError,
            r"neuron_selector 3 is out of range: the layer's units are \(3, 4\), so 3 must lie in \[-3, 2\]",
        ),
        ((0, 9), IndexError, r"9 must lie in \[-4, 3\]"),
        ((0,), IndexError, r"has 1 entries, but the layer has 2 dims after the rows \(3, 4\)"),
        ([], ValueError, "empty list"),
        ("fc", TypeError, "is a str; wanted an int"),
        (True, TypeError, "is a bool"),
        ((0, "x"), TypeError, "holds a str"),
        (slice(0, 1), TypeError, "is a slice"),
    ],
)
def test_wrong_selectors_say_what_is_right(selector, error, text):
    with pytest.raises(error, match=text):
        listed(A, selector)


def test_a_function_must_answer_one_value_a_row():
    with pytest.raises(ValueError, match=r"returned \(2, 3, 4\); wanted one value a row, shape \(2,\)"):
        select(A, lambda a: a)


def test_an_activation_needs_a_unit_axis():
    with pytest.raises(ValueError, match=r"activation has shape \(5,\); wanted \(rows, units"):
        listed(torch.zeros(5), None)
