"""Counts records produced, delivered and pending per sink: from the files of a run, and from the peers themselves.

The files alone tell what the sinks acknowledged (`ledger`). `verify` asks each peer for an independent count by vehicle
and compares it with what must be there: every record before the sink's cursor, except its dead letters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actors.delivery.sinks import LIVE_SINKS, SINKS, SinkError, reader_of
from actors.delivery.sinks.base import unmasked
from actors.fleet.plan import vehicle_ranges
from datasets.log import Cursor, CursorFile, LogDamaged, LogReader, extent, log_directory, readers_in
from datasets.names import utc_text
from datasets.schema import STREAMS, Stream, vehicle_index, vehicle_indices
from datasets.truth import truth_directory, truth_ticks, truth_times
from models.features import is_predicted
from twin.books import peers
from twin.books.peers import Count, PeerSilent, Seen, compare
from twin.errors import BadInput, Different
from twin.run_directory import load_run, run_settings, shard_count
from twin.servers import target_of
from twin.settings import RunSettings

_ALL = -1
_END = 1 << 62


@dataclass(frozen=True)
class Line:
    """One sink and one log. `made` = `delivered` + `dead_letters` + `lost` + `waiting`.

    `oldest_waiting`: simulated time of the first record that waits; `waiting_since`: when it was due, where known.
    """

    sink: str
    stream: Stream | Literal["truth"]
    shard: int
    made: int
    delivered: int
    waiting: int
    duplicates: int
    dead_letters: int
    lost: int
    oldest_waiting: datetime | None = None
    waiting_since: datetime | None = None


@dataclass(frozen=True)
class Verified:
    """What one peer says. `error` says why, where it could not be asked."""

    sink: str
    counts: dict[Stream, Count]
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether the peer has all it must have, and nothing else."""
        return not self.error and all(count.complete for count in self.counts.values())


@dataclass(frozen=True)
class Transmitted:
    """What became of the records that the vehicles took, one each a telemetry period."""

    taken: int
    arrived: int
    """Rows of telemetry in the log, with those that were sent twice."""
    unchanged: int
    asleep: int
    dropped: int
    repeated: int
    held: int
    """Late, or copies, and still on their way when the run ended. It takes them along when it goes on."""

    @property
    def balanced(self) -> bool:
        """Whether every record has arrived, was never sent, or is still on its way."""
        never = self.unchanged + self.asleep + self.dropped
        return self.taken == self.arrived - self.repeated + self.held + never


@dataclass(frozen=True)
class Ledger:
    """The books of one run."""

    run_id: str
    state: str
    vehicles: int
    lines: tuple[Line, ...]
    """Of sinks."""
    truth: tuple[Line, ...] = ()
    """What is on the disk of the truth, which no sink gets."""
    verified: tuple[Verified, ...] = ()
    transmission: Transmitted | None = None
    """Of a run that has ended, where not every record is sent, once and at once."""

    @property
    def waiting(self) -> int:
        """Records that are not yet where they should be."""
        return sum(line.waiting for line in self.lines)

    def sums(self) -> list[Line]:
        """One line per sink and stream, summed over all shards. `shard` is -1."""
        found = []
        for sink, stream in dict.fromkeys((line.sink, line.stream) for line in self.lines):
            lines = [line for line in self.lines if (line.sink, line.stream) == (sink, stream)]
            total: dict[str, int] = {
                name: sum(getattr(line, name) for line in lines)
                for name in ("made", "delivered", "waiting", "duplicates", "dead_letters", "lost")
            }
            oldest = min((line.oldest_waiting for line in lines if line.oldest_waiting), default=None)
            since = min((line.waiting_since for line in lines if line.waiting_since), default=None)
            found.append(Line(sink, stream, _ALL, **total, oldest_waiting=oldest, waiting_since=since))
        return found

    @property
    def complete(self) -> bool:
        """Whether everything made is delivered, without dead letters, and every peer that was asked says so too. Truth
        lost with a disk is told, but it was never on its way to anybody."""
        kept = not self.waiting and not any(line.dead_letters or line.lost for line in self.lines)
        kept = kept and not any(line.waiting for line in self.truth)
        kept = kept and (self.transmission is None or self.transmission.balanced)
        return kept and all(peer.complete for peer in self.verified)


@dataclass(frozen=True)
class _Shard:
    shard: int
    first_vehicle: int
    vehicles: int


