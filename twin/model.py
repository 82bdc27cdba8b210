"""The model a run begins with: a folder, or what a registry has. Only where one is named, is it asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.prediction.plan import ModelPlan
from actors.secret import Secret
from models.bundle import BUNDLED, Bundle, BundleError
from models.registry import CHAMPION, RegistryError, is_registry_uri, without_secrets
from twin.errors import BadInput
from twin.settings import RunSettings


@dataclass(frozen=True)
class ChosenModel:
    """`plan` is None for a folder. `notice`: why it is not the one that was wanted; "" where it is."""

    bundle: Bundle
    folder: Path
    plan: ModelPlan | None = None
    notice: str = ""

    def __str__(self) -> str:
        return f"{self.bundle.manifest.name} {self.bundle.manifest.version}"


def model_plan(settings: RunSettings) -> ModelPlan | None:
    """Which model of a registry these settings want; None for a folder."""
    pool, registry = settings.pool, settings.registry
    uri = pool.predictor_model
    if pool.bundle is not None or (uri and not is_registry_uri(uri)) or not (uri or registry.tracking_uri):
        return None
    address: str = registry.tracking_uri
    if without_secrets(address) != address:
        address = Secret(address, "MLFLOW_TRACKING_URI")
    return ModelPlan(
        uri=uri or f"models:/{registry.registry_model}@{CHAMPION}",
        tracking_uri=address,
        cache=pool.cache,
        fallback=BUNDLED,
        poll_s=pool.predictor_poll,
    )


def chosen_model(settings: RunSettings) -> ChosenModel:
    """The model as it is now. A registry that does not answer is no error: the model fetched last, or the bundled one,
    takes its place. BadInput where what was asked for by name is not there, or is altered."""
    pool = settings.pool
    plan = model_plan(settings)
    option = "--predictor-model" if pool.predictor_model else "--bundle"
    try:
        if plan is None:
            folder = pool.bundle or (Path(pool.predictor_model) if pool.predictor_model else BUNDLED)
            return ChosenModel(Bundle.load(folder), folder.resolve())
        from actors.prediction.source import ModelSource

        source = ModelSource(plan)
        folder = source.begin(required=bool(pool.predictor_model))
        return ChosenModel(Bundle.load(folder), folder.resolve(), plan, source.notice)
    except (BundleError, RegistryError) as error:
        raise BadInput(f"{option}: {error}") from None
