"""The MLflow registry: training runs, versions of the model, the aliases `challenger` and `champion`.

    registry = Registry("http://127.0.0.1:5000")
    run_id = registry.log(TrainingRun(bundle=folder, data_sha256=..., code_version=..., vehicles={"train": [...]}))
    version = registry.register(run_id)
    registry.set_alias("challenger", version, "trained on 2,000 lives")
    registry.set_alias("champion", version, "RUL MAE 212 against 240 EFC on 400 vehicles")
    registry.lineage("2.1.0").vehicles["train"]     # of a prediction's model_version
    Bundle.load(registry.fetch("models:/ev-battery-fleet@champion", cache))

A version is an MLflow model of the pyfunc flavour with its code: `mlflow.pyfunc.load_model` loads it anywhere. Reading
is in `models/registry.py`, which serving uses too.
"""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from datasets.schema import MODEL_INPUTS, MODEL_OUTPUTS
from models.bundle import Bundle, BundleError, Manifest
from models.registry import (
    CHALLENGER,
    CHAMPION,
    LOCAL,
    Lineage,
    Reader,
    RegistryAway,
    RegistryError,
    Version,
    load_mlflow,
    local_file,
    verified,
)

__all__ = [
    "CHALLENGER", "CHAMPION", "LOCAL", "Lineage", "Registry", "RegistryAway", "RegistryError", "TrainingRun",
    "Version",
]  # fmt: skip

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("physics", "datasets", "models")
_REQUIRED = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "xgboost-cpu")
_MODEL_PATH = "model"
_COPIED = ("data_sha256", "code_version", "vehicles")
_PARAMS_AT_ONCE = 100


@dataclass(frozen=True)
class TrainingRun:
    """What is logged of a training.

    `vehicles`: ids by part of the split, e.g. train, calibrate, test. `artefacts`: a folder of tables and figures.
    """

    bundle: Path
    data_sha256: str
    code_version: str
    vehicles: Mapping[str, Sequence[str]]
    params: Mapping[str, str | float | int | bool] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artefacts: Path | None = None
    name: str = ""