class Books:
    """Reads the files of one run. BadInput where there are none. `flags` replace settings of the run."""

    def __init__(self, directory: Path, flags: Mapping[str, Any] | None = None) -> None:
        self.directory = directory
        self.run = load_run(directory)
        self.settings = run_settings(directory, self.run, flags)
        ranges = vehicle_ranges(self.settings.population.vehicles, shard_count(self.run))
        self.shards = [_Shard(number, *vehicles) for number, vehicles in enumerate(ranges)]
        self._readers = {name: self._reader(name, self.settings) for name in LIVE_SINKS}
        how = self.settings.reporting.transmission()
        self.whole, self.ordered = how.whole, not (how.late or how.repeat)
        then = run_settings(directory, self.run) if flags else self.settings
        self._recorded = {name: self._reader(name, then) for name in LIVE_SINKS}
        # What the driver saw last, for logs and cursors that are on the disks of other nodes.
        self._told: dict[tuple[str, Stream, int], tuple[int, Cursor]] = {
            (sink, log["stream"], log["shard"]): (log["made"], Cursor(**log["cursor"]))
            for sink, counts in self.run.get("counts", {}).get("sinks", {}).items()
            for log in counts.get("logs", [])
        }
        self.sinks = [name for name in LIVE_SINKS if self._readers[name]]

    def _reader(self, sink: str, settings: RunSettings) -> str:
        """Whose cursors count: those of the peer that the settings name, else of the last one; "" if there was none."""
        found = readers_in(self.directory, sink)
        address = getattr(settings.servers, sink)
        if not address:
            return found[-1] if found else ""
        try:
            reader = reader_of(SINKS[sink].parse(address))
        except ValueError as error:
            raise BadInput(f"--{sink}: {error}") from None
        # A run of an older version, that was not resumed since, has one folder for each kind of sink.
        then = unmasked(self.run["settings"].get(sink) or "")
        return sink if found == [sink] and then and reader_of(SINKS[sink].parse(then)) == reader else reader

    @property
    def has_logs(self) -> bool:
        """Whether the logs are on this machine. Those of shards on other nodes of a cluster are not."""
        return all(log_directory(self.directory, "telemetry", shard.shard).is_dir() for shard in self.shards)

    def cursor(self, sink: str, stream: Stream, shard: int) -> Cursor:
        """How far this sink has come in this log."""
        file = CursorFile(self.directory, self._readers[sink], stream, shard)
        if file.exists():
            return file.load()
        if self._readers[sink] != self._recorded[sink]:
            return Cursor()  # what the driver saw is about another peer
        return self._told.get((sink, stream, shard), (0, Cursor()))[1]

    def made(self, stream: Stream, shard: int) -> int:
        """Rows ever written to this log, judged by the log itself and by what sinks have taken from it, whichever is
        more. Different where the log is too damaged to tell."""
        told = [rows for (_, of, number), (rows, _) in self._told.items() if (of, number) == (stream, shard)]
        ahead = [
            self.cursor(sink, stream, shard).position for sink in self.sinks
        ]  # may be ahead of a log that lost its tail
        try:
            return max(extent(log_directory(self.directory, stream, shard)).end, *told, *ahead, 0)
        except LogDamaged as error:
            raise Different(str(error)) from error

    def ledger(self) -> Ledger:
        """The books as the files tell them, also while the run goes on."""
        lines = [
            self._line(sink, stream, shard.shard) for sink in self.sinks for stream in STREAMS for shard in self.shards
        ]
        truth = tuple(line for shard in self.shards if (line := self._truth(shard)))
        state, vehicles = str(self.run.get("state")), self.settings.population.vehicles
        return Ledger(self.run["run_id"], state, vehicles, tuple(lines), truth, (), self._transmission())

    def _simulated_s(self) -> float:
        return float(self.run.get("counts", {}).get("simulated_s", 0.0))

    def _transmission(self) -> Transmitted | None:
        told = self.run.get("counts", {}).get("transmission", {})
        if self.whole or "taken" not in told:
            return None
        return Transmitted(arrived=sum(self.made("telemetry", shard.shard) for shard in self.shards), **told)

    def _truth(self, shard: _Shard) -> Line | None:
        """The truth on the disk against what is due by the telemetry that was made: a row a vehicle at the start, after
        each simulated day and at the end. Lost is what a restart elsewhere did not bring along. None where there is no
        truth, as in runs of older versions and on other nodes."""
        try:
            rows, first, last = truth_times(truth_directory(self.directory, shard.shard))
        except LogDamaged as error:
            raise Different(str(error)) from error
        if first is None or last is None:
            return None
        start, step_s = self.settings.clock.start, self.settings.clock.step
        period_s = step_s * self.settings.clock.ticks(self.settings.clock.telemetry_s)
        # Where not every record is sent, their number does not tell the time; the driver knew it last.
        sampled_s = self.made("telemetry", shard.shard) // shard.vehicles * period_s
        now = start + timedelta(seconds=sampled_s if self.whole else self._simulated_s())
        day = timedelta(seconds=step_s * truth_ticks(step_s))
        lost = shard.vehicles * math.ceil(max(first - start, timedelta()) / day)
        waiting = shard.vehicles * max(math.floor((now - start) / day) - math.floor((last - start) / day), 0)
        made = lost + rows + waiting
        return Line("disk", "truth", shard.shard, made, rows, waiting, duplicates=0, dead_letters=0, lost=lost)

    def _line(self, sink: str, stream: Stream, shard: int) -> Line:
        directory = log_directory(self.directory, stream, shard)
        cursor = self.cursor(sink, stream, shard)
        made = self.made(stream, shard)
        waiting = made - cursor.position
        frame = oldest = since = None
        if waiting:
            with LogReader(directory, cursor.position) as reader, suppress(LogDamaged):  # then the times are unknown
                frame = reader.read(1)
            if frame is not None:
                oldest = frame.batch.column("ts")[0].as_py()
                since = datetime.fromtimestamp(frame.due_ns / 1e9, UTC) if frame.due_ns else None
        return Line(
            sink=sink,
            stream=stream,
            shard=shard,
            made=made,
            delivered=cursor.delivered,
            waiting=waiting,
            duplicates=cursor.duplicates,
            dead_letters=cursor.dead,
            lost=cursor.lost,
            oldest_waiting=oldest,
            waiting_since=since,
        )

    def identities(self, stream: Stream, ends: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(vehicle, seq) of each shard's rows before its end in `ends`. Rows are ordered by time, then vehicle. Where
        not every record is sent, only the logs tell: PeerSilent if they do not hold all."""
        if not self.whole:
            return self._read(stream, ends)
        vehicles, seqs = [], []
        for shard in self.shards:
            rows = np.arange(ends[shard.shard], dtype=np.int64)
            vehicles.append(shard.first_vehicle + rows % shard.vehicles)
            numbers = rows // shard.vehicles
            if stream == "predictions" and rows.size:
                numbers = self._predicted(int(numbers[-1]) + 1)[numbers]
            seqs.append(numbers)
        return np.concatenate(vehicles), np.concatenate(seqs)

    def _read(self, stream: Stream, ends: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(vehicle, seq) of each shard's rows before its end, as the log has them, each once."""
        seen = Seen(ordered=False)
        for shard in self.shards:
            if extent(log_directory(self.directory, stream, shard.shard)).first:
                raise PeerSilent("not every record was sent, and the log does not hold any more which ones were")
            self._take(seen, stream, shard.shard, 0, ends[shard.shard])
        pairs = np.stack([np.frombuffer(seen.vehicles, np.int64), np.frombuffer(seen.seqs, np.int64)])
        vehicles, seqs = np.unique(pairs, axis=1)
        return vehicles, seqs

    def _take(self, seen: Seen, stream: Stream, shard: int, first: int, end: int) -> None:
        """The identities of a log's rows in [first, end)."""
        with LogReader(log_directory(self.directory, stream, shard), first) as reader:
            while first < end and (frame := reader.read(min(1 << 18, end - first))) is not None:
                names = frame.batch.column("vehicle_id")
                numbers = vehicle_indices(names.dictionary)
                seen.vehicles.frombytes(numbers[names.indices.to_numpy()].tobytes())
                seen.seqs.frombytes(frame.batch.column("seq").to_numpy().tobytes())
                first = frame.row + frame.batch.num_rows

    def _predicted(self, count: int) -> np.ndarray:
        """The seq of the first `count` predictions of a vehicle."""
        clock = self.settings.clock
        telemetry, predict = clock.ticks(clock.telemetry_s), clock.ticks(clock.prediction_s)
        seq = np.arange(count * (predict // telemetry + 2) + 2)
        return seq[is_predicted(seq, telemetry, predict)][:count]

    def dead(self, sink: str, stream: Stream) -> Iterator[tuple[str, int]]:
        """(vehicle_id, seq) of the dead letters: records that the sink's peer rejected for good."""
        for path in sorted(
            (self.directory / "dead-letters" / self._readers.get(sink, sink)).glob(f"{stream}-shard-*.jsonl")
        ):
            for text in path.read_text().splitlines():
                _, vehicle, seq = json.loads(text)["id"].rsplit("/", 2)
                yield vehicle, int(seq)

    def log(self) -> dict[Stream, Seen]:
        """What the log holds, read record by record. Rows that retention dropped count as there."""
        found = {}
        for stream in STREAMS:
            seen = found[stream] = Seen(ordered=True)
            firsts = {s.shard: extent(log_directory(self.directory, stream, s.shard)).first for s in self.shards}
            vehicles, seqs = self.identities(stream, firsts)  # what retention dropped counts as there
            seen.vehicles.frombytes(vehicles.tobytes())
            seen.seqs.frombytes(seqs.tobytes())
            for shard in self.shards:
                self._take(seen, stream, shard.shard, firsts[shard.shard], _END)
        return found

    def ends(self, stream: Stream, sink: str = "") -> dict[int, int]:
        """Rows per shard: all that were made or, with `sink`, those before its cursor."""
        if sink:
            return {s.shard: self.cursor(sink, stream, s.shard).position for s in self.shards}
        return {s.shard: self.made(stream, s.shard) for s in self.shards}


def verify(books: Books, archive: Path | None, say: Callable[[str], None] = lambda text: None) -> Ledger:
    """The books, with an independent count from every peer, and from the log if it is on this machine."""
    acknowledged = {sink: {stream: books.ends(stream, sink) for stream in STREAMS} for sink in books.sinks}
    verified = []
    for peer in (*(["log"] if books.has_logs else []), *books.sinks):
        say(f"asking {peer}")
        try:
            seen = _ask(books, peer, archive)
        except (PeerSilent, SinkError, LogDamaged, OSError) as error:
            verified.append(Verified(peer, {}, " ".join(str(error).split())))
            continue
        made = {stream: books.ends(stream) for stream in STREAMS}
        counts = {}
        for stream in STREAMS:
            ends = made[stream] if peer == "log" else acknowledged[peer][stream]
            expected = _without(books.identities(stream, ends), list(books.dead(peer, stream)))
            counts[stream] = compare(
                replace(seen[stream], ordered=seen[stream].ordered and books.ordered),
                books.identities(stream, made[stream]),
                expected,
                repeats_are_wrong=peer == "timescale" or (peer == "log" and books.ordered),
            )
        verified.append(Verified(peer, counts))
    ledger = books.ledger()
    return replace(ledger, verified=tuple(verified))


def _ask(books: Books, peer: str, archive: Path | None) -> dict[Stream, Seen]:
    run_id = books.run["run_id"]
    if peer == "log":
        return books.log()
    if peer == "mqtt":
        if archive is None:
            raise PeerSilent(
                "MQTT keeps no messages: start `twin archive` before the run and name its folder with --archive"
            )
        return peers.archive(archive, run_id)
    if not getattr(books.settings.servers, peer):
        raise PeerSilent(f"the run's records went to {peer}, which is switched off now; give --{peer}")
    from actors.delivery.sinks.kafka import KafkaTarget

    target = target_of(books.settings.servers, peer)
    if isinstance(target, KafkaTarget):
        return peers.kafka(target.url, run_id, {target.topic(s): s for s in STREAMS}, target.properties())
    return peers.database(target.url, run_id)


def _without(identities: tuple[np.ndarray, np.ndarray], dead: list[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    if not dead:
        return identities
    vehicles, seqs = identities
    gone = {(vehicle_index(vehicle), seq) for vehicle, seq in dead}
    keep = np.array([pair not in gone for pair in zip(vehicles.tolist(), seqs.tolist(), strict=True)], bool)
    return vehicles[keep], seqs[keep]


# ---- in words


def table(ledger: Ledger) -> str:
    """For a terminal: one line per sink, stream and shard, sums over several shards, then the peers' answers."""
    heads = (
        "sink",
        "stream",
        "shard",
        "made",
        "delivered",
        "waiting",
        "oldest waiting",
        "duplicates",
        "dead letters",
        "lost",
    )
    lines = [*ledger.lines, *(ledger.sums() if len({line.shard for line in ledger.lines}) > 1 else [])]
    lines.sort(key=lambda x: (LIVE_SINKS.index(x.sink), x.stream != "telemetry", x.shard == _ALL, x.shard))
    rows = [_cells(line) for line in (*lines, *ledger.truth)]
    parts = [f"run {ledger.run_id}, {ledger.vehicles:,} vehicles, {ledger.state}", ""]
    parts += [] if lines else ["no sink was switched on, so the log is the only store"]
    parts += _aligned([heads, *rows]) if rows else []
    if (t := ledger.transmission) is not None:
        parts += [
            "",
            f"taken {t.taken:,} = arrived {t.arrived:,} - sent twice {t.repeated:,} + on their way {t.held:,}"
            f" + never sent (unchanged {t.unchanged:,}, asleep {t.asleep:,}) + dropped {t.dropped:,}"
            f"{'' if t.balanced else ': DIFFERENT'}",
        ]
    if ledger.verified:
        parts += ["", *_aligned(_answers(ledger))]
        for peer in ledger.verified:
            parts += [f"{peer.sink}: {peer.error}"] if peer.error else []
            for stream, count in peer.counts.items():
                parts += [f"{peer.sink} {stream}: {difference}" for difference in count.differences]
    return "\n".join(parts)


def verdict(ledger: Ledger) -> str:
    """What is not as it should be, in one line; "" where all is."""
    parts = []
    if ledger.waiting:
        parts.append(f"{ledger.waiting:,} records wait for delivery")
    if late := sum(line.waiting for line in ledger.truth):
        parts.append(f"{late:,} rows of truth are not on the disk yet")
    if ledger.transmission and not ledger.transmission.balanced:
        parts.append("what the vehicles took is not what was sent, dropped or kept")
    if dead := sum(line.dead_letters for line in ledger.lines):
        parts.append(f"{dead:,} dead letters")
    if lost := sum(line.lost for line in ledger.lines):
        parts.append(f"{lost:,} records lost, because the log did not hold them any more")
    for peer in ledger.verified:
        if peer.error:
            parts.append(f"{peer.sink} could not be asked ({peer.error})")
        for stream, count in peer.counts.items():
            if not count.complete:
                parts.append(
                    f"{peer.sink} {stream}: {count.missing:,} missing, {count.unknown:,} unknown, "
                    f"{count.disordered:,} vehicles out of order"
                )
    return "; ".join(parts)


def _answers(ledger: Ledger) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("asked", "stream", "received", "missing", "unknown", "out of order", "received again", "verdict")
    ]
    for peer in ledger.verified:
        if peer.error:
            rows.append((peer.sink, "", "", "", "", "", "", "NOT ASKED"))
        for stream, count in peer.counts.items():
            numbers = (count.received, count.missing, count.unknown, count.disordered, count.repeated)
            verdict = "ok" if count.complete else "DIFFERENT"
            rows.append((peer.sink, stream, *(f"{number:,}" for number in numbers), verdict))
    return rows


def _cells(line: Line) -> tuple[str, ...]:
    numbers = [f"{n:,}" for n in (line.made, line.delivered, line.waiting)]
    oldest = utc_text(line.oldest_waiting).replace("T", " ").removesuffix("Z") if line.oldest_waiting else "-"
    last = tuple(f"{n:,}" for n in (line.duplicates, line.dead_letters, line.lost))
    return (line.sink, line.stream, "all" if line.shard == _ALL else f"{line.shard}", *numbers, oldest, *last)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def as_json(ledger: Ledger) -> dict[str, Any]:
    """The same facts for programs."""

    def plain(line: Line) -> dict[str, Any]:
        times = {name: getattr(line, name) for name in ("oldest_waiting", "waiting_since")}
        return vars(line) | {name: time.isoformat() if time else None for name, time in times.items()}

    return {
        "run_id": ledger.run_id,
        "state": ledger.state,
        "complete": ledger.complete,
        "lines": [plain(line) for line in ledger.lines],
        "transmission": vars(ledger.transmission) if ledger.transmission else None,
        "truth": [plain(line) for line in ledger.truth],
        "verified": [
            {
                "sink": peer.sink,
                "error": peer.error,
                "complete": peer.complete,
                "counts": {stream: vars(count) for stream, count in peer.counts.items()},
            }
            for peer in ledger.verified
        ],
    }
