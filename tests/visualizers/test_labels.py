"""Every figure is drawn once with unusual names: dollar signs are not mathematics, and no name is missing."""

import inspect
import io

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from xinc_captum import visualizers as v
from xinc_captum.visualizers.layout import add_legend, new_figure

NAMES = ["_a$^2", "$b_{", "c\\frac$"]
H, W = 8, 12
PHOTO, MAPS, THREE, GREY = torch.rand(3, H, W), torch.rand(6, H, W), torch.rand(3, 3, H, W), torch.rand(3, 1, 8, 8)
CURVE = v.Spread(torch.arange(5), torch.arange(5), *[torch.linspace(0, 1, 6)] * 2, *[torch.ones(H, W)] * 2)
SHARES, LABELS = (torch.rand(9), torch.rand(2, 9), torch.rand(2, 9)), torch.zeros(H, W).long()
QUARTERS = torch.eye(4).reshape(4, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
FIELDS = {NAMES[0]: MAPS[0], NAMES[1]: MAPS[1]}
RHOS = {name: (torch.rand(9), torch.rand(9)) for name in FIELDS}
PICTURES = torch.rand(3, 2, 1, 8, 8)
SCORES = {NAMES[1]: (0.5, 0.1)}

FIGURES = {
    "accentuation_rows": lambda: v.accentuation_rows(
        PHOTO[None], MAPS[:3], THREE, torch.rand(3, 1, H, W), titles=NAMES, notes=NAMES
    ),
    "association_rows": lambda: v.association_rows(PHOTO, MAPS[0], FIELDS, RHOS, layer=NAMES[2]),
    "build_up": lambda: v.build_up(torch.randn(6, 3, H, W), PHOTO, PHOTO, layer=NAMES[1], stages=3),
    "canvas_grid": lambda: v.canvas_grid(torch.randn(6, 3, H, W), PHOTO, layer=NAMES[1]),
    "class_bars": lambda: v.class_bars({NAMES[0]: [(NAMES[1], 0.9), (NAMES[2], 0.05)]}),
    "cluster_sheet": lambda: v.cluster_sheet(
        MAPS, torch.tensor([0, 0, 0, 1, 1, 1]), PHOTO, sources=NAMES * 2, positions=torch.randn(6, 2), facts=SCORES
    ),
    "comparison_grid": lambda: v.comparison_grid(
        PHOTO[None], dict.fromkeys(NAMES, MAPS[:1]), {NAMES[0]: NAMES[1]}, captions=[NAMES[:2]], foot=NAMES[2]
    ),
    "counterfactual_rows": lambda: v.counterfactual_rows(
        *PICTURES, chances=torch.rand(2, 3, 3), predictions=[NAMES] * 2, origins=NAMES[:2], targets=NAMES[1:],
        reached=torch.tensor([True, False]), notes=NAMES[:2], title=NAMES[2],
    ),
    "dominant_units": lambda: v.dominant_units(PHOTO, LABELS, layer=NAMES[1]),
    "dose_strip": lambda: v.dose_strip(THREE, [-0.5, 0.5, 1], seed=PHOTO, title=NAMES[1]),
    "cluster_variance_bars": lambda: v.cluster_variance_bars({n: (0.4, torch.rand(9) / 9) for n in NAMES}, NAMES[1]),
    "flow_beside_change": lambda: v.flow_beside_change(
        THREE, *[torch.rand(2, H, W)] * 2, torch.eye(2), controls={NAMES[0]: 0.0, NAMES[1]: 0.1}
    ),
    "kernel_sheet": lambda: v.kernel_sheet(torch.randn(3, 4, 2, 3, 3), NAMES, torch.randn(4, 2, 3, 3), layer=NAMES[1]),
    "layer_profile_sheet": lambda: v.layer_profile_sheet(torch.rand(9, 3).softmax(1), NAMES),
    "link_audit": lambda: v.link_audit({NAMES[1]: [v.Measured(NAMES[0], 0.61, 0.55, 0.66, 0.01)]}),
    "neuron_over_photo": lambda: v.neuron_over_photo(torch.randn(3, H, W), PHOTO, unit=1, layer=NAMES[1]),
    "object_time": lambda: v.object_time(
        THREE, torch.ones(3, 1, H, W), torch.rand(3, 1, 5), torch.zeros(3, 1, 5), torch.rand(3, 5, H, W), names=NAMES[1:2]
    ),
    "patch_sheet": lambda: v.patch_sheet(
        torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), QUARTERS, top=3, rest=NAMES[1]
    ),
    "region_bars": lambda: v.region_bars(dict.fromkeys(NAMES, SHARES), dict.fromkeys(NAMES, LABELS), PHOTO),
    "route_sheet": lambda: v.route_sheet(
        torch.randn(4, 3, 1, 8, 8), torch.rand(1, 8, 8), QUARTERS, names=NAMES, top=3
    ),
    "score_curve": lambda: v.score_curve(torch.rand(4, 3), titles=NAMES, layer=NAMES[1], distances=torch.rand(4, 3)),
    "selectivity_table": lambda: v.selectivity_table(torch.randn(4, 3), units=range(4), classes=NAMES),
    "spread_curves": lambda: v.spread_curves(dict.fromkeys(NAMES, CURVE), PHOTO),
    "token_sheet": lambda: v.token_sheet(torch.randn(3, 4, 1, 8, 8), GREY, names=NAMES, top=3, rest=NAMES[1]),
    "unit_film": lambda: v.unit_film(torch.rand(4, 3, H, W), [v.FilmRow(*NAMES, torch.randn(4, H, W))]),
    "unit_filmstrips": lambda: v.unit_filmstrips(
        torch.rand(2, 3, 1, 8, 8), torch.tensor([0.0, 1.0, 2.0]), torch.rand(2, 3), rows=NAMES[:2]
    ),
    "unit_sheet": lambda: v.unit_sheet(
        *torch.rand(2, 2, 1, 8, 8), units=[1, 2], ranks=torch.ones(2), followed=torch.ones(2), count=9, verdicts=["holds"] * 2,
        selectivity=torch.rand(2, 3), classes=NAMES, notes=NAMES[:2], title=NAMES[2],
    ),
    "pixel_contributors": lambda: v.pixel_contributors(
        PHOTO, (1, 2), torch.randn(2, 3), torch.tensor([0, 4]), torch.randn(6, 3, H, W), layer=NAMES[1]
    ),
    "network_sheet": lambda: v.network_sheet(GREY, {NAMES[0]: (0.9 * GREY, [20.0, 21.0, 19.5])}),
}  # fmt: skip
NO_NAMES = {"frame_reconstructions", "neurons_across"}


