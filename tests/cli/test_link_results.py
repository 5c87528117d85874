import json

import pytest
import torch
from safetensors.torch import load_file

from xinc_captum import store
from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import UnitTable
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.explore import explore_command
from xinc_captum.cli.link_results import (
    MEASURED_IN,
    THIRDS,
    Units,
    most_frequent_classes,
    run_audit,
    select_by_class,
    select_by_variance,
    shrink_frames,
    thirds,
)
from xinc_captum.cli.models import RealImages, generate_images
from xinc_captum.cli.sweep import BASES
from xinc_captum.metrics.links import Selectivity
from xinc_captum.visualizers.explorer.images import album


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
    audit = run_audit(models, link, pairs, pairs, RealImages(generate_images(models, 8, 0.5, 5), "eight"), 0)
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
