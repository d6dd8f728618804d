"""``schedule``: a build every night."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from livi_index import display
from livi_index.commands.options import JsonOption, LibraryOption

if TYPE_CHECKING:
    from livi_index.schedule import Schedule

_NIGHT = datetime(1900, 1, 1, 2, 0)
_MORNING = datetime(1900, 1, 1, 6, 0)


def schedule(
    library: LibraryOption = None,
    at: Annotated[datetime, typer.Option(formats=["%H:%M"], help="When to begin.")] = _NIGHT,
    until: Annotated[datetime, typer.Option(formats=["%H:%M"], help="When to end.")] = _MORNING,
    name: Annotated[str, typer.Option(help="Of the service.")] = "livi-index",
    user: Annotated[str | None, typer.Option("--as", help="Whom it runs as; else you.")] = None,
    for_user: Annotated[bool, typer.Option("--user", help="For your own systemd.")] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Let it reach devices.")] = False,
    memory: Annotated[str, typer.Option(help="What it may take.")] = "4G",
    prune: Annotated[bool, typer.Option("--prune", help="Let it delete what is gone.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="A line for cron instead.")] = False,
    install: Annotated[bool, typer.Option("--install", help="Write the files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what builds a library every night: a systemd service and timer, or a cron line."""
    from livi_index.schedule import ScheduleOptions, make_schedule

    options = ScheduleOptions(
        at.time(), until.time(), name, user, for_user, gpu, memory, prune, cron
    )
    made = make_schedule(library, options)
    if install:
        made.install()
    if as_json:
        display.print_json(made.to_json())
    else:
        display.print_lines(_schedule_lines(made, install))


def _schedule_lines(made: Schedule, installed: bool) -> Iterator[str]:
    for file in made.files:
        yield f"# {file.path}{' (written)' if installed else ''}"
        yield from () if installed else file.content.splitlines()
    for command in made.then:
        yield f"# then: {command}" if not installed else f"Next: {command}"
