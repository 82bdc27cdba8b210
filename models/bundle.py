"""A model with everything it needs to be trusted: `manifest.json`, two boosters (UBJ), `card.md`.

The manifest holds the SHA-256 of every file. A bundle whose files do not match is not loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from pydantic import ConfigDict, TypeAdapter, ValidationError

from models.features import FEATURES

BUNDLED = Path(__file__).resolve().parent / "bundled"
_FILES = ("rul.ubj", "failure.ubj", "card.md")

Floats = npt.NDArray[np.float64]


class BundleError(Exception):
    """A bundle is missing, incomplete, altered, or made for other inputs."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    `quantiles`: levels of the RUL booster (low, median, high). `rul_margin`: what split-conformal calibration adds on
    each side [EFC], to give `coverage` on vehicles the model never saw. `probability_map`: raw score -> calibrated
    probability, piecewise linear, (x, y). `horizon_days`: a failure is end of life within this time.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)

    name: str
    version: str
    features: tuple[str, ...]
    quantiles: tuple[float, float, float]
    rul_margin: float
    coverage: float
    probability_map: tuple[tuple[float, ...], tuple[float, ...]]
    horizon_days: float
    end_of_life_soh: float
    sha256: dict[str, str]


@dataclass(frozen=True)
class Predictions:
    """Arrays of shape (n,): remaining useful life [EFC] with its interval, failure probability [0, 1]."""

    rul: Floats
    rul_low: Floats
    rul_high: Floats
    failure_probability: Floats


class Bundle:
    """A loaded model. `threads` is 1 by default on purpose: two on a busy two-core box were once 20 times slower."""

    def __init__(self, manifest: Manifest, rul: xgb.Booster, failure: xgb.Booster) -> None:
        self.manifest = manifest
        self._rul = rul
        self._failure = failure

    @classmethod
    def load(cls, folder: Path = BUNDLED, threads: int = 1) -> Bundle:
        """Check every hash, then load. Whatever does not match raises a one-line BundleError."""
        try:
            manifest = TypeAdapter(Manifest).validate_json((folder / "manifest.json").read_bytes())
        except OSError as error:
            raise BundleError(f"expected a model bundle (a folder with manifest.json) in {folder}: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            raise BundleError(f"bundle {folder}: manifest.json is damaged ({field}: {first['msg']})") from error
        if manifest.features != FEATURES:
            raise BundleError(f"bundle {folder} wants inputs {manifest.features}, this version makes {FEATURES}")
        for name in _FILES:
            actual = _sha256(folder / name) if (folder / name).is_file() else "no such file"
            if actual != manifest.sha256.get(name):
                raise BundleError(
                    f"bundle {folder}: {name} is damaged or altered: the manifest expects SHA-256 "
                    f"{str(manifest.sha256.get(name))[:12]}..., got {actual[:12]}...; restore it or train it again"
                )
        boosters = []
        for name in _FILES[:2]:
            booster = xgb.Booster(params={"nthread": threads})
            booster.load_model(folder / name)
            boosters.append(booster)
        return cls(manifest, *boosters)

    @staticmethod
    def save(folder: Path, manifest: Manifest, rul: xgb.Booster, failure: xgb.Booster, card: str) -> Manifest:
        """Write the files, then the manifest with their hashes. Returns the manifest as written."""
        folder.mkdir(parents=True, exist_ok=True)
        rul.save_model(folder / "rul.ubj")
        failure.save_model(folder / "failure.ubj")
        (folder / "card.md").write_text(card)
        fields = asdict(manifest) | {"sha256": {name: _sha256(folder / name) for name in _FILES}}
        (folder / "manifest.json").write_text(json.dumps(fields, indent=2) + "\n")
        return Manifest(**fields)

    def predict(self, inputs: npt.NDArray[np.floating]) -> Predictions:
        """Predict for rows of the seven inputs, shape (n, 7), columns as `FEATURES`."""
        matrix = np.ascontiguousarray(inputs, dtype=np.float32)
        quantiles = np.sort(np.asarray(self._rul.inplace_predict(matrix), dtype=np.float64).reshape(-1, 3), axis=1)
        low, median, high = np.maximum(quantiles + np.array([-1, 0, 1]) * self.manifest.rul_margin, 0.0).T
        score = np.asarray(self._failure.inplace_predict(matrix), dtype=np.float64)
        return Predictions(
            rul=median,
            # A negative margin (an interval that was too wide) must not push an end past the median.
            rul_low=np.minimum(low, median),
            rul_high=np.maximum(high, median),
            failure_probability=np.interp(score, *self.manifest.probability_map),
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
