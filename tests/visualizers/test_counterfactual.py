import numpy as np
import pytest
import torch

from xinc_captum.visualizers import counterfactual_rows

CHANCES = torch.tensor([[0.9, 0.05, 0.9], [0.8, 0.1, 0.8], [0.2, 0.7, 0.7]])
SHADES = torch.tensor([0.2, 0.3, 0.8])


def rows(count=2, **more):
    originals, linked, flipped = (shade.expand(count, 1, 8, 8) for shade in SHADES)
    settings = {
        "chances": CHANCES.expand(count, 3, 3),
        "predictions": [["cat", "cat", "dog"]] * count,
        "origins": ["cat"] * count,
        "targets": ["dog"] * count,
        "reached": torch.tensor([True] + [False] * (count - 1)),
    } | more
    return counterfactual_rows(originals, linked, flipped, **settings)


def on_the_way(count=2, flips=(0.5, float("nan"), float("nan"))):
    chances = torch.stack([torch.linspace(0.9, 0.1, 5), torch.linspace(0, 0.8, 5)], 1).expand(count, 5, 2)
    return {"path": torch.linspace(0, 1, 5), "path_chances": chances, "flips": torch.tensor(flips[:count])}


def words(figure):
    return [t.get_text() for t in figure.texts]


def test_what_the_network_answers_to_each_picture():
    said = words(rows(1))
    assert [w for w in said if w.startswith("cat: ")] == ["cat: 90 %", "cat: 80 %", "cat: 20 %"]
    assert [w for w in said if w.startswith("dog: ")] == ["dog: 5 %", "dog: 10 %", "dog: 70 %"]


def framed(figure):
    return sum(axes.spines["left"].get_linewidth() == 2 for axes in figure.axes)


def test_what_was_not_reached_is_said_and_not_framed_with_what_it_is_answered():
    lost = torch.tensor([[0.9, 0.05, 0.9], [0.8, 0.1, 0.8], [0.004, 0.22, 0.77]])
    figure = rows(3, chances=torch.stack([CHANCES, lost, lost]), predictions=[["cat", "cat", "owl"]] * 3)
    said = words(figure)
    assert said.count("✗ not reached") == said.count("answered owl") == said.count("owl: 77 %") == 2
    assert "1 of 3 flipped; under each picture, what the network answers to it" in said
    assert framed(figure) == 1
    assert "where it ended" in said and "flipped" not in said
    assert "flipped" in words(rows(1)), "where all of them were"


def test_a_picture_of_the_class_wanted_is_not_a_success():
    own = torch.tensor([[0.05, 0.9, 0.9]] * 3)
    figure = rows(2, chances=torch.stack([CHANCES, own]), reached=torch.tensor([True, True]), **on_the_way(2, (0.5, 0)))
    said = words(figure)
    assert "1 of 1 flipped, 1 of the class expected already; under each picture, what the network answers to it" in said
    assert said.count("already dog") == 1 and said.count("→ dog") == 1 and framed(figure) == 1
    assert "there from the start" in said and "flips at 0.00" not in said


def test_a_confidence_is_not_reached_by_the_answer_alone():
    figure = rows(2, confidence=0.65, reached=torch.tensor([True, False]), **on_the_way(2, (0.9, float("nan"))))
    said = words(figure)
    assert any(w.startswith("1 of 2 reach 65 % for the class expected;") for w in said)
    assert said.count("→ dog at 65 %") == 2
    assert {"below 65 %", "reaches 65 % at 0.90", "does not reach 65 %"} <= set(said)
    assert not any("flips" in w for w in said)
    own = torch.tensor([[0.2, 0.5, 0.5], [0.2, 0.5, 0.5], [0.1, 0.7, 0.7]])
    said = words(rows(1, confidence=0.65, chances=own[None]))
    assert "dog" in said and "cat" not in said and "already dog" not in said, "it is a dog that shall be a surer one"


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
        "predictions": [["golden retriever", "golden retriever", "a somewhat long name of a bird"]] * 3,
        "chances": torch.tensor([[0.9, 0.05, 0.9], [0.8, 0.1, 0.8], [0.1, 0.2, 0.7]]).expand(3, 3, 3),
    }
    legible(rows(3, **long, **(on_the_way(3) if curves else {})))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chances": CHANCES}, r"chances have shape \(3, 3\); expected \(2, 3, 3\)"),
        ({"predictions": [["cat"] * 3]}, "1 predictions for 2 pictures; expected one a picture"),
        ({"targets": ["dog"]}, "1 targets for 2 pictures; expected one a picture"),
        ({"path": torch.rand(4)}, "path and path_chances belong together; got one of them"),
        (on_the_way() | {"path": torch.rand(4)}, r"path_chances have shape \(2, 5, 2\); expected \(2, 4, 2\)"),
    ],
)
def test_what_does_not_fit_is_said(change, says):
    with pytest.raises(ValueError, match=says):
        rows(**change)


def test_pictures_of_two_shapes():
    with pytest.raises(ValueError, match=r"flipped have shape \(1, 1, 4, 4\); expected the originals', \(1, 1, 8, 8\)"):
        counterfactual_rows(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4), chances=CHANCES[None], predictions=[["a"] * 3], origins=["a"], targets=["b"], reached=torch.tensor([True]))  # fmt: skip
