from pathlib import Path

import numpy as np
import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_steps import unit_steps, unit_values

DATA = np.load(Path(__file__).parents[1] / "data" / "linking.npz")


@pytest.fixture(scope="module")
def link():
    return LatentLink(ridge=0.0).fit(torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"]), torch.arange(400) % 3)


@pytest.fixture(scope="module")
def start():
    return torch.tensor(DATA["B_start"])[None]


@pytest.mark.parametrize("which", range(3))
def test_the_papers_tuning_of_one_unit(link, start, which):
    unit = int(DATA["B_units"][which])
    values = torch.linspace(float(DATA["B_lo"][unit]), float(DATA["B_hi"][unit]), 5, dtype=torch.float64)
    np.testing.assert_allclose(DATA["B_rs"][which][:, unit], values, atol=1e-12)
    latents = unit_steps(link, start, unit, values, anchor=link(start), own=start[:, unit], direction="partial")
    np.testing.assert_allclose(latents[0], DATA["B_ws"][which], atol=1e-10)


def test_the_range_is_that_of_the_papers_pairs(link):
    ends = link.bounds(range(24))
    np.testing.assert_allclose(ends[:, 0], DATA["B_lo"])
    np.testing.assert_allclose(ends[:, 1], DATA["B_hi"])


@pytest.mark.parametrize("direction", ["marginal", "within_class"])
def test_steps_are_straight_from_the_anchor(link, start, direction):
    anchor, own, values = torch.randn(1, 16, dtype=torch.float64), torch.tensor([0.3]), torch.tensor([0.3, 1.3, 2.3])
    found = unit_steps(link, start, 4, values, anchor=anchor, own=own, direction=direction)[0]
    torch.testing.assert_close(found[0], anchor[0])
    torch.testing.assert_close(found[2] - found[0], 2 * link.direction([4], direction)[0], rtol=1e-6, atol=1e-7)


def test_partial_steps_bend_where_the_link_does(start):
    r, w = torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"])
    link = LatentLink("fourier_features", features=64).fit(r, w)
    moved = start.clone()
    moved[:, 2] += 0.5
    anchor, own = torch.zeros(1, 16, dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    found = unit_steps(link, start, 2, torch.tensor([1.5]), anchor=anchor, own=own, direction="partial")
    torch.testing.assert_close(found[0], link(moved) - link(start))


def test_per_class_links_take_the_class_of_the_row():
    r, w, classes = torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"]), torch.arange(400) % 2
    link = LatentLink("per_class").fit(r, w, classes)
    some = r[:3]
    own, values, of = some[:, 1], torch.tensor([0.0, 1.0]), torch.tensor([1, 0, 1])
    found = unit_steps(link, some, 1, values, anchor=link(some, of), own=own, direction="partial", classes=of)
    for row in range(3):
        step = link.direction([1], "partial", class_=int(of[row]))[0]
        torch.testing.assert_close(found[row, 1] - found[row, 0], step)


@pytest.mark.parametrize("span", ["quantile", "minmax", "sd"])
def test_values_over_a_span(link, span):
    values = unit_values(link, 3, span, 7)
    low, high = link.bounds([3], span)[0]
    assert values.dtype == torch.float64 and len(values) == 7
    torch.testing.assert_close(values, torch.linspace(float(low), float(high), 7, dtype=torch.float64))
    assert torch.equal(unit_values(link, 3, [1, 2.5]), torch.tensor([1, 2.5], dtype=torch.float64))


@pytest.mark.parametrize(
    ("values", "steps", "text"),
    [
        ("all", 5, "values is 'all'; wanted numbers, or the span"),
        ("minmax", 1, "steps is 1; wanted at least 2"),
        ([], 5, r"values have shape \(0,\)"),
        ([[1.0]], 5, r"values have shape \(1, 1\)"),
        ([1.0, float("nan")], 5, "1 of them not finite"),
    ],
)
def test_impossible_values(link, values, steps, text):
    with pytest.raises(ValueError, match=text):
        unit_values(link, 0, values, steps)
