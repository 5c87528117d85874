"""Write a self-contained HTML page from a template, scripts and data."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...store import replace_file
from ..layout import VERDICTS, check_verdicts
from .pack import PackedUnits, delta

FLOATS, SHORTS = ("amounts", "extremes", "scale", "places"), ("top", "shares", "near")


def blob(packed: PackedUnits) -> str:
    """Return the numbers of a layer in base64: little-endian float32, uint16, then differences of maps, deflated.

    The order, which units.js expects: amounts, extremes, scale, places; top, shares, near; maps.
    """
    parts = [getattr(packed, name).numpy().astype("<f4").tobytes() for name in FLOATS]
    parts += [getattr(packed, name).numpy().astype("<u2").tobytes() for name in SHORTS]
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)  # raw, for DecompressionStream("deflate-raw")
    content = compressor.compress(b"".join([*parts, delta(packed.maps)])) + compressor.flush()
    return base64.b64encode(content).decode("ascii")


PAGE_LIMIT = 5_000_000  # bytes of a page, so that it can be sent by e-mail
DATA_LIMIT = 4_800_000  # bytes of its data and images; the rest is for text, style and scripts


class VerdictNote(NamedTuple):
    """A verdict on a page: what it is about, "holds", "weak" or "fails", and the reason."""

    name: str
    verdict: str
    because: str

    @property
    def mark(self) -> str:
        """The mark of the verdict."""
        return VERDICTS[self.verdict][0]


def write_page(
    path: str | Path,
    template: str,
    scripts: Sequence[str],
    *,
    title: str,
    facts: Mapping[str, str],
    verdicts: Sequence[VerdictNote],
    reduced: str = "",
    **content: Any,
) -> Path:
    """Render a template, write the page to ``path`` atomically, and return the path.

    Raises:
        ValueError: an unknown verdict, or a page that is too large.
    """
    check_verdicts(*(note.verdict for note in verdicts))
    environment = Environment(
        loader=PackageLoader("xinc_captum.visualizers", "explorer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = resources.files(__package__)
    page = environment.get_template(template).render(
        title=title,
        facts=dict(facts),
        verdicts=verdicts,
        reduced=reduced,
        style=Markup((folder / "explorer.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((folder / name).read_text(encoding="utf-8") for name in scripts)),
        **content,
    )
    data = page.encode("utf-8", "replace")  # file names need not be UTF-8
    if len(data) > PAGE_LIMIT:
        raise ValueError(
            f"{title}: the page would have {len(data) / 1e6:.1f} MB; expected at most {PAGE_LIMIT / 1e6:g} MB. Write "
            "several pages with a part of the data each."
        )
    path = Path(path)
    with replace_file(path) as part:
        part.write_bytes(data)
    return path
