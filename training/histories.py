"""Whole lives of vehicles on disk, to train with: what they reported, and the truth apart. Made by Ray Data.

    DIR/histories.json                                how it was made; `Plan`
    DIR/reported/months/cohort=C/part-0000.parquet    a row a vehicle and month (`datasets.months`)
    DIR/reported/records/cohort=C/part-0000.parquet   telemetry of a few moments of one day every half year
    DIR/truth/lives/cohort=C/part-0000.parquet        a row a vehicle: what it is, and how its life ended
    DIR/truth/states/cohort=C/part-0000.parquet       the truth every month
    DIR/parts/0000.json                               a part is complete; written last
    DIR/card.md

A cohort is a kind of cell and a use. Vehicles begin new. A life that ends by its state of health, by a thermal runaway
or by a trip of the battery management system is not simulated further. A part is so many vehicles that are simulated
together. What is simulated does not depend on how many parts there are at a time, or on whether the work was killed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.drive_cycles import drive_cycle_names, load_drive_cycle
from datasets.log.durable import make_directory, replace_file
from datasets.months import MONTH_DAYS, MonthFold
from physics import PROFILES, FleetLives, Population, draw_population, physics_version
from physics.climate import CITIES
from physics.columns import FLAGS, NAMES
from physics.constants import DAY_S
from physics.default_fleet import CELL_SHARES, USES
from physics.vehicle import DRIVING
from training.ray_local import ray_started

FORMAT: Final = 1
PART_VEHICLES: Final = 128
LONGEST_YEARS: Final = 60
EOL_SHARE: Final = 0.85
"""With `years="eol"` a part goes on until this share of its vehicles has ended."""
ENRICHED_SHARE: Final = 0.5
"""Share of vehicles with a fault within ten years, where faults are asked for."""
LOOK_DAYS: Final = 6 * MONTH_DAYS
LOOK_STEP_S: Final = 10.0
RECORDS_A_LOOK: Final = 3
START_S: Final = 1_767_225_600  # 2026-01-01
_NOT_MET: Final = FLAGS["power_not_met"] | FLAGS["power_reduced"]
_STATES: Final = ("soh", "soh_usable", "resistance", "soh_resistance", "lli", "sei", "dead_lithium", "plated_lithium",
                  "lam_lithium", "lam_ne", "lam_pe", "efc", "distance_km", "fault",
                   "fault_onset_s", "fault_severity")  # fmt: skip
TABLES: Final = ("reported/months", "reported/records", "truth/lives", "truth/states")


class HistoryError(Exception):
    """A folder of histories that is not there, not complete, or of another plan: what was expected, what came."""


@dataclass(frozen=True)
class Plan:
    """What is to be simulated. `years`: how long, or None until `EOL_SHARE` of the vehicles have ended. `fault_share`:
    of vehicles within ten years, None for the rates of the field. `end_soh`: at which a life ends."""

    vehicles: int
    years: float | None
    seed: int
    fault_share: float | None = None
    sensors: str = "typical"
    end_soh: float = 0.8
    part_vehicles: int = PART_VEHICLES
    first_vehicle: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("vehicles", 1, 10_000_000), ("seed", 0, 2**63 - 1), ("part_vehicles", 1, 1_000_000),
            ("end_soh", 0.5, 0.95), ("first_vehicle", 0, 10**9),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise HistoryError(f"expected {name} from {low} to {high}, got {getattr(self, name)}")
        if self.years is not None and not 0.5 <= self.years <= LONGEST_YEARS:
            raise HistoryError(f"expected years from 0.5 to {LONGEST_YEARS}, or eol, got {self.years:g}")
        if self.sensors not in PROFILES:
            raise HistoryError(f"expected sensors of {', '.join(PROFILES)}, got {self.sensors}")

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return math.ceil(self.vehicles / self.part_vehicles)

    def of_part(self, part: int) -> npt.NDArray[np.int64]:
        """Indices of the vehicles of a part."""
        first = self.first_vehicle + part * self.part_vehicles
        last = min(first + self.part_vehicles, self.first_vehicle + self.vehicles)
        return np.arange(first, last)


@dataclass(frozen=True)
class Histories:
    """A complete folder."""

    folder: Path
    plan: Plan
    physics: str
    seconds: float

    def read(self, table: str) -> pd.DataFrame:
        """One of `TABLES`, with the column `cohort`, in the order of the vehicles."""
        parts = [
            pd.DataFrame(pq.read_table(path, partitioning=None).to_pandas()).assign(
                cohort=path.parent.name.split("=", 1)[1]
            )
            for path in sorted((self.folder / table).glob("cohort=*/*.parquet"))
        ]
        rows: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return rows.sort_values("vehicle", kind="stable", ignore_index=True)

    def hash(self) -> str:
        """What the data are, as a hash of the plan and of the physics: the same plan gives the same rows."""
        content = json.dumps({"plan": asdict(self.plan), "physics": self.physics, "format": FORMAT}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def planned(folder: Path) -> tuple[Plan, str]:
    """What a folder was begun with: its plan, and the version of the physics. HistoryError where it cannot be told."""
    try:
        facts = json.loads((folder / "histories.json").read_text())
        plan, physics = Plan(**facts["plan"]), str(facts["physics"])
        if facts["format"] != FORMAT:
            raise HistoryError(
                f"{folder}: expected histories of format {FORMAT}, got {facts['format']}: make them anew"
            )
    except FileNotFoundError:
        raise HistoryError(f"expected a folder that twin generate made, but {folder} holds no histories.json") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HistoryError(f"{folder}/histories.json is damaged: {' '.join(str(error).split())[:100]}") from None
    return plan, physics


def open_histories(folder: Path) -> Histories:
    """HistoryError unless the folder is complete."""
    plan, physics = planned(folder)
    missing = [part for part in range(plan.parts) if not _marker(folder, part).is_file()]
    if missing:
        raise HistoryError(
            f"{folder}: {len(missing)} of {plan.parts} parts are missing; go on with the same twin generate"
        )
    seconds = sum(json.loads(_marker(folder, part).read_text())["seconds"] for part in range(plan.parts))
    return Histories(folder, plan, physics, seconds)


def generate(
    folder: Path,
    plan: Plan,
    *,
    workers: int | None = None,
    address: str | None = None,
    say: Callable[[str], None] = print,
) -> Histories:
    """Make what is missing of `folder`. It is to be new, or of the same plan and the same physics.

    workers  parts simulated at a time; default: as many as there are CPUs
    address  of a Ray cluster whose nodes all see the folder; default: a local Ray (`ray_local.ray_started`)
    """
    begun = time.perf_counter()
    _claim(folder, plan)
    todo = [part for part in range(plan.parts) if not _marker(folder, part).is_file()]
    if len(todo) < plan.parts:
        say(f"{plan.parts - len(todo)} of {plan.parts} parts are there already")
    finished = plan.parts - len(todo)
    for row in _made(folder, plan, todo, workers, address):
        finished += 1
        say(
            f"{finished} of {plan.parts} parts: vehicles {row['first']} to {row['last']}, {row['ended']} ended, "
            f"{row['years']:.0f} years, {row['seconds']:.0f} s; {time.perf_counter() - begun:.0f} s so far"
        )
    made = open_histories(folder)
    replace_file(folder / "card.md", _card(made).encode())
    return made


def _made(
    folder: Path, plan: Plan, todo: list[int], workers: int | None, address: str | None
) -> Iterator[dict[str, Any]]:
    """Make these parts, and say of each that it is done."""
    if not todo:
        return
    import ray

    with ray_started(address, workers or os.cpu_count() or 1):
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = ray.data.from_items([{"part": part} for part in todo], override_num_blocks=len(todo))
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # only now: Ray Data sets its own level when first used
        # The folder is absolute, as workers have directories of their own.
        made: Any = partial(_made_nicely, folder=str(folder.absolute()), plan_fields=asdict(plan))
        yield from blocks.map(made, num_cpus=1, compute=ray.data.TaskPoolStrategy(workers)).iter_rows()


def _made_nicely(row: dict[str, Any], folder: str, plan_fields: dict[str, Any]) -> dict[str, Any]:
    """`make_part` beside a laptop's other work."""
    os.nice(max(0, 10 - os.nice(0)))
    return make_part(row, folder, plan_fields)


