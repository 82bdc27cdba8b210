"""`twin promote`: the gate decides whether the alias `champion` moves, and the registry notes why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.bundle import Bundle, BundleError
from models.registry import CHALLENGER, CHAMPION, RegistryAway, RegistryError, Version
from training.gate import Verdict, judge
from training.histories import Histories, HistoryError, open_histories
from training.registry import Registry
from twin.errors import BadInput, NotPromoted, RunFailed
from twin.settings import Pool

REFUSED = "promotion.refused"
"""The tag of a version that did not pass: why."""


def promote_model(*, data: Path, challenger: str, dry_run: bool, tracking_uri: str, say: Callable[[str], None]) -> None:
    """Judge a version against the champion, and make it champion if it passes; NotPromoted if it does not."""
    with asking():
        registry = Registry(tracking_uri)
        version = _chosen(registry, challenger or CHALLENGER)
        champion = registry.find_alias(CHAMPION)
        if champion is not None and champion.number == version.number:
            say(f"{version} is the champion already")
            return
        verdict = judged(registry, champion, version, open_histories(data))
        say(f"challenger {version} ({version.bundle}), champion {champion or 'none'}")
        if verdict.rules:
            say(verdict.table())
        say(act(registry, version, verdict, dry_run=dry_run))
    if not verdict.promote:
        raise NotPromoted(f"{version} does not pass the gate; the champion stays")


def judged(
    registry: Registry, champion: Version | None, challenger: Version, histories: Histories, *, alarm: bool = False
) -> Verdict:
    """The gate's verdict on two versions."""

    def load(version: Version) -> Bundle:
        return Bundle.load(registry.fetch(version, Pool().cache))

    return judge(None if champion is None else load(champion), load(challenger), histories, alarm=alarm)


def act(registry: Registry, challenger: Version, verdict: Verdict, *, dry_run: bool = False) -> str:
    """Do what the verdict says, and tell it in one line. A dry run only tells."""
    if dry_run:
        return f"dry run, nothing is changed: would be {'promoted' if verdict.promote else 'refused'}: {verdict.reason}"
    if verdict.promote:
        registry.set_alias(CHAMPION, challenger, verdict.reason)
        return f"promoted: {challenger} is {CHAMPION}: {verdict.reason}"
    registry.tag(challenger, REFUSED, verdict.reason)
    return f"refused: {challenger} stays what it is: {verdict.reason}"


@contextmanager
def asking() -> Iterator[None]:
    """Errors of registry, bundles and histories as the user's."""
    try:
        yield
    except RegistryAway as error:
        raise RunFailed(f"{error}; try again later") from error
    except (RegistryError, BundleError, HistoryError) as error:
        raise BadInput(str(error)) from error


def _chosen(registry: Registry, name: str) -> Version:
    """A version by its alias, its number or its URI."""
    if name.startswith("models:"):
        found = registry.resolve(name)
        if found.name != registry.model:
            raise BadInput(f"--challenger: expected a version of {registry.model}, got {found}")
        return found
    if "/" in name or ":" in name or Path(name).is_dir():
        raise BadInput(
            f"--challenger: expected an alias, a version's number or models:/NAME/NUMBER, got {name}; "
            "a bundle is registered first, by twin train --register"
        )
    return registry.version(name) if name.isdigit() else registry.alias(name)
