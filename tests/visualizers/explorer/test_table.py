import pytest
import torch

from xinc_captum.visualizers.explorer import explore_table
from xinc_captum.visualizers.explorer.table import cell_of


@pytest.mark.parametrize(
    ("value", "text", "by", "note"),
    [
        (12.0, "12", "12.0", ""),
        (-0.12345, "−0.123", "-0.12345", ""),
        (1234.56, "1234.6", "1234.56", ""),
        (float("nan"), "–", "", ""),
        (None, "–", "", ""),
        ("left out", "left out", "left out", ""),
        ((0.5, 0.25, None), "0.500", "0.5", "[0.250, –]"),
        ((None, None, None), "–", "", ""),
    ],
)
def test_cells(value, text, by, note):
    assert cell_of(value) == (text, by, note)


def test_words_are_escaped(tmp_path):
    page = explore_table(tmp_path / "t.html", ["<c>"], {"<m>": [1]}, title="T", images=1).read_text()
    assert (
        "&lt;c&gt;" in page
        and "&lt;m&gt;" in page
        and "<m>" not in page
        and "each column is a measure, of one picture." in page
    )


def test_a_large_figure_is_reduced_and_says_so(tmp_path, g):
    path = explore_table(
        tmp_path / "t.html", ["c"], {"m": [1]}, title="T", images=2, figure=torch.rand(3, 1500, 2400, generator=g)
    )
    assert path.stat().st_size < 5_000_000 and "reduced from 2400 x 1500 to" in path.read_text()


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"1 rows, of which \['m'\] are not as long as the 2 columns"):
        explore_table(tmp_path / "t.html", ["a", "b"], {"m": [1]}, title="T", images=1)
    with pytest.raises(ValueError, match="wanted at least one row with a value for each column"):
        explore_table(tmp_path / "t.html", ["a"], {}, title="T", images=1)


def test_a_remark_stands_at_its_row(tmp_path):
    page = explore_table(
        tmp_path / "t.html", ["c"], {"good": [1], "bad": [None]}, title="T", images=2, remarks={"bad": "failed: <no>"}
    ).read_text()
    assert '<th scope="row" data-value="bad">bad<small>failed: &lt;no&gt;</small></th>' in page
    assert '<th scope="row" data-value="good">good</th>' in page and "the same 2 pictures, or those of them" in page
