import base64
import zlib

import numpy as np
import pytest
import torch

from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.page import Said, blob, write_page


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


def test_a_layer_is_taken_apart_as_the_page_does_it(g):
    packed = pack_units(torch.randn(2, 5, 3, 4, 6, generator=g))
    content = zlib.decompress(base64.b64decode(blob(packed)), -15)
    at = 0
    order = ["amounts", "extremes", "scale", "places", "top", "shares", "near", "maps"]
    for name, kind in zip(order, ["<f4"] * 4 + ["<u2"] * 3 + ["<i1"], strict=True):
        expected = getattr(packed, name).numpy()
        found = np.frombuffer(content, kind, expected.size, at).reshape(expected.shape)
        at += found.nbytes
        if name == "maps":
            found = np.cumsum(found.astype(np.int64), axis=-1).astype(np.int8)  # wraps around
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert at == len(content)
