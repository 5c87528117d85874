import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from xinc_captum.cli import link
from xinc_captum.cli.ends import ends_called
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.link import Variant, link_command, pairs_of
from xinc_captum.hooks import LayerError
from xinc_captum.store import StoreError, sha256
from xinc_captum.visualizers.words import predicate


def given(tiny, **change):
    usual = {
        "model": f"{tiny}:net", "generator": f"{tiny}:draw", "layer": None, "variant": Variant.linear, "pairs": 60,
        "truncation": 0.7, "real": None, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return usual | change


def test_the_manifest_holds_the_ends_the_audit_and_every_checksum(link_folder, tiny):
    said = json.loads((link_folder / "manifest.json").read_text())
    assert said["ends"] == {"model": f"{tiny}:net", "generator": f"{tiny}:draw", "layer": "2"}
    assert (said["seed"], said["truncation"], said["variant"]) == (0, 0.7, "linear")
    assert all(sha256(link_folder / file) == digest for file, digest in said["outputs"].items())
    assert set(said["outputs"]) == {
        "index.html", "audit.png", "units.png", "selectivity.png", "units.csv", "link.safetensors", "explorer.safetensors",
    }  # fmt: skip
    assert said["audit"]["generated"]["value"] > 0.9 and said["pairs"]["count"] == 320
    assert not any(name.startswith("unit_") for name in said["audit"]), "thousands of units are too many here"
    assert sorted(one["unit"] for one in said["units"]) == list(range(12))
    assert {one["verdict"] for one in said["units"]} <= {"holds", "weak", "fails"}
    assert json.loads((link_folder / "times.json").read_text())["all_seconds"] > 0


def test_the_link_is_the_one_the_story_is_about(story, linked):
    torch.testing.assert_close(linked.link.weight, story.link.weight)


def test_pairs_are_pictures_answered_as_they_were_meant(ends):
    pairs = pairs_of(ends, 24, 0.7, 3)
    assert len(pairs) == 24 and torch.equal(pairs.logits.argmax(1), pairs.classes)
    torch.testing.assert_close(pairs.representations, ends.encoder()(ends.draw(pairs.latents)))
    assert torch.equal(pairs_of(ends, 24, 0.7, 3).latents, pairs.latents)
    assert not torch.equal(pairs_of(ends, 24, 0.7, 4).latents, pairs.latents)


def test_pictures_answered_otherwise_are_dropped_only_where_classes_are_the_same(ends, tiny):
    far = pairs_of(ends, 24, 8.0, 0)
    assert far.kept < 1 and torch.equal(far.logits.argmax(1), far.classes)
    other = ends_called(f"{tiny}:net", f"{tiny}:classless", None, ends.device)
    assert pairs_of(other, 24, 8.0, 0).kept == 1


def test_a_network_that_never_answers_as_meant_has_no_pairs(ends):
    turned = nn.Sequential(*ends.classifier.model[:2], nn.Linear(12, 4))
    with torch.no_grad():
        turned[2].weight.copy_(-ends.classifier.model[2].weight)
    with pytest.raises(UsageError, match="pictures gave 0 of 24 pairs"):
        pairs_of(replace(ends, classifier=replace(ends.classifier, model=turned)), 24, 0.7, 0)


def test_what_was_found_is_said(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(link, "write_page", lambda folder, story: (folder / "index.html").write_text(story.real.words))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "a.png")
    link_command(tmp_path / "out", **given(tiny, real=str(tmp_path / "photos"), variant=Variant.fourier_features))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"drawing 60 pictures by {tiny}:draw and showing them to {tiny}:net …"
    assert said[1].startswith("the link ") and said[2] == "setting units …"
    assert said[3].endswith(f"; open {tmp_path / 'out' / 'index.html'}")
    assert (tmp_path / "out" / "index.html").read_text() == "1 photos of photos"
    note = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert f"the link {predicate(note['trust'])}" == said[1] and note["variant"] == "fourier_features"
    assert load_file(tmp_path / "out" / "link.safetensors")


def test_a_failure_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    def broken(folder, story):
        (folder / "half.png").write_text("half")
        raise RuntimeError("no ink")

    monkeypatch.setattr(link, "write_page", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        link_command(tmp_path / "out", **given(tiny))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"generator": "nobody"}, UsageError, "generator 'nobody' is not in the zoo; wanted one of mnist_generator"),
        ({"generator": "{}:faulty"}, UsageError, "int has no image_range"),
        ({"layer": "7"}, LayerError, "layer '7' is not in the model"),
        ({"pairs": 0, "generator": "{}:classless"}, UsageError, "n is 0; wanted at least 1"),
        (
            {"pairs": 2, "generator": "{}:classless"},
            UsageError,
            "holding out 0.2 of 2 pairs leaves one side empty; make more pairs. Give more --pairs",
        ),
        ({"pairs": 11}, UsageError, "draws 4 classes, and a fifth of each is held out: wanted at least 12, and 40 or"),
        ({"real": "no/such/folder"}, UsageError, "--real no/such/folder is no folder"),
        ({"real": "mnist_digits"}, UsageError, "are grey, .*; the generator draws"),
        ({"model": "efficientnet_lite7"}, UsageError, "is no classifier of the zoo"),
    ],
)
def test_ends_that_cannot_be_linked_are_said(tiny, tmp_path, change, error, says):
    change = {key: value.format(tiny) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(error, match=says):
        link_command(tmp_path / "out", **given(tiny, **change))
    assert not (tmp_path / "out").exists()


def test_three_pairs_of_each_class_are_enough(ends):
    fit, held_out = pairs_of(ends, link.FEWEST * 4, 0.7, 0).split(0.2, seed=0)
    assert held_out.classes.sort().values.tolist() == [0, 1, 2, 3] and len(fit) == 8


def test_a_folder_of_somebody_else_is_left_alone_before_any_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(link, "ends_called", None)  # calling it would be a TypeError
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is left alone"):
        link_command(tmp_path, **given(tiny))
