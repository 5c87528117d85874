import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import part_area, part_luminance, part_means


def test_area_and_luminance_are_the_papers(part_table):
    pictures, masks = part_table.pictures, part_table.masks
    area, bright = part_area(pictures, masks)[..., 0] * 64 * 64, part_luminance(pictures, masks)[..., 0] * 85
    for step, part, recorded_area, recorded_luminance in part_table.rows[:, :4]:
        where = int(step), int(part)
        assert area[where].item() == recorded_area
        assert bright[where].item() == pytest.approx(recorded_luminance, rel=1e-12)


def test_changes_are_the_papers(part_table):
    pictures, masks = part_table.pictures, part_table.masks
    area, bright = part_area(pictures, masks)[..., 0], part_luminance(pictures, masks)[..., 0]
    grown = (area[2] - area[0]) / area[0]
    np.testing.assert_allclose(grown[1:], part_table.change[:, 0], rtol=1e-12)
    np.testing.assert_allclose((bright[2] - bright[0])[1:], part_table.change[:, 1], atol=1e-12)


def test_soft_masks_give_weighted_means():
    field = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]]).double()
    assert part_means(field, torch.tensor([[[[0.5, 0.25]]]])).tolist() == [[[1.25 / 0.75, 2 / 0.75]]]


@given(seed=st.integers(0, 99))
def test_shares_of_a_partition_sum_to_one(seed):
    g = torch.Generator().manual_seed(seed)
    pictures, masks = torch.rand(2, 3, 5, 4, generator=g).double(), torch.rand(2, 3, 5, 4, generator=g).double()
    masks = masks / masks.sum(1, keepdim=True)
    share = part_area(pictures, masks)
    torch.testing.assert_close(share.sum(1), torch.ones(2, 1).double())
    torch.testing.assert_close((part_means(pictures, masks) * share).sum(1), pictures.mean((2, 3)))


def test_gradients_reach_pictures_and_masks():
    pictures, masks = torch.rand(2, 3, 3, 3).double().requires_grad_(), torch.rand(2, 2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(part_luminance, (pictures, masks))


def test_empty_parts_have_an_area_and_no_mean():
    pictures, masks = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert part_area(pictures, masks).item() == 0
    assert part_luminance(pictures, masks).isnan().all()


def test_mismatched_arguments_raise_errors():
    pictures = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"masks have shape \(2, 4, 4\) for images of \(2, 3, 4, 4\); expected"):
        part_area(pictures, torch.ones(2, 4, 4))
    with pytest.raises(ValueError, match="with at least one part"):
        part_luminance(pictures, torch.ones(2, 0, 4, 4))
    with pytest.raises(ValueError, match=r"expected \(2, parts, 4, 4\)"):
        part_means(pictures, torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match="Divide 8-bit values by 255"):
        part_area((pictures * 255).byte(), torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_parts_in_half_precision(dtype):
    fields, masks = torch.rand(1, 2, 300, 300).to(dtype), torch.ones(1, 1, 300, 300)
    found = part_means(fields, masks)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), part_means(fields.float(), masks), atol=0, rtol=torch.finfo(dtype).eps)
    assert part_area(fields, masks).item() == 1


def test_areas_need_weights_in_range():
    with pytest.raises(
        ValueError, match="masks go from 255 to 255; expected bool, or weights in .*divide a 0-255 mask"
    ):
        part_area(torch.rand(1, 1, 2, 2), torch.full((1, 1, 2, 2), 255))
