import html
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.cli.command import UsageError
from xinc_captum.cli.models import StartImages, generate_images, load_start_images
from xinc_captum.cli.sweep import (
    BASES,
    FAR,
    EvaluatedSweep,
    Mode,
    ReconstructionCheck,
    Span,
    Way,
    check_reconstructions,
    evaluation_images,
    filmstrips,
    reconstruction_text,
    sweep_command,
)
from xinc_captum.store import StoreError, sha256
from xinc_captum.visualizers.layout import predicate


def sweep_units(folder, out, units, **more):
    given = {"photos": [], "span": Span.quantile, "way": Way.marginal, "mode": Mode.anchored, "steps": 4, "count": 3}
    sweep_command(folder, out, units, **given | {"seed": 0, "device": "cpu"} | more)


def note(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def out(link_folder, tmp_path_factory):
    """Units 0 and 2, swept."""
    out = tmp_path_factory.mktemp("swept") / "out"
    sweep_units(link_folder, out, [0, 2])
    return out


def test_a_sweep_needs_only_the_link_folder(link_folder, out):
    said = note(out)
    assert [one["unit"] for one in said["units"]] == [0, 2]
    assert said["link"] == {"folder": str(link_folder), "trust": note(link_folder)["trust"]}
    assert said["ends"] == note(link_folder)["ends"] and said["inputs"] == {}
    assert said["settings"] == {"span": "quantile", "direction": "marginal", "mode": "anchored", "steps": 4}
    assert set(said["outputs"]) == {"index.html", "sweeps.safetensors", "unit_0.png", "unit_2.png"}
    assert all(sha256(out / file) == digest for file, digest in said["outputs"].items())


def test_values_frames_and_responses_are_stored(linked, out):
    kept = load_file(out / "sweeps.safetensors")
    keys = {f"unit_{unit}.{key}" for unit in (0, 2) for key in ("values", "images", "measured", "scores")}
    assert set(kept) == {"starts"} | keys
    assert torch.equal(kept["starts"], generate_images(linked.models, 3, 0.7, 0))
    assert kept["unit_0.images"].shape == (3, 4, 1, 8, 8) and kept["unit_0.scores"].shape == (3, 4, 4)
    assert (kept["unit_0.values"].diff() > 0).all(), "from low to high"
    assert (kept["unit_0.measured"].diff(dim=1) > 0).all(), "the unit follows"
    seen = linked.models.encoder()(kept["unit_0.images"].flatten(0, 1))[:, 0]
    torch.testing.assert_close(kept["unit_0.measured"].flatten(), seen, atol=1e-5, rtol=1e-4)


def test_the_page_has_a_strip_and_a_line_for_each_unit(link_folder, out):
    page = html.unescape((out / "index.html").read_text())
    assert f"The link itself {predicate(note(link_folder)['trust'])}." in page
    for one in note(out)["units"]:
        assert f"unit_{one['unit']}.png" in page
        assert f"Unit {one['unit']} at the input of 2: {one['verdict']}, because {one['because']}." in page
    for word in ("verdict", "moves", "follows", "gain", "class flips", " of 12<", ">1.00<"):
        assert word in page


def test_filmstrips_name_start_images_and_predictions(linked):
    models = linked.models
    starts = StartImages(generate_images(models, 2, 0.5, 0), ("one", "two"), torch.tensor([0, 1]), {})
    found = models.visualization(linked.link).sweep(starts.images, 0, steps=3, attribute_to_neuron_input=True)
    judged = EvaluatedSweep(found, found.fidelity)
    figure = filmstrips(judged, models, starts)
    said = " ".join(text.get_text() for text in (*figure.texts, *(t for axes in figure.axes for t in axes.texts)))
    for words in ("Unit 0 of places, input of 2", "one", "two", "upper", "of 12, follows 1.00", judged.trust.because):
        assert words in said


def test_verdicts_are_printed(link_folder, tmp_path, capsys, no_ink):
    options = {"span": Span.sd, "way": Way.partial, "mode": Mode.replaced, "steps": 2}
    sweep_units(link_folder, tmp_path / "out", [3], **options)
    unit, *_, last = capsys.readouterr().out.splitlines()
    (one,) = note(tmp_path / "out")["units"]
    assert unit == "unit 3 " + predicate(f"{one['verdict']}, because {one['because']}")
    assert last.startswith("done in ") and last.endswith(f"open {tmp_path / 'out' / 'index.html'}")
    settings = {"span": "sd", "direction": "partial", "mode": "replace", "steps": 2}
    assert note(tmp_path / "out")["settings"] == settings


def test_the_verdict_does_not_depend_on_the_start_images(link_folder, tmp_path, no_ink):
    cards = {one["unit"]: (one["verdict"], one["because"]) for one in note(link_folder)["units"]}
    for seed in (1, 2):
        sweep_units(link_folder, tmp_path / str(seed), [0, 5, 9], seed=seed, steps=5, count=2)
        said = note(tmp_path / str(seed))
        assert said["judged_in"] == BASES
        assert {one["unit"]: (one["verdict"], one["because"]) for one in said["units"]} == {
            unit: cards[unit] for unit in (0, 5, 9)
        }
        assert f"over {BASES} pictures (" in said["units"][0]["because"]
    page = html.unescape((tmp_path / "1" / "index.html").read_text())
    assert f"2 shown, {BASES} for the verdict" in page and f"Evaluated in {BASES} generated images" in page


def test_start_images_are_shown_next_to_their_reconstructions(linked, link_folder, tmp_path, capsys, no_ink):
    photo = tmp_path / "bars.png"
    picture = Image.new("L", (64, 64))
    for left in range(0, 64, 16):
        picture.paste(255, (left, 0, left + 8, 64))
    picture.save(photo)
    sweep_units(link_folder, tmp_path / "out", [1], photos=[photo])
    (kept,) = note(tmp_path / "out")["linked"]
    assert kept["name"] == "bars" and kept["distance"] > 0
    said = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("bars: its reconstruction is another")
    ]
    assert len(said) == (kept["distance"] >= FAR or kept["before"] != kept["after"])
    page = html.unescape((tmp_path / "out" / "index.html").read_text())
    assert "The frames show the reconstruction of each image, not the image itself" in page

    starts = load_start_images(linked.models, [photo], 1, 0.7, 0)
    found = linked.models.visualization(linked.link).sweep(starts.images, 0, steps=3, attribute_to_neuron_input=True)
    figure = filmstrips(EvaluatedSweep(found, found.fidelity), linked.models, starts)
    shown = [torch.as_tensor(axes.images[0].get_array()) for axes in figure.axes if axes.images][:2]
    torch.testing.assert_close(shown[0], starts.images[0, 0], check_dtype=False)
    torch.testing.assert_close(shown[1], found.base[0, 0], check_dtype=False)
    assert {"the picture", "linked"} <= {text.get_text() for text in figure.texts}


