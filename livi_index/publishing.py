"""Making a generation: build it beside, check it, name it.

Vectors are taken over from the generation that is current, and only what is new is added from the
database; files in which nothing changed are linked. All is made anew when the current one is of
another model or damaged, when the database has another history (a backup was put back), or when
more than a tenth of the vectors are dead. Where nothing is new, every byte that answers is read
again once a week: some disks forget, and no file then looks any different. Until the last step,
which replaces ``CURRENT``, readers see nothing of it; a crash at any moment leaves what was
current, and leftovers go next time.

The caller of ``publish`` holds ``write_lock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from livi_index import vectors
from livi_index.answers import SPOKEN
from livi_index.database import PUBLISHED, open_catalog, translated, write_lock
from livi_index.errors import BadInput, LibraryDamaged, LibraryNotFound
from livi_index.generations import (
    CATALOG,
    FORMAT,
    MANIFEST,
    SPAN_DTYPE,
    Generation,
    Manifest,
    OtherFormat,
    SpaceInfo,
    current,
    current_number,
    folder_name,
    generation,
    generations,
    is_due,
    name_current,
    remember,
)
from livi_index.records import IntArray, VectorChunk
from livi_index.shards import SHARD_SIZE, ShardedIndex
from livi_index.store import Store
from livi_index.transcripts import PHONE_DTYPE, Transcript
from livi_index.vectors import SavedFile, saved_file, sync

PARAMETERS: dict[str, int | str] = {
    "metric": vectors.METRIC,
    "dtype": vectors.DTYPE,
    "connectivity": vectors.CONNECTIVITY,
    "expansion_add": vectors.EXPANSION_ADD,
    "expansion_search": vectors.EXPANSION_SEARCH,
}
SAMPLE = 32  # vectors of each index that must find themselves
SELF_SCORE = 0.999
FOUND_SHARE = 0.5  # a graph search misses some, in a wrong file it misses nearly all
LEFTOVER = ".tmp-"
TAKEN_OVER = (".usearch", ".keys.npy", ".vectors.npy")
ADDED = 2048  # vectors at once: no signal is heard while a graph takes them

VectorsOf = Callable[[IntArray], Iterator[VectorChunk]]


@dataclass(frozen=True)
class Space:
    """A space of a model: its name and the dimension of its vectors."""

    name: str
    dim: int


@dataclass(frozen=True)
class PublishedModel:
    """The model whose vectors are published."""

    model_id: str
    name: str
    version: str
    spaces: tuple[Space, ...]


@dataclass(frozen=True)
class PublishOptions:
    threads: int = 0  # for building the graphs; 0 is all, 1 makes the same bytes every time
    keep: int = 3  # generations that stay on the disk
    shard_size: int = SHARD_SIZE  # vectors in one file
    dead_share: float = 0.1  # of an index, above which it is made anew


@dataclass(frozen=True)
class Publication:
    """The generation that is current now, whether it is a new one, and what was found damaged in
    the one before, if something was."""

    generation: int
    fresh: bool
    damage: str = ""


def publish(
    store: Store,
    library_dir: str | Path,
    model: PublishedModel,
    options: PublishOptions | None = None,
) -> Publication:
    """Make what the database holds of a model the current generation, if it is not already.

    LibraryNotWritable where the disk refuses, LibraryDamaged if the new files do not pass their
    checks; what was current stays so in both cases.
    """
    library, options = Path(os.path.realpath(library_dir)), options or PublishOptions()
    _remove_leftovers(library / PUBLISHED)
    with contextlib.ExitStack() as stack:
        base, damage = _base(store, library, model)
        if base is not None:
            stack.enter_context(base)
            spaces = tuple(Space(info.name, info.dim) for info in base.manifest.spaces)
            is_old = store.changed_since(base.manifest.store, model.model_id)
            complete = not is_old and spaces == model.spaces
            if complete and not is_due(library):
                return Publication(base.id, fresh=False)
            # Damage that left no trace would be taken over, signed anew and never be found.
            damage = _damage(base, (".npy", ".duckdb", ".usearch") if complete else TAKEN_OVER)
            if complete and not damage:
                remember(library, base.folder, base.manifest)
                return Publication(base.id, fresh=False)
            base = None if damage else base
        with translated(library / PUBLISHED):
            number = _publish(store, library, model, options, base)
            return Publication(number, fresh=True, damage=damage)


def roll_back(library_dir: str | Path, number: int | None = None) -> int:
    """Let an older generation answer, by default the one before the current, until the next build
    publishes; its number. Takes ``write_lock`` itself.

    BadInput where there is no such one, LibraryDamaged if it is not whole, LibraryLocked.
    """
    library = Path(os.path.realpath(library_dir))
    there = generations(library)
    if number is None:
        now = current_number(library)
        number = max((n for n in there if n < now), default=None)
    if number is None or number not in there:
        listed = ", ".join(map(str, there)) or "none"
        raise BadInput(f"{library} has no such older generation; on the disk: {listed}")
    with write_lock(library), generation(library, number) as chosen:
        digest = hashlib.sha256((chosen.folder / MANIFEST).read_bytes()).hexdigest()
        name_current(library, number, digest)
    return number


def _base(store: Store, library: Path, model: PublishedModel) -> tuple[Generation | None, str]:
    """The current generation, if a new one can go on from it, and what is damaged if it is."""
    try:
        base = current(library)
    except LibraryNotFound:
        return None, ""
    except LibraryDamaged as error:
        return None, "" if isinstance(error.__cause__, OtherFormat) else str(error)
    manifest = base.manifest
    same = (manifest.model_id, manifest.parameters) == (model.model_id, PARAMETERS)
    if same and store.remembers(manifest.store):
        return base, ""
    base.close()
    return None, ""


def _damage(base: Generation, suffixes: tuple[str, ...]) -> str:
    """What is wrong with files of a generation, after reading every byte of them."""
    try:
        base.compare(file for file in base.manifest.files if file.name.endswith(suffixes))
    except LibraryDamaged as error:
        return str(error)
    return ""


def _publish(
    store: Store,
    library: Path,
    model: PublishedModel,
    options: PublishOptions,
    base: Generation | None,
) -> int:
    published = library / PUBLISHED
    published.mkdir(parents=True, exist_ok=True)
    number = max([0, *generations(library)]) + 1
    draft, final = published / f"{LEFTOVER}{number}", published / folder_name(number)
    draft.mkdir()
    try:
        manifest = _write(store, draft, number, model, options, base)
        _check(store, draft, manifest, base)
        digest = hashlib.sha256((draft / MANIFEST).read_bytes()).hexdigest()
        for path in draft.iterdir():
            sync(path)
        sync(draft)
        os.rename(draft, final)
        sync(published)
        name_current(library, number, digest)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _clean_up(library, options.keep, number)
    # Last, since unlinking older names of the same files has touched their times.
    remember(library, final, manifest)
    return number


def _write(
    store: Store,
    draft: Path,
    number: int,
    model: PublishedModel,
    options: PublishOptions,
    base: Generation | None,
) -> Manifest:
    state = store.state
    spaces, files = [], []
    for space in model.spaces:
        info, written = _write_space(store, draft, model.model_id, space, options, base)
        spaces.append(info)
        files += written
    store.export_catalog(draft / CATALOG, model.model_id)
    files.append(saved_file(draft / CATALOG))
    manifest = Manifest(
        format=FORMAT,
        generation=number,
        created_at=time.time(),
        model_id=model.model_id,
        model_name=model.name,
        model_version=model.version,
        store=state,
        spaces=tuple(spaces),
        counts=_counts(draft / CATALOG),
        parameters=PARAMETERS,
        libraries={name: version(name) for name in ("duckdb", "numpy", "usearch")},
        files=tuple(files),
    )
    (draft / MANIFEST).write_bytes(manifest.to_bytes())
    return manifest


def _write_space(
    store: Store,
    draft: Path,
    model_id: str,
    space: Space,
    options: PublishOptions,
    base: Generation | None,
) -> tuple[SpaceInfo, list[SavedFile]]:
    name = space.name
    table = store.segments(model_id, name)
    spans = _spans(table)
    old_recordings = old_segments = None
    stale = np.zeros(0, np.int64)
    if base is not None and Space(name, space.dim) in _spaces_of(base):
        old_recordings, old_segments = base.index_of_recordings(name), base.index_of_segments(name)
        stale = store.reanalysed(model_id, name, base.manifest.store)
    recordings = _filled(
        space.dim,
        old_recordings,
        np.ascontiguousarray(spans["recording_id"]),
        stale,
        lambda ids: store.recording_vectors(model_id, name, ids, chunk=ADDED),
        options,
    )
    segments = _filled(
        space.dim,
        old_segments,
        np.ascontiguousarray(table["segment_id"]),
        np.zeros(0, np.int64),  # a new analysis has new segment ids
        lambda ids: store.segment_vectors(model_id, name, ids, chunk=ADDED),
        options,
    )
    transcripts = _save_transcripts(
        store.transcripts(model_id, name, np.ascontiguousarray(spans["recording_id"])),
        draft / f"transcripts.{name}.npy",
        spans,
    )
    files = [
        transcripts,
        *recordings.save(draft, f"recordings.{name}"),
        *segments.save(draft, f"segments.{name}"),
        _save_table(draft / f"recordings.{name}.npy", spans),
        _save_table(draft / f"segments.{name}.npy", table),
    ]
    dead = len(recordings) + len(segments) - len(spans) - len(table)
    return SpaceInfo(name, space.dim, len(spans), len(table), dead), files


def _spaces_of(generation: Generation) -> set[Space]:
    return {Space(info.name, info.dim) for info in generation.manifest.spaces}


def _filled(
    dim: int,
    old: ShardedIndex | None,
    living: IntArray,
    stale: IntArray,
    vectors_of: VectorsOf,
    options: PublishOptions,
) -> ShardedIndex:
    """The old index with what it lacks, or a new one; ``stale`` keys have other vectors now."""
    index = ShardedIndex(dim, shard_size=options.shard_size)
    if old is not None and not old.contains(stale).any():
        n_dead = len(old) - int(old.contains(living).sum())
        if n_dead <= options.dead_share * len(old):
            index, old.shard_size = old, options.shard_size
    for chunk in vectors_of(living[~index.contains(living)]):
        index.add(chunk.ids, chunk.vectors, threads=options.threads)
    assert index.contains(living).all()
    return index


def _spans(table: NDArray[np.void]) -> NDArray[np.void]:
    numbers, first, counts = np.unique(table["recording_id"], return_index=True, return_counts=True)
    spans = np.zeros(len(numbers), SPAN_DTYPE)
    spans["recording_id"], spans["first"], spans["count"] = numbers, first, counts
    last = table["recording_id"][first + counts - 1]
    assert (last == numbers).all(), "the segments of a recording are numbered in a row"
    return spans


def _save_transcripts(
    transcripts: Iterable[tuple[int, Transcript]], path: Path, spans: NDArray[np.void]
) -> SavedFile:
    """Write transcripts in a row, and note in ``spans`` where each lies."""
    numbers: list[int] = []
    lengths: list[int] = []
    with path.open("wb") as file:
        _write_header(file, 0)
        for number, transcript in transcripts:
            numbers.append(number)
            lengths.append(len(transcript))
            file.write(transcript.tobytes())
        file.seek(0)
        # As long as before: numpy leaves room for the number to grow.
        _write_header(file, sum(lengths))
    rows = np.searchsorted(spans["recording_id"], np.array(numbers, np.int64))
    spans["first_phone"][rows] = np.cumsum([0, *lengths])[:-1]
    spans["phones"][rows] = lengths
    return saved_file(path)


def _write_header(file: IO[bytes], n: int) -> None:
    header = {"descr": PHONE_DTYPE.descr, "fortran_order": False, "shape": (n,)}
    np.lib.format.write_array_header_1_0(file, header)


def _save_table(path: Path, table: NDArray[np.void]) -> SavedFile:
    np.save(path, table)
    return saved_file(path)


def _counts(catalog: Path) -> dict[str, int]:
    queries = {
        "files": "SELECT count(*) FROM files",
        "recordings": "SELECT count(*) FROM recordings",
        "indexed": "SELECT count(DISTINCT recording_id) FROM analyses WHERE sung",
        "instrumental": "SELECT count(*) FROM recordings ANTI JOIN (SELECT recording_id FROM"
        " analyses WHERE sung) USING (recording_id) SEMI JOIN analyses USING (recording_id)",
        "spoken": f"SELECT count(*) FROM analyses WHERE sung AND speech >= {SPOKEN}",
        "truncated": "SELECT count(DISTINCT recording_id) FROM analyses WHERE truncated",
        "segments": "SELECT coalesce(sum(n_segments), 0)::BIGINT FROM analyses WHERE sung",
        "failures": "SELECT count(*) FROM failures",
    }
    with open_catalog(catalog) as connection:
        rows = {name: connection.execute(query).fetchone() for name, query in queries.items()}
    return {name: int(row[0]) if row else 0 for name, row in rows.items()}


def _check(store: Store, draft: Path, manifest: Manifest, base: Generation | None) -> None:
    old = () if base is None else base.manifest.files
    for file in manifest.files:
        if file not in old and saved_file(draft / file.name) != file:
            raise LibraryDamaged(f"{draft / file.name} is not what was written into it")
    model_id = manifest.model_id
    with (draft / MANIFEST).open("rb") as hold, Generation(draft, manifest, hold) as made:
        for space in made.spaces:
            ids = _sample(made.recording_ids(space))
            truth = store.recording_vectors(model_id, space, ids)
            _check_index(draft, made.index_of_recordings(space), truth)
            for number, transcript in store.transcripts(model_id, space, ids):
                if not np.array_equal(
                    made.transcripts_of(np.array([number]), space)[0], transcript
                ):
                    raise LibraryDamaged(f"{draft}: transcripts are not where they should be")
            ids = _sample(made.segments(space)["segment_id"])
            truth = store.segment_vectors(model_id, space, ids)
            _check_index(draft, made.index_of_segments(space), truth)


def _check_index(draft: Path, index: ShardedIndex, truth: Iterator[VectorChunk]) -> None:
    for chunk in truth:
        expected = chunk.vectors.astype(np.float32)
        same = np.array_equal(index.get(chunk.ids), expected)
        top = index.search(expected, 1, threads=1).scores[:, 0]
        if not same or np.mean(top >= SELF_SCORE) < FOUND_SHARE:
            raise LibraryDamaged(
                f"{draft}: a new index does not find what is in it; nothing was published"
            )


def _sample(ids: IntArray) -> IntArray:
    chosen = np.random.default_rng(0).permutation(len(ids))[:SAMPLE]
    return np.asarray(ids[np.sort(chosen)], np.int64)


def _remove_leftovers(published: Path) -> None:
    for path in published.glob(f"{LEFTOVER}*"):
        shutil.rmtree(path, ignore_errors=True)


def _clean_up(library: Path, keep: int, now: int) -> None:
    published = library / PUBLISHED
    for number in generations(library)[:-keep]:
        if number != now:
            with contextlib.suppress(OSError):
                _remove(published / folder_name(number))
    _remove_leftovers(published)


def _remove(folder: Path) -> None:
    """Remove a generation; BlockingIOError, an OSError, while a reader holds it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            hold = stack.enter_context((folder / MANIFEST).open("rb"))
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under another name first, so that no half of it is ever taken for a generation.
        os.rename(folder, folder.with_name(f"{LEFTOVER}{folder.name}"))
