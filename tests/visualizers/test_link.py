import numpy as np
import pytest
import torch

from xinc_captum.visualizers import Measured, counterfactual_rows, link_audit

FIT = [Measured("R²", 0.9, 0.88, 0.91, 0.72, "class means alone"), Measured("within classes", 0.6, 0.5, 0.7, -0.1)]
CLASS = [Measured("real pictures", 0.85, 0.85, 0.85)]


def words(figure):
    return [t.get_text() for t in figure.texts]


def dots(axes, marker):
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if line.get_marker() == marker
    ]


def test_every_score_has_its_control():
    figure = link_audit({"fit": FIT, "class": CLASS})
    assert dots(figure.axes[0], "o") == [(0.9, 0), (0.6, 1)]
    assert dots(figure.axes[0], "D") == [(0.72, 0), (-0.1, 1)]
    assert dots(figure.axes[1], "D") == []
    said = words(figure)
    assert {"0.90 (0.88 to 0.91)", "0.72 class means alone", "−0.10 shuffled", "0.85"} <= set(said)


def test_one_scale_contains_all_scores():
    figure = link_audit({"fit": [Measured("R²", -0.6, -0.9, 1.1)], "class": CLASS})
    assert [axes.get_xlim() for axes in figure.axes] == [pytest.approx((-0.93, 1.13))] * 2


def test_originals_are_above_reconstructions():
    before, after = torch.zeros(10, 1, 8, 8), torch.ones(10, 1, 8, 8)
    figure = link_audit({"class": CLASS}, pictures={"generated": (before, after), "real": (before[:3], after[:3])})
    shown = [float(axes.images[0].get_array().mean()) for axes in figure.axes if axes.images]
    assert shown == [0, 1] * (8 + 3), "eight of ten, and three"


def test_similarities_of_classes_are_side_by_side():
    alike = torch.eye(3)
    figure = link_audit({"class": CLASS}, orders={"layer": alike, "latents": -alike}, classes=["cat", "dog", "owl"])
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert float(shown[0][0, 0]) == 1 and float(shown[1][0, 0]) == -1
    assert words(figure).count("owl") == 2


def test_link_audit_rejects_wrong_inputs():
    with pytest.raises(ValueError, match="1 groups of scores, some empty; expected at least one score in each"):
        link_audit({"fit": []})
    with pytest.raises(
        ValueError,
        match=r"real after has shape \(2, 1, 8, 8\); expected \(n, C, H, W\) with n = 2, C = 1, H = 4, W = 4",
    ):
        link_audit({"fit": FIT}, pictures={"real": (torch.rand(2, 1, 4, 4), torch.rand(2, 1, 8, 8))})
    with pytest.raises(
        ValueError, match=r"orders of b has shape \(3, 3\); expected \(classes, classes\) with classes = 2"
    ):
        link_audit({"fit": FIT}, orders={"a": torch.eye(2), "b": torch.eye(3)})
    with pytest.raises(
        ValueError, match=r"orders of a has shape \(3, 3\); expected \(classes, classes\) with classes = 2"
    ):
        link_audit({"fit": FIT}, orders={"a": torch.eye(3)}, classes=["x", "y"])
    with pytest.raises(ValueError, match="verdict 'sure' is not known"):
        link_audit({"fit": FIT}, verdict=("sure", "it is"))


def test_scale_lines_are_numbered():
    said = words(link_audit({"fit": FIT, "class": CLASS}))
    assert all(said.count(tick) == 2 for tick in ("0", "0.25", "0.5", "0.75", "1")), "under each of the two groups"


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
        ({"chances": CHANCES}, r"chances has shape \(3, 3\); expected \(N, 3, 3\) with N = 2"),
        ({"predictions": [["cat"] * 3]}, "predictions has 1 entries; expected N = 2"),
        ({"targets": ["dog"]}, "targets has 1 entries; expected N = 2"),
        ({"path": torch.rand(4)}, "path and path_chances belong together; only one of them is given"),
        (
            on_the_way() | {"path": torch.rand(4)},
            r"path_chances has shape \(2, 5, 2\); expected \(N, P, 2\) with N = 2, P = 4",
        ),
    ],
)
def test_counterfactual_rows_reject_wrong_inputs(change, says):
    with pytest.raises(ValueError, match=says):
        rows(**change)


def test_counterfactual_rows_reject_images_of_two_shapes():
    with pytest.raises(
        ValueError, match=r"flipped has shape \(1, 1, 4, 4\); expected \(N, C, H, W\) with N = 1, C = 1, H = 8, W = 8"
    ):
        counterfactual_rows(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4), chances=CHANCES[None], predictions=[["a"] * 3], origins=["a"], targets=["b"], reached=torch.tensor([True]))  # fmt: skip
