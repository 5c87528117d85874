import pytest
import torch

from xinc_captum.visualizers import patch_sheet, route_sheet

QUARTERS = torch.eye(4).view(4, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)


def shown(axes):
    return torch.as_tensor(axes.images[0].get_array()).double()


def boxes(axes):
    return [(box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in axes.patches]


def test_patches_show_what_they_were_given(shows_what_it_was_given):
    shows_what_it_was_given(
        lambda g: patch_sheet(torch.randn(2, 5, 3, 8, 8, generator=g), torch.rand(2, 3, 8, 8), QUARTERS, top=3)
    )


def test_every_row_has_its_own_patches_in_their_places(g):
    parts = torch.rand(2, 5, 1, 8, 8, generator=g) / 20
    parts[0, 2] *= 5
    parts[1, 1] *= -5
    figure = patch_sheet(parts, torch.rand(2, 1, 8, 8), QUARTERS, top=1, rest="the mean")
    assert [t.get_text() for t in figure.texts][2:] == ["read", "drawn", "", "3 others", "the mean"]
    for row, (patch, corner) in enumerate([(2, (-0.5, 3.5)), (1, (3.5, -0.5))]):
        read, drawn, one, others, rest = figure.axes[5 * row : 5 * row + 5]
        assert boxes(read) == boxes(one) == [(*corner, 4, 4)] and not boxes(others)
        torch.testing.assert_close(shown(one), parts[row, patch, 0].double())
        whole = shown(one) + shown(others) + shown(rest)
        torch.testing.assert_close(whole.clamp(0, 1), shown(drawn), atol=1e-5, rtol=0)


def test_no_column_for_others_where_there_are_none():
    figure = patch_sheet(torch.randn(1, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS, top=9)
    assert len(figure.axes) == 7 and len(boxes(figure.axes[0])) == 4


def test_ways_show_what_they_were_given(shows_what_it_was_given):
    shows_what_it_was_given(
        lambda g: route_sheet(torch.randn(3, 9, 3, 8, 8, generator=g), torch.rand(3, 8, 8), QUARTERS[:3], top=4)
    )


def test_ways_add_up_to_all_that_a_patch_changed(g):
    parts = torch.rand(2, 4, 1, 8, 8, generator=g) / 10
    parts[:, 3] *= 4
    figure = route_sheet(parts, torch.rand(1, 8, 8), QUARTERS[[3, 0]], names=list("abcd"), top=1)
    assert [t.get_text() for t in figure.texts][2:] == ["the patch", "all it changed", "d", "3 others"]
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
            r"parts have shape \(2, 4, 1, 8, 8\).*masks \(4, 8, 8\); wanted \(pictures, patches \+ 1",
        ),
        (lambda: patch_sheet(torch.rand(2, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS), r"images \(1, 1, 8, 8\)"),
        (lambda: patch_sheet(torch.rand(1, 5, 1, 8, 8), torch.rand(1, 1, 8, 8), QUARTERS, top=0), "top is 0; wanted"),
        (lambda: route_sheet(torch.rand(3, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS), "a mask for each patch"),
        (
            lambda: route_sheet(torch.rand(4, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS, names=["a"]),
            "there are 1 names; wanted",
        ),
        (lambda: route_sheet(torch.rand(4, 5, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS, top=0), "top is 0; wanted"),
    ],
)
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
