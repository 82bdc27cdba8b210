"""The command line as it is made from the settings: help that is true, examples that run, what a beginner sees."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from twin import __version__
from twin.cli import _COMMANDS, _FIRST, _VALIDATE, app, main
from twin.commands import cell
from twin.folders import ROOT, foreign_folder, shadowed_folders
from twin.settings import RUN_GROUPS, Consumer, default_of, extra_of

runner = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


def shown(*arguments: str) -> str:
    """What a command says, in one line of words."""
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


def test_without_arguments_one_sees_where_to_begin() -> None:
    says = shown()
    for command, example in _COMMANDS[:_FIRST]:
        assert f"twin {command.__name__.replace('_', '-')}" in says
        assert (command.__doc__ or "").split(".")[0] in says
        del example
    assert "twin --help" in says
    assert "consume" not in says


def test_help_of_a_run_has_groups_forms_and_true_defaults() -> None:
    says = shown("run", "--help")
    for group in RUN_GROUPS:
        assert group.title in says
        for name, field in group.model_fields.items():
            flag = f"--{name.replace('_', '-')}"
            if not extra_of(field).get("option", True):
                assert flag not in says, "secrets are no options: everybody on the machine sees those"
                continue
            assert flag in says
            assert default_of(field) in says, name
    assert "json|avro" in says
    assert "INTEGER 1..10,000,000" in says


def test_resume_does_not_state_defaults_that_are_not_taken() -> None:
    says = shown("resume", "--help")
    assert "[default: as the run began]" in says
    for untrue in ("[default: max]", "[default: 8000]", "[default: 60s]"):
        assert untrue not in says


def test_consume_has_its_own_settings() -> None:
    says = shown("consume", "--help")
    for name, field in Consumer.model_fields.items():
        option = bool(extra_of(field).get("option", True))
        assert (f"--{name.replace('_', '-')}" in says) == option, "a secret has no flag"
        assert default_of(field) in says or not option


def commands() -> list[tuple[tuple[str, ...], str]]:
    return [
        *(((command.__name__.replace("_", "-"),), example) for command, example in _COMMANDS),
        *((("validate", command.__name__.replace("_", "-")), example) for command, example in _VALIDATE),
        (("cell",), cell.EXAMPLE),
        (("cell", "fit"), cell.EXAMPLE_FIT),
    ]


@pytest.mark.parametrize(("words", "example"), commands())
def test_every_help_has_an_example_that_the_command_line_takes(words: tuple[str, ...], example: str) -> None:
    assert f"Example: {example}" in shown(*words, "--help")
    command: Any = typer.main.get_command(app)
    parts = shlex.split(example)
    assert parts[0] == "twin"
    assert tuple(parts[1 : 1 + len(words)]) == words
    for word in words:
        command = command.commands[word]
    command.make_context(word, parts[1 + len(words) :])  # raises where an option is unknown or malformed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command 'frobnicate'. Try: twin --help"),
        (["run", "--nope", "3"], "No such option: --nope. Try: twin run --help"),
        (["run", "--vehicles"], "Option '--vehicles' requires an argument. Try: twin --help"),
        (["resume"], "Missing argument 'directory'. Try: twin resume --help"),
        (["schema", "x"], "'x' is not one of 'telemetry', 'predictions'. Try: twin schema --help"),
        (["cell"], "--cycle: expected a protocol, for example: twin cell --cycle"),
        (["cell", "fit"], "Missing argument 'DATA'. Try: twin cell fit --help"),
        (["cell", "fit", "nowhere.csv"], "nowhere.csv: cannot read it: No such file or directory"),
        (
            ["validate", "cell", "--data", "nowhere"],
            "--data: nowhere/panasonic18650pf_capacity_checks.csv: cannot read it",
        ),
        (["validate", "cell"], "Missing option '--data'. Try: twin validate cell --help"),
        (["validate", "physics", "--only", "x"], "--only: expected one of electrical, cells, aging, pack, got 'x'"),
        # A setting of one command does not disturb another: TWIN_VEHICLES is 0 in all of these.
        (["archive", "--out", "nowhere"], "--mqtt: expected the broker to listen to"),
        (["consume"], "expected Kafka servers: --kafka host:port"),
        (["replay", "nowhere", "--to", "kafka"], "expected a run directory, but nowhere holds no run.json"),
        (["run"], "--vehicles: expected greater than or equal to 1, got '0'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["twin", *arguments])
    for name in [name for name in os.environ if name.startswith(("KAFKA_", "MQTT_", "PG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TWIN_VEHICLES", "0")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("twin: ")
    assert says in line


def test_version() -> None:
    assert shown("--version") == f"twin {__version__}"


def test_completion_knows_commands_options_and_choices() -> None:
    def complete(line: str) -> list[str]:
        environment = {
            "_TWIN_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        result = runner.invoke(app, [], prog_name="twin", env=environment)
        return result.output.split()

    assert {"run", "resume", "report"} <= set(complete("twin re") + complete("twin ru"))
    assert "--telemetry-every" in complete("twin run --telemetry")
    assert complete("twin run --payload a") == ["avro"]
    assert complete("twin run --use ta") == ["taxi"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["run", "--help"]])
def test_help_loads_no_engine(arguments: list[str]) -> None:
    """Half a second is the aim (benchmarks/start.py measures it); what takes longer is not even imported."""
    heavy = ["numba", "pyarrow", "ray", "duckdb", "matplotlib", "xgboost", "confluent_kafka", "pandas"]
    script = (
        "import sys\nfrom twin.__main__ import main\n"
        f"sys.argv = ['twin', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "[]", done.stderr


def test_a_foreign_datasets_is_noticed(tmp_path: Path) -> None:
    """Hugging Face's package of that name, say: in front of ours nothing works, behind it the doctor mentions it."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    root = str(ROOT)
    assert foreign_folder([root, str(tmp_path)]) == ""
    assert shadowed_folders([root, str(tmp_path)]) == [str(tmp_path / "datasets")]
    said = foreign_folder([str(tmp_path), root])
    assert f"expected the folder datasets of {root}" in said
    assert str(tmp_path) in said
    assert "expected the folder physics" in foreign_folder([str(tmp_path)])
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {root!r}]; from twin.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("twin: expected the folder datasets of")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "command", [["build", "--out-dir"], ["pip", "install", "--no-deps", "--target"]], ids=["build", "install"]
)
@pytest.mark.parametrize("editable", [False, True])
def test_a_wheel_is_refused_with_the_reason(tmp_path: Path, command: list[str], editable: bool) -> None:
    what = ["-e", str(ROOT)] if editable and "install" in command else [str(ROOT)]
    uv = [str(Path(sys.executable).parent / "uv"), *command, str(tmp_path / "out"), *what]
    more = ["--offline", "--python", sys.executable]
    done = subprocess.run([*uv, *more], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "this is an application, not a library" in done.stderr
    assert not list(tmp_path.rglob("*.whl"))