class Registry(Reader):
    """Writes what `Reader` reads. Methods raise RegistryError, also RegistryAway, and nothing else."""

    def log(self, training: TrainingRun) -> str:
        """Log a run with its bundle. Returns the run's id. A run that could not be logged whole is marked FAILED."""
        digest, manifest = verified(training.bundle), _loaded(training.bundle)
        counts = {part: len(ids) for part, ids in training.vehicles.items()}
        tags = {
            "data_sha256": training.data_sha256,
            "code_version": training.code_version,
            "vehicles": ", ".join(f"{part} {count}" for part, count in counts.items()),
            "bundle_version": manifest.version,
            "bundle_sha256": digest,
        }
        with self._asked("a new run"):
            client = self._client()
            run_id: str = client.create_run(self._experiment(client), run_name=training.name or None).info.run_id
        status = "FAILED"
        try:
            with self._asked(f"room for run {run_id}"):
                for name, value in tags.items():
                    client.set_tag(run_id, name, value)
                self._log_numbers(run_id, training)
                client.log_text(run_id, json.dumps({k: list(v) for k, v in training.vehicles.items()}), "vehicles.json")
                if training.artefacts is not None:
                    client.log_artifacts(run_id, str(training.artefacts))
                with tempfile.TemporaryDirectory() as folder:
                    client.log_artifacts(
                        run_id, str(_as_mlflow_model(training.bundle, manifest, Path(folder))), "model"
                    )
            status = "FINISHED"
        finally:
            with suppress(Exception):  # that it could not be logged is what is told
                client.set_terminated(run_id, status)
        return run_id

    def _log_numbers(self, run_id: str, training: TrainingRun) -> None:
        from mlflow.entities import Metric, Param

        now = int(datetime.now(UTC).timestamp() * 1000)
        metrics = [Metric(name, float(value), now, 0) for name, value in training.metrics.items()]
        params = [Param(name, str(value)) for name, value in training.params.items()]
        client = self._client()
        for first in range(0, max(len(metrics), len(params)), _PARAMS_AT_ONCE):
            part = slice(first, first + _PARAMS_AT_ONCE)
            client.log_batch(run_id, metrics=metrics[part], params=params[part])

    def _experiment(self, client: Any) -> str:
        """The id of the model's experiment. Without a server its artefacts are beside the database."""
        found = client.get_experiment_by_name(self.model)
        if found is None:
            file = local_file(self.tracking_uri)
            place = None if file is None else (file.absolute().parent / "mlflow-artifacts").as_uri()
            return str(client.create_experiment(self.model, artifact_location=place))
        return str(found.experiment_id)

    def register(self, run_id: str) -> Version:
        """Make the run's model the next version. The same bundle again is the version it was.

        RegistryError where another bundle with the same version string is there: a prediction carries that string, and
        must lead to one run.
        """
        with self._asked(f"run {run_id}"):
            client = self._existing()
            run = client.get_run(run_id)
        tags = run.data.tags
        if run.info.status != "FINISHED" or "bundle_sha256" not in tags:
            raise RegistryError(f"expected a finished run with a bundle, got run {run_id} ({run.info.status})")
        with self._asked(f"the registered model {self.model}"):
            if not client.search_registered_models(f"name = '{self.model}'"):
                client.create_registered_model(self.model)
        for version in self.versions():
            if version.digest == tags["bundle_sha256"]:
                return version
            if version.bundle == tags["bundle_version"]:
                raise RegistryError(
                    f"{version} predicts as {version.bundle} already; give the new bundle a version of its own"
                )
        copied = {name: tags[name] for name in ("bundle_version", "bundle_sha256", *_COPIED) if name in tags}
        with self._asked(f"a version of {self.model}"):
            source = f"{run.info.artifact_uri}/{_MODEL_PATH}"
            made = client.create_model_version(self.model, source, run_id, tags=copied)
        return self.version(made.version)

    def set_alias(self, alias: str, version: Version | int, reason: str) -> Version:
        """Give the alias to a version, and note there why, when, and which had it before."""
        number = version.number if isinstance(version, Version) else version
        before = self.find_alias(alias)
        notes = {
            f"{alias}.reason": reason,
            f"{alias}.since": datetime.now(UTC).isoformat(timespec="seconds"),
            f"{alias}.before": str(before.number) if before is not None else "none",
        }
        target = self.version(number)
        for name, value in notes.items():
            self.tag(target, name, value)
        with self._asked(f"version {number} of {self.model}"):
            self._client().set_registered_model_alias(self.model, alias, str(number))
        return self.version(number)

    def tag(self, version: Version | int, name: str, value: str) -> None:
        """Note something on a version, e.g. why it was not promoted."""
        number = version.number if isinstance(version, Version) else version
        with self._asked(f"version {number} of {self.model}"):
            self._existing().set_model_version_tag(self.model, str(number), name, value)


def _loaded(bundle: Path) -> Manifest:
    try:
        return Bundle.load(bundle).manifest
    except BundleError as error:
        raise RegistryError(str(error)) from error


def _as_mlflow_model(bundle: Path, manifest: Manifest, folder: Path) -> Path:
    """The bundle as a folder that MLflow loads, with the code it needs."""
    mlflow = load_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    staged = folder / "bundle"  # MLflow keeps the folder's name
    staged.mkdir()
    for name in ("manifest.json", *manifest.sha256):
        shutil.copy(bundle / name, staged / name)
    inputs: Any = [ColSpec(DataType.double, name, required=name in MODEL_INPUTS) for name in manifest.features]
    outputs: Any = [ColSpec(DataType.double, column.name) for column in MODEL_OUTPUTS]
    made = folder / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no example: the signature says what goes in
        mlflow.pyfunc.save_model(
            path=str(made),
            python_model=str(_ROOT / "models" / "as_mlflow.py"),
            artifacts={"bundle": str(staged)},
            code_paths=[str(path) for path in _code(folder / "code")],
            signature=ModelSignature(Schema(inputs), Schema(outputs)),
            pip_requirements=[f"{name}=={package_version(name)}" for name in _REQUIRED],
            metadata={"bundle": manifest.name, "version": manifest.version},
        )
    return made


def _code(folder: Path) -> list[Path]:
    """Copies of our modules that `models.bundle` imports, and what these import. Returns the packages' folders."""
    wanted, copied = ["models.bundle"], set()
    while wanted:
        name = wanted.pop()
        file = _ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if not file.exists():
            file = _ROOT.joinpath(*name.split("."), "__init__.py")
        if name in copied or name.split(".")[0] not in _PACKAGES or not file.exists():
            continue
        copied.add(name)
        target = folder / file.relative_to(_ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        wanted += [name.rpartition(".")[0]] if "." in name else []
        wanted += _imports(file)
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _imports(file: Path) -> list[str]:
    """Modules that a file imports, wherever in it. `from a import b`: both a and a.b, of which one may not be there."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found
