import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum import NeuronCanvas
from xinc_captum.inr import FourierMLP, coordinates
from xinc_captum.metrics import as_masks, grid_cells, magnitudes, pooled, preference, region_test, share


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_by_hand():
    amounts = torch.tensor([[6.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    masks = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 1]]).bool()
    delta = preference(amounts, masks)
    assert delta[0].tolist() == pytest.approx([6 / 2 - 1, 2 / 6 - 1])
    assert delta[1].tolist() == [0, 0], "as much as the area"
    assert delta[2].isnan().all(), "a unit that paints nothing prefers nothing"
    assert region_test(amounts, masks, generator=generator()).variance[0].item() == pytest.approx(
        ((2 + 2 / 3) / 2) ** 2
    )


@given(seed=st.integers(0, 999), scale=st.floats(1e-6, 1e6))
def test_areas_weigh_preferences_out(seed, scale):
    g = generator(seed)
    amounts, labels = torch.rand(4, 5, 6, generator=g), torch.randint(0, 4, (5, 6), generator=g)
    masks = as_masks(labels)
    delta = preference(amounts, masks)
    areas = masks.flatten(1).double().mean(1)
    assert (delta @ areas).abs().max() < 1e-9, "over a partition, more here is less there"
    torch.testing.assert_close(preference(amounts.double() * scale, masks), preference(amounts.double(), masks))


def test_true_cells_beat_chance_and_combs_do_not():
    """What the paper's "space-agnostic" was measured on: combs look alike to any smooth map."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 16), torch.linspace(0, 1, 32), indexing="ij")
    centres = torch.rand(12, 2, 1, 1, generator=generator())
    amounts = torch.exp(-((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2) / 0.05)
    comb = torch.arange(16)[:, None] % 4 * 8 + torch.arange(32) % 8
    cells, combs = (
        region_test(amounts, as_masks(labels), generator=generator()) for labels in (grid_cells((16, 32), (4, 8)), comb)
    )
    assert cells.above_chance > 5 and combs.above_chance < 1.5
    assert cells.variance.median() > 10 * combs.variance.median()
    assert cells.above_elsewhere == pytest.approx(1, abs=0.25), "cells elsewhere are cells: their own control"


def test_only_regions_that_mean_something_beat_their_own_shapes_elsewhere():
    g = generator(1)
    wrapped = torch.nn.functional.pad(torch.rand(7, 24, 24, generator=g), [2] * 4, mode="circular")
    blobs, does_not = torch.nn.functional.avg_pool2d(wrapped, 5, 1).split([1, 6])
    blobs = blobs[0]
    labels = (blobs > blobs.median()).long()
    cares = labels.double().expand(6, 24, 24) + 0.1 + 0.05 * torch.rand(6, 24, 24, generator=g)
    assert region_test(cares, as_masks(labels), generator=g).above_elsewhere > 5
    assert region_test(does_not, as_masks(labels), generator=g, repeats=40).above_elsewhere < 3


def test_controls_keep_areas():
    amounts, masks = torch.ones(1, 4, 4), torch.zeros(2, 4, 4)
    masks[0, 0, :2], masks[1, 1:3] = 1, 0.5
    found = region_test(amounts, masks, generator=generator(), repeats=3)
    assert found.scattered.abs().max() < 1e-12 and found.shifted.abs().max() < 1e-12, "an even map has no regions"
    assert found.scattered.shape == found.shifted.shape == (3, 1)
    again = region_test(amounts * 2, masks, generator=generator(), repeats=3)
    torch.testing.assert_close(again.variance, found.variance)


def test_scattered_is_what_numpy_draws():
    amounts = torch.rand(1, 400, generator=generator())
    masks = as_masks(torch.arange(400) // 20)
    rng = np.random.default_rng(0)
    a = amounts[0].numpy()
    drawn = [(rng.permutation(a).reshape(20, 20).mean(1) / a.mean() - 1).var() for _ in range(300)]
    found = region_test(amounts, masks, generator=generator(), repeats=300).scattered
    assert float(found.mean()) == pytest.approx(np.mean(drawn), rel=0.1)


def test_a_canvas_answers_the_same_without_being_held():
    size, grid = (8, 12), (2, 3)
    canvas = NeuronCanvas(FourierMLP(hidden=6, seed=0), "activation1", rule="secant").canvas(coordinates(size), size)
    amounts = magnitudes(canvas.to_tensor()[: canvas.units])
    masks = as_masks(grid_cells(size, grid))
    areas = masks.flatten(1).double().sum(1)[:, None]
    sums = canvas.regions(masks)[:, : canvas.units].sum(2).double()
    whole = canvas.regions(torch.ones(1, *size))[:, : canvas.units].sum(2).double()
    near = {"rtol": 1e-4, "atol": 1e-7}
    torch.testing.assert_close((sums / (whole * areas / 96) - 1).T, preference(amounts, masks), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums / sums.sum(1, keepdim=True), share(amounts, masks), **near)
    torch.testing.assert_close((sums / areas).T, pooled(amounts, grid).flatten(1), **near)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"masks have shape \(1, 3, 3\) for a picture of \(2, 2\)"):
        preference(torch.ones(1, 2, 2), torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match="masks \\[1\\] are empty"):
        region_test(torch.ones(1, 2), torch.tensor([[1, 1], [0, 0]]), generator=generator())
    with pytest.raises(ValueError, match="and 0 repeats"):
        region_test(torch.ones(1, 2), torch.ones(1, 2), generator=generator(), repeats=0)
