import io
import sys

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.visualizers import (
    Measured,
    accentuation_rows,
    class_bars,
    comparison_grid,
    counterfactual_rows,
    dose_strip,
    link_audit,
    selectivity_table,
    unit_filmstrips,
    unit_sheet,
)
from xinc_captum.visualizers.layout import (
    NAME_LINES,
    NAME_SIZES,
    Sheet,
    check_axes,
    check_verdicts,
    clip_text,
    decimals_for,
    decimals_over,
    draw_heat,
    draw_photo,
    draw_scale,
    even_indices,
    fit_names,
    limit_of,
    new_figure,
    number,
    number_duplicates,
    ordinal,
    predicate,
    shorten,
    text_width,
    wrap,
)
from xinc_captum.visualizers.style import DIM, GRID_GAP, MARGIN

LONG = "sulphur-crested cockatoo, Kakatoe galerita, Cacatua galerita and everything that looks like one from afar"
NAME = "a class of a long and winding name"


def accentuations(height, width, columns):
    images = torch.rand(2, 3, height, width)
    return accentuation_rows(
        images[:1], images[:, 0] if columns == 4 else None, images, images[:, :1], titles=[LONG] * 2,
        notes=["logit −12.3 → 24.5, " * 8] * 2, trusts=[("holds", "of this"), ("fails", "of many reasons " * 9)],
        cam_name="where the unit is active in the photo itself", heading=f"What a network sees in a photo of {LONG}",
    )  # fmt: skip


def doses(count):
    values = [0.1 * i for i in range(1, count + 1)]
    notes = ["mean activation 12.3 and more words"] * count
    return dose_strip(torch.rand(count, 3, 12, 16), values, seed=torch.rand(3, 12, 16), title="lion", notes=notes)


def classes(count):
    entries = [("tabby", 0.6), (LONG, 0.3), ("lynx", 0.001)]
    return class_bars({f"more of a thing with a long name {i}": entries for i in range(count)})


def comparison(columns, height, width, baselines):
    maps = {f"a rather long method name {i}": torch.rand(2, height, width) for i in range(columns)}
    return comparison_grid(
        torch.rand(2, 3, height, width), maps, dict.fromkeys(maps, "deletion 0.12 ↓\ninsertion 0.74 ↑"),
        baselines=list(maps)[columns - baselines :], captions=[(NAME, "p 0.71"), ("tench", "p < 0.001")],
        foot=f"deletion: {LONG} (↓ less is better); means of 2 photos.", shared=bool(baselines),
    )  # fmt: skip


def counterfactuals(curves):
    path = {"path": torch.linspace(0, 1, 5), "path_chances": torch.rand(3, 5, 2), "flips": torch.rand(3)}
    chances = torch.tensor([[0.9, 0.05, 0.9], [0.8, 0.1, 0.8], [0.1, 0.2, 0.7]]).expand(3, 3, 3)
    return counterfactual_rows(
        *torch.rand(3, 3, 1, 8, 8), chances=chances, predictions=[["golden retriever", "golden retriever", NAME]] * 3,
        origins=["golden retriever"] * 3, targets=["a house cat of some kind"] * 3, notes=["moved by .61"] * 3,
        reached=torch.tensor([True, False, False]), **(path if curves else {}),
    )  # fmt: skip


def audit(count):
    fit = [Measured("R²", 0.9, 0.88, 0.91, 0.72, "class means alone"), Measured(LONG, 0.6, 0.5, 0.7, -0.1)]
    pictures = (torch.rand(count, 3, 12, 8), torch.rand(count, 3, 12, 8))
    return link_audit(
        {"How much does it explain?": fit, "Does a picture keep its class?": fit}, classes=[NAME] * 5,
        verdict=("weak", "real pictures keep their class in 85 % only, " * 4),
        pictures={"generated": pictures, "real": pictures, "others": pictures},
        orders={"layer": torch.eye(5), "latents": torch.eye(5)},
    )  # fmt: skip


def filmstrips(rows, steps):
    return unit_filmstrips(
        torch.rand(rows, steps, 1, 8, 8), torch.linspace(-2, 3, steps).expand(rows, steps), torch.rand(rows, steps),
        rows=[f"row {i}" for i in range(rows)], predictions=[[NAME] * steps] * rows, bases=torch.rand(rows, 1, 8, 8),
        notes=["moves most of all 64 units, follows .98"] * rows, trust=("weak", "it follows half of the way"),
    )  # fmt: skip


def selectivity(units, names):
    shares = torch.rand(units)
    return selectivity_table(torch.randn(units, len(names)), units=range(units), classes=names, explained=shares)


