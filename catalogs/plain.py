"""A list of one's own: a CSV file that says which recording is a version of which work.

    path,work,title,artist,split

Only ``path`` and ``work`` must be there; relative paths count from the file's folder. ``id`` names
a recording where the path should not, ``split`` is "test" and ``kind`` "sung" unless said. What
``python -m catalogs NAME`` prints can be read again, and ``work_id``, ``recording_id`` are taken
for ``work``, ``id``. ``root`` is such a file, or a folder with ``works.csv`` or ``entries.csv``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from catalogs import Entry, Kind, Split
from catalogs.datasets import About, checked, no_lists, rows_of
from livi_index.errors import BadInput

ABOUT = About(
    title="a CSV file",
    home="whoever wrote it",
    licence="that of its recordings",
    citation="none",
    audio="where it says",
    sizes={},
)
TABLES = ("works.csv", "entries.csv")
OTHER_NAMES = {"work_id": "work", "recording_id": "id"}


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """Every row; see ``datasets.Dataset.read``. There is no published size to hold it against."""
    place = metadata or root
    tables = [place] if place.is_file() else [p for name in TABLES if (p := place / name).is_file()]
    if not tables:
        raise no_lists(ABOUT, place, " or ".join(TABLES))
    table = tables[0]
    rows = [
        {OTHER_NAMES.get(name, name): text for name, text in row.items()}
        for row in rows_of(table, ("path",))
    ]
    base = table.parent if place.is_file() or metadata is None else root
    return checked([_entry(row, table, base, n) for n, row in enumerate(rows, 1)], ABOUT, whole)


def _entry(row: dict[str, str], table: Path, base: Path, number: int) -> Entry:
    split, kind = row.get("split") or "test", row.get("kind") or "sung"
    if not row["path"] or not row.get("work"):
        raise BadInput(f"{table}: row {number} below the first line has no path, or no work")
    if split not in get_args(Split) or kind not in get_args(Kind):
        raise BadInput(f"{table}: row {number} is of split {split!r} and kind {kind!r}")
    return Entry(
        recording_id=row.get("id") or row["path"],
        work_id=row["work"],
        path=Path(os.path.normpath(base / row["path"])),
        title=row.get("title", ""),
        artist=row.get("artist", ""),
        split=split,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
    )
