import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import correspondence, region_agreement, region_use


def test_known_answer():
    """Neurons 0 and 1 paint alike in both pictures, 2 and 3 have changed places: half are found, both ways."""
    first = torch.eye(4)
    second = 3 * torch.eye(4)[[0, 1, 3, 2]]
    found = correspondence(torch.stack([first, second]))
    assert (found.retrieval, found.chance, found.queries, found.silent) == (0.5, 0.25, 8, 0)
    assert found.same == pytest.approx(0.5)
    assert found.other == pytest.approx(2 / 4 / 3), "two of four rows have one other like themselves among three"


def test_silent_neurons_do_not_look_and_are_not_found():
    maps = torch.eye(3).repeat(2, 1, 1)
    maps[1, 2] = 0.0
    found = correspondence(maps)
    assert (found.queries, found.silent) == (5, 1)
    assert found.retrieval == pytest.approx(4 / 5), "neuron 2 of the first picture finds nobody"


def test_where_all_are_silent_there_is_no_answer():
    found = correspondence(torch.zeros(2, 3, 4))
    assert (found.queries, found.silent, found.chance) == (0, 6, 1 / 3)
    assert all(math.isnan(one) for one in (found.retrieval, found.same, found.other))


def test_ties_are_not_finds():
    assert correspondence(torch.ones(2, 3, 4)).retrieval == 0.0


def test_signs_count():
    maps = torch.eye(3)
    found = correspondence(torch.stack([maps, -maps]))
    assert found.same == -1.0 and found.retrieval == 0.0


@given(st.integers(0, 1000))
def test_neurons_at_random_are_found_by_chance(seed):
    maps = torch.randn(6, 16, 30, generator=torch.Generator().manual_seed(seed))
    found = correspondence(maps)
    assert found.retrieval < 0.25 and abs(found.same) < 0.15 and found.queries == 6 * 5 * 16
    doubled = correspondence(maps * torch.rand(6, 16, 1) + 0.0)
    assert doubled.retrieval == pytest.approx(found.retrieval, abs=1e-9), "lengths mean nothing"


def test_shares_of_regions():
    """Neuron 0 paints 1 everywhere, neuron 1 paints -3 in the left column only: shares 1/4, 3/4 and 1, 0."""
    maps = torch.zeros(2, 2, 1, 2, 2)
    maps[:, 0] = 1.0
    maps[:, 1, :, :, 0] = -3.0
    masks = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    use = region_use(maps, masks)
    assert use.tolist() == [[[0.25, 0.75], [1.0, 0.0]]] * 2
    swapped = region_use(maps, torch.stack([masks, masks.flip(0)]))
    assert torch.equal(swapped[1], use[1].flip(0)) and torch.equal(swapped[0], use[0])


def test_agreement_is_spearmans_mean_over_pairs():
    use = torch.tensor([[[0.1, 0.2, 0.7]], [[0.2, 0.3, 0.5]], [[0.5, 0.3, 0.2]]])
    assert region_agreement(use).tolist() == pytest.approx([-1 / 3])  # 1, -1 and -1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: correspondence(torch.ones(1, 3, 4)),
            r"canvases have shape \(1, 3, 4\); wanted \(pictures, neurons, \*pic",
        ),
        (lambda: correspondence(torch.full((2, 3, 4), float("nan"))), "canvases hold NaN or infinity"),
        (
            lambda: region_use(torch.ones(2, 3, 4, 4), torch.ones(1, 4, 4)),
            r"canvases have shape \(2, 3, 4, 4\) and masks",
        ),
        (lambda: region_use(torch.ones(2, 3, 1, 4, 4), torch.ones(3, 1, 4, 4)), r"masks \(3, 1, 4, 4\); wanted"),
        (
            lambda: region_agreement(torch.ones(1, 2, 3)),
            r"use has shape \(1, 2, 3\); wanted \(pictures, regions, neurons",
        ),
    ],
)
def test_impossible_shapes(call, text):
    with pytest.raises(ValueError, match=text):
        call()