def cards(count):
    return unit_sheet(
        *torch.rand(2, count, 1, 8, 8), units=range(count), ranks=torch.arange(count) % 7 + 1.0, count=64,
        followed=torch.ones(count), verdicts=["holds", "weak", "fails"] * (count // 3),
        notes=["upper third: luminance +12 % and more words than there is space for"] * count,
    )  # fmt: skip


# The least and the most of each figure: tall and wide images, few and many columns and rows, long names.
LAYOUTS = {
    "accentuations, tall": lambda: accentuations(60, 10, 4),
    "accentuations, wide": lambda: accentuations(10, 60, 3),
    "doses, one": lambda: doses(1),
    "doses, two lines": lambda: doses(7),
    "classes, one": lambda: classes(1),
    "classes, two lines": lambda: classes(4),
    "comparison, one tall map": lambda: comparison(1, 40, 10, 0),
    "comparison, baselines alone": lambda: comparison(1, 12, 16, 1),
    "comparison, many maps": lambda: comparison(9, 12, 16, 5),
    "counterfactuals": lambda: counterfactuals(False),
    "counterfactuals with curves": lambda: counterfactuals(True),
    "audit": lambda: audit(2),
    "filmstrips, two values": lambda: filmstrips(1, 2),
    "filmstrips, many values": lambda: filmstrips(2, 6),
    "selectivity, two classes": lambda: selectivity(3, ["a", "b"]),
    "selectivity, long names": lambda: selectivity(3, [NAME] * 12),
    "selectivity, many classes": lambda: selectivity(3, [f"class {i}" for i in range(60)]),
    "cards, one line": lambda: cards(3),
    "cards, two lines": lambda: cards(6),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_texts_do_not_overlap(name, legible):
    figure = LAYOUTS[name]()
    if name.startswith("selectivity"):
        legible(figure, across=0.9, down=0.7)
        return
    legible(figure, slack=name.startswith("accentuations"), panels=not name.startswith("classes"))  # texts on bars
    if name.startswith("accentuations"):
        assert figure.get_figwidth() == 9.0 and min(t.get_fontsize() for t in figure.texts) >= 8
    if name.startswith("comparison"):
        for dots in (100, 120):
            figure.set_dpi(dots)
            legible(figure, down=0.9)


def test_axes_of_one_name_have_one_length():
    images, maps = torch.rand(2, 3, 8, 12), torch.rand(2, 8, 12)
    check_axes({"K": 12}, images=(images, "N, C, H, W"), maps=(maps, "N, H, K"), cams=(None, "N"), names=("ab", "N"))
    for entry, text in (
        ((maps[:1], "N, H, W"), r"maps has shape \(1, 8, 12\); expected \(N, H, W\) with N = 2, H = 8, W = 12\."),
        ((maps, "N, 1, W"), r"maps has shape \(2, 8, 12\); expected \(N, 1, W\) with N = 2, W = 12\."),
        ((maps[0, 0], "K, L"), r"maps has shape \(12,\); expected \(K, L\)\."),
        (
            (maps[:, :0], "N, P, W"),
            r"maps has shape \(2, 0, 12\); expected \(N, P, W\) with N = 2, W = 12, and no length of 0",
        ),
        ((maps, "N, P, P"), r"maps has shape \(2, 8, 12\); expected \(N, P, P\) with N = 2\."),
    ):
        with pytest.raises(ValueError, match=text):
            check_axes(images=(images, "N, C, H, W"), maps=entry)
    with pytest.raises(ValueError, match="notes has 1 entries; expected N = 2"):
        check_axes(titles=(["a", "b"], "N"), notes=(["c"], "N"))


@pytest.mark.parametrize(("count", "most", "indices"), [(1, 4, [0]), (3, 8, [0, 1, 2]), (20, 3, [0, 10, 19])])
def test_even_indices_have_the_first_and_the_last(count, most, indices):
    assert even_indices(count, most) == indices


def test_lines_are_at_most_as_wide_as_requested():
    text = "a rather long line about nothing in particular, with several words"
    for width in (0.8, 1.0, 2.0):
        lines = wrap(text, width, 9)
        assert all(text_width(line, 9) <= width for line in lines)
        assert " ".join(lines) == text
    assert wrap(text, 20) == [text]
    assert wrap("", 1) == []


def test_long_words_are_broken():
    lines = wrap("x" * 80, 1.0)
    assert len(lines) > 3 and "".join(lines) == "x" * 80
    assert all(text_width(line) <= 1.0 for line in lines)
    assert wrap("ab", 0.0) == ["a", "b"], "one letter a line at least"


def test_text_width_depends_on_weight_and_size():
    assert text_width("feature", bold=True) > text_width("feature")
    assert text_width("feature", 18) == pytest.approx(2 * text_width("feature", 9), rel=0.05)


def test_positions_are_inches_from_the_upper_left():
    sheet = Sheet(4)
    axes = sheet.axes(1, 0.5, 2, 1)
    sheet.line(1, 0.25, "here")
    figure = sheet.finish(2)
    assert tuple(figure.get_size_inches()) == (4, 2)
    assert axes.get_position().bounds == pytest.approx((0.25, 0.25, 0.5, 0.5))
    assert figure.texts[0].get_position() == pytest.approx((0.25, 0.875))


def test_dollar_signs_are_not_mathematics():
    sheet = Sheet(2)
    sheet.line(0, 0, "a $ and a $")
    assert sheet.finish(1).texts[0].get_parse_math() is False


def test_grids_fill_the_page_and_keep_the_image_shape():
    sheet = Sheet(4)
    cells, bottom = sheet.grid(["a", "b"], 3, 1.0, (7, 10, 20))
    figure = sheet.finish(bottom)
    assert [len(row) for row in cells] == [2, 2, 2]
    wide, high = figure.get_size_inches()
    boxes = [[axes.get_position() for axes in row] for row in cells]
    assert boxes[0][0].x0 * wide == pytest.approx(MARGIN) and boxes[0][1].x1 * wide == pytest.approx(
        4 - MARGIN - GRID_GAP
    )
    assert boxes[0][0].width * wide == pytest.approx(2 * boxes[0][0].height * high)
    assert boxes[0][0].y0 > boxes[1][0].y1 > boxes[1][0].y0 > boxes[2][0].y1 and boxes[2][0].y0 > 0
    assert [t.get_text() for t in figure.texts] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Integrated Gradients", ["Integrated", "Gradients"]),
        ("InputXGradient", ["InputX", "Gradient"]),
        ("NoiseTunnel(IntegratedGradients)", ["NoiseTunnel(", "Integrated", "Gradients)"]),
        ("my_long_name", ["my_long_", "name"]),
        ("Layer-wise Relevance", ["Layer-wise", "Relevance"]),
        ("LRPRule", ["LRPRule"]),
    ],
)
def test_names_break_between_parts(name, lines):
    size, (result,) = fit_names([name], 0.9 if len(name) > 12 else 0.68)
    assert result == lines and size >= 8


