"""One-file HTML page."""

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
    """A layer's numbers, little-endian, float32 first, then uint16, then the maps' differences; deflated, in base64.

    The page takes them apart in this order: amounts, extremes, scale, places; top, shares, near; maps.
    """
    parts = [getattr(packed, name).numpy().astype("<f4").tobytes() for name in FLOATS]
    parts += [getattr(packed, name).numpy().astype("<u2").tobytes() for name in SHORTS]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)  # without a header, as DecompressionStream("deflate-raw") reads
    content = squeezer.compress(b"".join([*parts, delta(packed.maps)])) + squeezer.flush()
    return base64.b64encode(content).decode("ascii")


LIMIT = 5_000_000  # bytes of a page, so that it goes by e-mail
ROOM = 4_800_000  # of them for data and pictures; the rest is for words, style and script


class Said(NamedTuple):
    """A verdict, as a page says it: on what, the word, and because of what."""

    name: str
    verdict: str
    because: str

    @property
    def mark(self) -> str:
        """In front of the word."""
        return VERDICTS[self.verdict][0]


def write_page(
    path: str | Path,
    template: str,
    scripts: Sequence[str],
    *,
    title: str,
    facts: Mapping[str, str],
    verdicts: Sequence[Said],
    reduced: str = "",
    **content: Any,
) -> Path:
    """Fill a template and write it to ``path`` in one step; answers the path.

    Raises:
        ValueError: a verdict that is not known, or more than a page may hold.
    """
    check_verdicts(*(one.verdict for one in verdicts))
    environment = Environment(
        loader=PackageLoader("xinc_captum.visualizers", "explorer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = resources.files(__package__)
    page = environment.get_template(template).render(
        title=title,
        facts=dict(facts),
        verdicts=verdicts,
        reduced=reduced,
        style=Markup((here / "explorer.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((here / name).read_text(encoding="utf-8") for name in scripts)),
        **content,
    )
    held = page.encode("utf-8", "replace")  # a name of a file need not be UTF-8
    size = len(held)
    if size > LIMIT:
        raise ValueError(
            f"{title}: the page would take {size / 1e6:.1f} MB, and none takes more than {LIMIT / 1e6:g}; make several "
            "pages, each of a part."
        )
    path = Path(path)
    with replace_file(path) as part:
        part.write_bytes(held)
    return path
