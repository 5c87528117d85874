"""Every message that docs/errors.md quotes is in the source, and has a reason and a fix."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import xinc_captum

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"^> (.*)$", PAGE, re.M)


@cache
def source_strings():
    """Return every string literal of the package, with … for inserted values and single spaces."""
    strings = []
    for path in Path(xinc_captum.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                strings.append(re.sub(r"\s+", " ", "".join(map(str, parts))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(re.sub(r"\s+", " ", node.value))
    return strings


def in_source(quote):
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in quote.split("…")))
    return any(pattern.search(text) for text in source_strings())


@pytest.mark.parametrize("quote", QUOTES)
def test_quote_is_in_the_source(quote):
    assert in_source(quote)


def test_unknown_message_is_not_in_the_source():
    assert not in_source("layer … ran away with the spoon")


def test_every_quote_has_a_reason_and_a_fix():
    assert len(QUOTES) >= 15
    for part in PAGE.split("\n> ")[1:]:
        assert part.count("**Why.**") == 1 and part.count("**Fix.**") == 1, part.splitlines()[0]
