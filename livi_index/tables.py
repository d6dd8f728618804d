"""What is published, as tables for other programs: Parquet or CSV.

    recordings          one row a recording: id, hash, duration, tags, vocalness, how much of the
                        voice is plain speech, one of its paths
    files               one row a path
    recording_vectors   one row a recording with words: id and its unit vector, in parts
    segment_vectors     one row a segment: id, recording, times, vocalness, weight, unit vector

A Parquet file has paths as bytes beside a readable form, and vectors as lists of floats. CSV is for
people and spreadsheets: control and bidirectional characters are written as escapes, and text that
a spreadsheet would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from livi_index.database import quoted, translated
from livi_index.errors import BadInput
from livi_index.generations import CATALOG, Generation, current
from livi_index.scan import format_id
from livi_index.status import existing
from livi_index.text import cell

Format = Literal["parquet", "csv"]

CHUNK = 65_536  # vectors in one part
_ID = "printf('%016x', recording_id) AS recording_id"
_TAGS = "title, artist, album, year, isrc, work"
_TABLES = {
    "recordings": f"""
        SELECT {_ID}, hex(content_hash) AS content_hash, recordings.duration_s,
            display AS path,
            path AS path_bytes, n_paths, {_TAGS}, space, vocalness, {{speech}} AS speech, sung,
            analyses.truncated, n_segments
        FROM recordings
        JOIN analyses USING (recording_id)
        JOIN (SELECT *, count(*) OVER (PARTITION BY recording_id) AS n_paths,
            row_number() OVER (PARTITION BY recording_id ORDER BY title IS NULL, path) AS place
            FROM files) USING (recording_id)
        WHERE place = 1
        ORDER BY recording_id, space""",
    "files": f"""
        SELECT {_ID}, display AS path, path AS path_bytes, size, mtime_ns, {_TAGS}
        FROM files ORDER BY path""",
}


@dataclass(frozen=True)
class Written:
    """A file that was written."""

    path: str
    rows: int


@dataclass(frozen=True)
class Tables:
    """What was exported, and of what."""

    library: str
    generation: int
    files: tuple[Written, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index export --json`` prints them."""
        return {"schema": 1, **asdict(self)}


def export_tables(
    folder: str | Path,
    library: str | Path | None = None,
    *,
    format: Format = "parquet",
    vectors: bool = True,
) -> Tables:
    """Write everything that is published into a new or empty folder.

    Raises BadInput where the folder holds something, LibraryNotFound, LibraryDamaged, and
    LibraryNotWritable where the disk refuses.
    """
    target = Path(os.path.abspath(folder))
    place = existing(library)
    with current(place) as generation, translated(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise BadInput(f"{target} is there and not an empty folder; name a new one")
        target.mkdir(parents=True, exist_ok=True)
        writer = _Csv(target, generation) if format == "csv" else _Parquet(target, generation)
        with contextlib.closing(writer):
            files = [
                writer.table(name, query.format(speech=generation.speech_column))
                for name, query in _TABLES.items()
            ]
            for space in generation.spaces if vectors else ():
                files += _vectors(writer, generation, space)
        return Tables(os.fspath(place), generation.id, tuple(files))


def _vectors(writer: _Parquet | _Csv, generation: Generation, space: str) -> Iterator[Written]:
    for n, some in enumerate(_chunks(generation.recording_ids(space))):
        vectors = generation.recording_vectors(some, space)
        yield writer.vectors(f"recording_vectors.{space}.{n:03}", {"recording_id": some}, vectors)
    table = generation.segments(space)
    for n, rows in enumerate(_chunks(table)):
        vectors = generation.segment_vectors(np.ascontiguousarray(rows["segment_id"]), space)
        columns = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}
        yield writer.vectors(f"segment_vectors.{space}.{n:03}", columns, vectors)


def _chunks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))


class _Parquet:
    """DuckDB writes; it may read the catalog and write into the folder, and nothing else."""

    def __init__(self, folder: Path, generation: Generation) -> None:
        self._folder = folder
        catalog = generation.folder / CATALOG
        self._connection = duckdb.connect(config={
            "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
        })  # fmt: skip
        for statement in (
            f"ATTACH {quoted(catalog)} AS catalog (READ_ONLY)",
            "USE catalog",
            f"SET allowed_directories = [{quoted(f'{folder}/')}]",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self._connection.execute(statement)

    def close(self) -> None:
        self._connection.close()

    def table(self, name: str, query: str) -> Written:
        return self._copy(name, query)

    def vectors(
        self, name: str, columns: dict[str, NDArray[Any]], vectors: NDArray[np.float32]
    ) -> Written:
        parts = {f"v{i}": np.ascontiguousarray(column) for i, column in enumerate(vectors.T)}
        self._connection.register("chunk", {**columns, **parts})
        shown = ", ".join(_ID if name == "recording_id" else name for name in columns)
        written = self._copy(name, f"SELECT {shown}, [{', '.join(parts)}] AS vector FROM chunk")
        self._connection.unregister("chunk")
        return written

    def _copy(self, name: str, query: str) -> Written:
        path = self._folder / f"{name}.parquet"
        draft = path.with_name(f"{name}.parquet.draft")
        done = self._connection.execute(
            f"COPY ({query}) TO {quoted(draft)} (FORMAT parquet, COMPRESSION zstd)"
        ).fetchall()
        os.replace(draft, path)
        return Written(os.fspath(path), int(done[0][0]))


class _Csv:
    def __init__(self, folder: Path, generation: Generation) -> None:
        self._folder = folder
        self._generation = generation

    def close(self) -> None:
        """Nothing is open between two files."""

    def table(self, name: str, query: str) -> Written:
        query = f"SELECT * EXCLUDE (path_bytes) FROM ({query})"
        header = [row[0] for row in self._generation.ask(f"DESCRIBE {query}")]
        return self._write(name, header, self._generation.ask(query))

    def vectors(
        self, name: str, columns: dict[str, NDArray[Any]], vectors: NDArray[np.float32]
    ) -> Written:
        lists = [c.tolist() for c in columns.values()]
        at = list(columns).index("recording_id")
        lists[at] = [format_id(number) for number in lists[at]]
        words = (" ".join(f"{value:.6g}" for value in vector.tolist()) for vector in vectors)
        return self._write(name, [*columns, "vector"], zip(*lists, words, strict=True))

    def _write(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Written:
        path = self._folder / f"{name}.csv"
        draft = path.with_name(f"{name}.csv.draft")
        n = 0
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in rows:
                writer.writerow(map(cell, row))
                n += 1
        os.replace(draft, path)
        return Written(os.fspath(path), n)
