import math

import pytest
import torch

from xinc_captum.visualizers import kernel_sheet, layer_profile_sheet
from xinc_captum.visualizers.nern import mosaic


def test_mosaic_arranges_kernels():
    weight = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    found = mosaic(weight)
    assert found.shape == (5, 8)
    assert found[0, :2].tolist() == [0, 1] and found[1, 3:5].tolist() == [6, 7] and found[3, 6:].tolist() == [20, 21]
    assert math.isnan(found[2, 0]) and math.isnan(found[0, 2]) and int(found.isnan().sum()) == 40 - 24
    assert mosaic(torch.ones(3, 2, 1, 1)).shape == (5, 3)


def test_kernel_sheet_has_one_scale_and_shows_the_difference():
    parts = torch.randn(4, 3, 2, 3, 3)
    expected = parts.sum(0) + 0.25
    figure = kernel_sheet(parts, ["neuron 1", "neuron 2", "neuron 3", "bias"], expected, layer="conv1")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["target kernels", "generated kernels", "difference", "neuron 1"]
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title()]
    assert len(images) == 7 and len({image.get_clim() for image in images}) == 1
    missing = images[2].get_array()
    assert float(missing[0, 0]) == pytest.approx(0.25, abs=1e-5)
    assert "conv1" in figure.texts[0].get_text()


def test_kernel_sheet_states_how_many_kernels_it_shows():
    parts = torch.randn(2, 40, 30, 1, 1)
    figure = kernel_sheet(parts, ["a", "b"], parts.sum(0), generated=parts.sum(0), filters=5, channels=4)
    assert figure.axes[0].images[0].get_array().shape == (9, 7)
    assert "the first 5 x 4 kernels" in figure.texts[1].get_text()


def test_layer_profiles_are_relative_to_the_average():
    share = torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.0, 0.0]])
    axes, bar = layer_profile_sheet(share, ["first", "second"]).axes
    assert [label.get_text() for label in bar.get_yticklabels()] == ["a quarter", "the average", "four times"]
    lean = axes.images[0].get_array()
    assert lean.shape == (3, 2), "a neuron without contributions has no profile"
    mean = share[:3].mean(0)
    rows = [int(label.get_text()) for label in axes.get_yticklabels()]
    for row, neuron in enumerate(rows):
        assert lean[row].tolist() == pytest.approx((share[neuron] / mean).log2().tolist(), abs=1e-5)
    assert rows.index(0) < rows.index(1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["first (50%)", "second (50%)"]


def test_kernel_figures_reject_wrong_inputs():
    parts = torch.zeros(2, 3, 2, 3, 3)
    with pytest.raises(ValueError, match="with 1 names; expected"):
        kernel_sheet(parts, ["a"], parts[0])
    with pytest.raises(ValueError, match=r"share has shape \(2, 3\) for 1 layers"):
        layer_profile_sheet(torch.rand(2, 3), ["a"])
