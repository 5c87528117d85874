import html
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.cli.command import UsageError
from xinc_captum.cli.counterfactual import (
    BEYOND,
    POINTS,
    Method,
    counterfactual_command,
    counterfactual_figure,
    find_counterfactuals,
    path_probabilities,
)
from xinc_captum.cli.models import load_start_images
from xinc_captum.store import StoreError, sha256
from xinc_captum.visualizers.layout import predicate

LOWER = 1


def commanded(folder, out, target="lower", **more):
    given = {"photos": [], "method": Method.ray, "confidence": 0.0, "count": 4, "seed": 0, "device": "cpu"}
    counterfactual_command(folder, out, target, **given | more)


def note(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def starts(linked):
    """One image of each class."""
    return load_start_images(linked.models, [], 4, 0.7, 0)


@pytest.fixture(scope="module")
def found(linked, starts):
    """The three that are not of the lower half already, flipped."""
    return find_counterfactuals(linked, starts, LOWER, Method.ray)


@pytest.fixture(scope="module")
def out(link_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("flipped") / "out"
    commanded(link_folder, out)
    return out


@pytest.mark.parametrize("method", Method)
def test_counterfactuals_are_marked_as_reached_or_not(linked, starts, method):
    found = find_counterfactuals(linked, starts, LOWER, method)
    assert found.origin.tolist() == [0, 2, 3], "the picture that is of the target already is left out"
    answers = linked.models.predict(found.images).argmax(1)
    assert (answers == LOWER).tolist() == found.reached.tolist()
    if method in (Method.ray, Method.latent):
        assert found.reached.all()


def test_the_search_continues_to_the_confidence(linked, starts, found):
    surer = find_counterfactuals(linked, starts, LOWER, Method.ray, 0.4)
    assert (surer.confidence[surer.reached] >= 0.4).all() and surer.reached.any()
    assert (surer.length >= found.length).all() and (surer.length > found.length).any()


def test_a_missed_confidence_is_marked(linked, starts):
    sure = find_counterfactuals(linked, starts, LOWER, Method.minimal, 0.9)
    assert not sure.reached.any() and "reach 90 % for the class asked for" in sure.trust.because
    assert path_probabilities(linked, sure)[2].isnan().all(), "the answer changes on the way, but not with 90 %"
    said = [text.get_text() for text in counterfactual_figure(linked, sure).texts]
    assert any(words.startswith("0 of 3 reach 90 % for the target class") for words in said)
    assert said.count("does not reach 90 %") == 3 and not any(words.startswith("flips at") for words in said)


def test_the_path_goes_from_the_reconstruction_beyond_the_counterfactual(linked, found):
    path, chances, _ = path_probabilities(linked, found)
    assert chances.shape == (3, POINTS, 2) and (path[0], path[-1]) == (0, BEYOND)
    both = torch.stack([found.origin, found.target], 1)
    arrived = int((path == 1).nonzero())
    for point, pictures in ((0, found.linked), (arrived, found.images)):
        expected = linked.models.predict(pictures).gather(1, both)
        torch.testing.assert_close(chances[:, point], expected, atol=1e-4, rtol=1e-3)


def test_the_flip_is_the_first_position_with_the_target(linked, found):
    path, chances, flips = path_probabilities(linked, found)
    ahead = chances[..., 1] > chances[..., 0]
    for row, flip in enumerate(flips.tolist()):
        assert 0 < flip <= 1, "on the way, or at its end"
        here = int((path == flip).nonzero())
        assert ahead[row, here] and linked.models.predict(found.images)[row].argmax() == LOWER


def test_a_path_without_a_flip_is_nan(linked, found):
    at_home = linked.link(linked.models.encoder()(found.inputs), found.origin)
    _, chances, flips = path_probabilities(linked, replace(found, latents=at_home.detach()))
    assert flips.isnan().all()
    torch.testing.assert_close(chances, chances[:, :1].expand_as(chances), atol=1e-5, rtol=1e-4)


def test_rows_name_classes_and_distances(linked, found):
    figure = counterfactual_figure(linked, found)
    said = " ".join(text.get_text() for text in (*figure.texts, *(t for axes in figure.axes for t in axes.texts)))
    for words in ("What must change for places to predict lower", "upper", "left", "middle", "moved by"):
        assert words in said


def test_the_manifest_records_which_were_reached(link_folder, out, found):
    said = note(out)
    assert (said["target"], said["method"], said["confidence"], said["seed"]) == (LOWER, "ray", 0.0, 0)
    assert said["reached"] == found.reached.tolist() and said["inputs"] == {}
    assert said["link"] == {"folder": str(link_folder), "trust": note(link_folder)["trust"]}
    assert set(said["outputs"]) == {"index.html", "counterfactuals.png", "counterfactuals.safetensors"}
    assert all(sha256(out / file) == digest for file, digest in said["outputs"].items())


def test_images_shifts_and_scores_are_stored(out, found):
    kept = load_file(out / "counterfactuals.safetensors")
    assert set(kept) == {"inputs", "linked", "images", "shift", "latents", "scores"}
    for name, value in kept.items():
        torch.testing.assert_close(value, getattr(found, name))


def test_the_page_has_a_line_for_each_picture(link_folder, out, found):
    page = html.unescape((out / "index.html").read_text())
    assert "What must change for the class lower" in page
    assert str(found.trust) in page and f"The link itself {predicate(note(link_folder)['trust'])}." in page
    assert all(f">drawn: {name}<" in page for name in ("upper", "left", "middle")) and ">drawn: lower<" not in page
    assert f">{100 * float(found.confidence[0]):.0f} %<" in page and ">3 of 3<" in page
    assert "Left out, because their predicted class is lower already: drawn: lower." in page


def test_photos_are_start_images_too(link_folder, tmp_path, capsys, no_ink):
    photo = tmp_path / "bright_above.png"
    picture = Image.new("L", (60, 40))
    picture.paste(255, (0, 0, 60, 20))
    picture.save(photo)
    commanded(link_folder, tmp_path / "out", "2", photos=[photo])
    said = note(tmp_path / "out")
    assert said["inputs"] == {"bright_above.png": sha256(photo)} and said["target"] == 2
    assert ">bright_above<" in (tmp_path / "out" / "index.html").read_text()
    verdict, last = capsys.readouterr().out.splitlines()
    assert "pictures are given the class asked for" in verdict
    assert last.endswith(f"open {tmp_path / 'out' / 'index.html'}")


def test_images_of_the_target_are_left_out(linked, starts):
    own = replace(starts, images=starts.images[1:2], names=starts.names[1:2], predictions=starts.predictions[1:2])
    with pytest.raises(
        UsageError, match=r"the predicted class of every image is lower already; give another --target\."
    ):
        find_counterfactuals(linked, own, LOWER, Method.ray)


@pytest.mark.parametrize(
    ("target", "change", "says"),
    [
        ("nose", {}, "--target: 'nose' is in no label of places"),
        ("4", {}, "--target: class 4 is not one of places; expected 0 to 3"),
        ("lower", {"confidence": 1.0}, r"confidence is 1\.0; expected a probability in \[0, 1\)"),
    ],
)
def test_impossible_targets_raise(link_folder, tmp_path, target, change, says):
    with pytest.raises(UsageError, match=says):
        commanded(link_folder, tmp_path / "out", target, **change)
    assert not (tmp_path / "out").exists()


def test_other_folders_are_not_overwritten(link_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not replaced"):
        commanded(link_folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
