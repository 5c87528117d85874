import os
import re
from urllib.parse import unquote, urlsplit

import pytest

from xinc_captum.visualizers.report import Line, Picture, Section, Table, write_report


def report(folder, caption="What to see", **kwargs):
    sections = [Section("Layer <1>", (Picture("a.png", caption),))]
    return write_report(
        folder,
        **{
            "title": "T & U",
            "lead": "Lead",
            "facts": {"quality": "40 dB"},
            "sections": sections,
            "foot": "Foot",
            **kwargs,
        },
    )


def test_page_shows_images_with_captions(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    page = report(tmp_path, caption='red < blue "here"').read_text()
    assert page.count("<img") == 1
    assert 'src="a.png"' in page
    assert "red &lt; blue" in page and "T &amp; U" in page and "Layer &lt;1&gt;" in page, "text is escaped"
    assert "40 dB" in page
    assert "http" not in page, "the page is self-contained"
    assert "prefers-color-scheme: dark" in page


def test_links_of_unusual_file_names_are_quoted(tmp_path):
    names = ["a#1?b%20c&d.png", "10:30 ü.png", 'quote"s.png']
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    sections = [Section("S", tuple(Picture(name, "c") for name in names))]
    page = report(tmp_path, sections=sections).read_text(encoding="utf-8")
    for addresses in (re.findall('href="([^"]*)"', page), re.findall('src="([^"]*)"', page)):
        assert [urlsplit(one).path == one and unquote(one) for one in addresses] == names


def test_names_that_are_not_utf_8_are_replaced(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    assert "old?.png" in report(tmp_path, title=os.fsdecode(b"old\xff.png")).read_text(encoding="utf-8")


def test_missing_images_raise_before_writing(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.png not found"):
        report(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_table_headers_have_scopes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    table = Table(("feature", "score"), (("lion", "<3"), ("lynx", "4")), "What they are")
    page = report(tmp_path, sections=[Section("S", (Picture("a.png", "c"),), table)]).read_text()
    assert page.count('scope="col"') == 2 and page.count('scope="row"') == 2
    assert "<td>&lt;3</td>" in page and "What they are" in page
    assert "<table" not in report(tmp_path).read_text()


def test_verdicts_are_bold(tmp_path):
    lines = (Line("layer <1>", "fails", ", because ρ < .5"), Line("layer 2", "holds", "."))
    page = report(tmp_path, sections=[Section("S", (), verdicts=lines)]).read_text()
    assert "layer &lt;1&gt; <strong>✗ fails</strong>, because ρ &lt; .5</p>" in page
    assert "layer 2 <strong>✓ holds</strong>.</p>" in page
    assert 'class="verdict"' not in report(tmp_path, sections=[]).read_text()
