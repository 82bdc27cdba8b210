"""Every command of the documentation: `twin` takes its options, and a test runs it, here in small or where it is named.

Commands run here in the order of their page, in one folder. An option given again at the end wins: that is how a run of
5,000 vehicles becomes one of 50.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import typer

from physics import load_cell
from physics.modal import build_model
from physics.record import play_record
from tests.command import Twin
from tests.services import Kafka, Mosquitto
from tests.services.base import free_ports
from training.cell_fit import capacity_of
from twin.cli import app
from twin.folders import ROOT

PAGES: Final = ["README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))]

SMALL: Final = {
    "run": ["--vehicles", "50", "--duration", "20s", "--pace", "inf", "--no-predict", "--metrics-port", "0"],
    "resume": ["--duration", "30s", "--metrics-port", "0"],
    "replay": ["--pace", "inf"],
    "cell": ["--cycles", "2"],
    "consume": ["--until-idle", "5s", "--metrics-port", "0"],
}
ELSEWHERE: Final = {
    "twin archive": "tests/integration/test_books.py",
    "twin generate": "tests/twin/test_models.py",
    "twin train": "tests/twin/test_models.py",
    "twin evaluate": "tests/twin/test_models.py",
    "twin predict": "tests/twin/test_models.py",
    "twin promote": "tests/twin/test_loop.py",
    "twin retrain": "tests/twin/test_loop.py",
    "twin validate life": "tests/twin/test_paths.py",
    "twin validate models": "tests/training/test_crossed.py",
    "twin validate faults": "tests/training/test_detection.py",
    "twin watch": "tests/integration/test_page.py",
    "ray job submit": "tests/integration/test_ray_cluster.py",
    "make services": "tests/integration/test_services.py",
    "python scripts/gallery.py": "tests/integration/test_dashboards.py",
    "prometheus": "tests/integration/test_prometheus.py",
    "curl": "tests/actors/test_rest.py",
    "psql": "tests/integration/test_consume.py",
    "kubectl": "tests/kubernetes/on_a_node.py",
}
"""The file that runs it, in small, against what it needs."""
BY_HAND: Final = {"make setup-dev", "make quick", "make test", "make watch", "make services-stop", "make kube-test",
                 "make chaos", "grafana", "export", "source"}  # fmt: skip
"""What starts this test, what runs until it is stopped, what is a shell's own."""


@dataclass(frozen=True)
class Command:
    """A line of a fenced block. `words`: as a shell takes them, comment and `&` left out. `marked`: its comment says
    that it needs something, or minutes."""

    page: str
    line: int
    words: tuple[str, ...]
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def commands() -> Iterator[Command]:
    starts = re.compile(
        r"(\.venv/bin/|\w+=\S+ )?(twin|make|ray|python|prometheus|curl|psql|kubectl|grafana|export|source)\s+(?!:)\S"
    )
    for page in PAGES:
        fenced = False
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
            if line.startswith("```"):
                fenced = not fenced
            elif fenced and starts.match(line) and not line.startswith("twin: "):
                words = shlex.split(line.removeprefix(".venv/bin/").removesuffix("{").split(" -d ")[0], comments=True)
                words = [word for word in words if word not in ("&", "...")][re.match(r"\w+=", words[0]) is not None :]
                if words[:2] == ["make", "run"]:
                    arguments = [word.removeprefix("ARGS=") for word in words[2:]]
                    words = ["twin", "run", *(part for argument in arguments for part in shlex.split(argument))]
                marked = re.search(r"# .*(\bneeds\b|minute|hour)", line) is not None
                yield Command(page, number, tuple(words), marked)


ALL: Final = list(commands())


def taken(words: list[str]) -> list[str]:
    """Let the command line read the words of `twin ...`, and not begin. Returns the path of the command."""
    command: Any = typer.main.get_command(app)
    context, path = None, ["twin"]
    rest = words[1:]
    while True:
        context = command.make_context(path[-1], list(rest), parent=context)
        if not hasattr(command, "commands"):
            return path
        if not context.args and not context._protected_args:
            return path
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)


def test_there_are_commands() -> None:
    assert len(ALL) > 70
    assert {"README.md", "docs/ledger.md", "docs/models.md"} <= {command.page for command in ALL}


@pytest.mark.parametrize("command", [command for command in ALL if command.words[0] == "twin"], ids=str)
def test_twin_takes_it(command: Command) -> None:
    if "--help" not in command.words:
        taken(list(command.words))


