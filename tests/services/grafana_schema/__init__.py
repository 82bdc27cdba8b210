"""Grafana's own types of a dashboard (`@grafana/schema`), from npm, and the TypeScript compiler that holds JSON against
them. No server: Grafana itself is in no package registry."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.services.base import cache_folder, install_once, npm_install

VERSION = "12.4.11"
_HERE = Path(__file__).parent


class GrafanaSchema:
    """`complaints()` of the compiler about dashboards."""

    name = "grafana-schema"
    _modules = cache_folder() / f"grafana-schema-{VERSION}"

    @classmethod
    def install(cls) -> None:
        """Fetch the packages; nothing to do the second time. ServiceUnavailable when that is not possible."""
        recipe = [_HERE / "package.json", _HERE / "package-lock.json"]
        with install_once(cls._modules, b"".join(path.read_bytes() for path in recipe)) as folder:
            if folder is not None:
                npm_install(f"@grafana/schema {VERSION}", recipe, folder)

    def complaints(self, dashboards: Mapping[str, str]) -> str:
        """What the compiler says of each JSON, by its name, as a `Dashboard`; "" if they are right."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "node_modules").symlink_to(self._modules / "node_modules")
            for board, content in dashboards.items():
                (folder / f"{board}.ts").write_text(
                    "import type { Dashboard } from '@grafana/schema';\n"
                    f"export const dashboard = {content.strip()} satisfies Dashboard;\n"
                )
            compiler = ["node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck"]
            options = ["--moduleResolution", "bundler", "--module", "esnext", "--target", "esnext"]
            done = subprocess.run(
                [*compiler, *options, *(f"{board}.ts" for board in dashboards)],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=240,
            )
        return done.stdout + done.stderr if done.returncode else ""
