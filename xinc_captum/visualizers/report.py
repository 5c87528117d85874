"""HTML report of a result folder: verdicts, figures with captions, and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..metrics.trust import Rating
from .style import VERDICTS


class Picture(NamedTuple):
    """An image file in the folder of the page, and its caption."""

    file: str
    caption: str


class Table(NamedTuple):
    """A table with a header; the first cell of each line is its name."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    caption: str


class Line(NamedTuple):
    """A sentence with a verdict: what it is about, the verdict in bold, and the rest of the sentence."""

    name: str
    verdict: Rating
    rest: str

    @property
    def word(self) -> str:
        """The verdict with its mark."""
        return f"{VERDICTS[self.verdict][0]} {self.verdict}"


class Section(NamedTuple):
    """A section of the page: heading, verdicts, images, and a table."""

    title: str
    pictures: tuple[Picture, ...]
    table: Table | None = None
    verdicts: tuple[Line, ...] = ()


def write_report(
    folder: Path, *, title: str, lead: str, facts: Mapping[str, str], sections: Sequence[Section], foot: str
) -> Path:
    """Write ``index.html`` into a folder that has the images already, and return its path."""
    missing = [p.file for section in sections for p in section.pictures if not (folder / p.file).is_file()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} not found in {folder}; save the images before writing the page.")
    path = folder / "index.html"
    content = {"title": title, "lead": lead, "facts": dict(facts), "sections": sections, "foot": foot}
    path.write_bytes(render("templates", "report.html.j2", **content))
    return path


def render(folder: str, template: str, **content: Any) -> bytes:
    """Return the page of a template in a folder of this package, with all texts escaped."""
    environment = Environment(
        loader=PackageLoader("xinc_captum.visualizers", folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**content)
    return page.encode("utf-8", "replace")  # file names need not be UTF-8
