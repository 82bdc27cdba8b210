"""Chromium from its Debian package, driven by playwright, whose own browsers no package registry has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.services.base import apt_install

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A container has no user namespaces and no graphics card; a browser of a test asks nobody but the page.
_FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Chromium:
    """Installed as the services are; it is no server."""

    name = "chromium"

    @classmethod
    def install(cls) -> None:
        """Get it; nothing to do the second time. ServiceUnavailable when that is not possible."""
        if shutil.which("chromium") is None:
            apt_install("chromium", "Chromium (browser)")

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Browser]:
        """A browser with a profile of its own."""
        from playwright.sync_api import sync_playwright

        cls.install()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
            try:
                yield browser
            finally:
                browser.close()
