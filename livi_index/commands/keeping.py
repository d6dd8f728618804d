"""``failures``: what a library could not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from livi_index import display
from livi_index.commands.options import JsonOption, LibraryOption

if TYPE_CHECKING:
    from livi_index.status import FailureNote


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


def _failure_lines(found: Sequence[FailureNote]) -> Iterator[str]:
    for note in found:
        times = f"{note.attempts}×, last {display.when(note.last_at)}"
        caught = ", in quarantine" if note.quarantined else ""
        yield f"{note.code:<15} {note.path}: {note.message} ({times}{caught})"
    if not found:
        yield "nothing failed"
