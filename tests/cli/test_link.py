import csv
import html
import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from xinc_captum import store
from xinc_captum.attributions.linking import LatentLink, LinkAudit
from xinc_captum.attributions.linking.unit_tables import UnitTable
from xinc_captum.attributions.linking.unit_tables.table import COLUMNS
from xinc_captum.cli import link
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.explore import explore_command
from xinc_captum.cli.inputs import ImageSet
from xinc_captum.cli.link import (
    MAX_IMAGES,
    MEASURED_IN,
    THIRDS,
    Units,
    Variant,
    audit_figure,
    audit_measurements,
    link_command,
    most_frequent_classes,
    pairs_of,
    run_audit,
    select_by_class,
    select_by_variance,
    shrink_frames,
    sweep_selected_units,
    thirds,
    unit_figure,
    write_page,
)
from xinc_captum.cli.models import generate_images, load_classifier_and_generator
from xinc_captum.cli.sweep import BASES
from xinc_captum.hooks import LayerError
from xinc_captum.metrics.links import Selectivity, SemanticOrder
from xinc_captum.metrics.statistics import Interval
from xinc_captum.store import StoreError, sha256
from xinc_captum.visualizers import Measured
from xinc_captum.visualizers.explorer.images import album
from xinc_captum.visualizers.layout import predicate
from xinc_captum.visualizers.linked_unit import FADED


def given(tiny, **change):
    usual = {
        "model": f"{tiny}:net", "generator": f"{tiny}:draw", "layer": None, "variant": Variant.linear, "pairs": 60,
        "truncation": 0.7, "real": None, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return usual | change


def test_the_manifest_holds_models_audit_and_checksums(link_folder, tiny):
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


def test_the_stored_link_is_the_audited_one(link_results, linked):
    torch.testing.assert_close(linked.link.weight, link_results.link.weight)


def test_pairs_are_correctly_predicted_images(models):
    pairs = pairs_of(models, 24, 0.7, 3)
    assert len(pairs) == 24 and torch.equal(pairs.logits.argmax(1), pairs.classes)
    torch.testing.assert_close(pairs.representations, models.encoder()(models.generate(pairs.latents)))
    assert torch.equal(pairs_of(models, 24, 0.7, 3).latents, pairs.latents)
    assert not torch.equal(pairs_of(models, 24, 0.7, 4).latents, pairs.latents)


def test_wrongly_predicted_images_are_dropped_only_if_classes_are_shared(models, tiny):
    far = pairs_of(models, 24, 8.0, 0)
    assert far.kept < 1 and torch.equal(far.logits.argmax(1), far.classes)
    other = load_classifier_and_generator(f"{tiny}:net", f"{tiny}:classless", None, models.device)
    assert pairs_of(other, 24, 8.0, 0).kept == 1


def test_a_network_that_is_never_correct_has_no_pairs(models):
    turned = nn.Sequential(*models.classifier.model[:2], nn.Linear(12, 4))
    with torch.no_grad():
        turned[2].weight.copy_(-models.classifier.model[2].weight)
    with pytest.raises(UsageError, match="images gave 0 of 24 pairs"):
        pairs_of(replace(models, classifier=replace(models.classifier, model=turned)), 24, 0.7, 0)


def test_verdicts_are_printed(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        link,
        "write_page",
        lambda folder, link_results: (folder / "index.html").write_text(link_results.real.description),
    )
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "a.png")
    link_command(tmp_path / "out", **given(tiny, real=str(tmp_path / "photos"), variant=Variant.fourier_features))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"generating 60 images with {tiny}:draw and passing them through {tiny}:net …"
    assert said[1].startswith("the link ") and said[2] == "sweeping units …"
    assert said[3].endswith(f"; open {tmp_path / 'out' / 'index.html'}")
    assert (tmp_path / "out" / "index.html").read_text() == "1 photos of photos"
    note = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert f"the link {predicate(note['trust'])}" == said[1] and note["variant"] == "fourier_features"
    assert load_file(tmp_path / "out" / "link.safetensors")


