"""What is in a library, as its readers see it: counts, failures, model, size, last runs.

Everything comes from the published generation and from the note of the last run beside it, so a
library can be looked at while it is being built.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from livi_index.build import LAST_RUN
from livi_index.errors import BadModel, LibraryNotFound
from livi_index.generations import Generation, Manifest, current, generations
from livi_index.keeping import at_hand
from livi_index.library import default_library
from livi_index.moving import Move, read_note
from livi_index.planning import in_quarantine

SCHEMA = 1
N_RUNS = 5


@dataclass(frozen=True)
class RunNote:
    """A run that came to its end; ``started_at`` in seconds since 1970."""

    started_at: float
    seconds: float
    counts: dict[str, Any]


@dataclass(frozen=True)
class Status:
    """``runs`` are the last ones that changed the library, and the very last; newest first."""

    library: str
    model: str
    model_version: str
    model_id: str
    generation: int
    published_at: float  # seconds since 1970
    files: int
    recordings: int
    indexed: int
    instrumental: int
    spoken: int  # of those indexed: plain speech, as audiobooks and podcasts are
    truncated: int
    segments: int
    spaces: Mapping[str, int]  # recordings that can be found in each
    lacking: tuple[str, ...]  # spaces that the model has come with since; a build fills them in
    failures: Mapping[str, int]  # by code
    bytes_on_disk: int
    index_bytes: int
    runs: tuple[RunNote, ...]
    generations: tuple[int, ...]  # on the disk, that could be rolled back to
    folders: tuple[str, ...]  # that a build without folders walks
    move: Move | None  # to another model, when that was last noted

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index status --json`` prints them."""
        move = self.move.to_json() if self.move else None
        return {"schema": SCHEMA, **asdict(self), "move": move}


def existing(library: str | Path | None = None) -> Path:
    """The folder of a library, by default the user's own. Raises LibraryNotFound."""
    place = default_library() if library is None else Path(library)
    if not place.is_dir():
        raise LibraryNotFound(
            f"there is no library at {place}; `livi-index build FOLDER` makes one"
        )
    return place


def read_status(library: str | Path | None = None) -> Status:
    """Look at a library. Raises LibraryNotFound, LibraryDamaged."""
    place = existing(library)
    with current(place) as generation:
        manifest = generation.manifest
        names = ("files", "recordings", "indexed", "instrumental", "truncated", "segments")
        by_code = generation.ask("SELECT code, count(*) FROM failures GROUP BY code ORDER BY code")
        return Status(
            library=os.fspath(place),
            model=manifest.model_name,
            model_version=manifest.model_version,
            model_id=manifest.model_id,
            generation=generation.id,
            published_at=manifest.created_at,
            **{name: generation.counts[name] for name in names},
            spoken=generation.counts.get("spoken", 0),  # older versions did not count them
            spaces={space.name: space.recordings for space in manifest.spaces},
            lacking=_lacking(place, manifest),
            failures=dict(by_code),
            bytes_on_disk=bytes_below(place),
            index_bytes=sum(f.size for f in manifest.files if f.name.endswith(".usearch")),
            runs=_runs(place, generation),
            generations=tuple(generations(place)),
            folders=_folders(generation),
            move=read_note(place, manifest.model_id),
        )


@dataclass(frozen=True)
class FailureNote:
    """A file that could not be indexed; times in seconds since 1970.

    In quarantine: it has killed a worker twice, and is tried again only when asked for (``build
    --retry``) or with a new version of ``decoder``.
    """

    path: str
    code: str
    message: str
    attempts: int
    quarantined: bool
    first_at: float
    last_at: float
    decoder: str


def read_failures(
    library: str | Path | None = None, codes: Collection[str] = ()
) -> list[FailureNote]:
    """All failures, or those with these codes, by path. Raises as ``read_status``."""
    with current(existing(library)) as generation:
        rows = generation.ask(
            "SELECT path, code, message, attempts, first_at, last_at, decoder FROM failures"
            " ORDER BY path"
        )
    notes = []
    for path, code, message, attempts, first_at, last_at, decoder in rows:
        caught = in_quarantine(code, attempts)
        name = os.fsdecode(path)
        notes.append(FailureNote(name, code, message, attempts, caught, first_at, last_at, decoder))
    return [note for note in notes if not codes or note.code in codes]


def bytes_below(place: Path) -> int:
    """What the files in a folder take; one that several generations share is counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(place):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue  # a build cleans up meanwhile
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def _lacking(place: Path, manifest: Manifest) -> tuple[str, ...]:
    try:
        names = at_hand(place, manifest.model_id).card.space_names
    except BadModel:
        return ()  # what answers then is told by what asks
    return tuple(name for name in names if name not in {s.name for s in manifest.spaces})


def _folders(generation: Generation) -> tuple[str, ...]:
    rows = generation.ask("SELECT path FROM roots ORDER BY path")
    return tuple(os.fsdecode(row[0]) for row in rows)


def _runs(place: Path, generation: Generation) -> tuple[RunNote, ...]:
    rows = generation.ask(
        f"SELECT started_at, ended_at, counts FROM runs ORDER BY run_id DESC LIMIT {N_RUNS}"
    )
    runs = [RunNote(start, end - start, json.loads(counts)) for start, end, counts in rows]
    last = _last_run(place)
    if last is not None and all(run.started_at != last.started_at for run in runs):
        runs.insert(0, last)
    return tuple(runs[:N_RUNS])


def _last_run(place: Path) -> RunNote | None:
    try:
        note = json.loads((place / LAST_RUN).read_bytes())
        numbers = {k: v for k, v in note.items() if isinstance(v, int | float)}
        return RunNote(note["started_at"], note["seconds"], numbers)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a note, not a part of the library
