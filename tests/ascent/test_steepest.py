import pytest
import torch

from xinc_captum.attributions.accentuation import Steepest


def stepped(*gradients, **kwargs):
    p = torch.zeros(2, 1, 2, requires_grad=True)
    optimizer = Steepest([p], **kwargs)
    for gradient in gradients:
        p.grad = torch.tensor(gradient).reshape(2, 1, 2)
        optimizer.step()
    return p.detach().reshape(2, 2)


def test_every_row_goes_as_far_whatever_its_gradient():
    moved = stepped([[3.0, 4.0], [-0.003, 0.004]], lr=0.1)
    assert moved.square().mean(1).sqrt().tolist() == pytest.approx([0.1, 0.1])
    assert (moved[0] / moved[0].norm()).tolist() == pytest.approx([-0.6, -0.8])
    assert (moved[1] / moved[1].norm()).tolist() == pytest.approx([0.6, -0.8])


def test_momentum_by_hand():
    """m = (1, 0), then (β, 1)."""
    moved = stepped([[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2, lr=1.0, momentum=0.75)
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.75, 1.0])
    expected = -(first / first.square().mean().sqrt() + second / second.square().mean().sqrt())
    torch.testing.assert_close(moved[0], expected)


def test_rows_without_a_gradient_stay():
    assert stepped([[0.0, 0.0], [1.0, 1.0]], lr=0.5).tolist() == [[0, 0], [-0.5, -0.5]]
    p = torch.zeros(1, 2, requires_grad=True)
    Steepest([p]).step()
    assert p.tolist() == [[0, 0]]


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_impossible_momentum(momentum):
    with pytest.raises(ValueError, match=f"momentum is {momentum}; wanted 0 <= momentum < 1"):
        Steepest([torch.zeros(1)], momentum=momentum)


def test_shared_leaves_go_as_far_as_a_whole():
    """Weights and biases that all images share: one rms over the whole tensor, of any number of axes."""
    bias, weight, number = torch.zeros(2), torch.zeros(2, 1, 2), torch.zeros(())
    bias.grad, weight.grad = torch.tensor([3.0, 4.0]), torch.tensor([[[1.0, 0.0]], [[0.0, -7.0]]])
    number.grad = torch.tensor(-5.0)
    Steepest([bias, weight, number], lr=0.1, rows=1).step()
    torch.testing.assert_close(bias, -0.1 * torch.tensor([3.0, 4.0]) / 12.5**0.5)
    torch.testing.assert_close(weight, -0.1 * torch.tensor([[[1.0, 0.0]], [[0.0, -7.0]]]) / 12.5**0.5)
    torch.testing.assert_close(number, torch.tensor(0.1))


def test_leaves_of_one_axis_hold_a_number_a_row():
    p = torch.zeros(3)
    p.grad = torch.tensor([5.0, -0.01, 0.0])
    Steepest([p], lr=0.1).step()
    torch.testing.assert_close(p, torch.tensor([-0.1, 0.1, 0.0]))
