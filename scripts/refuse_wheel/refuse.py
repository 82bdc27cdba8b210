"""A build backend that builds nothing and says why. `pip install .`, `uv build` and the like end here."""

from __future__ import annotations

from typing import Any, NoReturn

_REASON = (
    "this is an application, not a library: a wheel of its folders (datasets, models, training, ...) would replace "
    "other projects' packages of the same names. Run it from its checkout with `make run`, from its image, or as a Ray "
    "job's working directory; see docs/decisions/0015-application.md"
)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise SystemExit(f"refused to build: {_REASON}")


build_wheel = build_sdist = build_editable = _refuse
prepare_metadata_for_build_wheel = prepare_metadata_for_build_editable = _refuse
