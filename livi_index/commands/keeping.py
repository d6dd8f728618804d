"""What keeps a library well: ``failures``, ``check``, ``rollback``, ``export``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from livi_index import display
from livi_index.commands.options import FAILED, JsonOption, LibraryOption

if TYPE_CHECKING:
    from livi_index.check import CheckReport
    from livi_index.status import FailureNote

app = typer.Typer()


@app.command()
def failures(
    library: LibraryOption = None,
    codes: Annotated[
        list[str] | None, typer.Option("--code", help="Only those of this code; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What could not be indexed, and why; with --json one object a line."""
    from livi_index.status import read_failures

    found = read_failures(library, codes or ())
    if as_json:
        for note in found:
            display.print_json(asdict(note))
    else:
        display.print_lines(_failure_lines(found))


@app.command()
def check(
    library: LibraryOption = None,
    read_data: Annotated[
        float,
        typer.Option(metavar="PERCENT", min=0, max=100, help="Compare so many vectors and files."),
    ] = 0.0,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild what can be rebuilt.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look whether everything in a library is as it was written."""
    from livi_index.check import check

    report = check(library, read_percent=read_data, repair=repair)
    for problem in report.problems:
        display.complain(f"{problem.part}: {problem.what}")
    if as_json:
        display.print_json(report.to_json())
    else:
        display.print_lines(_check_lines(report))
    if report.problems:
        raise typer.Exit(FAILED)


@app.command()
def rollback(
    generation: Annotated[
        int | None, typer.Argument(help="Its number; else the one before the current.")
    ] = None,
    library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an older generation answer, until the next build."""
    from livi_index.publishing import roll_back
    from livi_index.status import existing

    number = roll_back(existing(library), generation)
    if as_json:
        display.print_json({"schema": 1, "generation": number})
        return
    display.say(f"generation {number} answers now; the next build publishes what is known again")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
    library: LibraryOption = None,
    format: Annotated[Literal["parquet", "csv"], typer.Option()] = "parquet",
    no_vectors: Annotated[bool, typer.Option("--no-vectors", help="Only the tables.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write recordings, files and vectors into tables for other programs."""
    from livi_index.tables import export_tables

    written = export_tables(folder, library, format=format, vectors=not no_vectors)
    if as_json:
        display.print_json(written.to_json())
    else:
        display.print_lines(f"{file.rows:>9,}  {file.path}" for file in written.files)


def _check_lines(report: CheckReport) -> Iterator[str]:
    yield from report.repaired
    yield f"{report.recordings:,} recordings at {report.files:,} paths"
    if report.vectors_compared or report.audio_hashed:
        yield f"{report.vectors_compared:,} vectors compared, {report.audio_hashed:,} files hashed"
    yield (
        f"{len(report.problems):,} problems" if report.problems else "everything is as it should be"
    )
    if report.problems and not report.repaired:
        yield "Next: livi-index check --repair"


def _failure_lines(found: Sequence[FailureNote]) -> Iterator[str]:
    for note in found:
        times = f"{note.attempts}×, last {display.when(note.last_at)}"
        caught = ", in quarantine" if note.quarantined else ""
        yield f"{note.code:<15} {note.path}: {note.message} ({times}{caught})"
    if not found:
        yield "nothing failed"
