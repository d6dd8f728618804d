"""``build``: fill a library, or (``--dry-run``) say what that would take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from livi_index import display
from livi_index.commands.options import (
    HELD,
    INCOMPLETE,
    JsonOption,
    LibraryOption,
    LogOption,
)

if TYPE_CHECKING:
    from livi_index.forecast import Forecast

NICENESS = 10  # also of reading and writing, which Linux derives from it

Folders = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders or files; none: all folders that were ever named."),
]
ListOption = Annotated[
    Path | None,
    typer.Option("--list", help="CSV file with a column path, and work, title, artist if known."),
]
ExcludeOption = Annotated[
    list[str] | None, typer.Option(help="Leave out what this glob matches; repeatable.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Name, id or folder of a model; another one than the library's own takes its place as"
        " soon as it has heard everything."
    ),
]
JobsOption = Annotated[int, typer.Option(min=0, help="Decoding processes; 0: one a processor.")]
MinutesOption = Annotated[
    float | None, typer.Option(min=0.1, help="Of a file that are indexed, at most.")
]
HoursOption = Annotated[float | None, typer.Option(min=0, help="Take no more files after so long.")]
UntilOption = Annotated[
    datetime | None,
    typer.Option(formats=["%H:%M"], help="Take no more files after this time of day."),
]
PruneOption = Annotated[bool, typer.Option("--prune", help="Delete what is known of gone files.")]
ForcePruneOption = Annotated[
    bool, typer.Option("--force-prune", help="The same, however many are gone.")
]
RetryOption = Annotated[
    list[str] | None,
    typer.Option(metavar="CODE", help="Try failures of this code again, or all; repeatable."),
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do.")]
PriorityOption = Annotated[
    bool, typer.Option("--normal-priority", help="Do not stand back behind other programs.")
]


def build(
    folders: Folders = None,
    files: ListOption = None,
    library: LibraryOption = None,
    model: ModelOption = None,
    exclude: ExcludeOption = None,
    follow_symlinks: Annotated[bool, typer.Option("--follow-symlinks")] = False,
    jobs: JobsOption = 0,
    max_minutes: MinutesOption = None,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    prune: PruneOption = False,
    force_prune: ForcePruneOption = False,
    retry: RetryOption = None,
    dry_run: DryOption = False,
    normal_priority: PriorityOption = False,
    log: LogOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Index folders of songs; run it again, without folders, to index what is new."""
    from livi_index import build as building
    from livi_index.forecast import forecast

    display.log_as(log)
    options = building.BuildOptions(
        exclude=tuple(exclude or ()),
        follow_symlinks=follow_symlinks,
        files=files,
        model=model,
        jobs=jobs,
        max_minutes=max_minutes or building.BuildOptions.max_minutes,
        max_hours=max_hours,
        until=until.time() if until else None,
        prune=prune,
        force_prune=force_prune,
        retry=tuple(retry or ()),
    )
    if dry_run:
        print_forecast(forecast(folders or (), library, options), as_json=as_json)
        return
    if not normal_priority:
        os.nice(NICENESS)
    with display.progress(quiet) as progress:
        report = building.build(folders or (), library, options, progress=progress)
    display.print_report(report, as_json=as_json, quiet=quiet)
    if report.held or not report.complete:
        raise typer.Exit(HELD if report.held else INCOMPLETE)


def print_forecast(found: Forecast, *, as_json: bool) -> None:
    for notice in (*map(str, found.held), *found.notices):
        display.complain(notice)
    if as_json:
        display.print_json(found.to_json())
    else:
        display.print_lines(_forecast_lines(found))


def _forecast_lines(found: Forecast) -> Iterator[str]:
    yield f"{found.unchanged:>9,}  files as they were"
    yield f"{found.known_failed:>9,}  failed before, and unchanged"
    yield f"{found.new:>9,}  new or changed files, {display.megabytes(found.new_bytes)}"
    if found.to_analyse:
        yield f"{found.to_analyse:>9,}  known recordings without an analysis"
    if found.to_move:
        yield f"{found.to_move:>9,}  recordings for the model to move to, beside what is new"
    yield f"{found.absent:>9,}  known files that were not found where they were"
    yield f"{display.clock(found.audio_seconds)} of audio to analyse, at most"
    took = "unknown before a first build" if found.seconds is None else display.clock(found.seconds)
    yield f"time      {took}"
    free = display.megabytes(found.disk_free)
    yield f"disk      {display.megabytes(found.disk_bytes)} more, of {free} that are free"
    yield f"library   {found.library}, model {found.model}"
    if found.move:
        yield from display.move_lines(found.move)
    yield "Nothing was opened, computed or written."
