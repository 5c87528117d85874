import pytest
import torch

from xinc_captum.attributions.nern import kernel_coordinates


@pytest.mark.parametrize(
    ("ours", "theirs"), [("index", "int"), ("index", "None"), ("local", "local"), ("global", "global")]
)
def test_as_recorded(arrays, ours, theirs):
    shapes = [tuple(arrays[f"net/state/conv{i}.weight"].shape) for i in (1, 2, 3, 4)]
    wanted = torch.cat([arrays[f"coords/{theirs}/layer{i}"] for i in range(4)]).double()
    torch.testing.assert_close(kernel_coordinates(shapes, ours), wanted, atol=1e-7, rtol=0)


def test_unknown_scale():
    with pytest.raises(ValueError, match="scale is 'unit'; wanted one of 'index', 'local', 'global'"):
        kernel_coordinates([(1, 1, 3, 3)], "unit")
