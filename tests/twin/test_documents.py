"""The documentation says what the code says: generated pages are current, links and named files are there."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_merge_was_left_half_done(page: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", page.read_text(), flags=re.MULTILINE)


def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path: Path) -> None:
    """Every page has its place, every link its target; scripts, styles and fonts come with it."""
    built = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?(https?://[^\"' >]+)", page.read_text()
        )
        assert not [url for url in loaded if "canonical" not in url], page
    reference = (tmp_path / "site" / "api.html").read_text()
    assert 'class="doc doc-object' in reference
    assert "Leaving the block delivers what was made" in reference


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
