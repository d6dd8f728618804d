"""A database made again from what was published of it.

A generation holds all that answers depend on: every file, recording, analysis and vector (in the
half precision in which the database keeps them), the failures, the runs and the folders. What it
does not hold is what is gone (files that vanished and were not pruned) and how unusable files
looked, which are opened once more by the next build.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from livi_index.generations import Generation
from livi_index.planning import chunks
from livi_index.records import (
    Analysis,
    Batch,
    Failure,
    FileRow,
    ModelChoice,
    Recording,
    Root,
    Run,
)
from livi_index.store import DATABASE, Store
from livi_index.vectors import sync

CHUNK_RECORDINGS = 500


def restore(place: Path, generation: Generation) -> Path | None:
    """Put a database made from a generation into a library; the caller holds ``write_lock``.

    Returns where the old one lies now, None if there was none. LibraryNotWritable where the disk
    refuses; the old one then stays in its place.
    """
    with TemporaryDirectory(prefix=".restoring-", dir=place) as folder:
        with Store(folder) as store:
            _fill(store, generation)
        aside = _set_aside(place)
        os.replace(Path(folder) / DATABASE, place / DATABASE)
    sync(place)
    return aside


def _set_aside(place: Path) -> Path | None:
    n = 1
    while os.path.lexists(aside := place / f"{DATABASE}.damaged-{n}"):
        n += 1
    # Its log first: a log without its database is lost, a database without its log is not.
    for suffix in (".wal", ""):
        old = place / f"{DATABASE}{suffix}"
        if old.exists():
            old.rename(f"{aside}{suffix}")
    return aside if aside.exists() else None


def _fill(store: Store, generation: Generation) -> None:
    ids = [row[0] for row in generation.ask("SELECT recording_id FROM recordings ORDER BY 1")]
    for some in chunks(ids, CHUNK_RECORDINGS):
        store.commit(_batch(generation, list(some)))
    columns = "path, code, message, decoder, content_hash, attempts, first_at, last_at"
    failures = generation.ask(f"SELECT {columns} FROM failures")
    store.commit(Batch(failures=[Failure(Path(os.fsdecode(f[0])), *f[1:]) for f in failures]))
    runs = "SELECT started_at, ended_at, model_id, counts FROM runs ORDER BY run_id"
    for started_at, ended_at, model_id, counts in generation.ask(runs):
        store.record_run(Run(started_at, ended_at, model_id, json.loads(counts)))
    store.remember_walk(list(_roots(generation)), {})
    if _has(generation, "model_choice"):
        for row in generation.ask("SELECT answers, target, since FROM model_choice"):
            store.choose(ModelChoice(*row))


def _has(generation: Generation, table: str) -> bool:
    """Whether it was published by a version that knew this table."""
    return (table,) in generation.ask("SELECT table_name FROM duckdb_tables()")


def _roots(generation: Generation) -> Iterator[Root]:
    if _has(generation, "roots"):
        rows = generation.ask("SELECT path, exclude, follow_symlinks FROM roots ORDER BY path")
        for path, exclude, follow in rows:
            yield Root(Path(os.fsdecode(path)), tuple(json.loads(exclude)), follow)


def _batch(generation: Generation, ids: list[int]) -> Batch:
    def rows(columns: str, table: str) -> list[tuple[Any, ...]]:
        where = "SEMI JOIN (SELECT unnest(?::BIGINT[]) AS recording_id) USING (recording_id)"
        return generation.ask(f"SELECT {columns} FROM {table} {where}", [ids])

    columns = (
        "path, root, size, mtime_ns, inode, device, recording_id, title, artist, album, year, isrc,"
        " work"
    )
    files = [
        FileRow(Path(os.fsdecode(path)), Path(os.fsdecode(root)), *rest)
        for path, root, *rest in rows(columns, "files")
    ]
    known = "recording_id, model_id, space, vocalness, sung, truncated, decoder, n_segments"
    analyses = [
        (replace(Analysis(*row), speech=speech), n_segments)
        for *row, n_segments, speech in rows(f"{known}, {generation.speech_column}", "analyses")
    ]
    return Batch(
        files=files,
        recordings=[
            Recording(*row) for row in rows("recording_id, content_hash, duration_s", "recordings")
        ],
        analyses=[
            _with_vectors(generation, plain) if n_segments else plain
            for plain, n_segments in analyses
        ],
    )


def _with_vectors(generation: Generation, plain: Analysis) -> Analysis:
    number = np.array([plain.recording_id])
    table = generation.segments_of(number, plain.space)
    return replace(
        plain,
        vector=generation.recording_vectors(number, plain.space)[0],
        start_s=table["start_s"],
        end_s=table["end_s"],
        vocalness=table["vocalness"],
        weight=table["weight"],
        vectors=generation.segment_vectors(table["segment_id"], plain.space),
        transcript=generation.transcripts_of(number, plain.space)[0],
    )
