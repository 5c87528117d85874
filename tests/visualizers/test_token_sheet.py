import pytest
import torch

from xinc_captum.visualizers import neurons_across, token_sheet


def shown(axes):
    return torch.as_tensor(axes.images[0].get_array()).double()


def test_tokens_show_what_they_were_given(shows_what_it_was_given):
    shows_what_it_was_given(
        lambda g: token_sheet(torch.randn(2, 9, 3, 8, 12, generator=g), torch.rand(2, 3, 8, 12), top=4)
    )


def test_the_shown_parts_add_up_to_what_is_drawn(g, words):
    parts = torch.rand(1, 6, 1, 4, 4, generator=g) / 10
    parts[:, 2] *= 3  # the strongest
    parts[:, 4] *= -2
    figure = token_sheet(parts, torch.rand(1, 1, 4, 4), names=list("abcde"), top=2)
    said = [t.get_text() for t in figure.texts]
    assert said[2:] == ["read", "drawn", "c", "e", "3 others", "rest"]
    _, drawn, *maps, rest = figure.axes
    torch.testing.assert_close(shown(maps[0]), parts[0, 2, 0].double())
    torch.testing.assert_close(sum(shown(axes) for axes in maps) + shown(rest), shown(drawn), atol=1e-5, rtol=0)
    assert "full colour is" in words(figure) and "Which token painted what" in words(figure)


def test_no_column_for_others_where_there_are_none():
    figure = token_sheet(torch.randn(1, 3, 1, 4, 4), torch.rand(1, 1, 4, 4), what="patch")
    said = [t.get_text() for t in figure.texts]
    assert sorted(said[4:6]) == ["patch 0", "patch 1"] and said[6:] == ["rest"] and len(figure.axes) == 5


def test_tokens_that_are_asked_for(g):
    parts = torch.rand(1, 6, 1, 4, 4, generator=g)
    figure = token_sheet(parts, torch.rand(1, 1, 4, 4), tokens=[3, 0], rest="biases")
    assert [t.get_text() for t in figure.texts][2:] == ["read", "drawn", "token 3", "token 0", "3 others", "biases"]
    torch.testing.assert_close(shown(figure.axes[2]), parts[0, 3, 0].double())


def test_neurons_show_what_they_were_given(shows_what_it_was_given):
    shows_what_it_was_given(lambda g: neurons_across(torch.randn(5, 9, 3, 8, 8, generator=g), torch.rand(5, 3, 8, 8)))


def test_the_strongest_neurons_or_those_asked_for(words, legible):
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
            "there are 1 names; wanted",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), top=0),
            "top is 0; wanted at least 1 col",
        ),
        (
            lambda: token_sheet(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), tokens=[2]),
            r"tokens are \[2\]; wanted one or more of 0 to 1",
        ),
        (lambda: neurons_across(torch.rand(2, 3, 1, 4, 4), torch.rand(3, 1, 4, 4)), r"images \(3, 1, 4, 4\); wanted"),
        (
            lambda: neurons_across(torch.rand(2, 3, 1, 4, 4), torch.rand(2, 1, 4, 4), [3]),
            r"neurons are \[3\]; wanted one",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
