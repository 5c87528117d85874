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


def test_probabilities_are_below_each_image():
    said = words(rows(1))
    assert [w for w in said if w.startswith("cat: ")] == ["cat: 90 %", "cat: 80 %", "cat: 20 %"]
    assert [w for w in said if w.startswith("dog: ")] == ["dog: 5 %", "dog: 10 %", "dog: 70 %"]


def framed(figure):
    return sum(axes.spines["left"].get_linewidth() == 2 for axes in figure.axes)


def test_rows_that_missed_the_target_are_marked():
    lost = torch.tensor([[0.9, 0.05, 0.9], [0.8, 0.1, 0.8], [0.004, 0.22, 0.77]])
    figure = rows(3, chances=torch.stack([CHANCES, lost, lost]), predictions=[["cat", "cat", "owl"]] * 3)
    said = words(figure)
    assert said.count("✗ not reached") == said.count("predicted owl") == said.count("owl: 77 %") == 2
    assert "1 of 3 flipped; below each picture: the network's probabilities" in said
    assert framed(figure) == 1
    assert "end of the path" in said and "flipped" not in said
    assert "flipped" in words(rows(1)), "all rows reached the target"


def test_images_of_the_target_class_are_not_counted():
    own = torch.tensor([[0.05, 0.9, 0.9]] * 3)
    figure = rows(2, chances=torch.stack([CHANCES, own]), reached=torch.tensor([True, True]), **on_the_way(2, (0.5, 0)))
    said = words(figure)
    assert "1 of 1 flipped, 1 of the target class already; below each picture: the network's probabilities" in said
    assert said.count("already dog") == 1 and said.count("→ dog") == 1 and framed(figure) == 1
    assert "reached at the start" in said and "flips at 0.00" not in said


def test_a_required_confidence_is_stated():
    figure = rows(2, confidence=0.65, reached=torch.tensor([True, False]), **on_the_way(2, (0.9, float("nan"))))
    said = words(figure)
    assert any(w.startswith("1 of 2 reach 65 % for the target class;") for w in said)
    assert said.count("→ dog at 65 %") == 2
    assert {"below 65 %", "reaches 65 % at 0.90", "does not reach 65 %"} <= set(said)
    assert not any("flips" in w for w in said)
    own = torch.tensor([[0.2, 0.5, 0.5], [0.2, 0.5, 0.5], [0.1, 0.7, 0.7]])
    said = words(rows(1, confidence=0.65, chances=own[None]))
    assert "dog" in said and "cat" not in said and "already dog" not in said, (
        "a dog that must be predicted with more confidence"
    )


def test_change_is_flipped_minus_linked():
    changes = [a.images[0] for a in rows(1).axes if a.images and a.images[0].get_cmap().name == "RdBu_r"]
    np.testing.assert_allclose(changes[0].get_array(), 0.5, atol=1e-6)


def test_the_flip_point_is_on_the_path():
    figure = rows(2, **on_the_way())
    assert {"flips at 0.50", "does not flip"} <= set(words(figure))
    curves = [axes for axes in figure.axes if axes.lines]
    assert [len(axes.lines) for axes in curves] == [3, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chances": CHANCES}, r"chances have shape \(3, 3\); expected \(2, 3, 3\)"),
        ({"predictions": [["cat"] * 3]}, "predictions has 1 entries for 2 images; expected one per image"),
        ({"targets": ["dog"]}, "targets has 1 entries for 2 images; expected one per image"),
        ({"path": torch.rand(4)}, "path and path_chances belong together; only one of them is given"),
        (on_the_way() | {"path": torch.rand(4)}, r"path_chances have shape \(2, 5, 2\); expected \(2, 4, 2\)"),
    ],
)
def test_counterfactual_rows_reject_wrong_inputs(change, says):
    with pytest.raises(ValueError, match=says):
        rows(**change)


def test_counterfactual_rows_reject_images_of_two_shapes():
    with pytest.raises(ValueError, match=r"flipped have shape \(1, 1, 4, 4\); expected the originals', \(1, 1, 8, 8\)"):
        counterfactual_rows(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4), chances=CHANCES[None], predictions=[["a"] * 3], origins=["a"], targets=["b"], reached=torch.tensor([True]))  # fmt: skip