def test_every_figure_is_covered():
    public = [name for name in v.__all__ if inspect.isfunction(getattr(v, name))]
    figures = {name for name in public if inspect.signature(getattr(v, name)).return_annotation is Figure}
    assert figures - NO_NAMES == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_names_are_drawn_without_mathematics(name, monkeypatch):
    before = plt.get_fignums()
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("a library must not call show()"))
    figure = FIGURES[name]()
    assert plt.get_fignums() == before
    drawn = [text for text in figure.findobj(Text) if any(part in text.get_text() for part in "$\\")]
    assert drawn, "no name was drawn"
    assert [text.get_text() for text in drawn if text.get_parse_math()] == []
    figure.savefig(io.BytesIO(), format="png", dpi=30)


@pytest.mark.parametrize("name", ["cluster_sheet", "score_curve", "spread_curves"])
def test_legends_have_every_name(name):
    figure = FIGURES[name]()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    assert [text.get_text() for legend in legends if legend for text in legend.get_texts()] == NAMES


def test_legends_keep_their_handles():
    figure = new_figure(2, 2)
    lines = figure.subplots().plot(torch.rand(4, 2))
    add_legend(figure, lines, ["_one", "$two$"])
    (legend,) = figure.legends
    assert [line.get_color() for line in legend.get_lines()] == [line.get_color() for line in lines]
