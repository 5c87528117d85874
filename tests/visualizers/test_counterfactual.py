import numpy as np
import pytest
import torch

from xinc_captum.visualizers import counterfactual_rows

CHANCES = torch.tensor([[0.9, 0.05], [0.8, 0.1], [0.2, 0.7]])
SHADES = torch.tensor([0.2, 0.3, 0.8])


def rows(count=2, **more):
    originals, linked, flipped = (shade.expand(count, 1, 8, 8) for shade in SHADES)
    settings = {
        "chances": CHANCES.expand(count, 3, 2),
        "origins": ["cat"] * count,
        "targets": ["dog"] * count,
        "reached": torch.tensor([True] + [False] * (count - 1)),
    } | more
    return counterfactual_rows(originals, linked, flipped, **settings)


def on_the_way(count=2):
    chances = torch.stack([torch.linspace(0.9, 0.1, 5), torch.linspace(0, 0.8, 5)], 1).expand(count, 5, 2)
    flips = torch.tensor([0.5] + [float("nan")] * (count - 1))
    return {"path": torch.linspace(0, 1, 5), "path_chances": chances, "flips": flips}


def words(figure):
    return [t.get_text() for t in figure.texts]


def test_what_the_network_answers_to_each_picture():
    said = words(rows(1))
    assert [w for w in said if w.startswith("cat: ")] == ["cat: 90 %", "cat: 80 %", "cat: 20 %"]
    assert [w for w in said if w.startswith("dog: ")] == ["dog: 5 %", "dog: 10 %", "dog: 70 %"]


def test_what_was_not_reached_is_said_and_not_framed():
    figure = rows(3)
    assert words(figure).count("✗ not reached") == 2
    assert "1 of 3 flipped; under each picture, what the network answers to it" in words(figure)
    assert sum(axes.spines["left"].get_linewidth() == 2 for axes in figure.axes) == 1


def test_what_changed_is_flipped_minus_linked():
    changes = [a.images[0] for a in rows(1).axes if a.images and a.images[0].get_cmap().name == "RdBu_r"]
    np.testing.assert_allclose(changes[0].get_array(), 0.5, atol=1e-6)


def test_the_flip_point_on_the_way():
    figure = rows(2, **on_the_way())
    assert {"flips at 0.50", "does not flip"} <= set(words(figure))
    curves = [axes for axes in figure.axes if axes.lines]
    assert [len(axes.lines) for axes in curves] == [3, 2]


@pytest.mark.parametrize("curves", [True, False])
def test_no_text_lies_over_another_or_outside(curves, legible):
    long = {
        "origins": ["golden retriever"] * 3,
        "targets": ["a house cat of some kind"] * 3,
        "notes": ["moved by .61"] * 3,
    }
    legible(rows(3, **long, **(on_the_way(3) if curves else {})))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chances": CHANCES}, r"chances have shape \(3, 2\); wanted \(2, 3, 2\)"),
        ({"targets": ["dog"]}, "1 targets for 2 pictures; wanted one a picture"),
        ({"path": torch.rand(4)}, "path and path_chances belong together; got one of them"),
        (on_the_way() | {"path": torch.rand(4)}, r"path_chances have shape \(2, 5, 2\); wanted \(2, 4, 2\)"),
    ],
)
def test_what_does_not_fit_is_said(change, says):
    with pytest.raises(ValueError, match=says):
        rows(**change)


def test_pictures_of_two_shapes():
    with pytest.raises(ValueError, match=r"flipped have shape \(1, 1, 4, 4\); wanted the originals', \(1, 1, 8, 8\)"):
        counterfactual_rows(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4), chances=CHANCES[None],
                            origins=["a"], targets=["b"], reached=torch.tensor([True]))  # fmt: skip
