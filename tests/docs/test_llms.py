"""llms.txt is short, names every public name and no other, and links to pages that exist."""

import inspect
import re
from pathlib import Path

import xinc_captum

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "llms.txt").read_text(encoding="utf-8")


def test_text_is_short():
    assert len(TEXT) < 5000 and TEXT.startswith("# xinc_captum\n\n> ")


def test_public_names_are_complete():
    names = TEXT.split("## Public names")[1]
    listed = set(re.findall(r"`([A-Za-z_]+)(?:\([^`]*\))?`", names)) - {"attribute", "accentuate"}
    methods = {"sweep", "counterfactual"}
    assert listed - methods == set(xinc_captum.__all__) - {"__version__"}


def test_calls_have_existing_parameters():
    for name, arguments in re.findall(r"`(\w+)\(([^`]*)\)`", TEXT.split("## Public names")[1]):
        thing = getattr(xinc_captum, name, None) or getattr(xinc_captum.FeatureAccentuation, name)
        known = list(inspect.signature(thing).parameters)
        for keyword in re.findall(r"(\w+)=", arguments):
            assert keyword in known, f"{name}({keyword}=)"
        needed = [p for p in inspect.signature(thing).parameters.values() if p.default is p.empty and p.kind < 2]
        assert len(needed) - (needed[0].name == "self" if needed else 0) <= len(arguments.split(",")), name


def test_pages_exist():
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_versions_are_those_of_the_package():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for text, expected in (("torch 2.6", '"torch>=2.6"'), ("captum 0.8 or 0.9", '"captum>=0.8,<0.10"')):
        assert text in TEXT and expected in project