def test_photos_are_swept_too(link_folder, tmp_path, no_ink):
    photo = tmp_path / "bright_above.png"
    picture = Image.new("L", (60, 40))
    picture.paste(255, (0, 0, 60, 20))
    picture.save(photo)
    sweep_units(link_folder, tmp_path / "out", [1], photos=[photo])
    start = load_file(tmp_path / "out" / "sweeps.safetensors")["starts"]
    assert start.shape == (1, 1, 8, 8) and start[0, 0, :4].mean() > 0.9 and start[0, 0, 4:].mean() < 0.1
    assert note(tmp_path / "out")["inputs"] == {"bright_above.png": sha256(photo)}


@pytest.mark.parametrize(
    ("units", "change", "says"),
    [
        ([], {}, r"no unit to sweep; give --unit, once or several times\."),
        ([99], {}, r"99 is out of range: the linked dims are \(12,\)"),
        ([0], {"steps": 1}, "steps is 1; expected at least 2"),
    ],
)
def test_wrong_units_and_options_raise(link_folder, tmp_path, units, change, says):
    with pytest.raises(UsageError, match=says):
        sweep_units(link_folder, tmp_path / "out", units, **change)
    assert not (tmp_path / "out").exists()


def test_folders_without_a_link_and_other_output_folders_raise(link_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; expected a result folder of xinc link"):
        sweep_units(tmp_path / "none", tmp_path / "out", [0])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not replaced"):
        sweep_units(link_folder, tmp_path, [0])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_distance_by_hand(linked):
    starts = load_start_images(linked.models, [], 4, 0.7, 0)
    r = linked.models.encoder()(starts.images).double()
    drawn_again = linked.models.generate(linked.link(r).float())
    seen = linked.models.encoder()(drawn_again).double()
    expected = ((seen - r) / linked.link.r_sd).square().mean(1).sqrt()
    found = check_reconstructions(linked, starts)
    torch.testing.assert_close(torch.tensor([one.distance for one in found]), expected.float(), atol=1e-3, rtol=1e-3)
    assert [one.before for one in found] == ["upper", "lower", "left", "middle"]
    assert [one.after for one in found] == [
        linked.models.label(c) for c in linked.models.predict(drawn_again).argmax(1)
    ]


def test_images_the_generator_cannot_make_are_far_from_their_reconstruction(linked):
    starts = replace(
        load_start_images(linked.models, [], 1, 0.7, 0),
        images=(torch.arange(8) % 2).float().expand(1, 1, 8, 8),
        names=("bars",),
    )
    near = max(one.distance for one in check_reconstructions(linked, load_start_images(linked.models, [], 4, 0.7, 0)))
    assert check_reconstructions(linked, starts)[0].distance > 2 * near


def test_the_distance_scale_is_that_of_unrelated_images(linked):
    """The distance of two unrelated images is about √2, and of an image and the mean about 1."""
    r = linked.models.encoder()(generate_images(linked.models, 200, 0.7, 3)).double()
    away = ((r - r.mean(0)) / linked.link.r_sd).square().mean(1).sqrt()
    assert 0.8 < float(away.square().mean().sqrt()) < 1.2


def test_doubts_as_text():
    assert ReconstructionCheck("a", 0.99, "8", "8").doubt == ""
    assert ReconstructionCheck("a", 0.5, "8", "2").doubt == (
        "a: its reconstruction is another image, at distance 0.50 and predicted as 2, not 8; the frames show that image"
    )
    assert "1.30 and predicted as 8 too; the frames" in ReconstructionCheck("a", 1.3, "8", "8").doubt
    said = reconstruction_text([ReconstructionCheck("a", 0.25, "8", "8"), ReconstructionCheck("b", 1.3, "8", "8")])
    assert "0.25 to 1.30 standard deviations per unit" in said and said.endswith("b: its reconstruction is another "
        "image, at distance 1.30 and predicted as 8 too; the frames show that image.")  # fmt: skip


def test_units_are_evaluated_in_images_of_the_next_seed(models, link_results):
    pictures = evaluation_images(models, 0.7, 0)
    assert len(pictures) == BASES and torch.equal(pictures, generate_images(models, BASES, 0.7, 1))
    assert torch.equal(pictures, link_results.units.bases)


def test_the_verdict_is_at_best_weak_if_start_images_are_not_reconstructed(models, link_results):
    method = models.visualization(link_results.link)
    shown = method.sweep(generate_images(models, 2, 0.7, 5), 0, attribute_to_neuron_input=True)
    fails, holds = (replace(shown.fidelity, places=torch.full((200,), place), rank=place) for place in (9, 1))
    assert (
        EvaluatedSweep(shown, holds).trust.verdict == "holds" and EvaluatedSweep(shown, fails).trust.verdict == "fails"
    )
    lost = EvaluatedSweep(replace(shown, agreement=0.5), holds).trust
    assert lost.verdict == "weak" and lost.because.startswith("50% of the inputs are of another class once linked")
