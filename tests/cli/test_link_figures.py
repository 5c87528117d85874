from dataclasses import fields

import pytest
import torch

from xinc_captum.attributions.linking import LinkAudit
from xinc_captum.cli.link_figures import figures
from xinc_captum.metrics.bootstrap import Interval
from xinc_captum.metrics.semantic_order import SemanticOrder
from xinc_captum.visualizers import Measured

LATENT = "How much of the latent does the link explain, on 1,200 pairs it has not seen?"
CLASS = "Does a picture keep its class through the link?"
CYCLE = "Does the unit come back? Link, draw, and look again (units: the middle half of them)"
ORDER = "Do both spaces put the same things near one another?"


def audit(**found):
    nothing = dict.fromkeys(one.name for one in fields(LinkAudit))
    return LinkAudit(**nothing | {"pairs": 1200, "classes": 10, "r2": Interval(0.9, 0.85, 0.95)} | found)


def order(**found):
    return SemanticOrder(**dict.fromkeys(one.name for one in fields(SemanticOrder)) | found)


def test_every_figure_stands_beside_its_control():
    found = figures(
        audit(
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
            Measured("generated pictures", 0.97, 0.96, 0.98, 1.0, "class means alone"),
            Measured("real pictures", 0.8, 0.7, 0.9, 1.0, "class means alone"),
        ],
        CYCLE: [
            Measured("R² of the representation", 0.55, 0.55, 0.55, None, ""),
            Measured("of searched latents", 0.75, 0.75, 0.75, 0.5, "where the search began"),
        ],
    }


def test_of_one_class_nothing_is_said_twice_and_nothing_trivial():
    same = Interval(0.9, 0.85, 0.95)
    found = figures(audit(classes=1, r2_within=same, class_mean_r2=0.0, shuffled_within=-0.1, generated=Interval(1, 1, 1),
                          class_mean_agreement=1.0))  # fmt: skip
    assert found == {LATENT: [Measured("R²", 0.9, 0.85, 0.95, -0.1, "shuffled")]}
    assert [one.name for one in figures(audit(classes=1, real=same))[CLASS]] == ["real pictures"], "these may have more"


def test_groups_without_figures_are_left_out():
    assert figures(audit()) == {LATENT: [Measured("R²", 0.9, 0.85, 0.95, None, "class means alone")]}


def test_the_middle_half_of_the_units_that_vary():
    cycle = torch.tensor([0.0, 0.2, torch.nan, 0.4, 0.8, 1.0])
    (units,) = figures(audit(unit_cycle=cycle))[CYCLE]
    assert units.name == "units, correlation" and units.control is None
    assert (units.low, units.value, units.high) == pytest.approx((0.2, 0.4, 0.8))
    assert CYCLE not in figures(audit(unit_cycle=torch.tensor([torch.nan]))), "no unit varies"


def test_the_order_says_how_often_chance_does_as_well():
    shared = figures(
        audit(
            order=order(between=0.8, between_p=0.05, within=0.3, within_p=0.004, neighbours=0.4, neighbours_chance=0.1)
        )
    )[ORDER]
    assert shared == [
        Measured("between classes, p 0.05", 0.8, 0.8, 0.8, None, ""),
        Measured("within classes, p < .01", 0.3, 0.3, 0.3, None, ""),
        Measured("nearest neighbours", 0.4, 0.4, 0.4, 0.1, "by chance"),
    ]


def test_an_order_with_too_few_classes_has_no_figures():
    assert ORDER not in figures(audit(order=order()))
    (only,) = figures(audit(order=order(within=0.3)))[ORDER]
    assert only.name == "within classes", "nothing was shuffled, so nothing is said of chance"
