"""Pages of docs/: their Python blocks run, and their links, pictures and names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
every = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), namespace)


@every
def test_links_and_pictures_exist(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@every
def test_anchors_lead_to_a_heading(page):
    for file, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        heads = re.findall(r"^#+ (.*)$", (page.parent / file if file else page).read_text(encoding="utf-8"), re.M)
        assert anchor in {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_migration_pages_have_their_parts():
    migration = [page for page in PAGES if page.name.startswith("from_")]
    assert {page.stem for page in migration} == {"from_captum", "from_grad_cam", "from_lucent", "from_xinc"}
    for page in migration:
        text = page.read_text(encoding="utf-8")
        assert "here |" in text and "Limits: " in text and len(blocks(page)) == 1, page.name
        assert page.name in (ROOT / "README.md").read_text(encoding="utf-8"), f"the README does not link to {page.name}"


def test_names_in_migration_tables_exist():
    import xinc_captum
    from xinc_captum import comparison, inr, metrics, zoo
    from xinc_captum.attributions import accentuation
    from xinc_captum.attributions.accentuation import objectives

    homes = [xinc_captum, accentuation, comparison, inr, metrics, zoo, objectives]
    theirs = {"GradCAM", "LayerGradCam", "NoiseTunnel", "AttackComparator"}
    for page in (page for page in PAGES if page.name.startswith("from_")):
        right = " ".join(re.findall(r"^\|[^|]*\|(.*)\|$", page.read_text(encoding="utf-8"), re.M))
        names = re.findall(r"`(?:metrics|inr|objectives)\.(\w+)", right) + re.findall(r"\b([A-Z][a-z]+[A-Z]\w*)", right)
        assert names, page.name
        for name in names:
            assert any(hasattr(home, name) for home in homes) or name in theirs, f"{page.name}: {name}"


def test_pages_of_methods_begin_with_their_use_and_code():
    for name in ("accentuation", "canvases", "comparison", "features", "linking", "nern", "trans_inr"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert "\n\nWith this page you can " in text[:200], name
        order = [text.index(part) for part in ("```python", "![", "\n## ", "\n## Limits\n")]
        assert order == sorted(order), name
