import math

import pytest
import torch

from xinc_captum.visualizers import (
    kernel_sheet,
    layer_profile_sheet,
    network_sheet,
    neurons_across,
    patch_sheet,
    route_sheet,
    token_sheet,
)
from xinc_captum.visualizers.hypernetworks import mosaic


def shown(axes):
    return torch.as_tensor(axes.images[0].get_array()).double()


def test_token_sheet_depends_on_its_input(depends_on_input):
    depends_on_input(lambda g: token_sheet(torch.randn(2, 9, 3, 8, 12, generator=g), torch.rand(2, 3, 8, 12), top=4))


def test_token_contributions_add_up_to_the_output(g, words):
    parts = torch.rand(1, 6, 1, 4, 4, generator=g) / 10
    parts[:, 2] *= 3  # the strongest
    parts[:, 4] *= -2
    figure = token_sheet(parts, torch.rand(1, 1, 4, 4), names=list("abcde"), top=2)
    said = [t.get_text() for t in figure.texts]
    assert said[2:] == ["input", "output", "c", "e", "3 others", "rest"]
    _, drawn, *maps, rest = figure.axes
    torch.testing.assert_close(shown(maps[0]), parts[0, 2, 0].double())
    torch.testing.assert_close(sum(shown(axes) for axes in maps) + shown(rest), shown(drawn), atol=1e-5, rtol=0)
    assert "full colour is" in words(figure) and "What each token contributes" in words(figure)


def test_token_sheet_has_no_column_for_others_if_there_are_none():
    figure = token_sheet(torch.randn(1, 3, 1, 4, 4), torch.rand(1, 1, 4, 4), what="patch")
    said = [t.get_text() for t in figure.texts]
    assert sorted(said[4:6]) == ["patch 0", "patch 1"] and said[6:] == ["rest"] and len(figure.axes) == 5


def test_tokens_can_be_selected(g):
    parts = torch.rand(1, 6, 1, 4, 4, generator=g)
    figure = token_sheet(parts, torch.rand(1, 1, 4, 4), tokens=[3, 0], rest="biases")
    assert [t.get_text() for t in figure.texts][2:] == ["input", "output", "token 3", "token 0", "3 others", "biases"]
    torch.testing.assert_close(shown(figure.axes[2]), parts[0, 3, 0].double())


def test_neurons_across_depends_on_its_input(depends_on_input):
    depends_on_input(lambda g: neurons_across(torch.randn(5, 9, 3, 8, 8, generator=g), torch.rand(5, 3, 8, 8)))


def test_neurons_are_the_strongest_or_selected(words, legible):
    canvases = torch.zeros(3, 4, 1, 4, 4)
    canvases[:, 2] = 1.0
    canvases[1, 0] = -2.0
    figure = neurons_across(canvases, torch.rand(3, 1, 4, 4), top=2)
    legible(figure)
    assert [t.get_text() for t in figure.texts][2:] == ["the picture", "neuron 2", "neuron 0"]
    assert shown(figure.axes[3]).unique().tolist() == [1.0]
    assert "neuron 3" in words(neurons_across(canvases, torch.rand(3, 1, 4, 4), [3]))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: token_sheet(torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)),
            r"parts has shape \(2, 3, 4, 4\); expected \(images, tokens \+ 1, C, H, W\)",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(1, 1, 4, 4)),
            r"images has shape \(1, 1, 4, 4\); expected \(images, c, h, w\) with images = 2",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), names=["a"]),
            "names has 1 entries; expected tokens = ",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), top=0),
            "top is 0; expected at least 1 col",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), tokens=[2]),
            r"tokens are \[2\]; expected one or more of 0 to 1",
        ),
        (
            lambda: neurons_across(torch.rand(2, 3, 1, 4, 4), torch.rand(3, 1, 4, 4)),
            r"images has shape \(3, 1, 4, 4\); expected \(images, c, h, w\) with images = 2",
        ),
        (
            lambda: neurons_across(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), [3]),
            r"neurons are \[3\]; expected one",
        ),
    ],
)
def test_token_figures_reject_wrong_inputs(call, text):
    with pytest.raises(ValueError, match=text):
        call()


QUARTERS = torch.eye(4).view(4, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)


