"""`twin train --register`: the run, its bundle and its scores in MLflow, as challenger."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets.schema import vehicle_id
from models.registry import CHALLENGER, RegistryError
from training.histories import Histories
from training.registry import Registry, TrainingRun
from training.train import Trained
from twin import __version__
from twin.errors import RunFailed

_ARTEFACTS = ("evaluation.json", "evaluation.txt", "evaluation.png", "evaluation.svg")


def register_model(
    folder: Path, histories: Histories, trained: Trained, tracking_uri: str, *, say: Callable[[str], None]
) -> None:
    """Log and register a bundle that was trained. RunFailed where the registry cannot take it; the bundle stays."""
    with TemporaryDirectory() as temporary:
        for name in _ARTEFACTS:
            shutil.copy(folder / name, temporary)
        registry = Registry(tracking_uri)
        manifest = trained.bundle.manifest
        run = TrainingRun(
            bundle=folder,
            artefacts=Path(temporary),
            data_sha256=manifest.data,
            code_version=f"{__version__} physics {manifest.physics}",
            vehicles={part: [vehicle_id(int(k)) for k in of] for part, of in trained.bundle.seen.items()},
            params={
                "vehicles": histories.plan.vehicles,
                "population": histories.plan.seed,
                "sensors": histories.plan.sensors,
                "end_soh": manifest.end_of_life_soh,
            },
            metrics=dict(numbers(trained.scores)),
            name=manifest.version,
        )
        try:
            version = registry.register(registry.log(run))
            registry.set_alias(CHALLENGER, version, f"trained on {histories.plan.vehicles} lives, data {manifest.data}")
        except RegistryError as error:
            raise RunFailed(f"{error}; the bundle is in {folder}") from error
        say(f"registered as {version} with the alias {CHALLENGER} in {registry.where}")


def numbers(scores: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested scores by their path, such as rul.interval90.coverage."""
    for name, value in scores.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping):
            yield from numbers(value, f"{path}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, float(value)
