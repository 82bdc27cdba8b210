"""Where a model comes from: a bundle's folder, or the MLflow registry, read only. `training/registry.py` writes to it.

    Reader(tracking_uri).fetch("models:/ev-battery-fleet@champion", cache)  ->  a verified folder for `Bundle.load`

MLflow loads in seconds and with 200 MB, so it is imported when a registry is asked, and only here and there. Nothing
waits for minutes: MLflow's and boto's retries are limited, unless the environment says otherwise.

RegistryError            the registry has not what was asked for, or what it has is refused
└── RegistryAway         its server or its artefact store does not answer; later it may
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datasets.names import REGISTERED_MODEL

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
LOCAL = "sqlite:///mlflow.db"
"""The registry without a server: a file in the current folder, with its artefacts beside it."""

# Where the bundle is inside an MLflow model of ours (`training/registry.py`).
BUNDLE_PATH = "artifacts/bundle"
_URIS = "a folder, models:/NAME@ALIAS, models:/NAME/NUMBER or runs:/RUN_ID/PATH"
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "true",
    "AWS_MAX_ATTEMPTS": "2",
}
_SAID = 200
_DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_CONNECT_S = 5.0


class RegistryError(Exception):
    """One line: what was expected, what came, what to do."""


class RegistryAway(RegistryError):
    """See above."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model. `number` 0 is a run's model that is not registered.

    `bundle`: the version that its predictions carry. `digest`: SHA-256 of its manifest, which holds those of its files;
    "" where whoever registered it did not say.
    """

    name: str
    number: int
    run_id: str
    source: str
    bundle: str = ""
    digest: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} version {self.number}" if self.number else f"the model of run {self.run_id}"


@dataclass(frozen=True)
class Lineage:
    """From what a version was made. `vehicles`: ids by part of the split."""

    version: Version
    run_id: str
    data_sha256: str
    code_version: str
    vehicles: dict[str, tuple[str, ...]]
    params: dict[str, str]
    metrics: dict[str, float]


class Reader:
    """Reads runs, versions and bundles. Its methods raise RegistryError, also RegistryAway, and nothing else.

    `tracking_uri`: of a server (http, https), of a database (sqlite:///FILE, postgresql://...); "" is `LOCAL`.
    """

    def __init__(self, tracking_uri: str = "", model: str = REGISTERED_MODEL) -> None:
        self.tracking_uri = tracking_uri or LOCAL
        self.model = model
        self.where = without_secrets(self.tracking_uri)

    # ---- versions

    def alias(self, alias: str, name: str = "") -> Version:
        """The version that has this alias."""
        name = name or self.model
        with self._asked(f"a version of {name} with the alias {alias}"):
            return _version(self._existing().get_model_version_by_alias(name, alias))

    def find_alias(self, alias: str) -> Version | None:
        """The version of the model that has this alias; None where no version has it."""
        with self._asked(f"the registered model {self.model}"):
            found = self._existing().search_registered_models(f"name = '{self.model}'")
        number = dict(found[0].aliases).get(alias) if found else None
        return None if number is None else self.version(number)

    def version(self, number: int | str, name: str = "") -> Version:
        """The version of this number."""
        name = name or self.model
        with self._asked(f"version {number} of {name}"):
            return _version(self._existing().get_model_version(name, str(number)))

    def versions(self) -> list[Version]:
        """All versions of the model, the newest first."""
        with self._asked(f"versions of {self.model}"):
            found = self._existing().search_model_versions(f"name = '{self.model}'")
        return sorted(map(_version, found), key=lambda version: -version.number)

    def of_predictions(self, model_version: str) -> Version:
        """The version whose predictions carry `model_version`, a bundle's version such as `2.0.0`."""
        for version in self.versions():
            if version.bundle == model_version:
                return version
        raise RegistryError(f"expected a version of {self.model} that predicts as {model_version} in {self.where}")

    def lineage(self, model_version: str) -> Lineage:
        """The run, the data and the vehicles behind predictions that carry `model_version`."""
        version = self.of_predictions(model_version)
        with self._asked(f"run {version.run_id}"):
            run = self._existing().get_run(version.run_id)
        tags, vehicles = run.data.tags, {}
        with tempfile.TemporaryDirectory() as folder, self._asked(f"vehicles.json of run {version.run_id}"):
            path = self._existing().download_artifacts(version.run_id, "vehicles.json", folder)
            vehicles = {part: tuple(ids) for part, ids in json.loads(Path(path).read_text()).items()}
        return Lineage(
            version=version,
            run_id=version.run_id,
            data_sha256=tags.get("data_sha256", ""),
            code_version=tags.get("code_version", ""),
            vehicles=vehicles,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
        )

    def resolve(self, uri: str) -> Version:
        """What `models:/NAME@ALIAS`, `models:/NAME/NUMBER` or `runs:/RUN_ID/PATH` stands for now."""
        if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri):
            return self.alias(match[2], match[1])
        if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
            return self.version(match[2], match[1])
        if match := re.fullmatch(r"runs:/(\w+)/(.+)", uri):
            with self._asked(f"run {match[1]}"):
                run = self._existing().get_run(match[1])
            return Version("", 0, match[1], f"{run.info.artifact_uri}/{match[2]}")
        raise RegistryError(f"expected {_URIS}, got {uri}")

    # ---- bundles

    def fetch(self, uri: str | Path | Version, cache: Path) -> Path:
        """The verified folder of a bundle. One that is in the cache, or is a folder itself, is not fetched.

        An altered bundle is refused, and nothing of it stays in the cache.
        """
        if not isinstance(uri, Version):
            if not is_registry_uri(uri):
                verified(Path(uri))
                return Path(uri)
            found = self.resolve(str(uri))
            folder = self.fetch(found, cache)
            self.remember(str(uri), cache, found, folder)
            return folder
        kept = cache / uri.digest
        if uri.digest and _sound(kept):
            return kept
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as fresh:
                folder = self._download(uri, Path(fresh))
                digest = verified(folder)
                if uri.digest and digest != uri.digest:
                    raise RegistryError(
                        f"{uri} in {self.where} is altered: its manifest was registered with SHA-256 "
                        f"{uri.digest[:12]}..., got {digest[:12]}..."
                    )
                kept = cache / digest
                if not _sound(kept):
                    shutil.rmtree(kept, ignore_errors=True)
                with suppress(OSError):  # another process was faster
                    folder.rename(kept)
        except OSError as error:
            raise RegistryError(f"cannot keep models in {cache}: {error.strerror or error}") from error
        return kept

    def remember(self, uri: str, cache: Path, version: Version, folder: Path) -> None:
        """Note what `uri` stands for, for times when the registry does not answer."""
        note = self._note(uri, cache)
        fresh = note.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            fresh.write_text(json.dumps({"version": asdict(version), "digest": folder.name}))
            fresh.replace(note)

    def remembered(self, uri: str, cache: Path) -> tuple[Version, Path] | None:
        """What `uri` stood for when it was fetched last, if the cache still has it unaltered."""
        try:
            noted: Any = json.loads(self._note(uri, cache).read_text())
            folder = cache / noted["digest"]
            return (Version(**noted["version"]), folder) if _sound(folder) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _note(self, uri: str, cache: Path) -> Path:
        return cache / f"last-{hashlib.sha256(f'{self.where} {uri}'.encode()).hexdigest()[:16]}.json"

    def _download(self, version: Version, into: Path) -> Path:
        """The bundle's folder, not verified. A run's path may name the MLflow model or the bundle itself."""
        paths = (BUNDLE_PATH,) if version.digest else (BUNDLE_PATH, "")
        for path in paths:
            source = f"{version.source}/{path}".rstrip("/")
            with self._asked(f"a model bundle at {without_secrets(source)}", last=path == paths[-1]):
                mlflow = load_mlflow()
                found = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=str(into), tracking_uri=self.tracking_uri
                )
                if (Path(found) / "manifest.json").is_file():
                    return Path(found)
        raise RegistryError(f"expected a model bundle (a folder with manifest.json) in {version} of {self.where}")

    # ---- asking

    def _client(self) -> MlflowClient:
        _reach_database(self.tracking_uri, self.where)
        load_mlflow()
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.tracking_uri, self.tracking_uri)

    def _existing(self) -> MlflowClient:
        """The client of a registry that is there: MLflow would make the file of a database to answer a question."""
        file = local_file(self.tracking_uri)
        if file is not None and not file.exists():
            raise RegistryError(f"expected a registry in {file}, which does not exist; is MLFLOW_TRACKING_URI set?")
        return self._client()

    @contextmanager
    def _asked(self, what: str, *, last: bool = True) -> Iterator[None]:
        """Errors as ours. `last`: that it is not there is an error; else it is passed over."""
        try:
            yield
        except (RegistryError, KeyboardInterrupt):
            raise
        except Exception as error:  # MLflow's, boto's, requests', the database's
            code = str(getattr(error, "error_code", ""))
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE") or status == 404:
                if last:
                    raise RegistryError(f"expected {what} in {self.where}: {_reason(error)}") from error
            elif code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or status in (401, 403):
                raise RegistryError(f"{self.where} refuses us: {_reason(error)}") from error
            else:
                raise RegistryAway(f"{self.where} does not give {what}: {_reason(error)}") from error


