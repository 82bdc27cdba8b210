"""Command-line options made from settings: name, form, default, help and group of each come from `twin/settings.py`.

    @app.command()
    @takes(Servers, Clock, only=("kafka", "pace"))
    def replay(directory: Annotated[Path, typer.Argument()], given: Given) -> None: ...

The command gets the parameters it declares itself. `given` holds the settings that were given.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic.fields import FieldInfo

from twin.settings import Given, Group, default_of, extra_of, form_of

TRACKING: Any = typer.Option(
    "--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help="of MLflow \\[default: sqlite:///mlflow.db]"
)
"""For commands that take no group of settings."""


def takes(
    *groups: type[Group], only: Collection[str] = (), kept: bool = False, config: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these groups, or `only` some of them.

    `kept`: an option that is not given keeps the run's value, so no default is shown, and the environment of this shell
    does not count. `config`: add --config for a YAML file.
    """
    options: dict[str, Any] = {}
    for group in groups:
        for name, field in group.model_fields.items():
            if extra_of(field).get("option", True) and (not only or name in only):
                options[name] = _option(name, field, group.title, kept=kept)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_settings(**values: Any) -> None:
            flags = {name: values.pop(name) for name in options}
            file = values.pop("config", None) if config else None
            command(**values, given=Given(flags, file))

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
        hints = get_type_hints(command, include_extras=True)
        types = {p.name: hints[p.name] for p in own}
        parameters = [p.replace(annotation=types[p.name]) for p in own if p.default is inspect.Parameter.empty]
        later = [p.replace(annotation=types[p.name]) for p in own if p.default is not inspect.Parameter.empty]
        given = options | ({"config": _CONFIG} if config else {})
        parameters += [_parameter(name, annotation) for name, annotation in given.items()] + later
        with_settings.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        typed: Any = with_settings
        typed.__signature__ = inspect.Signature(parameters)
        del typed.__wrapped__  # show its own signature instead
        return with_settings

    return decorate


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(name: str, field: FieldInfo, title: str, *, kept: bool) -> Any:
    """An option that takes text, or a switch. `Given` checks the text, as it checks a file and the environment."""
    form, flag = form_of(field), f"--{name.replace('_', '-')}"
    default = "as the run began" if kept else default_of(field)
    words = plain(f"{field.description}  [default: {default}]")
    if field.annotation is bool:
        switch = f"{flag}/--no-{flag.removeprefix('--')}"
        return Annotated[bool | None, typer.Option(switch, help=words, rich_help_panel=title, show_default=False)]
    if form.choices and form.metavar != "|".join(form.choices):
        words = plain(f"{field.description}: {', '.join(form.choices)}  [default: {default}]")
    return Annotated[
        str | None,
        typer.Option(
            flag,
            help=words,
            metavar=form.metavar,
            rich_help_panel=title,
            show_default=False,
            autocompletion=_completion(form.choices) if form.choices else None,
        ),
    ]


def _completion(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def plain(text: str) -> str:
    """Escape brackets, so that Rich does not read them as markup."""
    return text.replace("[", "\\[")


_CONFIG = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="read settings from this YAML file"),
]