def test_all_names_have_the_size_that_fits_the_longest():
    alone, together = fit_names(["Grad-CAM"], 0.9)[0], fit_names(["Grad-CAM", "backpropagation"], 0.9)[0]
    assert alone == NAME_SIZES[0] > together >= NAME_SIZES[-1]


def test_names_that_never_fit_are_truncated():
    size, (short, long) = fit_names(["Grad-CAM", "a_name_" * 12], 0.8)
    assert size == NAME_SIZES[0] and short == ["Grad-CAM"]
    assert len(long) == NAME_LINES and long[-1].endswith("…") and not any(line.endswith("…") for line in long[:-1])
    assert fit_names(["x" * 90], 0.8)[1][0][0].endswith("x…")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text("aBc d_-X(é", max_size=60), min_size=1, max_size=3), st.floats(0.3, 2.0))
def test_names_fit_and_are_complete_or_end_in_dots(names, width):
    size, results = fit_names(names, width)
    for name, lines in zip(names, results, strict=True):
        assert 1 <= len(lines) <= NAME_LINES and all(text_width(line, size) <= width for line in lines)
        text = "".join(lines).replace(" ", "")
        assert "…" in text or text == name.replace(" ", "")


def test_shorten_only_where_needed():
    assert shorten("tench", 1.0, 9) == "tench"
    assert shorten("three-toed sloth", 0.7, 9).endswith("…")
    assert shorten("tench", 0.01, 9) == "…"


@pytest.mark.parametrize(
    ("largest", "decimals"), [(0.0, 2), (0.004, 2), (0.9, 2), (9.9, 2), (12.0, 1), (250.0, 0), (1e5, 0)]
)
def test_decimals_for_three_digits(largest, decimals):
    assert decimals_for(largest) == decimals


def test_numbers_have_a_true_minus_but_not_before_zero():
    assert number(-0.4, 0) == "0"
    assert number(-0.6, 0) == "−1"
    assert number(float("inf"), 2) == "–"


def test_clipped_text_ends_at_a_word():
    text = "a golden retriever of some age"
    assert clip_text(text, 9, 8) == text
    short = clip_text(text, 1.0, 8)
    assert short.endswith(" …") and text.startswith(short[:-2]) and text_width(short, 8) <= 1.05


def test_ordinals():
    assert [ordinal(n) for n in (3, 12, 13, 21, 101, 112)] == ["3rd", "12th", "13th", "21st", "101st", "112th"]


@pytest.mark.parametrize(
    ("span", "largest", "decimals"),
    [(0.012, 0.05, 3), (0.0099, 0.05, 4), (3.0, 3.0, 2), (0.5, 250.0, 2), (60.0, 250.0, 0), (1e-9, 1.0, 6)],
)
def test_decimals_follow_the_span(span, largest, decimals):
    assert decimals_over(span, largest) == decimals


