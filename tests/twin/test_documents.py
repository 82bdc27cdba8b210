"""The documentation says what the code says: generated pages are current, links and named files are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from twin.folders import ROOT

PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"),
                      *ROOT.glob("cluster/**/*.md"), ROOT / "models" / "bundled" / "card.md")
)  # fmt: skip


def test_generated_pages_are_current() -> None:
    """`make docs` would change nothing."""
    done = subprocess.run([sys.executable, "scripts/documents.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def anchors(page: str) -> set[str]:
    """As GitHub names headings."""
    found = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page.name} links to {target}"


# Decisions are history: they name files as they were.
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name != "decisions"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_named_files_exist(page: Path) -> None:
    """A path of ours in backticks, such as `actors/fleet/shard.py`."""
    for path in re.findall(
        r"`((?:physics|datasets|models|training|actors|twin|tests|benchmarks|scripts)/[\w./-]+)`", page.read_text()
    ):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_sources_name_files_that_exist() -> None:
    """So do docstrings and comments."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        source = (ROOT / name).read_text() if (ROOT / name).exists() else ""
        for path in re.findall(
            r"`((?:physics|datasets|models|training|actors|twin|tests|docs)/[\w./-]+\.\w+)`", source
        ):
            assert (ROOT / path).exists(), f"{name} names {path}"