def test_what_twin_does_not_take_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        taken(["twin", "run", "--vehicels", "3"])


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_a_sentence_exist(page: str) -> None:
    """`twin COMMAND --option` between backticks."""
    group: Any = typer.main.get_command(app)
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for span in re.findall(r"`twin ([a-z][^`]*)`", text):
        words, command = span.split(), group
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert command is not group, f"{page}: twin {span}"
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        named = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", " ".join(words)))
        assert named <= known | {"--help"}, f"{page}: twin {span}"


def named(command: Command, places: Any) -> str | None:
    """The entry of `places` that the command begins with, and whose options it has."""
    for place in places:
        head = [word for word in place.split() if not word.startswith("-")]
        if list(command.words[: len(head)]) == head and set(place.split()) <= set(command.words):
            return str(place)
    return None


HERE: Final = [
    command
    for command in ALL
    if command.words[0] == "twin"
    and not named(command, ELSEWHERE)
    and not command.marked
    and "--help" not in command.words
]


@pytest.mark.parametrize("command", ALL, ids=str)
def test_something_runs_it(command: Command) -> None:
    """Here, in the file named, or it is said that nothing does."""
    place = named(command, ELSEWHERE)
    if place:
        words = place.split()
        tested = (ROOT / ELSEWHERE[place]).read_text()
        assert all(f'"{word}"' in tested for word in words[1:]) if words[0] == "twin" else tested
    elif command.words[0] == "make":
        target = command.words[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert f"make {target}" in BY_HAND
    else:
        assert command in HERE or command.marked or "--help" in command.words or command.words[0] in BY_HAND


def write_cycler_file(path: Path) -> None:
    """A slow discharge and one at 1C of a cell that is known here and not to the command."""
    model = build_model(load_cell("chen2020"))
    capacity = capacity_of(model)
    with path.open("w") as file:
        file.write("part,time_s,current_A,voltage_V\n")
        for part, rate, dt in (("slow", 1 / 20, 180.0), ("1C", 1.0, 10.0)):
            current = np.concatenate([np.zeros(3), np.full(round(0.95 * 3600 / rate / dt), capacity * rate)])
            time_s = dt * np.arange(current.size)
            voltage = play_record(model, np.full(current.size, dt), current, np.full(current.size, 25.0), 4.15)
            for row in zip(time_s, current, voltage, strict=True):
                file.write(f"{part},{','.join(f'{value:.5f}' for value in row)}\n")


@pytest.mark.parametrize("page", sorted({command.page for command in HERE}))
@pytest.mark.usefixtures("ray_cluster")
def test_commands_of_a_page(
    page: str, kafka: Kafka, mosquitto: Mosquitto, postgres_database: str, twin: Twin, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    [rest_port] = free_ports(1)
    servers = {
        "127.0.0.1:9092": kafka.bootstrap_servers,
        "mqtt://127.0.0.1:1883": f"mqtt://127.0.0.1:{mosquitto.port}",
        "mqtt://127.0.0.1": f"mqtt://127.0.0.1:{mosquitto.port}",
        "postgresql://twin@127.0.0.1/twin_data": postgres_database,
        "path/to/bundle": str(ROOT / "models" / "bundled"), "--archive": "", "ARCHIVE": "",
    }  # fmt: skip
    todo = [command for command in HERE if command.page == page]
    if any("cycler.csv" in command.words for command in todo):
        write_cycler_file(tmp_path / "cycler.csv")
    else:
        shutil.copy(ROOT / "tests" / "data" / "lgm50.bpx.json", "mycell.json")
    runs = next((word for command in todo for word in command.words if word in ("DIR", "runs/NAME")), "DIR")
    if next((command.words[1] for command in todo if runs in command.words), "run") != "run":
        predicts = ["--predict", "--rest-port", rest_port] if any("predictions" in c.words for c in todo) else []
        assert twin("run", "--out", runs, *SMALL["run"], *predicts).code == 0
    for command in todo:
        words = [found for word in command.words[1:] if (found := servers.get(word, word))]
        if words[0] == "run" and "--out" in words and Path(runs).exists():
            words[words.index("--out") + 1] += f"-{command.line}"
        if words[0] in ("run", "doctor"):
            words += ["--rest-port", str(rest_port)]
        small = words[:2] != ["cell", "fit"] and not (words[0] == "resume" and "--duration" in words)
        answer = twin(*words, *(SMALL.get(words[0], []) if small else []))
        assert answer.code == 0, f"{command}: {answer.err}"
