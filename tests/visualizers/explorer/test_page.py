import pytest

from xinc_captum.visualizers.explorer.page import Said, write_page


def write(path, verdicts=()):
    rows = [[]]
    return write_page(
        path, "table.html.j2", ["table.js"], title="<b>T & U</b>", facts={"a<": "</script>"}, verdicts=verdicts,
        images=1, columns=["<i>"], rows=rows, figure=None,
    )  # fmt: skip


def test_words_are_escaped_and_nothing_is_fetched(tmp_path):
    page = write(tmp_path / "page.html").read_text()
    assert "<b>T" not in page and "&lt;b&gt;T &amp; U" in page and "a&lt;" in page and "<i>" not in page
    assert page.count("</script>") == 1, "only the one that ends the script"
    assert "http:" not in page and "https:" not in page and "src=" not in page
    assert "default-src 'none'; img-src data:;" in page, "the browser sees to it"
    assert "prefers-color-scheme: dark" in page and "max-width: 700px" in page


def test_no_page_is_larger_than_what_goes_by_mail(tmp_path):
    with pytest.raises(ValueError, match="<b>T & U</b>: the page would take 6.0 MB, and none takes more than 5; make"):
        write_page(
            tmp_path / "page.html", "table.html.j2", ["table.js"], title="<b>T & U</b>", facts={"a": "x" * 6_000_000},
            verdicts=[], images=1, columns=[], rows=[], figure=None,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_page_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="verdict 'fine' is not known"):
        write(tmp_path / "page.html", [Said("h1", "fine", "x")])
    assert list(tmp_path.iterdir()) == []
