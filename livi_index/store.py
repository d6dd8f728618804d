"""The database of a library: what is known about every file, recording and segment.

``library.duckdb`` is the truth; all that readers open is made from it. One process writes it,
under ``write_lock``, and one ``Batch`` is one transaction: once ``commit`` has returned it is on
the disk, until then none of it is. Rows are appended to tables without keys or indexes (in whose
upkeep DuckDB's write-ahead log has had its faults); what replaces a row deletes it in the same
transaction. Every commit adds a row to ``changes``: a version number, the last segment number in
use, and a random token, by which a published generation knows the history it was made from. Where
only the answers of one model change by it, the row names that model.

Paths are bytes (``os.fsencode``), since file names need not be text; vectors are float16 bytes;
times of day are seconds since 1970.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from livi_index.database import (
    PUBLISHED,
    STORAGE_FORMAT,
    displayed,
    open_database,
    quoted,
    translated,
)
from livi_index.errors import BadInput
from livi_index.records import (
    SEGMENT_DTYPE,
    Analysis,
    Batch,
    Failure,
    FileRow,
    FloatArray,
    IntArray,
    KnownFile,
    ModelChoice,
    Pruned,
    Recording,
    Root,
    Run,
    StoreState,
    VectorChunk,
)
from livi_index.schema import MIGRATIONS
from livi_index.transcripts import PHONE_DTYPE, Transcript

DATABASE = "library.duckdb"
UNIT_TOLERANCE = 1e-3
CHUNK = 16_384  # vectors read at once
LOGGED = 10_000  # files, after which what is logged is packed: until then all of it is in memory


class Store:
    """The open database of the library in ``library_dir``, made if it is not there.

    LibraryLocked while another process has it open, LibraryDamaged if it cannot be read.
    """

    def __init__(self, library_dir: str | Path) -> None:
        folder = Path(os.path.realpath(library_dir))
        self.path = folder / DATABASE
        with translated(self.path, opening=True):
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = open_database(self.path, publishing_to=folder / PUBLISHED)
            try:
                self._migrate()
                state = self._connection.execute(
                    "SELECT version, token, last_segment FROM changes ORDER BY version DESC LIMIT 1"
                ).fetchone()
            except BaseException:
                self._connection.close()
                raise
        assert state is not None
        self._logged = 0
        self._state, self._last_segment = StoreState(*state[:2]), int(state[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing is pending, as every commit is already on the disk."""
        self._connection.close()

    def _migrate(self) -> None:
        run = self._connection.execute
        run("CREATE TABLE IF NOT EXISTS schema_versions (version INTEGER, applied_at DOUBLE)")
        row = run("SELECT coalesce(max(version), 0) FROM schema_versions").fetchone()
        done = int(row[0]) if row else 0
        if done > len(MIGRATIONS):
            raise BadInput(f"{self.path} was written by a newer livi-index; update this one")
        for number in range(done + 1, len(MIGRATIONS) + 1):
            with self._transaction():
                MIGRATIONS[number - 1](self._connection)
                run("INSERT INTO schema_versions VALUES (?, ?)", [number, time.time()])
        if done < len(MIGRATIONS):
            # Changes of the schema are what replaying the log has got wrong: leave none in it.
            run("CHECKPOINT")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("ROLLBACK")
            raise

    @property
    def state(self) -> StoreState:
        """Where its history stands; the same as long as nothing is committed."""
        return self._state

    def remembers(self, state: StoreState) -> bool:
        """Whether this database has been at ``state`` (not so after a restored backup)."""
        query = "SELECT 1 FROM changes WHERE version = ? AND token = ?"
        return bool(self._rows(query, list(state)))

    def changed_since(self, state: StoreState, model_id: str) -> bool:
        """Whether anything that this model's answers depend on is newer than ``state``."""
        if state == self._state:
            return False
        query = "SELECT 1 FROM changes WHERE version > ? AND coalesce(model_id, ?) = ? LIMIT 1"
        newer = self._rows(query, [state.version, model_id, model_id])
        return bool(newer) or not self.remembers(state)

    # writing

    def commit(self, batch: Batch) -> StoreState:
        """Write a batch in one transaction; on return it is on the disk.

        LibraryNotWritable where the disk refuses: nothing of the batch is then written.
        """
        if not any(getattr(batch, part.name) for part in fields(batch)):
            return self._state
        segments = [_segments_of(analysis) for analysis in batch.analyses]
        state = StoreState(self._state.version + 1, secrets.randbits(62))
        last = self._last_segment + sum(map(len, segments))
        with translated(self.path), self._transaction():
            self._write_recordings(batch.recordings)
            self._write_analyses(batch.analyses, segments, state.version)
            self._write_failures(batch)
            self._write_files(batch)
            self._insert("changes", [(*state, last, time.time(), _concerned(batch))])
        self._state, self._last_segment = state, last
        self._logged += len(batch.files)
        if self._logged >= LOGGED:
            with translated(self.path):
                self._connection.execute("CHECKPOINT")
            self._logged = 0
        return state

    def _write_recordings(self, recordings: Sequence[Recording]) -> None:
        ids = [recording.recording_id for recording in recordings]
        assert all(0 < number < 1 << 63 for number in ids) and len(set(ids)) == len(ids)
        known = "SELECT recording_id FROM recordings WHERE recording_id IN (SELECT unnest(?))"
        old = {row[0] for row in self._connection.execute(known, [ids]).fetchall()} if ids else ()
        now = time.time()
        new = [r for r in recordings if r.recording_id not in old]
        self._insert(
            "recordings", [(r.recording_id, r.content_hash, r.duration_s, now) for r in new]
        )

    def _write_analyses(
        self, analyses: Sequence[Analysis], segments: list[list[tuple[Any, ...]]], version: int
    ) -> None:
        for model_id, space in {(a.model_id, a.space) for a in analyses}:
            ids = [a.recording_id for a in analyses if (a.model_id, a.space) == (model_id, space)]
            assert len(set(ids)) == len(ids), "one analysis of a recording in a batch"
            where = (
                "WHERE recording_id IN (SELECT unnest(?::BIGINT[])) AND model_id = ? AND space = ?"
            )
            values = [ids, model_id, space]
            found = self._connection.execute(f"SELECT 1 FROM analyses {where} LIMIT 1", values)
            for table in ("segments", "analyses") if found.fetchall() else ():
                self._connection.execute(f"DELETE FROM {table} {where}", values)
        rows = [_analysis_row(a, len(s), version) for a, s in zip(analyses, segments, strict=True)]
        self._insert("analyses", rows)
        every = [row for of_one in segments for row in of_one]
        first = self._last_segment + 1
        self._insert("segments", [(first + n, *row) for n, row in enumerate(every)])

    def _write_failures(self, batch: Batch) -> None:
        paths = [os.fsencode(failure.path) for failure in batch.failures]
        assert len(set(paths)) == len(paths), "one failure of a path in a batch"
        known = (
            "SELECT path, content_hash, attempts, first_at FROM failures"
            " WHERE path IN (SELECT unnest(?))"
        )
        rows = self._connection.execute(known, [paths]).fetchall() if paths else []
        before = {row[0]: row[1:] for row in rows}
        fine = [os.fsencode(f.path) for f in batch.files if f.recording_id is not None]
        gone = map(os.fsencode, (*batch.forgotten, *batch.recovered))
        self._delete("failures", [*paths, *fine, *gone])
        new = []
        for path, failure in zip(paths, batch.failures, strict=True):
            content, attempts, first_at = before.get(path, (None, 0, failure.first_at))
            if content and failure.content_hash and content != failure.content_hash:
                attempts, first_at = 0, failure.first_at  # another recording lies there now
            new.append((path, displayed(failure.path), failure.content_hash, failure.code,
                        _text(failure.message), attempts + failure.attempts, first_at,
                        failure.last_at, failure.decoder))  # fmt: skip
        self._insert("failures", new)

    def _write_files(self, batch: Batch) -> None:
        paths = [os.fsencode(file.path) for file in batch.files]
        assert len(set(paths)) == len(paths), "one row of a path in a batch"
        if batch.missing:
            self._connection.execute(
                "UPDATE files SET missing_at = ? WHERE path IN (SELECT unnest(?::BLOB[]))",
                [time.time(), [os.fsencode(path) for path in batch.missing]],
            )
        self._delete("files", [*paths, *map(os.fsencode, batch.forgotten)])
        self._insert("files", map(_file_row, batch.files))

    def _delete(self, table: str, paths: list[bytes]) -> None:
        if paths:
            self._connection.execute(
                f"DELETE FROM {table} WHERE path IN (SELECT unnest(?::BLOB[]))", [paths]
            )

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        columns = list(map(list, zip(*rows, strict=True)))
        if not columns:
            return
        # One list a column: executemany costs half a millisecond a row.
        described = self._connection.execute(f"DESCRIBE {table}").fetchall()
        values = ", ".join(f"unnest(?::{column[1]}[])" for column in described)
        self._connection.execute(f"INSERT INTO {table} SELECT {values}", columns)

    def record_run(self, run: Run) -> None:
        """Note a finished build; this is no change of the library."""
        row = (run.started_at, run.ended_at, run.model_id, json.dumps(dict(run.counts)))
        with translated(self.path):
            self._connection.execute(
                "INSERT INTO runs SELECT coalesce(max(run_id), 0) + 1, ?, ?, ?, ? FROM runs", row
            )

    def remember_walk(self, roots: Sequence[Root], devices: Mapping[str, int]) -> None:
        """Note the folders of this library and the devices they are on, where that is new; no
        change of the library, as no answer depends on it."""
        if sorted(map(_root_row, self.roots())) != sorted(map(_root_row, roots)):
            self._replace("roots", map(_root_row, roots))
        if self.devices() != devices:
            self._replace("devices", [(os.fsencode(path), n) for path, n in devices.items()])

    def choose(self, choice: ModelChoice) -> None:
        """Note with which model the library answers and is to answer; no change of it."""
        self._replace("model_choice", [tuple(choice)])

    def forget_models(self, needed: Collection[str]) -> dict[str, int]:
        """Delete the analyses of all other models; how many of each there were."""
        query = "SELECT model_id, count(*) FROM analyses GROUP BY model_id ORDER BY model_id"
        gone = {name: int(n) for name, n in self._rows(query) if name not in needed}
        if gone:
            with translated(self.path), self._transaction():
                for table in ("segments", "analyses"):
                    self._connection.execute(
                        f"DELETE FROM {table} WHERE model_id IN (SELECT unnest(?))", [list(gone)]
                    )
        return gone

    def _replace(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with translated(self.path), self._transaction():
            self._connection.execute(f"DELETE FROM {table}")
            self._insert(table, rows)

    def prune(self, may_go: Callable[[str], bool]) -> Pruned:
        """Delete what is known of missing files whose path ``may_go``, and of all recordings that
        no file refers to any more."""
        gone = [p for p in self.missing_files() if may_go(p)]
        orphan = "recording_id NOT IN (SELECT recording_id FROM files WHERE recording_id NOTNULL)"
        with translated(self.path), self._transaction():
            self._delete("files", [os.fsencode(path) for path in gone])
            self._delete("failures", [os.fsencode(path) for path in gone])
            count = f"SELECT count(*) FROM recordings WHERE {orphan}"
            n_recordings = int(self._connection.execute(count).fetchall()[0][0])
            state = self._state
            if gone or n_recordings:
                for table in ("segments", "analyses", "recordings"):
                    self._connection.execute(f"DELETE FROM {table} WHERE {orphan}")
                state = StoreState(state.version + 1, secrets.randbits(62))
                self._insert("changes", [(*state, self._last_segment, time.time(), None)])
        self._state = state
        return Pruned(len(gone), n_recordings)

    # reading, for the plan of a build

    def roots(self) -> list[Root]:
        """The folders that were named in builds, and how to walk them, by path."""
        rows = self._rows("SELECT path, exclude, follow_symlinks FROM roots ORDER BY path")
        return [
            Root(Path(os.fsdecode(path)), tuple(json.loads(exclude)), follow)
            for path, exclude, follow in rows
        ]

    def devices(self) -> dict[str, int]:
        """The device on which each of these folders was, when it was last walked."""
        rows = self._rows("SELECT path, device FROM devices")
        return {os.fsdecode(path): int(device) for path, device in rows}

    def choice(self) -> ModelChoice | None:
        """What was last chosen, None where there never was a choice."""
        rows = self._rows("SELECT answers, target, since FROM model_choice")
        return ModelChoice(*rows[0]) if rows else None

    def missing_files(self) -> list[str]:
        """Paths where nothing is any more, that are still known."""
        rows = self._rows("SELECT path FROM files WHERE missing_at NOTNULL ORDER BY path")
        return [os.fsdecode(row[0]) for row in rows]

    def known_files(self) -> dict[str, KnownFile]:
        """Every file by its path (``os.fsdecode``), with those that are missing or unreadable."""
        rows = self._stream(
            "SELECT path, size, mtime_ns, inode, device, recording_id, missing_at IS NOT NULL"
            " FROM files"
        )
        return {os.fsdecode(row[0]): KnownFile._make(row[1:]) for row in rows}

    def unheard(self, model_id: str, spaces: Sequence[str]) -> dict[str, KnownFile]:
        """Files that are not missing, of recordings that lack an analysis in one of these spaces,
        by path."""
        rows = self._stream(
            "SELECT path, size, mtime_ns, inode, device, recording_id, false FROM files ANTI JOIN"
            " (SELECT recording_id FROM analyses WHERE model_id = ? AND space IN (SELECT unnest(?))"
            " GROUP BY recording_id HAVING count(*) = ?)"
            " USING (recording_id) WHERE recording_id NOTNULL AND missing_at IS NULL ORDER BY path",
            [model_id, list(spaces), len(spaces)],
        )
        return {os.fsdecode(row[0]): KnownFile._make(row[1:]) for row in rows}

    def n_present(self) -> int:
        """How many recordings lie somewhere."""
        query = "SELECT count(DISTINCT recording_id) FROM files WHERE missing_at IS NULL"
        return int(self._rows(query)[0][0])

    def recording_ids(self) -> set[int]:
        """All recordings that were ever seen."""
        return {row[0] for row in self._stream("SELECT recording_id FROM recordings")}

    def analysed(self, model_id: str, space: str) -> set[int]:
        """The recordings that need no analysis under this model and space."""
        query = "SELECT recording_id FROM analyses WHERE model_id = ? AND space = ?"
        return {row[0] for row in self._stream(query, [model_id, space])}

    def failures(self) -> dict[str, Failure]:
        """Every file that could not be indexed, by its path."""
        rows = self._stream(
            "SELECT path, code, message, decoder, content_hash, attempts, first_at, last_at"
            " FROM failures"
        )
        return {os.fsdecode(row[0]): Failure(Path(os.fsdecode(row[0])), *row[1:]) for row in rows}

    def runs(self) -> list[Run]:
        """Finished builds, oldest first."""
        query = "SELECT started_at, ended_at, model_id, counts FROM runs ORDER BY run_id"
        return [Run(row[0], row[1], row[2], json.loads(row[3])) for row in self._stream(query)]

    def totals(self) -> tuple[float, int]:
        """Seconds of all recordings, and bytes of one file of each."""
        rows = self._rows(
            "SELECT coalesce(sum(duration_s), 0), coalesce(sum(size), 0)::BIGINT FROM recordings"
            " JOIN (SELECT recording_id, min(size) AS size FROM files GROUP BY recording_id)"
            " USING (recording_id)"
        )
        return float(rows[0][0]), int(rows[0][1])

    # reading, for publishing

    def segments(self, model_id: str, space: str) -> NDArray[np.void]:
        """The segments (n,) SEGMENT_DTYPE of all recordings that still lie somewhere."""
        columns = ", ".join(f"s.{name}" for name in SEGMENT_DTYPE.names or ())
        with translated(self.path):
            found = self._connection.execute(
                f"SELECT {columns} FROM segments s SEMI JOIN "
                "(SELECT recording_id FROM files WHERE missing_at IS NULL) USING (recording_id)"
                " WHERE model_id = ? AND space = ? ORDER BY segment_id",
                [model_id, space],
            ).fetchnumpy()
        table = np.zeros(len(found["segment_id"]), SEGMENT_DTYPE)
        for name in SEGMENT_DTYPE.names or ():
            table[name] = found[name]
        return table

    def reanalysed(self, model_id: str, space: str, since: StoreState) -> IntArray:
        """Recordings (n,) whose analysis is newer than ``since``."""
        query = "SELECT recording_id FROM analyses WHERE model_id = ? AND space = ? AND version > ?"
        rows = self._rows(query, [model_id, space, since.version])
        return np.array([row[0] for row in rows], np.int64)

    def segment_vectors(
        self, model_id: str, space: str, ids: IntArray, *, chunk: int = CHUNK
    ) -> Iterator[VectorChunk]:
        """The vectors of these segments, in bounded chunks and in no promised order."""
        return self._vectors("segments", "segment_id", model_id, space, ids, chunk)

    def recording_vectors(
        self, model_id: str, space: str, ids: IntArray, *, chunk: int = CHUNK
    ) -> Iterator[VectorChunk]:
        """The vectors of these recordings, in bounded chunks and in no promised order."""
        return self._vectors("analyses", "recording_id", model_id, space, ids, chunk)

    def transcripts(
        self, model_id: str, space: str, ids: IntArray, *, chunk: int = CHUNK
    ) -> Iterator[tuple[int, Transcript]]:
        """What was read of these recordings, if something was, in no promised order."""
        with translated(self.path), self._connection.cursor() as cursor:
            cursor.register("wanted", {"recording_id": np.ascontiguousarray(ids, np.int64)})
            cursor.execute(
                "SELECT recording_id, transcript FROM analyses SEMI JOIN wanted USING"
                " (recording_id) WHERE model_id = ? AND space = ? AND transcript IS NOT NULL",
                [model_id, space],
            )
            while rows := cursor.fetchmany(chunk):
                for number, content in rows:
                    yield number, np.frombuffer(content, PHONE_DTYPE)

    def _vectors(
        self, table: str, key: str, model_id: str, space: str, ids: IntArray, chunk: int
    ) -> Iterator[VectorChunk]:
        if len(ids) == 0:
            return
        with translated(self.path), self._connection.cursor() as cursor:
            cursor.register("wanted", {key: np.ascontiguousarray(ids, np.int64)})
            cursor.execute(
                f"SELECT {key}, vector FROM {table} SEMI JOIN wanted USING ({key})"
                " WHERE model_id = ? AND space = ? AND vector IS NOT NULL",
                [model_id, space],
            )
            while rows := cursor.fetchmany(chunk):
                flat = np.frombuffer(b"".join(row[1] for row in rows), np.float16)
                numbers = np.array([row[0] for row in rows], np.int64)
                yield VectorChunk(numbers, flat.reshape(len(rows), -1))

    def export_catalog(self, path: Path, model_id: str) -> None:
        """Write the read-only copy that readers answer from: no vectors, only what still lies
        somewhere, and in ``files`` all that is shown of a hit, since planning a join takes longer
        than looking it up. ``path`` must be inside the library's ``published`` folder."""
        located = "(SELECT recording_id FROM files WHERE missing_at IS NULL)"
        cut_short = (
            "(SELECT DISTINCT recording_id, true AS truncated FROM analyses"
            f" WHERE truncated AND model_id = {quoted(model_id)})"
        )
        tables = {
            "files": "SELECT files.* EXCLUDE (missing_at), duration_s,"
            " coalesce(truncated, false) AS truncated"
            f" FROM files JOIN recordings USING (recording_id) LEFT JOIN {cut_short}"
            " USING (recording_id) WHERE missing_at IS NULL ORDER BY recording_id, path",
            "recordings": "SELECT * FROM recordings"
            f" SEMI JOIN {located} USING (recording_id) ORDER BY recording_id",
            "analyses": "SELECT * EXCLUDE (vector, transcript) FROM analyses"
            f" SEMI JOIN {located} USING (recording_id) WHERE model_id = {quoted(model_id)}"
            " ORDER BY recording_id, space",
            "failures": "SELECT * FROM failures ORDER BY path",
            "runs": "SELECT * FROM runs ORDER BY run_id",
            "roots": "SELECT * FROM roots ORDER BY path",
            "model_choice": "SELECT * FROM model_choice",
        }
        run = self._connection.execute
        with translated(self.path):
            run(f"ATTACH {quoted(path)} AS catalog (STORAGE_VERSION '{STORAGE_FORMAT}')")
            try:
                for name, query in tables.items():
                    run(f"CREATE TABLE catalog.{name} AS {query}")
                run("CHECKPOINT catalog")
            finally:
                run("DETACH catalog")

    def ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of any table, for checks; raises as all reading does."""
        return self._rows(query, values)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._connection.execute(query, values).fetchall()

    def _stream(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with translated(self.path), self._connection.cursor() as cursor:
            cursor.execute(query, values)
            while rows := cursor.fetchmany(CHUNK):
                yield from rows


def _concerned(batch: Batch) -> str | None:
    """The one model that the batch is about, if it is about nothing else."""
    filled = {part.name for part in fields(batch) if getattr(batch, part.name)}
    models = {analysis.model_id for analysis in batch.analyses}
    return models.pop() if filled == {"analyses"} and len(models) == 1 else None


def _segments_of(analysis: Analysis) -> list[tuple[Any, ...]]:
    if analysis.vector is None or analysis.vectors is None:
        assert analysis.vector is None and analysis.vectors is None and not len(analysis.start_s)
        return []
    vectors = _half(analysis.vectors)
    keys = (analysis.recording_id, analysis.model_id, analysis.space)
    columns = (analysis.start_s, analysis.end_s, analysis.vocalness, analysis.weight)
    times = zip(*(np.asarray(column, np.float64).tolist() for column in columns), strict=True)
    rows = [(*keys, *row, v.tobytes()) for row, v in zip(times, vectors, strict=True)]
    assert rows, "a vector of the whole comes from segments"
    return rows


def _analysis_row(analysis: Analysis, n_segments: int, version: int) -> tuple[Any, ...]:
    vector = None if analysis.vector is None else _half(analysis.vector[None])[0].tobytes()
    transcript = None if analysis.transcript is None else analysis.transcript.tobytes()
    return (
        analysis.recording_id, analysis.model_id, analysis.space, version,
        float(analysis.track_vocalness), bool(analysis.sung), bool(analysis.truncated),
        analysis.decoder, n_segments, vector, transcript, analysis.speech,
    )  # fmt: skip


def _root_row(root: Root) -> tuple[bytes, str, str, bool]:
    words = json.dumps(root.exclude)
    return os.fsencode(root.path), displayed(root.path), words, root.follow_symlinks


def _file_row(file: FileRow) -> tuple[Any, ...]:
    words = (_text(file.title), _text(file.artist), _text(file.album))
    return (
        os.fsencode(file.path), displayed(file.path), os.fsencode(file.root), file.size,
        file.mtime_ns, file.inode, file.device, file.recording_id, *words, file.year,
        _text(file.isrc), _text(file.work), None,
    )  # fmt: skip


def _half(vectors: FloatArray) -> NDArray[np.float16]:
    # Written so that NaN fails it too: DuckDB would take it without a word.
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    if not (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
        raise ValueError("vectors must be finite and of unit length")
    return np.ascontiguousarray(vectors, np.float16)


def _text(value: str | None) -> str | None:
    return None if value is None else value.encode("utf-8", "replace").decode("utf-8")
