"""Checks whose folders Python finds under our names. It is light, because it runs before anything of ours is imported.

The names are generic. Hugging Face's `datasets` is only the best-known package that has one of them.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("physics", "datasets", "models", "training", "actors", "twin")


def foreign_folder(path: list[str] | None = None) -> str:
    """What is wrong, if Python would import another project's package instead of ours; "" if all are ours.

    `path` replaces sys.path.
    """
    for name in NAMES:
        spec = PathFinder.find_spec(name, path)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is None or not found.is_relative_to(ROOT):
            return (
                f"expected the folder {name} of {ROOT}, but Python finds {found or 'none'} first; "
                f"put {ROOT} first on PYTHONPATH, or uninstall the other package"
            )
    return ""


def shadowed_folders(path: list[str] | None = None) -> list[str]:
    """Packages with our names elsewhere on the path. Ours come before them."""
    found = []
    for entry in dict.fromkeys(sys.path if path is None else path):
        folder = Path(entry or ".").resolve()
        if folder != ROOT:
            found += [str(folder / name) for name in NAMES if (folder / name / "__init__.py").is_file()]
    return found
