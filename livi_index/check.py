"""Whether every promise of a library holds, and rebuilding what does not.

    database     it opens, every row that is read is whole, and its tables agree with each other
    published    what answers is byte for byte what was published, and what the database holds
    models       the models that are kept with it are what their cards say

``read_percent`` of the vectors and transcripts are compared one by one, and of the audio files
hashed again: a disk that forgets shows there first. Older generations are then compared as well;
no answer depends on them.

A repair publishes anew from the database, or, where that is what is damaged, restores it from the
newest generation that is whole (``restoring``). It deletes nothing: a damaged database stays beside
the new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from livi_index.database import write_lock
from livi_index.decode import DecodeFailure, DecodePool
from livi_index.errors import BadModel, LibraryDamaged, LibraryNotFound, LiviError
from livi_index.generations import (
    Generation,
    OtherFormat,
    current,
    current_number,
    generation,
    generations,
)
from livi_index.keeping import KEPT, keep_bundle
from livi_index.models import Bundle, find_model, open_bundle, usable_cpus, verify
from livi_index.moving import own_model
from livi_index.publishing import publish
from livi_index.records import IntArray, VectorChunk
from livi_index.restoring import restore
from livi_index.scan import identify, recording_id
from livi_index.scope import published_model
from livi_index.status import existing
from livi_index.store import DATABASE, Store
from livi_index.transcripts import PHONE_DTYPE

SCHEMA = 1
UNIT_TOLERANCE = 1e-3
PADDING_S = 31.0  # a last slice may reach beyond its recording

Part = Literal["database", "published", "models", "audio", "older"]

# Each counts rows that must not be.
_RULES = {
    "paths are listed twice": "SELECT count(*) - count(DISTINCT path) FROM files",
    "recordings are listed twice": "SELECT count(*) - count(DISTINCT recording_id) FROM recordings",
    "analyses are listed twice": "SELECT count(*) FROM (SELECT 1 FROM analyses"
    " GROUP BY recording_id, model_id, space HAVING count(*) > 1)",
    "segments share a number": "SELECT count(*) - count(DISTINCT segment_id) FROM segments",
    "segments have a number that was never given": "SELECT count(*) FROM segments"
    " WHERE segment_id < 1 OR segment_id > (SELECT max(last_segment) FROM changes)",
    "files name recordings that are not known": "SELECT count(*) FROM files ANTI JOIN recordings"
    " USING (recording_id) WHERE recording_id NOTNULL",
    "analyses are of recordings that are not known": "SELECT count(*) FROM analyses"
    " ANTI JOIN recordings USING (recording_id)",
    "segments belong to no analysis": "SELECT count(*) FROM segments ANTI JOIN analyses"
    " USING (recording_id, model_id, space)",
    "analyses lack some of their segments": "SELECT count(*) FROM analyses LEFT JOIN"
    " (SELECT recording_id, model_id, space, count(*) AS n FROM segments GROUP BY ALL)"
    " USING (recording_id, model_id, space) WHERE n_segments <> coalesce(n, 0)",
    "recordings are sung but have no vector": "SELECT count(*) FROM analyses"
    " WHERE sung AND vector IS NULL OR (vector NOTNULL) <> (n_segments > 0)",
    "vectors are of another length than the others": "SELECT count(*) FROM (SELECT 1 FROM"
    " (SELECT model_id, space, octet_length(vector) AS n FROM segments UNION"
    " SELECT model_id, space, octet_length(vector) FROM analyses WHERE vector NOTNULL)"
    " GROUP BY model_id, space HAVING count(*) > 1)",
    "transcripts are cut off": "SELECT count(*) FROM analyses"
    f" WHERE octet_length(transcript) % {PHONE_DTYPE.itemsize} <> 0",
    "segments lie outside of their recordings": "SELECT count(*) FROM segments JOIN recordings"
    " USING (recording_id) WHERE NOT (start_s >= 0 AND end_s > start_s"
    f" AND end_s <= duration_s + {PADDING_S})",
    "changes are missing from the history": "SELECT max(version) + 1 - count(*) FROM changes",
}


@dataclass(frozen=True)
class Problem:
    """A promise that does not hold."""

    part: Part
    what: str


@dataclass(frozen=True)
class CheckReport:
    """``problems`` are those that are left; ``repaired`` says what was done about the others."""

    library: str
    generation: int | None
    files: int
    recordings: int
    vectors_compared: int
    audio_hashed: int
    problems: tuple[Problem, ...]
    repaired: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index check --json`` prints them."""
        return {"schema": SCHEMA, **asdict(self)}


