"""One HTML file that holds everything: words, style, script and data."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..verdict import VERDICTS, check_verdicts


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
    **content: Any,
) -> Path:
    """Fill a template and write it to ``path`` in one step; answers the path.

    Raises:
        ValueError: a verdict that is not known.
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
        style=Markup((here / "explorer.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((here / name).read_text(encoding="utf-8") for name in scripts)),
        **content,
    )
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)
    return path
