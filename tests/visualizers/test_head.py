import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.visualizers.head import LINES, SIZES, heads, shortened
from xinc_captum.visualizers.sheet import wide


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
def test_names_break_where_their_parts_begin(name, lines):
    size, (found,) = heads([name], 0.9 if len(name) > 12 else 0.68)
    assert found == lines and size >= 8


def test_all_names_have_the_size_of_the_longest():
    alone, together = heads(["Grad-CAM"], 0.9)[0], heads(["Grad-CAM", "backpropagation"], 0.9)[0]
    assert alone == SIZES[0] > together >= SIZES[-1]


def test_what_fits_in_no_size_ends_in_dots_and_shrinks_no_other():
    size, (short, long) = heads(["Grad-CAM", "a_name_" * 12], 0.8)
    assert size == SIZES[0] and short == ["Grad-CAM"]
    assert len(long) == LINES and long[-1].endswith("…") and not any(line.endswith("…") for line in long[:-1])
    assert heads(["x" * 90], 0.8)[1][0][0].endswith("x…")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("aBc d_-X(é", max_size=60), min_size=1, max_size=3), st.floats(0.3, 2.0))
def test_no_line_is_too_wide_and_nothing_is_lost_without_dots(names, width):
    size, found = heads(names, width)
    for name, lines in zip(names, found, strict=True):
        assert 1 <= len(lines) <= LINES and all(wide(line, size) <= width for line in lines)
        whole = "".join(lines).replace(" ", "")
        assert "…" in whole or whole == name.replace(" ", "")


def test_shortened_only_where_needed():
    assert shortened("tench", 1.0, 9) == "tench"
    assert shortened("three-toed sloth", 0.7, 9).endswith("…")
    assert shortened("tench", 0.01, 9) == "…"