def _claim(folder: Path, plan: Plan) -> None:
    """Write what is planned, or check that it is what was planned."""
    path = folder / "histories.json"
    if path.is_file():
        there, physics = planned(folder)
        if physics != physics_version():
            raise HistoryError(
                f"{folder} was begun with physics {physics}, this is {physics_version()}: expected a new folder"
            )
        asked = asdict(plan)
        if other := {name: value for name, value in asdict(there).items() if value != asked[name]}:
            raise HistoryError(
                f"{folder} was begun with {', '.join(f'{name}={value}' for name, value in other.items())}: "
                "expected the same options, or a new folder"
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise HistoryError(f"expected a new or empty folder, or one that twin generate has begun; {folder} is neither")
    make_directory(folder)
    facts = {"format": FORMAT, "physics": physics_version(), "plan": asdict(plan)}
    replace_file(path, (json.dumps(facts, indent=2) + "\n").encode())


def _marker(folder: Path, part: int) -> Path:
    return folder / "parts" / f"{part:04d}.json"


def make_part(row: dict[str, Any], folder: str, plan_fields: dict[str, Any]) -> dict[str, Any]:
    """Simulate a part and write it. Its marker comes last, so a part that was cut off is made again, over itself."""
    plan, part, begun = Plan(**plan_fields), int(row["part"]), time.perf_counter()
    population = draw_population(
        plan.seed, plan.of_part(part), CELL_SHARES, oldest_years=0.0, fault_share=plan.fault_share, start_s=START_S
    )
    tables, years = simulate(population, plan)
    cohort = cohorts(population)
    for name, table in tables.items():
        of = cohort[np.searchsorted(population.vehicle, table["vehicle"].to_numpy())]
        for which in np.unique(cohort):  # an empty table, too: then every cohort has the same parts
            path = Path(folder) / name / f"cohort={which}" / f"part-{part:04d}.parquet"
            make_directory(path.parent)
            rows = pa.Table.from_pandas(table[of == which], preserve_index=False)
            replace_file(path, lambda file, rows=rows: pq.write_table(rows, file, compression="zstd"))  # type: ignore[misc]
    facts = {
        "part": part,
        "first": int(population.vehicle[0]),
        "last": int(population.vehicle[-1]),
        "ended": int((tables["truth/lives"]["reason"] != "alive").sum()),
        "years": years,
        "seconds": time.perf_counter() - begun,
    }
    marker = _marker(Path(folder), part)
    make_directory(marker.parent)
    replace_file(marker, (json.dumps(facts) + "\n").encode())
    return facts


def cohorts(population: Population) -> npt.NDArray[Any]:
    """The cohort of each vehicle, such as chen2020-taxi, shape (n,)."""
    cells = np.array(population.cells, dtype=object)[population.cell]
    return np.array([f"{cell}-{USES[use]}" for cell, use in zip(cells, population.use, strict=True)])


def simulate(population: Population, plan: Plan) -> tuple[dict[str, pd.DataFrame], float]:
    """The tables of these vehicles by the names of `TABLES`, and how many years were simulated."""
    cycles = [load_drive_cycle(name).speed_mps for name in drive_cycle_names()]
    lives = FleetLives(
        population, cycles=cycles, start_s=START_S, sensors=PROFILES[plan.sensors], end_soh=plan.end_soh, daily=True
    )
    fold = MonthFold(population.vehicle)
    fresh = lives.truth()
    months: list[pd.DataFrame] = []
    records: list[pd.DataFrame] = []
    states = [pd.DataFrame({"vehicle": population.vehicle, "day": 0.0} | {name: fresh[name] for name in _STATES})]
    days = MONTH_DAYS * round((LONGEST_YEARS if plan.years is None else plan.years) * 365.2425 / MONTH_DAYS)
    passed = 0
    while passed < days:
        span = min(LOOK_DAYS, days - passed)
        lives.advance(span * lives.day_ticks, MONTH_DAYS * lives.day_ticks)
        months.append(pd.DataFrame(fold.add(lives.daily())))
        states += _states(lives, population.vehicle, passed)
        passed += span
        alive = np.flatnonzero(lives.ends()["reason"] == "alive")
        if alive.size:
            records.append(_look(lives, population, alive, passed, plan.seed))
        if alive.size == 0 or (plan.years is None and alive.size <= (1.0 - EOL_SHARE) * len(population)):
            break
    observed = float(passed)
    told = {
        "reported/months": pd.concat(months, ignore_index=True),
        "reported/records": pd.concat(records, ignore_index=True),
        "truth/states": pd.concat(states, ignore_index=True),
        "truth/lives": _lives(lives, population, observed),
    }
    return told, observed / 365.2425


def _states(lives: FleetLives, vehicle: npt.NDArray[np.int64], day_0: int) -> Iterator[pd.DataFrame]:
    """The truth at the samples of the last `advance`, of lives that go on."""
    series = lives.truth_series()
    for k in range(len(series["soh"])):
        there = np.isfinite(series["soh"][k])
        values = {name: series[name][k][there] for name in _STATES}
        yield pd.DataFrame({"vehicle": vehicle[there], "day": float(day_0 + (k + 1) * MONTH_DAYS)} | values)


def _look(
    lives: FleetLives, population: Population, alive: npt.NDArray[np.int64], passed: int, seed: int
) -> pd.DataFrame:
    """Telemetry of a few moments of a day, and the share of hours driven in which power was not met. Of each vehicle it
    is the next that it will live, some days after `passed`, as lives skip days. What it reported before
    `passed` is what is known then.
    """
    hour = round(3600.0 / LOOK_STEP_S) + 1  # an hour and a step, so that samples fall on changing minutes
    told = lives.fork(of=alive).awake(LOOK_STEP_S).advance(24 * hour, hour)
    driven = told["mode"] == DRIVING
    lacked = np.where(driven, (told["flags"].astype(np.int64) & _NOT_MET) > 0, False).sum(axis=0)
    lacking = lacked / np.maximum(driven.sum(axis=0), 1)
    generator = np.random.default_rng([seed, passed, int(population.vehicle[0])])
    chosen = generator.permuted(np.tile(np.arange(24), (alive.size, 1)), axis=1)[:, :RECORDS_A_LOOK]
    of = np.repeat(np.arange(alive.size), RECORDS_A_LOOK)
    when = np.sort(chosen, axis=1).ravel()
    columns: dict[str, Any] = {
        "vehicle": population.vehicle[alive][of],
        "day": lives.present_days()[alive][of] + (when + 1) * hour * LOOK_STEP_S / DAY_S,
        "known_day": np.full(of.size, float(passed)),
        "power_lacking": lacking[of],
    }
    return pd.DataFrame(columns | {name: told[name][when, of] for name in NAMES})


def _lives(lives: FleetLives, population: Population, observed: float) -> pd.DataFrame:
    """A row a vehicle; `hidden_` columns are what was drawn for it. `day` and `efc` are those of its end, or of the
    last day simulated."""
    ends, last = lives.ends(), lives.truth()
    alive = ends["reason"] == "alive"
    p = population
    return pd.DataFrame(
        {
            "vehicle": p.vehicle,
            "cell": np.array(p.cells, dtype=object)[p.cell],
            "use": np.array(USES, dtype=object)[p.use],
            "city": np.array([city.name for city in CITIES], dtype=object)[p.city],
            "reason": ends["reason"],
            "day": np.where(alive, observed, ends["day"]),
            "efc": np.where(alive, last["efc"], ends["efc"]),
            "distance_km": np.where(alive, last["distance_km"], ends["distance_km"]),
            "faults": last["faults"],
        }
        | {
            f"hidden_{part.name}": getattr(p, part.name)
            for part in fields(p)
            if isinstance(getattr(p, part.name), np.ndarray)
            and part.name != "vehicle"
            and getattr(p, part.name).ndim == 1
        }
    )


def _card(made: Histories) -> str:
    lives = made.read("truth/lives")
    ended = lives["reason"] != "alive"
    years = (lives["day"] / 365.2425).rename("years")
    rows = [
        f"| {name} | {len(group)} | {ended[group.index].mean():.0%} | {years[group.index].median():.1f} |"
        for name, group in lives.groupby("cohort")
    ]
    reasons = ", ".join(f"{name} {count}" for name, count in lives["reason"].value_counts().items())
    plan = made.plan
    faults = "at the field's rates" if plan.fault_share is None else f"for {plan.fault_share:.0%} within ten years"
    return "\n".join(
        [
            "# Histories of simulated vehicles",
            "",
            f"{plan.vehicles} vehicles of the default fleet from new (seed {plan.seed}), {plan.sensors} sensors, "
            f"faults {faults}. Physics version {made.physics}.",
            f"Simulated until {'most had ended' if plan.years is None else f'{plan.years:g} years'}: "
            f"{ended.mean():.1%} ended ({reasons}); the longest observed for {years.max():.1f} years. A life ends at a "
            f"true state of health of {plan.end_soh:g}, by a thermal runaway, or when the battery management system "
            "stops the vehicle.",
            f"Simulated in {made.seconds:,.0f} s of one core.",
            "",
            "`reported` holds what vehicles told, `truth` what they did not: never train on `truth` but for labels.",
            "",
            "| cohort | vehicles | ended | median years |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
