"""What commands share: their exit codes, and options that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

FAILED = 1
INCOMPLETE = 3  # some files newly failed, or something that was named is not there
HELD = 5  # files are gone, but so many that they are kept
NOTHING_FOUND = 7  # asked and answered, but nothing reaches the thresholds that were given
LOCKED = 11
INTERRUPTED = 130

LibraryOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the library; else $LIVI_LIBRARY, else the user's data folder."),
]
ModelOption = Annotated[
    str | None, typer.Option(help="Name or folder of a model; else the library's own.")
]
MinScoreOption = Annotated[float | None, typer.Option(help="Leave out hits that score less.")]
MinProbabilityOption = Annotated[
    float | None,
    typer.Option(help="Leave out hits that are less likely than this, between 0 and 1 (0.9, say)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LogOption = Annotated[
    Literal["text", "json"] | None,
    typer.Option(help="What standard error is: sentences, or one JSON object a line."),
]
