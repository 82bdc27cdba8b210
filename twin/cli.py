"""The `twin` command. Every error a user can cause is one line on stderr and an exit code above zero.

A command is a file in `twin/commands` and a line in `_COMMANDS`; its options come from `twin/settings.py`.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from twin import __version__
from twin.commands import (
    archive,
    cell,
    consume,
    doctor,
    export,
    generate,
    ledger,
    passport,
    predict,
    promote,
    replay,
    report,
    resume,
    retrain,
    run,
    schema,
    train,
    validate,
    watch,
)
from twin.errors import TwinError
from twin.options import plain
from twin.say import say

# In the order of help. The first six are the ones to begin with.
_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (run.run, run.EXAMPLE),
    (watch.watch, watch.EXAMPLE),
    (report.report, report.EXAMPLE),
    (doctor.doctor, doctor.EXAMPLE),
    (ledger.ledger, ledger.EXAMPLE),
    (resume.resume, resume.EXAMPLE),
    (replay.replay, replay.EXAMPLE),
    (consume.consume, consume.EXAMPLE),
    (archive.archive, archive.EXAMPLE),
    (export.export, export.EXAMPLE),
    (passport.passport, passport.EXAMPLE),
    (generate.generate, generate.EXAMPLE),
    (train.train, train.EXAMPLE),
    (train.evaluate, train.EXAMPLE_EVALUATE),
    (promote.promote, promote.EXAMPLE),
    (retrain.retrain, retrain.EXAMPLE),
    (predict.predict, predict.EXAMPLE),
    (schema.schema, schema.EXAMPLE),
)
_VALIDATE = (
    (validate.physics, validate.EXAMPLE),
    (validate.life, validate.EXAMPLE_LIFE),
    (validate.reports, validate.EXAMPLE_REPORTS),
    (validate.cell, validate.EXAMPLE_CELL),
    (validate.vehicle, validate.EXAMPLE_VEHICLE),
    (validate.early_life, validate.EXAMPLE_EARLY_LIFE),
    (validate.models, validate.EXAMPLE_MODELS),
    (validate.faults, validate.EXAMPLE_FAULTS),
)
_FIRST = 6

app = typer.Typer(help="A digital twin of an EV battery fleet.", pretty_exceptions_enable=False)
validation = typer.Typer(help="Compare physics and reports with independent references.", no_args_is_help=True)
for _group, _commands in ((app, _COMMANDS), (validation, _VALIDATE)):
    for _command, _example in _commands:
        _group.command(epilog=plain(f"Example: {_example}"))(_command)
app.add_typer(validation, name="validate")
laboratory = typer.Typer()
laboratory.callback(invoke_without_command=True, epilog=plain(f"Example: {cell.EXAMPLE}"))(cell.cell)
laboratory.command(epilog=plain(f"Example: {cell.EXAMPLE_FIT}"))(cell.fit)
app.add_typer(laboratory, name="cell")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"twin {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="show the version and exit", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A digital twin of an EV battery fleet."""
    if context.invoked_subcommand is None:
        typer.echo("A digital twin of an EV battery fleet. Begin with:\n")
        for command, _ in _COMMANDS[:_FIRST]:
            says = (command.__doc__ or "").split(". ")[0].rstrip(".")
            typer.echo(f"  twin {command.__name__:<8}  {says}")
        typer.echo(f"\nFor example: {run.EXAMPLE}\nAll commands: twin --help. One command: twin run --help.")


def main() -> None:
    """Run the command. Turn errors into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
    except TwinError as error:
        say(str(error), failed=True)
        code = error.exit_code
    except typer.TyperException as error:
        says = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "twin"
        say(f"{says.replace('Value error, ', '').rstrip('.')}. Try: {where} --help", failed=True)
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        say("stopped")
        code = 130
    except Exception as error:
        # Our mistake, not the user's. The user sees one line; the file holds the rest for whoever fixes it.
        with tempfile.NamedTemporaryFile("w", prefix="twin-error-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        say(f"internal error: {error!r}; please report it with {file.name}", failed=True)
        code = 1
    sys.exit(code or 0)
