"""The model of a pool whose model is in a registry: which one it is now, and its files. There is no Ray here.

It begins with what the registry has, else with what it had last (the cache), else with the model that ships. From then
on it keeps the model it has until the registry gives another one that is sound. Whatever is wrong is its `notice`.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from actors.prediction.plan import ModelPlan
from models.bundle import Bundle, BundleError
from models.registry import Reader, RegistryAway, RegistryError, Version, verified

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offered:
    """A model on its way to a replica, which may be on another node. `origin`: where it is from, for people."""

    digest: str
    files: dict[str, bytes] = field(repr=False)
    origin: dict[str, str]

    @property
    def key(self) -> str:
        """What tells it from others: the same files may come from the bundled model and from a version."""
        return f"{self.digest} {self.origin.get('version', '')}"

    def load(self) -> Bundle:
        """The bundle, verified once more, and warm."""
        with tempfile.TemporaryDirectory(prefix="ev-twin-model-") as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            bundle = Bundle.load(Path(folder))
        bundle.predict(np.full((1, len(bundle.manifest.features)), np.nan, np.float32))
        return bundle


class ModelSource:
    """`begin`, then `look` as often as you like; `offered` is the model of the moment."""

    def __init__(self, plan: ModelPlan) -> None:
        self._plan = plan
        self._reader = Reader(plan.tracking_uri)
        self._version: Version | None = None
        self._refused: Version | None = None
        self._offered: Offered | None = None
        self.notice = ""

    @property
    def offered(self) -> Offered:
        """The model of the moment."""
        assert self._offered is not None, "begin first"
        return self._offered

    def begin(self, *, required: bool = False) -> Path:
        """Choose the first model; its folder. `required`: RegistryError where the registry answers and has it not."""
        try:
            version = self._reader.resolve(self._plan.uri)
            folder = self._fetched(version)
            self._take(version, folder)
            return folder
        except (RegistryError, BundleError) as error:
            if required and not isinstance(error, RegistryAway):
                raise
            why = str(error)
        known = self._reader.remembered(self._plan.uri, self._plan.cache)
        if known is not None:
            try:
                Bundle.load(known[1])
                self._take(*known)
                self._say(f"{why}; {known[0]} is used, which was fetched last")
                return known[1]
            except (RegistryError, BundleError) as error:
                _log.warning("the model that was fetched last is of no use: %s", error)
        self._take(None, self._plan.fallback)
        self._say(f"{why}; the bundled model is used")
        return self._plan.fallback

    def look(self) -> bool:
        """Ask the registry once. Returns whether there is another model now."""
        kept = f"{self._version or 'the bundled model'} is kept"
        version = None
        try:
            version = self._reader.resolve(self._plan.uri)
            if self._version is not None and _same(version, self._version):
                self._say("")
                return False
            if self._refused is not None and _same(version, self._refused):
                return False
            folder = self._fetched(version)
            self._take(version, folder)
        except RegistryAway as error:
            self._say(f"{error}; {kept}")
            return False
        except (RegistryError, BundleError) as error:
            self._refused = version
            self._say(f"{error}; {kept}")
            return False
        self._say("")
        _log.warning("the pool's model is now %s (%s)", version, self.offered.origin.get("bundle", ""))
        return True

    def _fetched(self, version: Version) -> Path:
        folder = self._reader.fetch(version, self._plan.cache)
        Bundle.load(folder)  # it may be whole, and for other inputs than this version has
        self._reader.remember(self._plan.uri, self._plan.cache, version, folder)
        return folder

    def _take(self, version: Version | None, folder: Path) -> None:
        digest = verified(folder)
        origin = {"uri": self._plan.uri, "version": "the bundled model"}
        if version is not None:
            origin |= {"version": str(version), "run_id": version.run_id} | version.tags
        names = ["manifest.json", *Bundle.load(folder).manifest.sha256]
        self._offered = Offered(digest, {name: (folder / name).read_bytes() for name in names}, origin)
        self._version, self._refused = version, None

    def _say(self, notice: str) -> None:
        if notice and notice != self.notice:
            _log.warning("%s", notice)
        self.notice = notice


def _same(one: Version, other: Version) -> bool:
    return (one.name, one.number, one.run_id, one.digest) == (other.name, other.number, other.run_id, other.digest)
