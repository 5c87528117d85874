"""An index page that shows a folder of pictures, each with its caption."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..metrics.trust import Rating
from .layout import VERDICTS


@dataclass(frozen=True)
class Picture:
    """A picture file beside the page, and one sentence that says what to see in it."""

    file: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Lines of cells under a line of headings; the first cell of each names it."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True)
class Line:
    """A verdict on what is named: its word, emphasised, and the rest of the sentence."""

    name: str
    verdict: Rating
    rest: str

    @property
    def word(self) -> str:
        """With its mark."""
        return f"{VERDICTS[self.verdict][0]} {self.verdict}"


@dataclass(frozen=True)
class Section:
    """Verdicts and pictures under one heading, and a table below them."""

    title: str
    pictures: tuple[Picture, ...]
    table: Table | None = None
    verdicts: tuple[Line, ...] = ()


def write_report(
    folder: Path, *, title: str, lead: str, facts: Mapping[str, str], sections: Sequence[Section], foot: str
) -> Path:
    """Write ``index.html`` into ``folder`` and answer its path.

    Args:
        folder: where the pictures lie.
        title: what the result is.
        lead: one or two sentences for a reader who knows nothing yet.
        facts: short labelled values, shown in a row.
        sections: the pictures, in reading order.
        foot: how the page came about.

    Raises:
        FileNotFoundError: a picture is not in the folder.
    """
    missing = [p.file for section in sections for p in section.pictures if not (folder / p.file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} not found in {folder}; save pictures before the page is written."
        )
    environment = Environment(
        loader=PackageLoader("xinc_captum.visualizers"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=title, lead=lead, facts=dict(facts), sections=sections, foot=foot
    )
    path = folder / "index.html"
    path.write_bytes(page.encode("utf-8", "replace"))  # a name of a file need not be UTF-8
    return path