def test_a_failure_writes_nothing(tiny, tmp_path, monkeypatch):
    def broken(folder, link_results):
        (folder / "half.png").write_text("half")
        raise RuntimeError("no ink")

    monkeypatch.setattr(link, "write_page", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        link_command(tmp_path / "out", **given(tiny))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"generator": "nobody"}, UsageError, "generator 'nobody' is not in the zoo; expected one of mnist_generator"),
        ({"generator": "{}:faulty"}, UsageError, "int has no image_range"),
        ({"layer": "7"}, LayerError, "layer '7' is not in the model"),
        ({"pairs": 0, "generator": "{}:classless"}, UsageError, "n is 0; expected at least 1"),
        (
            {"pairs": 2, "generator": "{}:classless"},
            UsageError,
            "holding out 0.2 of 2 pairs leaves one side empty; make more pairs. Give more --pairs",
        ),
        (
            {"pairs": 11},
            UsageError,
            "has 4 classes, and a fifth of each is held out: expected at least 12, and 40 or",
        ),
        ({"real": "no/such/folder"}, UsageError, "--real no/such/folder is not a folder"),
        ({"real": "mnist_digits"}, UsageError, "are grey, .*; the generator's images are"),
        ({"model": "efficientnet_lite7"}, UsageError, "model 'efficientnet_lite7' is not known"),
    ],
)
def test_models_that_cannot_be_linked_raise(tiny, tmp_path, change, error, says):
    change = {key: value.format(tiny) if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(error, match=says):
        link_command(tmp_path / "out", **given(tiny, **change))
    assert not (tmp_path / "out").exists()


def test_three_pairs_of_each_class_are_enough(models):
    fit, test_pairs = pairs_of(models, link.FEWEST * 4, 0.7, 0).split(0.2, seed=0)
    assert test_pairs.classes.sort().values.tolist() == [0, 1, 2, 3] and len(fit) == 8


def test_other_folders_are_refused_before_any_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(link, "load_classifier_and_generator", None)  # calling it would be a TypeError
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not replaced"):
        link_command(tmp_path, **given(tiny))


@pytest.fixture(scope="module")
def audit_picture(link_results):
    """With four classes, and real images next to the generated ones."""
    return audit_figure(replace(link_results, real=ImageSet(real_pictures(link_results), "some")))


def real_pictures(link_results):
    return generate_images(link_results.models, MAX_IMAGES + 3, 0.5, 9)


def words(figure):
    return [text.get_text() for text in figure.texts]


def shown(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_the_page_names_both_models_and_shows_three_figures(link_folder, tiny):
    page = html.unescape((link_folder / "index.html").read_text())
    note = json.loads((link_folder / "manifest.json").read_text())
    assert (
        f"What units of places change in images of {tiny}:draw" in page
        and f"This link {predicate(note['trust'])}" in page
    )
    for fact in (
        f"{tiny}:net",
        "input of 2",
        "320 (100 % of the generated images)",
        "linear, 12 units, 0 dead",
        "none",
    ):
        assert f">{fact}<" in page
    for file in ("audit.png", "units.png", "selectivity.png"):
        assert file in page
        with Image.open(link_folder / file) as picture:
            assert picture.width >= 900
            assert "Software" not in picture.info, "equal runs write equal files"


def test_with_one_class_no_classes_are_shown(link_results, tmp_path, no_ink):
    pairs = replace(link_results.test_pairs, classes=torch.zeros_like(link_results.test_pairs.classes))
    units = sweep_selected_units(link_results.models, link_results.link, pairs, 0.7, 0)
    spread = pairs.representations.var(0)[units.numbers]
    assert len(spread) == 12 and (spread[:-1] >= spread[1:]).all()
    write_page(tmp_path, replace(link_results, units=units, audit=replace(link_results.audit, classes=1)))
    page = html.unescape((tmp_path / "index.html").read_text())
    assert "selectivity.png" not in page and not (tmp_path / "selectivity.png").exists()
    assert "Units that vary most, each at" in page and "Mean response of each unit to each class" not in page
    assert "predicts one class for all generated images, so whether they keep it is not measured" in page
    said = words(unit_figure(units, link_results))
    assert not {"upper", "lower", "left", "middle"} & set(said) and not any("Bars:" in line for line in said)


def test_the_table_has_three_thirds_of_every_unit(link_folder):
    with (link_folder / "units.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS and len(lines) == 12 * 3
    assert {line["part"] for line in lines} == {"upper third", "middle third", "lower third"}
    change = {line["part"]: float(line["change"]) for line in lines if line["unit"] == "0"}
    assert change["upper third"] > 0.02 > change["lower third"]


def test_the_audit_shows_held_out_images_above_their_reconstructions(link_results, audit_picture):
    said = words(audit_picture)
    assert f"How reliable is the link from places to {link_results.models.generator_name}?" in said
    assert "generated: original above, reconstruction below" in said
    rows = torch.linspace(0, len(link_results.test_pairs) - 1, MAX_IMAGES).long()
    before = link_results.models.generate(link_results.test_pairs.latents[rows])
    pictures = np.stack(shown(audit_picture)[: 2 * MAX_IMAGES])
    np.testing.assert_allclose(pictures[0::2], before[:, 0], atol=1e-6)
    np.testing.assert_allclose(pictures[1::2], link_results.reconstruct(before)[:, 0], atol=1e-5)


def test_real_images_are_shown_next_to_generated_ones(link_results, audit_picture):
    assert "real: original above, reconstruction below" in words(audit_picture)
    real = real_pictures(link_results)[:MAX_IMAGES]
    pictures = np.stack(shown(audit_picture)[2 * MAX_IMAGES : 4 * MAX_IMAGES])
    np.testing.assert_allclose(pictures[0::2], real[:, 0], atol=1e-6)
    np.testing.assert_allclose(pictures[1::2], link_results.reconstruct(real)[:, 0], atol=1e-5)


def test_four_classes_have_an_order_in_both_spaces(link_results, audit_picture):
    assert {"in the classifier's layer", "in the generator's latents"} <= set(words(audit_picture))
    assert words(audit_picture).count("middle") == 2
    pairs = link_results.test_pairs
    for matrix, values in zip(shown(audit_picture)[-2:], (pairs.representations, pairs.latents), strict=True):
        scaled = (values - values.mean(0)) / values.std(0)
        means = np.stack([scaled[pairs.classes == c].double().mean(0) for c in range(4)])
        np.testing.assert_allclose(matrix, np.corrcoef(means), atol=1e-4)


def test_three_classes_have_no_order_and_real_images_are_optional(link_results):
    pairs = link_results.test_pairs
    figure = audit_figure(replace(link_results, test_pairs=pairs.take(pairs.classes != 3)))
    assert "in the classifier's layer" not in words(figure) and "middle" not in words(figure)
    assert len(shown(figure)) == 2 * MAX_IMAGES and "real: original above, reconstruction below" not in words(figure)


def test_the_figure_shows_each_unit_low_and_high_in_its_image(link_results):
    units = link_results.units
    figure = unit_figure(units, link_results)
    assert "12 of the 12 units at the input of 2" in words(figure)
    pictures = shown(figure)
    assert len(pictures) == 12 * 3, "low, high and the change"
    rows = {f"unit {one.unit}": one for one in units.sweeps}
    assert rows.keys() <= set(words(figure))
    for (low, high), one, row in zip(
        zip(pictures[0::3], pictures[1::3], strict=True), units.sweeps, units.rows, strict=True
    ):
        for picture, frame in ((low, one.images[row, 0, 0]), (high, one.images[row, -1, 0])):
            assert_same_but_faded(picture, frame.numpy())


def assert_same_but_faded(picture, frame):
    """Units that do not show themselves are laid under white."""
    faded = picture.min() >= frame.min() + 0.1
    np.testing.assert_allclose(1 - picture, (FADED if faded else 1.0) * (1 - frame), atol=1e-5)


LATENT = "How much of the latent does the link explain, on 1,200 held-out pairs?"
CLASS = "Does an image keep its class through the link?"
CYCLE = "Does the round trip link, generator, classifier return the unit (units: the middle half of them)?"
ORDER = "Are the same classes close to each other in both spaces?"


def link_figures_audit(**found):
    nothing = dict.fromkeys(one.name for one in fields(LinkAudit))
    return LinkAudit(**nothing | {"pairs": 1200, "classes": 10, "r2": Interval(0.9, 0.85, 0.95)} | found)


def order(**found):
    return SemanticOrder(**dict.fromkeys(one.name for one in fields(SemanticOrder)) | found)


def test_every_measurement_has_its_control():
    found = audit_measurements(
        link_figures_audit(
            r2_within=Interval(0.6, 0.5, 0.7), class_mean_r2=0.7, shuffled_within=-0.1, mlp_r2_within=0.65,
            generated=Interval(0.97, 0.96, 0.98), real=Interval(0.8, 0.7, 0.9), class_mean_agreement=1.0,
            cycle_r2=0.55, search_cycle_r2=0.75, search_from=0.5,
        )
    )  # fmt: skip
    assert found == {
        LATENT: [
            Measured("R²", 0.9, 0.85, 0.95, 0.7, "class means alone"),
            Measured("R² within classes", 0.6, 0.5, 0.7, -0.1, "shuffled within classes"),
            Measured("two-layer network, within", 0.65, 0.65, 0.65, None, ""),
        ],
        CLASS: [
            Measured("generated images", 0.97, 0.96, 0.98, 1.0, "class means alone"),
            Measured("real images", 0.8, 0.7, 0.9, 1.0, "class means alone"),
        ],
        CYCLE: [
            Measured("R² of the representation", 0.55, 0.55, 0.55, None, ""),
            Measured("of searched latents", 0.75, 0.75, 0.75, 0.5, "before the search"),
        ],
    }


def test_with_one_class_there_are_no_repeated_or_trivial_measurements():
    same = Interval(0.9, 0.85, 0.95)
    found = audit_measurements(link_figures_audit(classes=1, r2_within=same, class_mean_r2=0.0, shuffled_within=-0.1, generated=Interval(1, 1, 1),
                          class_mean_agreement=1.0))  # fmt: skip
    assert found == {LATENT: [Measured("R²", 0.9, 0.85, 0.95, -0.1, "shuffled")]}
    assert [one.name for one in audit_measurements(link_figures_audit(classes=1, real=same))[CLASS]] == [
        "real images"
    ], "these may have more"


def test_groups_without_measurements_are_left_out():
    assert audit_measurements(link_figures_audit()) == {
        LATENT: [Measured("R²", 0.9, 0.85, 0.95, None, "class means alone")]
    }


def test_the_middle_half_of_the_units_that_vary():
    cycle = torch.tensor([0.0, 0.2, torch.nan, 0.4, 0.8, 1.0])
    (units,) = audit_measurements(link_figures_audit(unit_cycle=cycle))[CYCLE]
    assert units.name == "units, correlation" and units.control is None
    assert (units.low, units.value, units.high) == pytest.approx((0.2, 0.4, 0.8))
    assert CYCLE not in audit_measurements(link_figures_audit(unit_cycle=torch.tensor([torch.nan]))), "no unit varies"


def test_the_order_has_its_p_value():
    shared = audit_measurements(
        link_figures_audit(
            order=order(between=0.8, between_p=0.05, within=0.3, within_p=0.004, neighbours=0.4, neighbours_chance=0.1)
        )
    )[ORDER]
    assert shared == [
        Measured("between classes, p 0.05", 0.8, 0.8, 0.8, None, ""),
        Measured("within classes, p < .01", 0.3, 0.3, 0.3, None, ""),
        Measured("nearest neighbours", 0.4, 0.4, 0.4, 0.1, "by chance"),
    ]


def test_an_order_of_too_few_classes_is_left_out():
    assert ORDER not in audit_measurements(link_figures_audit(order=order()))
    (only,) = audit_measurements(link_figures_audit(order=order(within=0.3)))[ORDER]
    assert only.name == "within classes", "nothing was shuffled, so nothing is said of chance"


def selective(means, classes=None):
    means = torch.tensor(means, dtype=torch.float64)
    known = torch.arange(means.shape[1]) if classes is None else torch.tensor(classes)
    return Selectivity(known, means, torch.linspace(0, 1, len(means)))


def test_thirds_divide_every_image():
    masks = thirds((3, 7, 4))
    assert masks.shape == (3, 7, 4) and masks.dtype == torch.float32
    assert masks[:, :, 0].sum(1).tolist() == [3, 2, 2], "rows 0 to 2, 3 to 4, 5 to 6"
    assert torch.equal(masks.sum(0), torch.ones(7, 4))
    assert masks[0, :3].all() and masks[2, 5:].all()


def test_units_are_taken_class_by_class():
    """The first class drives 0 most and then 2; the second takes 1, since 0 is gone, and then 3."""
    found = selective([[3.0, 9.0], [0.0, 2.0], [2.0, 1.0], [1.0, 0.5]])
    every = torch.ones(4, dtype=torch.bool)
    assert select_by_class(found, every, 4) == [0, 2, 1, 3], "in the order of the classes"
    assert select_by_class(found, every, 3) == [0, 2, 1]
    assert select_by_class(found, every, 99) == [0, 2, 1, 3], "no more than there are"
    assert found.means[0, 0] == 3, "what was given stays as found"


def test_without_classes_units_are_taken_by_variance():
    values = torch.tensor([[0.0, 1.0, 0.0, 7.0], [2.0, 1.5, 8.0, 7.0]])
    alive = torch.tensor([True, True, False, True])
    assert select_by_variance(values, alive, 2) == [0, 1]
    assert select_by_variance(values, alive, 9) == [0, 1, 3], "no more than there are, and the dead one never"


def test_dead_units_are_never_taken():
    found = selective([[3.0, 9.0], [0.0, 2.0], [2.0, 1.0]])
    assert select_by_class(found, torch.tensor([False, True, True]), 9) == [2, 1]
    assert select_by_class(found, torch.zeros(3, dtype=torch.bool), 9) == []


def test_only_the_most_frequent_classes_are_named():
    many = selective([list(range(14)), list(range(14, 28))], classes=list(range(100, 114)))
    counts = torch.tensor([3] * 14)
    counts[4], counts[9] = 2, 1
    kept = most_frequent_classes(many, torch.arange(100, 114).repeat_interleave(counts))
    assert kept.classes.tolist() == [c for c in range(100, 114) if c not in (104, 109)], "in rising order"
    assert kept.means[1].tolist() == [float(c - 86) for c in kept.classes.tolist()]
    assert torch.equal(kept.explained, many.explained)
    few = selective([[1.0, 2.0]])
    assert most_frequent_classes(few, torch.tensor([0, 1])) is few


def test_a_note_names_the_third_and_direction_of_the_largest_change():
    change = torch.tensor([[0.25, 0.0, -0.1], [0.0, torch.nan, -0.2], [0.0, 0.0, 0.0]])
    base = torch.tensor([[0.5, 0.0, 0.4]])
    table = UnitTable(
        torch.arange(3), (None,), THIRDS, ("luminance",), change[:, None, :, None], change, change, base[..., None]
    )
    assert Units(torch.zeros(0), [], [], [], selective([[0.0]]), table).notes() == [
        "most in the upper third: 50 % brighter",
        "most in the lower third: 50 % darker",
        "most in the upper third: 0 % darker",
    ]


def test_all_units_are_swept_in_the_same_images(link_results, models):
    units = link_results.units
    assert sorted(units.numbers) == list(range(12)) and link_results.link.alive.all()
    assert torch.equal(units.bases, generate_images(models, BASES, 0.7, 1)), "with the next seed"
    assert all(one.images.shape[:2] == (BASES, 2) and one.representations.shape[1] == 5 for one in units.sweeps)
    assert units.class_names(models) == ["upper", "lower", "left", "middle"]
    assert units.table.units.tolist() == units.numbers and units.table.parts == THIRDS
    assert units.table.bases.max() == MEASURED_IN


def test_each_unit_is_shown_in_an_image_of_its_preferred_class(link_results, models):
    favourites = link_results.units.selective.means[link_results.units.numbers].argmax(1)
    assert torch.equal(models.predict(link_results.units.bases).argmax(1)[link_results.units.rows], favourites)


def test_the_unit_of_the_upper_half_changes_the_upper_half(link_results):
    table = link_results.units.table
    row = link_results.units.numbers.index(0)
    upper, lower = (float(table.column(THIRDS[place], "luminance")[row]) for place in (0, 2))
    assert upper > 0.02 > lower
    assert link_results.units.notes()[row].startswith("most in the ")


def test_the_audit_is_complete_except_for_the_slow_bound(link_results):
    audit = link_results.audit
    assert (
        audit.pairs == len(link_results.test_pairs) == 64
        and link_results.pair_count == 320
        and 0.9 < link_results.acceptance <= 1
    )
    assert audit.generated.value > 0.9 and audit.r2_within.value > audit.shuffled_within
    assert audit.cycle_r2 > 0.9 and audit.class_mean_agreement == 1 and audit.order is not None
    assert audit.mlp_r2_within is None and audit.search_cycle_r2 is None and audit.real is None
    assert "no real pictures were looked at" in audit.trust.because


def test_real_pictures_are_audited_too(link_results, models):
    pairs = link_results.test_pairs
    link = LatentLink().fit(pairs.representations, pairs.latents, pairs.classes)
    audit = run_audit(models, link, pairs, pairs, ImageSet(generate_images(models, 8, 0.5, 5), "eight"), 0)
    assert audit.real.value == 1, "they are the generator's own"
    assert audit.leaked == 1, "nothing was held out"


def test_reconstructions_keep_their_class(link_results, models):
    pictures = generate_images(models, 8, 0.5, 5)
    linked = link_results.reconstruct(pictures)
    assert linked.shape == pictures.shape and linked.min() >= 0 and linked.max() <= 1
    assert torch.equal(models.predict(linked).argmax(1), models.predict(pictures).argmax(1))
    assert (linked - pictures).abs().mean() < 0.1 < (linked - pictures.flip(0)).abs().mean()


def test_what_the_link_command_writes(tmp_path, link_folder, link_results):
    explore_command(link_folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    note = json.loads((link_folder / "manifest.json").read_text())
    parts = page.split("<h2")[1:]
    assert len(parts) == len(note["units"]) == 12
    kept = load_file(link_folder / "explorer.safetensors")
    for part, said, sweep, row in zip(
        parts, note["units"], link_results.units.sweeps, link_results.units.rows, strict=True
    ):
        assert f">unit {said['unit']}<" in part and said["shown_in"] in part
        assert f"{said['verdict']}</strong> because" in part
        film = kept[f"unit_{said['unit']}.frames"]
        torch.testing.assert_close(film[[0, -1]] / 255, sweep.images[row].float(), atol=0.003, rtol=0)
        torch.testing.assert_close(kept[f"unit_{said['unit']}.measured"], sweep.response[row])
        assert part.count("data-frame=") == len(sweep.values) == len(film)
        assert album([film[-1].float() / 255], 100_000).addresses[0] in part
    assert (
        "The link between the two " in page and "What units of tiny_ends:net change in images of tiny_ends:draw" in page
    )


def test_frames_are_stored_small(g):
    found = shrink_frames(torch.rand(4, 3, 200, 320, generator=g))
    assert found.shape == (4, 3, 80, 128) and found.dtype == torch.uint8
    assert shrink_frames(torch.full((1, 1, 8, 9), 0.5)).unique().tolist() == [128]


def test_a_link_of_an_older_version_raises(tmp_path):
    with store.bundle(tmp_path / "old", {"variant": "linear", "audit": {}, "units": []}) as work:
        (work / "index.html").write_text("x")
    with pytest.raises(UsageError, match="its page is .*old/index.html. Run xinc link again to make both"):
        explore_command(tmp_path / "old", None)
