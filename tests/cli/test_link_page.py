import csv
import html
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.attributions.linking.unit_tables.unit_table import COLUMNS
from xinc_captum.cli.link_page import SHOWN, audit, sheet, write_page
from xinc_captum.cli.link_story import units_of
from xinc_captum.cli.real import Real
from xinc_captum.cli.starts import drawn
from xinc_captum.visualizers.unit_sheet import FADED
from xinc_captum.visualizers.words import predicate


@pytest.fixture(scope="module")
def drawn_audit(story):
    """With four classes, and real pictures beside the generated ones."""
    return audit(replace(story, real=Real(real_pictures(story), "some")))


def real_pictures(story):
    return drawn(story.ends, SHOWN + 3, 0.5, 9)


def words(figure):
    return [text.get_text() for text in figure.texts]


def shown(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_the_page_names_both_ends_and_shows_three_pictures(link_folder, tiny):
    page = html.unescape((link_folder / "index.html").read_text())
    note = json.loads((link_folder / "manifest.json").read_text())
    assert f"What units of places mean to {tiny}:draw" in page and f"This link {predicate(note['trust'])}" in page
    for fact in (f"{tiny}:net", "input of 2", "320 (100 % of those drawn)", "linear, 12 units, 0 dead", "none"):
        assert f">{fact}<" in page
    for file in ("audit.png", "units.png", "selectivity.png"):
        assert file in page
        with Image.open(link_folder / file) as picture:
            assert picture.width >= 900
            assert "Software" not in picture.info, "equal runs write equal files"


def test_of_one_class_no_classes_are_shown(story, tmp_path, no_ink):
    pairs = replace(story.held_out, classes=torch.zeros_like(story.held_out.classes))
    units = units_of(story.ends, story.link, pairs, 0.7, 0)
    spread = pairs.representations.var(0)[units.numbers]
    assert len(spread) == 12 and (spread[:-1] >= spread[1:]).all()
    write_page(tmp_path, replace(story, units=units, audit=replace(story.audit, classes=1)))
    page = html.unescape((tmp_path / "index.html").read_text())
    assert "selectivity.png" not in page and not (tmp_path / "selectivity.png").exists()
    assert "Units that vary most, each drawn" in page and "Which classes drive them" not in page
    assert "gives all of the generator's pictures one class, so nothing is said of keeping it" in page
    said = words(sheet(units, story))
    assert not {"upper", "lower", "left", "middle"} & set(said) and not any("Bars:" in line for line in said)


def test_the_table_has_three_thirds_of_every_unit(link_folder):
    with (link_folder / "units.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS and len(lines) == 12 * 3
    assert {line["part"] for line in lines} == {"upper third", "middle third", "lower third"}
    change = {line["part"]: float(line["change"]) for line in lines if line["unit"] == "0"}
    assert change["upper third"] > 0.02 > change["lower third"]


def test_the_audit_shows_held_out_pictures_over_what_the_link_makes_of_them(story, drawn_audit):
    said = words(drawn_audit)
    assert f"How far to believe the link from places to {story.ends.generator_name}" in said
    assert "generated: before, and through the link" in said
    rows = torch.linspace(0, len(story.held_out) - 1, SHOWN).long()
    before = story.ends.draw(story.held_out.latents[rows])
    pictures = np.stack(shown(drawn_audit)[: 2 * SHOWN])
    np.testing.assert_allclose(pictures[0::2], before[:, 0], atol=1e-6)
    np.testing.assert_allclose(pictures[1::2], story.through(before)[:, 0], atol=1e-5)


def test_real_pictures_stand_beside_the_generated_ones(story, drawn_audit):
    assert "real: before, and through the link" in words(drawn_audit)
    real = real_pictures(story)[:SHOWN]
    pictures = np.stack(shown(drawn_audit)[2 * SHOWN : 4 * SHOWN])
    np.testing.assert_allclose(pictures[0::2], real[:, 0], atol=1e-6)
    np.testing.assert_allclose(pictures[1::2], story.through(real)[:, 0], atol=1e-5)


def test_four_classes_have_an_order_in_both_spaces(story, drawn_audit):
    assert {"in the classifier's layer", "in the generator's latents"} <= set(words(drawn_audit))
    assert words(drawn_audit).count("middle") == 2
    pairs = story.held_out
    for matrix, values in zip(shown(drawn_audit)[-2:], (pairs.representations, pairs.latents), strict=True):
        scaled = (values - values.mean(0)) / values.std(0)
        means = np.stack([scaled[pairs.classes == c].double().mean(0) for c in range(4)])
        np.testing.assert_allclose(matrix, np.corrcoef(means), atol=1e-4)


def test_three_classes_have_no_order_and_no_real_pictures_no_place(story):
    pairs = story.held_out
    figure = audit(replace(story, held_out=pairs.take(pairs.classes != 3)))
    assert "in the classifier's layer" not in words(figure) and "middle" not in words(figure)
    assert len(shown(figure)) == 2 * SHOWN and "real: before, and through the link" not in words(figure)


def test_the_sheet_draws_every_unit_low_and_high_in_its_own_picture(story):
    units = story.units
    figure = sheet(units, story)
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
