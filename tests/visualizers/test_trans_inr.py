import pytest
import torch

from xinc_captum.visualizers import network_sheet, neurons_across, patch_sheet, route_sheet, token_sheet


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
        (lambda: token_sheet(torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)), r"parts have shape \(2, 3, 4, 4\)"),
        (lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(1, 1, 4, 4)), r"images \(1, 1, 4, 4\)"),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), names=["a"]),
            "there are 1 names; expected",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), top=0),
            "top is 0; expected at least 1 col",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), tokens=[2]),
            r"tokens are \[2\]; expected one or more of 0 to 1",
        ),
        (lambda: neurons_across(torch.rand(2, 3, 1, 4, 4), torch.rand(3, 1, 4, 4)), r"images \(3, 1, 4, 4\); expected"),
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
            r"parts have shape \(2, 4, 1, 8, 8\).*masks \(4, 8, 8\); expected \(images, patches \+ 1",
        ),
        (lambda: patch_sheet(torch.rand(2, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS), r"images \(1, 1, 8, 8\)"),
        (lambda: patch_sheet(torch.rand(1, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS, top=0), "top is 0; expected"),
        (lambda: route_sheet(torch.rand(3, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS), "a mask for each patch"),
        (
            lambda: route_sheet(torch.rand(4, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS, names=["a"]),
            "there are 1 names; expected",
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
    with pytest.raises(ValueError, match="'as drawn' has 3 outputs and 2 decibels for 3 images; expected one of each"):
        network_sheet(images, {"as drawn": (images, [1.0, 2.0])})