# ---- folders


def is_registry_uri(uri: str | Path) -> bool:
    """Whether it is of the registry, and not a folder."""
    return str(uri).startswith(("models:", "runs:"))


def verified(folder: Path) -> str:
    """The digest of a bundle's folder, whose files are all as its manifest says. RegistryError otherwise."""
    try:
        manifest = (folder / "manifest.json").read_bytes()
        files = json.loads(manifest)["sha256"]
        for name, expected in files.items():
            if Path(name).name != name:
                raise RegistryError(f"bundle {folder}: the manifest names a file outside of it, {name!r}")
            actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if actual != expected:
                raise RegistryError(
                    f"bundle {folder.name}: {name} is altered: the manifest expects SHA-256 {str(expected)[:12]}..., "
                    f"got {actual[:12]}..."
                )
    except OSError as error:
        raise RegistryError(f"expected a whole model bundle in {folder}: {error.strerror} {error.filename}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"bundle {folder}: manifest.json is damaged ({error!r})") from error
    return hashlib.sha256(manifest).hexdigest()


def _sound(kept: Path) -> bool:
    """Whether the cache holds this bundle, unaltered. The folder's name is its digest."""
    try:
        return kept.is_dir() and verified(kept) == kept.name
    except RegistryError:
        return False


# ---- small


def without_secrets(uri: str) -> str:
    """The address without user and password."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else uri


def local_file(tracking_uri: str) -> Path | None:
    """The file of an SQLite database."""
    return Path(tracking_uri.removeprefix("sqlite:///")) if tracking_uri.startswith("sqlite:///") else None


def _reach_database(tracking_uri: str, where: str) -> None:
    """RegistryAway where nothing listens at a database's address. MLflow would try again for minutes."""
    parts = urlsplit(tracking_uri)
    port = next((port for scheme, port in _DATABASES.items() if parts.scheme.startswith(scheme)), 0)
    if port and parts.hostname:
        try:
            socket.create_connection((parts.hostname, parts.port or port), timeout=_CONNECT_S).close()
        except OSError as error:
            raise RegistryAway(f"{where} does not answer: {error}") from error


def _version(found: Any) -> Version:
    tags: Mapping[str, str] = found.tags or {}
    return Version(
        name=found.name,
        number=int(found.version),
        run_id=found.run_id or "",
        source=found.source,
        bundle=tags.get("bundle_version", ""),
        digest=tags.get("bundle_sha256", ""),
        tags=dict(tags),
    )


def load_mlflow() -> Any:
    """MLflow, with limits, and without telemetry. It reads the environment when it is imported and when it asks."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes of its own
        import mlflow
        import mlflow.artifacts
        import mlflow.pyfunc

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return mlflow


def _reason(error: BaseException) -> str:
    """What lies below, in one line."""
    while deeper := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = deeper
    return " ".join(str(error).split())[:_SAID] or type(error).__name__
