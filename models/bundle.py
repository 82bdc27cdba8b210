"""A model with everything it needs to be trusted: `manifest.json`, boosters (UBJ), `split.json`, `card.md`, and
`reference.json`, what its inputs were like.

The manifest holds the SHA-256 of every file. A bundle whose files do not match is not loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from pydantic import ConfigDict, TypeAdapter, ValidationError

from datasets.log.durable import make_directory, replace_file
from models.features import FEATURES, padded

BUNDLED = Path(__file__).resolve().parent / "bundled"
BOOSTERS: Final = ("rul_efc", "rul_days", "margin_efc", "margin_days", "failure", "kind")
FILES: Final = (*(f"{name}.ubj" for name in BOOSTERS), "split.json", "card.md")
REFERENCE: Final = "reference.json"
"""What the inputs of its training were like (`training.drift`). A bundle may be without it: drift cannot be told."""

Floats = npt.NDArray[np.float64]


class BundleError(Exception):
    """A bundle is missing, incomplete, altered, or made for other inputs."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    quantiles        levels of the boosters of remaining life (low, median, high); they predict log(1 + life)
    margins          by target, efc and days: what is added to the boosters of margins. Their sum is added to an
                     interval at both ends, relative to its width, to give `coverage` on vehicles never seen
    probability_map  raw score -> calibrated probability, piecewise linear, (x, y)
    horizon_days     a failure is one within this time
    kinds            of failure, in the order of the booster's classes
    data             hash of the histories that it was trained on
    population       seed of their vehicles: with it, `split.json` says which ones it has seen
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)

    name: str
    version: str
    features: tuple[str, ...]
    quantiles: tuple[float, float, float]
    margins: dict[str, float]
    coverage: float
    probability_map: tuple[tuple[float, ...], tuple[float, ...]]
    horizon_days: float
    end_of_life_soh: float
    kinds: tuple[str, ...]
    data: str
    population: int
    physics: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Life:
    """Remaining useful life with its interval; arrays of shape (n,)."""

    median: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Predictions:
    """Arrays of shape (n,): remaining useful life [EFC] with its interval, failure probability [0, 1]."""

    rul: Floats
    rul_low: Floats
    rul_high: Floats
    failure_probability: Floats


class Bundle:
    """A loaded model. `threads` is 1 by default on purpose: two on a busy two-core box were once 20 times slower."""

    def __init__(
        self,
        manifest: Manifest,
        boosters: Mapping[str, xgb.Booster],
        seen: Mapping[str, npt.NDArray[np.int64]],
        reference: Mapping[str, Any] | None = None,
    ) -> None:
        self.manifest = manifest
        self.seen = seen
        """Vehicles of its population by part: train, calibration, test."""
        self.reference = dict(reference or {})
        self._boosters = boosters

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
            other = sorted(set(manifest.features) ^ set(FEATURES)) or ["their order"]
            raise BundleError(
                f"bundle {folder} wants other inputs than this version makes ({', '.join(other[:5])}): train it again"
            )
        for name in (*FILES, *({REFERENCE} & manifest.sha256.keys())):
            actual = _sha256(folder / name) if (folder / name).is_file() else "no such file"
            if actual != manifest.sha256.get(name):
                raise BundleError(
                    f"bundle {folder}: {name} is damaged or altered: the manifest expects SHA-256 "
                    f"{str(manifest.sha256.get(name))[:12]}..., got {actual[:12]}...; restore it or train it again"
                )
        boosters = {}
        for name in BOOSTERS:
            boosters[name] = xgb.Booster(params={"nthread": threads})
            boosters[name].load_model(folder / f"{name}.ubj")
        split = json.loads((folder / "split.json").read_text())
        seen = {part: np.array(vehicles, np.int64) for part, vehicles in split.items()}
        reference = json.loads((folder / REFERENCE).read_text()) if REFERENCE in manifest.sha256 else {}
        return cls(manifest, boosters, seen, reference)

    @staticmethod
    def save(
        folder: Path,
        manifest: Manifest,
        boosters: Mapping[str, xgb.Booster],
        split: Mapping[str, Sequence[int]],
        card: str,
        reference: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write the files, then the manifest with their hashes. Returns the manifest as written."""
        make_directory(folder)
        contents: dict[str, bytes] = {f"{name}.ubj": bytes(boosters[name].save_raw("ubj")) for name in BOOSTERS} | {
            "split.json": (json.dumps({part: list(map(int, of)) for part, of in split.items()}) + "\n").encode(),
            "card.md": card.encode(),
        }
        if reference:
            contents[REFERENCE] = (json.dumps(reference) + "\n").encode()
        for name, content in contents.items():
            replace_file(folder / name, content)
        fields: dict[str, Any] = asdict(manifest) | {"sha256": {name: _sha256(folder / name) for name in contents}}
        replace_file(folder / "manifest.json", (json.dumps(fields, indent=2) + "\n").encode())
        return Manifest(**fields)

    def predict(self, inputs: npt.NDArray[np.floating]) -> Predictions:
        """Predict for rows of `FEATURES`, shape (n, len(FEATURES)), NaN for what is not known; or of the first of them
        only, such as the seven inputs of a record."""
        life = self.life("efc", inputs)
        return Predictions(life.median, life.low, life.high, self.failure(inputs))

    def life(self, target: str, inputs: npt.NDArray[np.floating]) -> Life:
        """Remaining useful life in "efc" or "days"."""
        rul, margin = (self._boosters[f"{name}_{target}"] for name in ("rul", "margin"))
        return life_of(rul, margin, self.manifest.margins[target], _matrix(inputs))

    def failure(self, inputs: npt.NDArray[np.floating]) -> Floats:
        """Probability of the first failure within the horizon."""
        score = np.asarray(self._boosters["failure"].inplace_predict(_matrix(inputs)), dtype=np.float64)
        return np.asarray(np.interp(score, *self.manifest.probability_map))

    def kinds(self, inputs: npt.NDArray[np.floating]) -> Floats:
        """If it fails, how: a probability for each of the manifest's kinds, shape (n, kinds)."""
        return np.asarray(self._boosters["kind"].inplace_predict(_matrix(inputs)), dtype=np.float64)


def quantiles(booster: xgb.Booster, inputs: npt.NDArray[np.float32]) -> Floats:
    """Low, median and high remaining life, shape (3, n), as the booster says, before calibration."""
    return np.expm1(np.sort(np.asarray(booster.inplace_predict(inputs), dtype=np.float64).reshape(-1, 3), axis=1)).T


def life_of(rul: xgb.Booster, margin: xgb.Booster, offset: float, inputs: npt.NDArray[np.float32]) -> Life:
    """What a booster of quantiles says, its interval widened at both ends by what one of margins says, and `offset`, of
    its width."""
    low, median, high = quantiles(rul, inputs)
    median = np.maximum(median, 0.0)
    more = (np.asarray(margin.inplace_predict(inputs), dtype=np.float64) + offset) * (high - low)
    # A negative margin (an interval that was too wide) must not push an end past the median.
    return Life(median, np.clip(low - more, 0.0, median), np.maximum(high + more, median))


def _matrix(inputs: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    whole = inputs if inputs.shape[1] == len(FEATURES) else padded(inputs)
    return np.ascontiguousarray(whole, dtype=np.float32)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
