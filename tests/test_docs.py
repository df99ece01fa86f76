"""Pages name functions, headings and files that exist, and code cites pages that exist."""

import functools
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
FUNCTION = re.compile(r"`([\w/]+)\.py:\s+([\w.]+)`")
LINK = re.compile(r"\]\((?!https?://)([^()\s#]*)(?:#([\w-]+))?\)")
CITATION = re.compile(r"docs/systems/(\w+\.md)((?:(?:,| and| to)?\s*#[\w-]+)*)")


@functools.cache
def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {each.replace(" ", "-") for each in words}


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/systems/*.md")), ids=lambda page: page.stem)
def test_functions_named_on_a_page_exist(page):
    named = FUNCTION.findall(page.read_text())
    assert len(named) > 10
    for module, name in named:
        found = importlib.import_module(f"sphere_jax.{module.replace('/', '.')}")
        for part in name.split("."):
            assert hasattr(found, part), f"{page.name}: {module}.py has no {name}"
            found = getattr(found, part)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: there is no {path}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {path} has no #{anchor}"


def test_cited_headings_exist():
    files = [
        file
        for folder in ("sphere_jax", "configs", "benchmarks", "tests", "docs")
        for file in sorted((ROOT / folder).rglob("*"))
        if file.suffix in (".py", ".md") and file != Path(__file__)
    ]
    cited = [(file, *found) for file in files for found in CITATION.findall(file.read_text())]
    assert len(cited) > 30
    for file, page, headings in cited:
        target = ROOT / "docs" / "systems" / page
        assert target.exists(), f"{file.relative_to(ROOT)} cites {page}, which does not exist"
        unknown = set(re.findall(r"#([\w-]+)", headings)) - anchors(target)
        assert not unknown, f"{file.relative_to(ROOT)} cites {unknown} of {page}"


def test_nothing_cites_a_specification_that_is_not_here():
    places = ("sphere_jax", "configs", "benchmarks", "docs", "launch")
    files = [
        file
        for place in places
        for file in (ROOT / place).rglob("*.*")
        if file.suffix in (".py", ".md", ".sh")
    ]
    files.append(ROOT / "README.md")
    assert [str(file) for file in files if "methods" + ".md" in file.read_text()] == []
