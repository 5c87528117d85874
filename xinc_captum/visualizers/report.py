"""HTML report of a result folder: verdicts, figures with captions, and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..metrics.trust import Rating
from .layout import VERDICTS


@dataclass(frozen=True)
class Picture:
    """An image file in the folder of the page, and its caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table with a header; the first cell of each line is its name."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True)
class Line:
    """A sentence with a verdict: what it is about, the verdict in bold, and the rest of the sentence."""

    name: str
    verdict: Rating
    rest: str

    @property
    def word(self) -> str:
        """The verdict with its mark."""
        return f"{VERDICTS[self.verdict][0]} {self.verdict}"


@dataclass(frozen=True)
class Section:
    """A section of the page: heading, verdicts, images, and a table."""

    title: str
    pictures: tuple[Picture, ...]
    table: Table | None = None
    verdicts: tuple[Line, ...] = ()


def write_report(
    folder: Path, *, title: str, lead: str, facts: Mapping[str, str], sections: Sequence[Section], foot: str
) -> Path:
    """Write ``index.html`` into ``folder`` and return its path.

    Args:
        folder: folder with the images.
        title: title of the page.
        lead: one or two introductory sentences.
        facts: short values by name, shown in a row.
        sections: sections in reading order.
        foot: how the page was made.

    Raises:
        FileNotFoundError: an image is not in the folder.
    """
    missing = [p.file for section in sections for p in section.pictures if not (folder / p.file).is_file()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} not found in {folder}; save the images before writing the page.")
    environment = Environment(
        loader=PackageLoader("xinc_captum.visualizers"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=title, lead=lead, facts=dict(facts), sections=sections, foot=foot
    )
    path = folder / "index.html"
    path.write_bytes(page.encode("utf-8", "replace"))  # file names need not be UTF-8
    return path
