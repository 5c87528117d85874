import pytest
import torch
from torch import nn

from xinc_captum.inr import NeRV, reduced
from xinc_captum.inr.upsampling import UpsamplingBlock, described, grid_of


def test_a_block_by_hand():
    """Channel o s² + a s + b of the convolution lands at row offset a, column offset b of channel o."""
    block = UpsamplingBlock(1, 2, stride=2, kernel_size=1, activation=nn.Identity)
    with torch.no_grad():
        block.conv.weight.copy_(torch.arange(8.0).reshape(8, 1, 1, 1))
        block.conv.bias.zero_()
    drawn = block(torch.tensor([[[[1.0, 10.0]]]]))
    assert drawn[0, 0].tolist() == [[0, 1, 0, 10], [2, 3, 20, 30]]
    assert drawn[0, 1].tolist() == [[4, 5, 40, 50], [6, 7, 60, 70]]


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_blocks_of_any_stride_and_kernel(stride, kernel_size):
    block = UpsamplingBlock(3, 4, stride, kernel_size, "relu")
    assert [name for name, _ in block.named_children()] == ["conv", "shuffle", "activation"]
    drawn = block(torch.randn(2, 3, 4, 6))
    assert drawn.shape == (2, 4, 4 * stride, 6 * stride)
    assert drawn.min() == 0


def test_widths_that_shrink():
    assert reduced(100, 3, 2.0, least=20) == (100, 50, 25, 20)
    assert reduced(8, 2) == (8, 12, 12)
    assert reduced(8, 0) == (8,)
    with pytest.raises(ValueError, match="width is 8, least is 12 and reduction is 0; wanted all three above zero"):
        reduced(8, 2, reduction=0.0)


def test_grids():
    assert grid_of((72, 88), (2, 2, 2)) == (9, 11)
    assert grid_of((12, 30), (3, 2)) == (2, 5)
    for strides in ((), (2, 0)):
        with pytest.raises(ValueError, match=r"wanted at least one block, each with a stride of at least 1"):
            grid_of((8, 8), strides)
    for size in ((72, 90), (0, 8), (72,)):
        with pytest.raises(
            ValueError, match=r"the strides \(2, 2, 2\) enlarge 8 times; wanted a height and a width that"
        ):
            grid_of(size, (2, 2, 2))


def test_the_squash_keeps_pixels_within_bounds():
    model = NeRV((8, 8), (2, 2), (2,), squash=True)
    assert isinstance(model.squash, nn.Sigmoid)
    nn.init.constant_(model.head.bias, 1000.0)
    assert model(torch.rand(2)).max() == 1
    assert not hasattr(NeRV((8, 8), (2, 2), (2,)), "squash")


def test_a_configuration_describes_the_same_parts():
    named = {"widths": [4, 3, 2], "strides": [2, 1], "kernel_sizes": 3, "head_kernel_size": 1, "channels": 2}
    parts = described(named | {"activation": "relu", "squash": True, "size": [8, 12], "stem": [64]})
    assert list(parts) == ["blocks", "head", "squash"]
    x = torch.rand(1, 4, 2, 3)
    assert parts["blocks"](x).shape == (1, 2, 4, 6) and parts["head"].weight.shape == (2, 2, 1, 1)
    with pytest.raises(KeyError, match="squash"):
        described(named | {"activation": "relu"})