def test_an_empty_span_is_ignored():
    assert decimals_over(0.0, 12.0) == decimals_over(float("nan"), 12.0) == decimals_over(float("inf"), 12.0) == 1


def test_only_duplicate_names_are_numbered():
    assert number_duplicates([]) == [] and number_duplicates(("b", "a")) == ["b", "a"]
    assert number_duplicates(["a", "b", "a", "a"]) == ["a (1)", "b", "a (2)", "a (3)"]


def test_predicate_of_each_verdict():
    texts = [predicate(f"{verdict}, because") for verdict in ("holds", "weak", "fails")]
    assert texts == ["holds, because", "is weak, because", "fails, because"] and predicate("unknown") == "is unknown"


def test_verdict_line_has_mark_word_and_reason():
    sheet = Sheet(5)
    bottom = sheet.verdict(0.1, "weak", "of many words, so many that they do not fit into one line of the page")
    words = [t.get_text() for t in sheet.finish(bottom).texts]
    assert words[0] == "≈ weak" and words[1].startswith("because of many words") and len(words) == 3


def test_unknown_verdicts_are_rejected():
    check_verdicts("holds", "weak", "fails")
    with pytest.raises(ValueError, match="verdict 'perhaps' is not known; expected holds, weak, fails"):
        check_verdicts("holds", "perhaps")


def test_pyplot_state_is_not_changed():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    new_figure(2, 2)
    assert plt.get_fignums() == before
    assert "matplotlib.pyplot" in sys.modules, "captum imports it, and the figures do not use it"


def test_limit_is_a_quantile_and_never_zero():
    assert limit_of(torch.tensor([-4.0, 1.0]), 1.0) == 4.0
    assert limit_of(torch.zeros(3)) == 1.0
    large = torch.zeros(3 << 20)
    large[::7] = 2.0
    assert limit_of(large) == 2.0


def test_headings_reserve_space():
    drawn = new_figure(4, 2, "Title", "how to read it")
    assert drawn.get_layout_engine().get()["rect"][3] < 0.75
    assert [t.get_text() for t in drawn.texts] == ["Title", "how to read it"]


def test_photos_can_have_any_number_of_channels():
    drawn = new_figure(2, 2)
    axes = drawn.subplots(1, 3)
    for axis, channels in zip(axes, (1, 3, 5), strict=True):
        draw_photo(axis, torch.rand(channels, 4, 4) * 3 - 1)
        image = axis.get_images()[0].get_array()
        assert image.min() >= 0 and image.max() <= 1


def test_pdf_fonts_are_truetype():
    drawn = new_figure(2, 2, dots=150)
    drawn.text(0.1, 0.5, "Grad-CAM")
    before = matplotlib.rcParams["pdf.fonttype"]
    file = io.BytesIO()
    drawn.savefig(file, format="pdf")
    assert b"/CIDFontType2" in file.getvalue() and b"/Type3" not in file.getvalue()
    assert matplotlib.rcParams["pdf.fonttype"] == before and drawn.dpi == 150


LUMA = (0.2126, 0.7152, 0.0722)
PHOTO = torch.full((3, 4, 6), 0.8)


def drawn(values):
    axes = new_figure(2, 2).subplots()
    draw_heat(axes, PHOTO, values)
    return axes.get_images()[0].get_array(), axes.texts[0].get_text()


def test_heat_is_bright_where_values_are_large():
    values = torch.zeros(4, 6)
    values[:2] = 1
    picture, word = drawn(values)
    assert picture[:2].mean() > 0.8 and word == ""
    np.testing.assert_allclose(picture[2:], DIM * 0.8, atol=0.01)


def test_constant_and_non_finite_maps_are_labelled():
    assert drawn(torch.ones(4, 6))[1] == "constant"
    assert drawn(torch.full((4, 6), torch.nan))[1] == "not finite"


def test_the_heat_scale_becomes_lighter():
    axes = new_figure(2, 2).subplots()
    draw_scale(axes)
    light = axes.get_images()[0].get_array().mean(-1)[0]
    assert light[-1] > light[128] > light[0]


@pytest.mark.parametrize("grey", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_larger_values_are_lighter_over_every_photo(grey):
    axes = new_figure(2, 2).subplots()
    draw_heat(axes, torch.full((3, 1, 201), grey), torch.linspace(0, 1, 201)[None], limit=1.0)
    light = np.asarray(axes.get_images()[0].get_array())[0] @ LUMA
    assert (np.diff(light) > -0.002).all(), "the colours come in 256 steps"
    assert light[-1] > 0.9 and light[0] == pytest.approx(DIM * grey, abs=0.01)