def check(
    library: str | Path | None = None, *, read_percent: float = 0.0, repair: bool = False
) -> CheckReport:
    """Look at everything, and with ``repair`` rebuild what can be rebuilt.

    Raises LibraryNotFound, LibraryLocked while a build is running, LibraryNotWritable.
    """
    place = existing(library)
    if not (place / DATABASE).exists() and not generations(place):
        raise LibraryNotFound(f"{place} is no library; `livi-index build FOLDER` makes one")
    with write_lock(place):
        report = _Look(place, read_percent).report()
        if not (repair and report.problems):
            return report
        repaired = tuple(_repair(place, {problem.part for problem in report.problems}))
        again = _Look(place, read_percent).report()
        return CheckReport(**{**vars(again), "repaired": repaired})


@dataclass
class _Look:
    """One look at a library."""

    place: Path
    read_percent: float
    problems: list[Problem] = field(default_factory=list)
    n_files: int = 0
    n_recordings: int = 0
    n_vectors: int = 0
    n_hashed: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng()

    def report(self) -> CheckReport:
        if self.read_percent > 0:
            self._older()
        number = None
        opened = self._published()
        try:
            number = opened.id if opened else None
            self._database(opened)
        finally:
            if opened:
                opened.close()
        self._models()
        return CheckReport(
            os.fspath(self.place), number, self.n_files, self.n_recordings, self.n_vectors,
            self.n_hashed, tuple(self.problems),
        )  # fmt: skip

    def _add(self, part: Part, what: object) -> None:
        self.problems.append(Problem(part, str(what)))

    def _older(self) -> None:
        try:
            now = current_number(self.place)
        except (LibraryDamaged, LibraryNotFound):
            now = 0
        for number in set(generations(self.place)) - {now}:
            try:
                generation(self.place, number).close()
            except LibraryDamaged as error:
                if not isinstance(error.__cause__, OtherFormat):  # an older edition's is no fault
                    self._add("older", f"{error}; it cannot be rolled back to")

    def _published(self) -> Generation | None:
        try:
            return current(self.place, recheck=True)
        except LibraryNotFound:
            return None  # nothing was indexed yet; if something was, the database tells
        except LibraryDamaged as error:
            self._add("published", error)
            return None

    def _database(self, opened: Generation | None) -> None:
        if not (self.place / DATABASE).exists():
            self._add("database", f"{self.place / DATABASE} is missing")
            return
        try:
            with Store(self.place) as store:
                self._tables(store)
                self._agreement(store, opened)
                if self.read_percent > 0:
                    self._vectors(store, opened)
                    self._audio(store)
        except LibraryDamaged as error:
            self._add("database", error)

    def _tables(self, store: Store) -> None:
        self.n_files = store.ask(
            "SELECT count(*) FROM files WHERE missing_at IS NULL AND recording_id NOTNULL"
        )[0][0]
        self.n_recordings = store.ask("SELECT count(*) FROM recordings")[0][0]
        for what, rule in _RULES.items():
            if n := store.ask(rule)[0][0]:
                self._add("database", f"{n:,} {what}")
        hashes = store.ask("SELECT recording_id, content_hash FROM recordings")
        if n := sum(recording_id(content) != number for number, content in hashes):
            self._add("database", f"{n:,} recordings have an id that their content does not give")

    def _agreement(self, store: Store, opened: Generation | None) -> None:
        if opened is None:
            if store.state.version and not any(p.part == "published" for p in self.problems):
                self._add("published", "what the database holds was never published")
            return
        if store.changed_since(opened.manifest.store, opened.manifest.model_id):
            self._add("published", "the database holds what is not published yet")
            return
        model_id = opened.manifest.model_id
        for space in opened.spaces:
            table = store.segments(model_id, space)
            if not np.array_equal(table, opened.segments(space)):
                self._add(
                    "published", f"other segments are published than the database holds ({space})"
                )
        # Both hash alike; a list of all would take as many objects of Python as there are files.
        count = "SELECT count(*), bit_xor(hash(path, recording_id)) FROM files WHERE {}"
        living = store.ask(count.format("missing_at IS NULL AND recording_id NOTNULL"))
        if living != opened.ask(count.format("true")):
            self._add("published", "other files are published than the database holds")

    def _vectors(self, store: Store, opened: Generation | None) -> None:
        if opened is None:
            return
        model_id = opened.manifest.model_id
        if store.changed_since(opened.manifest.store, model_id):
            return
        for space in opened.spaces:
            ids = self._some(np.ascontiguousarray(opened.segments(space)["segment_id"]))
            for chunk in store.segment_vectors(model_id, space, ids):
                self._compare(chunk, opened.segment_vectors(chunk.ids, space))
            ids = self._some(opened.recording_ids(space))
            for chunk in store.recording_vectors(model_id, space, ids):
                self._compare(chunk, opened.recording_vectors(chunk.ids, space))
            self._transcripts(store, opened, space, ids)

    def _some(self, ids: IntArray) -> IntArray:
        return np.asarray(ids[self._rng.random(len(ids)) * 100 < self.read_percent], np.int64)

    def _compare(self, chunk: VectorChunk, published: np.ndarray[Any, Any]) -> None:
        vectors = chunk.vectors.astype(np.float32)
        self.n_vectors += len(vectors)
        lengths = np.linalg.norm(vectors, axis=1)
        if n := int((~(np.abs(lengths - 1) <= UNIT_TOLERANCE)).sum()):
            self._add("database", f"{n:,} vectors are not of unit length")
        if n := int((vectors != published).any(axis=1).sum()):
            self._add("published", f"{n:,} vectors are others than the database holds")

    def _transcripts(self, store: Store, opened: Generation, space: str, ids: IntArray) -> None:
        held = dict(store.transcripts(opened.manifest.model_id, space, ids))
        published = zip(ids.tolist(), opened.transcripts_of(ids, space), strict=True)
        if n := sum(not np.array_equal(held.get(i, t[:0]), t) for i, t in published):
            self._add("published", f"{n:,} transcripts are others than the database holds")

    def _audio(self, store: Store) -> None:
        """Whether files that look as they did still hold what they held."""
        rows = store.ask(
            "SELECT path, size, mtime_ns, inode, content_hash FROM files JOIN recordings"
            " USING (recording_id) WHERE missing_at IS NULL ORDER BY path"
        )
        chosen = self._rng.random(len(rows)) * 100 < self.read_percent
        known = {
            Path(os.fsdecode(path)): content
            for (path, *looks, content), wanted in zip(rows, chosen, strict=True)
            if wanted and _looks(path) == tuple(looks)
        }
        with closing(DecodePool(usable_cpus())) as pool:
            for path, found in pool.map(identify, list(known)):
                self.n_hashed += 1
                if isinstance(found, DecodeFailure):
                    self._add("audio", f"{path} cannot be read any more: {found.reason}")
                elif found.content_hash != known[path]:
                    self._add("audio", f"{path} holds something else than when it was indexed")

    def _models(self) -> None:
        for bundle in _kept(self.place):
            try:
                verify(open_bundle(bundle))
            except BadModel as error:
                self._add("models", error)


