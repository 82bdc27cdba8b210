"""`twin retrain`: watch a run, train when an alarm rings, register, judge, promote. The pool follows the alias.

What was done is in the registry and on the disk, so a loop that was ended goes on: histories that a version has learned
from are not learned from again, a version that was not judged is judged, a bundle that could not be registered is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from models.bundle import BUNDLED, Bundle, BundleError
from models.registry import CHALLENGER, CHAMPION, Version, local_file
from training.histories import Histories, Plan, generate, open_histories, planned
from training.labels import END_SOH
from training.registry import Registry
from training.train import Trained
from twin.errors import NotPromoted, TwinError
from twin.loop.observe import observe
from twin.loop.promote import REFUSED, act, asking, judged
from twin.run_directory import load_run, stamp
from twin.settings import Pool
from twin.show.model_study import train_model
from twin.show.register import register_model
from twin.signals import stopped_by_signals


@dataclass
class Loop:
    """`step` looks once and does what is to be done. `unregistered`: a bundle that the registry could not take yet."""

    run: Path
    data: Path
    tracking_uri: str
    vehicles: int
    workers: int
    say: Callable[[str], None]
    dry_run: bool = False
    models: Path = Path("runs")
    unregistered: Path | None = field(default=None, init=False)
    uncovered: bool = field(default=False, init=False)
    """Whether the champion's coverage alarm rang."""

    def step(self, *, force: bool = False) -> None:
        """TwinError where it could not be done: RunFailed where it may be later; NotPromoted where the gate refuses."""
        with asking():
            registry = Registry(self.tracking_uri)
            champion = self._champion(registry)
            serving = self._serving(registry, champion)
            if self.unregistered is None:
                alarms = self._alarms(serving)
                if not alarms and not force:
                    return
                self.uncovered = any(alarm.startswith("coverage") for alarm in alarms)
            if self.dry_run:
                self.say(f"dry run: would {self._would()}, register, judge on vehicles never seen, and promote")
                return
            histories = self._histories(serving)
            challenger = None if force else self._learned(registry, histories)
            if challenger is not None and (
                REFUSED in challenger.tags or (champion is not None and challenger.number <= champion.number)
            ):
                self.say(f"{challenger} has learned from {self.data} already: expected other histories (--data)")
                return
            if challenger is None:
                challenger = self._trained(registry, histories, serving)
            verdict = judged(registry, champion, challenger, histories, alarm=self.uncovered)
            self.say(act(registry, challenger, verdict))
        if not verdict.promote:
            raise NotPromoted(f"{challenger} does not pass the gate; the champion stays")

    def _champion(self, registry: Registry) -> Version | None:
        file = local_file(registry.tracking_uri)
        return None if file is not None and not file.exists() else registry.find_alias(CHAMPION)

    def _serving(self, registry: Registry, champion: Version | None) -> Bundle | None:
        """The model that the pool uses: the champion, or the bundled one."""
        if champion is not None:
            return Bundle.load(registry.fetch(champion, Pool().cache))
        try:
            return Bundle.load(BUNDLED)
        except BundleError:
            return None

    def _alarms(self, serving: Bundle | None) -> tuple[str, ...]:
        if serving is None:
            self.say("no model to compare the run with")
            return ()
        observed = observe(self.run, serving)
        try:
            observed.figures().save(self.run)
        except OSError as error:
            self.say(f"the run's metrics will not show this: {error}")
        alarms = observed.alarms
        model = f"model {serving.manifest.version}"
        self.say(f"{model}: ALARM: {'; '.join(alarms)}" if alarms else f"{model}: no alarm: {observed}")
        return alarms

    def _would(self) -> str:
        if self.unregistered is not None:
            return f"take {self.unregistered}"
        there = self.data.exists()
        return f"train on {self.data}" if there else f"simulate {self.vehicles} lives to {self.data}, train on them"

    def _histories(self, serving: Bundle | None) -> Histories:
        """What is there; what was begun is finished; what is not there is made, of a population of its own."""
        if not self.data.exists():
            end_soh = END_SOH if serving is None else serving.manifest.end_of_life_soh
            plan = Plan(vehicles=self.vehicles, years=None, seed=int(time.time()), end_soh=end_soh)
        else:
            plan, _ = planned(self.data)
        if len(list((self.data / "parts").glob("*.json"))) < plan.parts:
            self.say(f"simulating {plan.vehicles} lives, seed {plan.seed}, in {self.data}")
            generate(self.data, plan, say=_nothing)
        return open_histories(self.data)

    def _learned(self, registry: Registry, histories: Histories) -> Version | None:
        """The newest version that was trained on these lives."""
        file = local_file(registry.tracking_uri)
        if file is not None and not file.exists():
            return None
        versions = registry.versions()
        return next((one for one in versions if one.tags.get("data_sha256") == histories.hash()), None)

    def _trained(self, registry: Registry, histories: Histories, serving: Bundle | None) -> Version:
        """Train, unless a bundle waits, and register it as challenger."""
        if self.unregistered is None:
            wanted = END_SOH if serving is None else serving.manifest.end_of_life_soh
            begun = time.perf_counter()
            self.unregistered = train_model(
                data=self.data, out=self.models / f"model-{stamp()}", workers=self.workers,
                end_soh=max(wanted, histories.plan.end_soh), seed=1, register=False, tracking_uri="", address=None,
                say=_nothing,
            )  # fmt: skip
            self.say(f"trained on {self.data} in {time.perf_counter() - begun:.0f} s: {self.unregistered}")
        folder = self.unregistered
        scores = json.loads((folder / "evaluation.json").read_text())
        register_model(
            folder, histories, Trained(folder, Bundle.load(folder), scores, {}), self.tracking_uri, say=self.say
        )
        self.unregistered = None
        return registry.alias(CHALLENGER)


def retrain_model(loop: Loop, *, watch: bool, every_s: float, force: bool) -> None:
    """One step, or one each `every_s` seconds until a signal. A step that fails is said, and tried again."""
    load_run(loop.run)
    if not watch:
        loop.step(force=force)
        return
    with stopped_by_signals() as stop:
        while not stop.is_set():
            try:
                loop.step(force=force)
                force = False
            except NotPromoted:  # its reason is said
                force = False
            except TwinError as error:
                loop.say(f"{error}; tried again in {every_s:g} s")
            stop.wait(every_s)


def _nothing(_: str) -> None:
    """Say nothing."""
