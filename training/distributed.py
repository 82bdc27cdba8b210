"""Boosters trained by Ray Train: rows are dealt to workers by Ray Data, which then grow the same trees together.

A worker that dies is replaced, and training goes on from the last checkpoint. It reports every `REPORT_ROUNDS` rounds,
because each report costs seconds.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost as xgb

from training.fit import Boost, Params, Table
from training.ray_local import ray_started

REPORT_ROUNDS: Final = 100
CALLBACKS: tuple[xgb.callback.TrainingCallback, ...] = ()
"""Further ones of each worker."""
FAILURES: Final = 3
"""Lost workers that one booster may cost."""
_MODEL: Final = "model.ubj"
_SPARE_CPUS: Final = 2
"""Ray Data reads while the workers hold theirs: without it nothing would ever begin."""


class TrainingLost(Exception):
    """Ray Train gave up."""


@contextmanager
def boost_on_ray(workers: int, *, address: str | None = None, storage: Path | None = None) -> Iterator[Boost]:
    """A way to train on `workers` processes.

    address  of a Ray cluster; default: a local one that ends with this context
    storage  folder of the checkpoints, which every node sees; default: a temporary one on this machine
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    with (
        tempfile.TemporaryDirectory(prefix="twin-train-") as temporary,
        ray_started(address, workers + _SPARE_CPUS, dashboard=True),
    ):
        folder = str((storage or Path(temporary)).absolute())

        def boost(name: str, params: Params, table: Table, rounds: int) -> xgb.Booster:
            return _boost(name, dict(params), table, rounds, workers, folder)

        yield boost


def _boost(name: str, params: dict[str, Any], table: Table, rounds: int, workers: int, folder: str) -> xgb.Booster:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.xgboost import XGBoostTrainer

    ray.data.DataContext.get_current().enable_progress_bars = False
    columns: dict[str, Any] = {"inputs": np.asarray(table.inputs), "label": table.label, "weight": table.weight}
    if table.upper is not None:
        columns["upper"] = table.upper
    # As many blocks of as many rows each as there are workers. XGBoost waits for its slowest.
    parts = [
        dict(zip(columns, of, strict=True))
        for of in zip(*(np.array_split(values, workers) for values in columns.values()), strict=True)
    ]
    rows = ray.data.from_blocks([_block(part) for part in parts])
    for logger in ("ray.data", "ray.train"):  # only now: they set their own level when first used
        logging.getLogger(logger).setLevel(logging.ERROR)
    trainer = XGBoostTrainer(
        grow,
        train_loop_config={"params": params, "rounds": rounds, "report": REPORT_ROUNDS, "callbacks": CALLBACKS},
        datasets={"train": rows},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"{name}-{os.getpid()}-{next(_count)}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=FAILURES),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray Train has many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise TrainingLost(
            f"Ray Train gave up on {name}: {lines[-1][:200] if lines else type(error).__name__}"
        ) from error
    assert result.checkpoint is not None
    return _loaded(result.checkpoint)


def _numbers() -> Iterator[int]:
    k = 0
    while True:
        yield k
        k += 1


_count = _numbers()


def _block(part: dict[str, Any]) -> Any:
    import pandas as pd

    names = [f"f{k}" for k in range(part["inputs"].shape[1])]
    frame = pd.DataFrame(part["inputs"], columns=names)
    return frame.assign(**{key: values for key, values in part.items() if key != "inputs"})


class _Report(xgb.callback.TrainingCallback):
    """A checkpoint every so many rounds and at the end. Ray's own callback reports each round, at two seconds each."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._told = 0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if model.num_boosted_rounds() % self._every == 0:
            self._tell(model)
        return False

    def after_training(self, model: Any) -> Any:
        if model.num_boosted_rounds() != self._told:
            self._tell(model)
        return model

    def _tell(self, model: Any) -> None:
        import ray.train

        self._told = model.num_boosted_rounds()
        metrics = {"rounds": self._told}
        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            model.save_model(Path(folder) / _MODEL)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _loaded(checkpoint: Any) -> xgb.Booster:
    with checkpoint.as_directory() as folder:
        booster = xgb.Booster()
        booster.load_model(Path(folder) / _MODEL)
    return booster


def grow(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray.train

    rows = ray.train.get_dataset_shard("train").materialize().to_pandas()
    extra = [name for name in ("label", "weight", "upper") if name in rows]
    inputs = rows.drop(columns=extra).to_numpy(np.float32)
    upper = rows["upper"].to_numpy() if "upper" in extra else None
    table = Table(inputs, rows["label"].to_numpy(), rows["weight"].to_numpy(), upper)
    checkpoint = ray.train.get_checkpoint()
    begun = _loaded(checkpoint) if checkpoint else None
    done = begun.num_boosted_rounds() if begun is not None else 0
    xgb.train(
        config["params"] | {"nthread": 1},
        table.matrix(),
        config["rounds"] - done,
        xgb_model=begun,
        verbose_eval=False,
        callbacks=[_Report(config["report"]), *config["callbacks"]],
    )
