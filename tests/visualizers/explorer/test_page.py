import base64
import zlib

import numpy as np
import pytest
import torch

from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.page import VerdictNote, blob, write_page


def write(path, verdicts=()):
    rows = [[]]
    return write_page(
        path, "table.html.j2", ["table.js"], title="<b>T & U</b>", facts={"a<": "</script>"}, verdicts=verdicts,
        images=1, columns=["<i>"], rows=rows, figure=None,
    )  # fmt: skip


def test_texts_are_escaped_and_nothing_is_fetched(tmp_path):
    page = write(tmp_path / "page.html").read_text()
    assert "<b>T" not in page and "&lt;b&gt;T &amp; U" in page and "a&lt;" in page and "<i>" not in page
    assert page.count("</script>") == 1, "only the one that ends the script"
    assert "http:" not in page and "https:" not in page and "src=" not in page
    assert "default-src 'none'; img-src data:;" in page, "enforced by the browser"
    assert "prefers-color-scheme: dark" in page and "max-width: 700px" in page


def test_pages_are_limited_in_size(tmp_path):
    with pytest.raises(ValueError, match="<b>T & U</b>: the page would have 6.0 MB; expected at most 5 MB. Write"):
        write_page(
            tmp_path / "page.html", "table.html.j2", ["table.js"], title="<b>T & U</b>", facts={"a": "x" * 6_000_000},
            verdicts=[], images=1, columns=[], rows=[], figure=None,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_pages_are_written_atomically(tmp_path):
    with pytest.raises(ValueError, match="verdict 'fine' is not known"):
        write(tmp_path / "page.html", [VerdictNote("h1", "fine", "x")])
    assert list(tmp_path.iterdir()) == []


def test_blob_has_the_order_that_the_page_expects(g):
    packed = pack_units(torch.randn(2, 5, 3, 4, 6, generator=g))
    content = zlib.decompress(base64.b64decode(blob(packed)), -15)
    at = 0
    order = ["amounts", "extremes", "scale", "places", "top", "shares", "near", "maps"]
    for name, kind in zip(order, ["<f4"] * 4 + ["<u2"] * 3 + ["<i1"], strict=True):
        expected = getattr(packed, name).numpy()
        values = np.frombuffer(content, kind, expected.size, at).reshape(expected.shape)
        at += values.nbytes
        if name == "maps":
            values = np.cumsum(values.astype(np.int64), axis=-1).astype(np.int8)  # modulo 256
        np.testing.assert_array_equal(values, expected, err_msg=name)
    assert at == len(content)
