import pytest
import torch

from xinc_captum.attributions.canvas.rules.products import cumulative_product, product


def test_two_factors_by_hand():
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    value, slot = product([a, b], [torch.tensor([1.0]), torch.tensor([0.5])])
    assert value.item() == 10.0
    assert slot.item() == (1.0 * 5 + 2 * 0.5) / 2
    assert [g.item() for g in torch.autograd.grad(value, [a, b])] == [2.5, 1.0]


@pytest.mark.parametrize("dim", [1, -1, 0])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_every_factor_of_a_cumulative_product_gets_the_same_part(dim, zeros):
    z = torch.rand(4, 5, dtype=torch.float64) + 0.1
    z.view(-1)[[3, 11][:zeros]] = 0.0
    slot = torch.rand(4, 5, dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    value, moved = cumulative_product(leaf, slot, dim)
    torch.testing.assert_close(value, z.cumprod(dim))
    n = z.shape[dim]
    lines, rest = z.movedim(dim, -1), slot.movedim(dim, -1)
    found, found_slot = value.movedim(dim, -1), moved.movedim(dim, -1)
    for i in range(n):
        wanted = torch.zeros_like(lines)
        for j in range(i + 1):
            others = [k for k in range(i + 1) if k != j]
            wanted[..., j] = lines[..., others].prod(-1) / (i + 1)
        (slope,) = torch.autograd.grad(found[..., i].sum(), leaf, retain_graph=True)
        torch.testing.assert_close(slope.movedim(dim, -1), wanted)
        torch.testing.assert_close(found_slot[..., i], (wanted * rest).sum(-1))