def _looks(path: bytes) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None  # the next build finds that out
    return status.st_size, status.st_mtime_ns, status.st_ino


def _kept(place: Path) -> list[Path]:
    folder = place / KEPT
    return (
        sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    )


def _repair(place: Path, parts: set[Part]) -> Iterator[str]:
    if "models" in parts:
        yield from _repair_models(place)
    if "database" in parts:
        with _newest_whole(place) as source:
            aside = restore(place, source)
            yield (
                f"the database was restored from generation {source.id}; the old one is kept as"
                f" {aside.name}"
                if aside
                else f"the database was restored from generation {source.id}"
            )
    if parts & {"database", "published"}:
        with Store(place) as store:
            made = publish(store, place, published_model(own_model(place, store)))
            yield f"generation {made.generation} was published from the database"


def _newest_whole(place: Path) -> Generation:
    for number in reversed(generations(place)):
        try:
            return generation(place, number)
        except LibraryDamaged:
            continue
    raise LibraryDamaged(
        f"{place}: neither the database nor any generation is whole; put a backup in its place, or"
        " build the library anew"
    )


def _repair_models(place: Path) -> Iterator[str]:
    for folder in _kept(place):
        try:
            verify(open_bundle(folder))
        except BadModel:
            whole = _elsewhere(folder.name)
            if whole is None:
                continue
            aside = _free(folder.with_name(f".damaged-{folder.name[:12]}"))
            folder.rename(aside)
            keep_bundle(place, whole)
            yield f"model {whole.card.name} was copied again; the old copy is kept as {aside.name}"


def _elsewhere(model_id: str) -> Bundle | None:
    try:
        bundle = find_model(model_id)
        verify(bundle)
    except LiviError:
        return None
    return bundle


def _free(path: Path) -> Path:
    """The path, or a longer one where nothing is yet."""
    n = 1
    while os.path.lexists(chosen := path.with_name(f"{path.name}-{n}")):
        n += 1
    return chosen