def boxes(axes):
    return [(box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in axes.patches]


def test_patch_sheet_depends_on_its_input(depends_on_input):
    depends_on_input(
        lambda g: patch_sheet(torch.randn(2, 5, 3, 8, 8, generator=g), torch.rand(2, 3, 8, 8), QUARTERS, top=3)
    )


def test_patch_sheet_rows_have_their_own_patches(g):
    parts = torch.rand(2, 5, 1, 8, 8, generator=g) / 20
    parts[0, 2] *= 5
    parts[1, 1] *= -5
    figure = patch_sheet(parts, torch.rand(2, 1, 8, 8), QUARTERS, top=1, rest="the mean")
    assert [t.get_text() for t in figure.texts][2:] == ["input", "output", "", "3 others", "the mean"]
    for row, (patch, corner) in enumerate([(2, (-0.5, 3.5)), (1, (3.5, -0.5))]):
        read, drawn, one, others, rest = figure.axes[5 * row : 5 * row + 5]
        assert boxes(read) == boxes(one) == [(*corner, 4, 4)] and not boxes(others)
        torch.testing.assert_close(shown(one), parts[row, patch, 0].double())
        total = shown(one) + shown(others) + shown(rest)
        torch.testing.assert_close(total.clamp(0, 1), shown(drawn), atol=1e-5, rtol=0)


def test_patch_sheet_has_no_column_for_others_if_there_are_none():
    figure = patch_sheet(torch.randn(1, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS, top=9)
    assert len(figure.axes) == 7 and len(boxes(figure.axes[0])) == 4


def test_route_sheet_depends_on_its_input(depends_on_input):
    depends_on_input(
        lambda g: route_sheet(torch.randn(3, 9, 3, 8, 8, generator=g), torch.rand(3, 8, 8), QUARTERS[:3], top=4)
    )


def test_route_sheet_tokens_add_up_to_the_patch(g):
    parts = torch.rand(2, 4, 1, 8, 8, generator=g) / 10
    parts[:, 3] *= 4
    figure = route_sheet(parts, torch.rand(1, 8, 8), QUARTERS[[3, 0]], names=list("abcd"), top=1)
    assert [t.get_text() for t in figure.texts][2:] == ["the patch", "its contribution", "d", "3 others"]
    for row, corner in enumerate([(3.5, 3.5), (-0.5, -0.5)]):
        cells = figure.axes[4 * row : 4 * row + 4]
        assert all(boxes(axes) == [(*corner, 4, 4)] for axes in cells)
        torch.testing.assert_close(shown(cells[1]), parts[row].sum((0, 1)).double())
        torch.testing.assert_close(shown(cells[2]) + shown(cells[3]), shown(cells[1]))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: patch_sheet(torch.rand(2, 4, 1, 8, 8), torch.rand(2, 1, 8, 8), QUARTERS),
            r"parts has shape \(2, 4, 1, 8, 8\); expected \(images, patches \+ 1, C, H, W\) with patches \+ 1 = 5",
        ),
        (
            lambda: patch_sheet(torch.rand(2, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS),
            r"images has shape \(1, 1, 8, 8\); expected \(images, c, y, x\) with images = 2",
        ),
        (lambda: patch_sheet(torch.rand(1, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS, top=0), "top is 0; expected"),
        (
            lambda: route_sheet(torch.rand(3, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS),
            r"masks has shape \(4, 8, 8\); expected \(patches, h, w\) with patches = 3",
        ),
        (
            lambda: route_sheet(torch.rand(4, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS, names=["a"]),
            "names has 1 entries; expected tokens = ",
        ),
        (lambda: route_sheet(torch.rand(4, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS, top=0), "top is 0; expected"),
    ],
)
def test_patch_figures_reject_wrong_inputs(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_network_sheet_depends_on_its_input(depends_on_input):
    def draw(g):
        images = torch.rand(4, 3, 8, 12, generator=g)
        return network_sheet(images, {"as drawn": (images / 2, [1.0] * 4), "later": (images * 0.9, [2.0] * 4)})

    depends_on_input(draw)


def test_network_sheet_shows_the_psnr_of_each_image(words):
    images = torch.rand(3, 1, 8, 8)
    figure = network_sheet(images, {"as drawn": (1 - images, [7.25, 31.04, -2.0])}, title="Three pictures")
    assert [t.get_text() for t in figure.texts][2:] == ["the picture", "as drawn", "7.2", "31.0", "-2.0"]
    assert "Three pictures" in words(figure)
    first, *_, last = (torch.as_tensor(axes.images[0].get_array()) for axes in figure.axes)
    torch.testing.assert_close(first, images[0, 0])
    torch.testing.assert_close(last, 1 - images[2, 0])


def test_network_sheet_rejects_wrong_lengths():
    images = torch.rand(3, 1, 8, 8)
    with pytest.raises(ValueError, match="decibels of as drawn has 2 entries; expected images = 3"):
        network_sheet(images, {"as drawn": (images, [1.0, 2.0])})


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
    with pytest.raises(
        ValueError, match=r"parts has shape \(2, 3, 2, 3, 3\); expected \(names, F, C, h, w\) with names = 1"
    ):
        kernel_sheet(parts, ["a"], parts[0])
    with pytest.raises(ValueError, match=r"share has shape \(2, 3\); expected \(neurons, layers\) with layers = 1"):
        layer_profile_sheet(torch.rand(2, 3), ["a"])
