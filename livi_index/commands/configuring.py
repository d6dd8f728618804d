"""``config`` and ``doctor``: what the command line goes by, and whether this machine is well."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from livi_index import display, settings
from livi_index.commands.options import FAILED, JsonOption, LibraryOption

app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config", help="What the command line goes by.")

_NOT_SET = {"help", "version", "install_completion", "show_completion"}
_MARKS = {"ok": "  ", "warning": "? ", "problem": "! "}


@config_app.command("show")
def show(context: typer.Context, as_json: JsonOption = False) -> None:
    """Every setting, its value and where that comes from; with --json one object a line."""
    root = context.find_root().command
    found = settings.load(list(keys_of(root)), os.environ, Path.cwd())
    if as_json:
        for one in found:
            value = one.key.default if one.value is None else one.value
            name = f"{one.key.command}.{one.key.name}"
            display.print_json({"name": name, "value": value, "origin": one.origin})
    else:
        display.print_lines(_setting_lines(found))


@app.command()
def doctor(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """Look whether decoders, models, library and disk are well; with --json one object a line."""
    from livi_index.doctor import examine

    sick = False
    for finding in examine(library):
        sick = sick or finding.state == "problem"
        if as_json:
            display.print_json(finding.to_json())
        else:
            display.say(f"{_MARKS[finding.state]}{finding.name:<10} {finding.what}")
    if sick:
        raise typer.Exit(FAILED)


def keys_of(command: Any, name: str = "") -> Iterator[settings.Key]:
    """Every option of a command and of those below it."""
    for word, below in getattr(command, "commands", {}).items():
        yield from keys_of(below, f"{name} {word}".strip())
    hints = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
    for parameter in command.params if name else ():
        if parameter.param_type_name == "option" and parameter.name not in _NOT_SET:
            hint = hints.get(parameter.name)
            yield settings.Key(
                command=name,
                name=max(parameter.opts, key=len).lstrip("-"),
                parameter=parameter.name,
                is_list=parameter.multiple,
                is_path=Path in (hint, *get_args(hint)),
                default=_shown(parameter.default),
            )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, datetime):
        return f"{default:%H:%M}"
    return "" if default is None else str(default)


def _setting_lines(found: Sequence[settings.Setting]) -> Iterator[str]:
    for one in found:
        value = one.key.default if one.value is None else one.value
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"{f'{one.key.command}.{one.key.name}':<26} {shown or '–':<24} {one.origin}"
