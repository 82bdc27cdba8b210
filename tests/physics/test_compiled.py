"""Machine code is kept by what the sources say, wherever they lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from twin.folders import ROOT

_COMPILES = """
from physics import compiled
print(compiled.physics_version())

@compiled.kernel
def doubled(x):
    return 2.0 * x

doubled(3.0)
print(sum(doubled.stats.cache_hits.values()))
"""


def found(checkout: Path, cache: Path) -> tuple[str, int]:
    """The version there, and how often the kernel came from the cache."""
    done = subprocess.run(
        [sys.executable, checkout / "kernel.py"],
        capture_output=True, text=True, cwd=checkout, check=True,
        env=os.environ | {"PYTHONPATH": str(checkout), "NUMBA_CACHE_DIR": str(cache)},
    )  # fmt: skip
    version, hits = done.stdout.split()
    return version, int(hits)


def test_another_checkout_of_the_same_sources_compiles_nothing(tmp_path: Path) -> None:
    for name in ("one", "two", "other"):
        shutil.copytree(ROOT / "physics", tmp_path / name / "physics", ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / name / "kernel.py").write_text(_COMPILES)
    with (tmp_path / "other" / "kernel.py").open("a") as file:
        file.write("# another file\n")
    version, hits = found(tmp_path / "one", tmp_path / "cache")
    assert hits == 0
    assert found(tmp_path / "one", tmp_path / "cache") == (version, 1)
    assert found(tmp_path / "two", tmp_path / "cache") == (version, 1)
    assert found(tmp_path / "other", tmp_path / "cache") == (version, 0)
    with (tmp_path / "two" / "physics" / "constants.py").open("a") as file:
        file.write("# another physics\n")
    changed, hits = found(tmp_path / "two", tmp_path / "cache")
    assert changed != version
    assert hits == 0, "what another version compiled is not taken"
