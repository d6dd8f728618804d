"""What readers open: immutable snapshots of a library, each whole, checked and named.

    published/000007/            one generation; nothing in it ever changes
        manifest.json            model, counts, parameters, SHA-256 and size of every file
        catalog.duckdb           what is known of files and recordings, without vectors
        recordings.lyrics.00.*   one vector a recording, key = recording id (``shards``)
        segments.lyrics.00.* …   one vector a segment, key = segment id
        segments.lyrics.npy      (n,) SEGMENT_DTYPE: times of the segments, grouped by recording
        transcripts.lyrics.npy   (n,) PHONE_DTYPE: what was read of one recording after the other
        recordings.lyrics.npy    (n,) SPAN_DTYPE: where each recording's part is in these two
    CURRENT                      number and manifest's SHA-256 of the one to open

``current`` opens it. Every file is compared with its SHA-256 before it is used; what was compared
is remembered in ``verified.json`` for as long as inode, size and times stay the same; what a disk
forgets without a word is found by builds, which read again what they take over, and all once a
week, and by ``check``. A reader holds a shared lock on the manifest, by which the clean-up sees
that it must wait.

The vector files may hold more than the two tables: what has left the library stays in them until
it is a tenth, and is filtered from every answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from livi_index.database import PUBLISHED, open_catalog, translated
from livi_index.errors import LibraryDamaged, LibraryNotFound
from livi_index.records import SEGMENT_DTYPE, FloatArray, IntArray, StoreState
from livi_index.shards import ShardedIndex, mapped
from livi_index.transcripts import PHONE_DTYPE, Transcript
from livi_index.vectors import Matches, SavedFile, best, saved_file, write_whole

FORMAT = 3  # what was published in another one is made anew by the next build
CURRENT = "CURRENT"
VERIFIED = "verified.json"
RECHECK_S = 7 * 86400.0  # after which builds do not believe it any more
MANIFEST = "manifest.json"
CATALOG = "catalog.duckdb"

_WANTED = "(SELECT unnest(?::BIGINT[]) AS recording_id)"

SPAN_DTYPE = np.dtype(
    [
        ("recording_id", "<i8"),
        ("first", "<i8"),
        ("count", "<i8"),
        ("first_phone", "<i8"),
        ("phones", "<i8"),
    ]
)


@dataclass(frozen=True)
class SpaceInfo:
    """One space of a generation; ``recordings`` and ``segments`` are those that answer, ``dead``
    counts vectors of both kinds that are still in the files but no longer answer."""

    name: str
    dim: int
    recordings: int
    segments: int
    dead: int


class OtherFormat(ValueError):
    """A manifest in the format of another edition of this program, which it names."""


@dataclass(frozen=True)
class Manifest:
    """What a generation says of itself."""

    format: int
    generation: int
    created_at: float
    model_id: str
    model_name: str
    model_version: str
    store: StoreState
    spaces: tuple[SpaceInfo, ...]
    counts: Mapping[str, int]
    parameters: Mapping[str, int | str]
    libraries: Mapping[str, str]
    files: tuple[SavedFile, ...]

    def to_bytes(self) -> bytes:
        """The one way in which it is written."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read what ``to_bytes`` wrote; ValueError, TypeError or KeyError for anything else, of
        which OtherFormat is one."""
        values = json.loads(content)
        if values["format"] != FORMAT:
            raise OtherFormat(f"{values['format']!r}")
        values["store"] = StoreState(*values["store"])
        values["spaces"] = tuple(SpaceInfo(**space) for space in values["spaces"])
        values["files"] = tuple(SavedFile(**file) for file in values["files"])
        return cls(**values)


@dataclass(frozen=True)
class RecordingInfo:
    """What to show of a recording: its first place, preferring one with a title, and its tags."""

    recording_id: int
    path: Path
    paths: tuple[Path, ...]  # every place, in order
    duration_s: float
    truncated: bool
    title: str | None
    artist: str | None
    album: str | None
    year: int | None
    isrc: str | None
    work: str | None


class _Space:
    """The files of one space, mapped."""

    def __init__(self, folder: Path, info: SpaceInfo, files: Collection[SavedFile]) -> None:
        names = sorted(file.name for file in files)

        def index(stem: str) -> ShardedIndex:
            wanted = re.compile(re.escape(stem) + r"\.\d+\.usearch")
            paths = [folder / name for name in names if wanted.fullmatch(name)]
            return ShardedIndex.open(paths, dim=info.dim, known=files)

        self.info = info
        self.recordings = index(f"recordings.{info.name}")
        self.segments = index(f"segments.{info.name}")
        self.table = mapped(folder / f"segments.{info.name}.npy", SEGMENT_DTYPE)
        self.spans = mapped(folder / f"recordings.{info.name}.npy", SPAN_DTYPE)
        self.phones = mapped(folder / f"transcripts.{info.name}.npy", PHONE_DTYPE)

    # Columns side by side in memory, as a search in them needs; made when first needed.

    @cached_property
    def segment_ids(self) -> IntArray:
        return np.ascontiguousarray(self.table["segment_id"])

    @cached_property
    def recording_ids(self) -> IntArray:
        return np.ascontiguousarray(self.spans["recording_id"])


class Generation:
    """One published state of a library, open for questions; made by ``current``.

    Answers come from this generation alone, however many are published meanwhile. Methods may be
    called from several threads. ``space`` names the space that is meant.
    """

    def __init__(self, folder: Path, manifest: Manifest, hold: IO[bytes]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._hold = hold
        self._spaces = {s.name: _Space(folder, s, manifest.files) for s in manifest.spaces}
        self._catalog: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the clean-up have it; arrays that were handed out stay valid."""
        if self._catalog is not None:
            self._catalog.close()
        self._hold.close()

    def compare(self, files: Iterable[SavedFile]) -> None:
        """Read these files of it again, whatever was compared before; LibraryDamaged."""
        for file in files:
            _compare(self.folder, file)

    @property
    def id(self) -> int:
        return self.manifest.generation

    @property
    def counts(self) -> Mapping[str, int]:
        return self.manifest.counts

    @property
    def spaces(self) -> tuple[str, ...]:
        return tuple(self._spaces)

    def index_of_recordings(self, space: str) -> ShardedIndex:
        """The vector files themselves, with what is dead in them."""
        return self._space(space).recordings

    def index_of_segments(self, space: str) -> ShardedIndex:
        """The vector files themselves, with what is dead in them."""
        return self._space(space).segments

    def segments(self, space: str) -> NDArray[np.void]:
        """All segments (n,) SEGMENT_DTYPE, by segment id, which groups them by recording."""
        return self._space(space).table

    def recording_ids(self, space: str) -> IntArray:
        """All recordings (n,) that have a vector in the space, ascending."""
        return self._space(space).recording_ids

    def search_recordings(
        self, queries: FloatArray, k: int, space: str, *, threads: int = 0
    ) -> Matches:
        """The k recordings nearest to each query (N, dim); keys are recording ids."""
        of = self._space(space)
        return _search(of.recordings, of.recording_ids, queries, k, threads)

    def search_segments(
        self, queries: FloatArray, k: int, space: str, *, threads: int = 0
    ) -> Matches:
        """The k segments nearest to each query (N, dim); keys are segment ids."""
        of = self._space(space)
        return _search(of.segments, of.segment_ids, queries, k, threads)

    def holds(self, recording_ids: IntArray, space: str) -> NDArray[np.bool_]:
        """Which of the recordings (n,) have vectors in the space, (n,) bool."""
        known = self._space(space).recording_ids
        # Not np.isin, which sorts all that is known again for every question.
        rows = np.searchsorted(known, recording_ids)
        here = rows < len(known)
        here[here] = known[rows[here]] == recording_ids[here]
        return np.asarray(here)

    def segments_of(self, recording_ids: IntArray, space: str) -> NDArray[np.void]:
        """The segments (n,) SEGMENT_DTYPE of these recordings, in their order; none for others."""
        of = self._space(space)
        spans = of.spans[_rows(of.recording_ids, recording_ids)]
        counts = spans["count"]
        before = np.cumsum(counts) - counts
        rows = np.arange(counts.sum()) + np.repeat(spans["first"] - before, counts)
        return np.asarray(of.table[rows])

    def transcripts_of(self, recording_ids: IntArray, space: str) -> list[Transcript]:
        """What was read of each of these recordings; empty for one of which nothing was.

        KeyError for a recording that is not here.
        """
        of = self._space(space)
        rows = _rows(of.recording_ids, recording_ids)
        if len(rows) != len(recording_ids):
            raise KeyError("recordings that are not in this generation")
        spans = of.spans[rows]
        bounds = zip(spans["first_phone"].tolist(), spans["phones"].tolist(), strict=True)
        return [of.phones[first : first + n] for first, n in bounds]

    def read_per_s(self, recording_ids: IntArray, space: str, whole: str) -> NDArray[np.float64]:
        """Phones (n,) that were read of these recordings in a second, by the length that another
        space has of them; not a number for one that is not in both."""
        read, heard = self._space(space), self._space(whole)
        both = self.holds(recording_ids, space) & self.holds(recording_ids, whole)
        ids = recording_ids[both]
        spans = heard.spans[_rows(heard.recording_ids, ids)]
        ends_s = heard.table["end_s"][spans["first"] + spans["count"] - 1]
        phones = read.spans["phones"][_rows(read.recording_ids, ids)]
        found = np.full(len(recording_ids), np.nan)
        found[both] = phones / np.maximum(ends_s, 1.0)
        return found

    def phones(self, space: str) -> int:
        """How many phones all transcripts have; 0 where the model does not read."""
        return len(self._space(space).phones)

    def recordings_of(self, segment_ids: IntArray, space: str) -> IntArray:
        """The recording (n,) of each of these segments; KeyError for one that is not here."""
        of = self._space(space)
        rows = _rows(of.segment_ids, segment_ids)
        if len(rows) != len(segment_ids):
            raise KeyError("segments that are not in this generation")
        return np.asarray(of.table["recording_id"][rows], np.int64)

    def segment_vectors(self, segment_ids: IntArray, space: str) -> NDArray[np.float32]:
        """The vectors (n, dim) of these segments; KeyError for one that is not here."""
        return self._space(space).segments.get(segment_ids)

    def recording_vectors(self, recording_ids: IntArray, space: str) -> NDArray[np.float32]:
        """The vectors (n, dim) of these recordings; KeyError for one that is not here."""
        return self._space(space).recordings.get(recording_ids)

    def metadata(self, recording_ids: Iterable[int]) -> dict[int, RecordingInfo]:
        """What is known of these recordings, of those that are here; also of instrumentals."""
        rows = self.ask(
            "SELECT recording_id, path, duration_s, truncated, title, artist, album, year, isrc,"
            f" work FROM files SEMI JOIN {_WANTED} USING (recording_id)",
            [[int(number) for number in recording_ids]],
        )
        places: dict[int, list[tuple[Any, ...]]] = {}
        for number, *row in rows:
            places.setdefault(number, []).append(tuple(row))
        return {number: _recording_info(number, rows) for number, rows in places.items()}

    def paths(self, recording_ids: Iterable[int]) -> dict[int, list[Path]]:
        """Every place where each of these recordings lies, in order."""
        rows = self.ask(
            f"SELECT recording_id, path FROM files SEMI JOIN {_WANTED} USING (recording_id)"
            " ORDER BY recording_id, path",
            [[int(number) for number in recording_ids]],
        )
        found: dict[int, list[Path]] = {}
        for number, path in rows:
            found.setdefault(number, []).append(Path(os.fsdecode(path)))
        return found

    def recording_at(self, path: str | Path) -> int | None:
        """The recording that lies at a path (absolute, as it was walked), if one does."""
        rows = self.ask("SELECT recording_id FROM files WHERE path = ?", [os.fsencode(path)])
        return int(rows[0][0]) if rows else None

    def ask(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of the catalog (tables files, recordings, analyses, failures, runs)."""
        path = self.folder / CATALOG
        if self._catalog is None:
            self._catalog = open_catalog(path)
        with translated(path), self._catalog.cursor() as cursor:
            return cursor.execute(query, list(values)).fetchall()

    @cached_property
    def speech_column(self) -> str:
        """How a query of the catalog names how much of a voice is speech; older ones lack it."""
        columns = self.ask("SELECT column_name FROM duckdb_columns() WHERE table_name = 'analyses'")
        return "speech" if ("speech",) in columns else "NULL::FLOAT"

    def _space(self, name: str) -> _Space:
        if name not in self._spaces:
            raise KeyError(f"no space {name!r} here; there are: {', '.join(self._spaces)}")
        return self._spaces[name]


def _recording_info(number: int, rows: list[tuple[Any, ...]]) -> RecordingInfo:
    """From rows (path, duration_s, truncated, title, …) of one recording, one for each place."""
    rows = sorted(rows, key=itemgetter(0))
    paths = [Path(os.fsdecode(row[0])) for row in rows]
    first = next((n for n, row in enumerate(rows) if row[3] is not None), 0)
    _, *shown = rows[first]
    return RecordingInfo(number, paths[first], tuple(paths), *shown)


def current(library_dir: str | Path, *, recheck: bool = False) -> Generation:
    """Open what a library answers with.

    LibraryNotFound where nothing is published; LibraryDamaged where a file is not what was
    published, naming it. ``recheck`` compares every byte again, whatever was compared before.
    """
    library = Path(library_dir)
    name = _read_current(library)
    while True:
        try:
            return _open(library, *name, recheck)
        except LibraryDamaged:
            # It may have been cleaned away between these two steps.
            if (now := _read_current(library)) == name:
                raise
            name = now


def generation(library_dir: str | Path, number: int) -> Generation:
    """Open one of ``generations``, current or not, after comparing every byte of it.

    Only ``CURRENT`` knows a manifest's SHA-256, so that of an older one is believed.
    """
    library = Path(library_dir)
    path = library / PUBLISHED / folder_name(number) / MANIFEST
    try:
        with _readable(path):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    return _open(library, number, digest, recheck=True)


def folder_name(generation: int) -> str:
    """The name of a generation's folder."""
    return f"{generation:06}"


def name_current(library: Path, generation: int, manifest_sha256: str) -> None:
    """Make a generation the one that is opened from now on."""
    write_whole(library / CURRENT, f"{folder_name(generation)} {manifest_sha256}\n".encode())


def generations(library: Path) -> list[int]:
    """The numbers of all generations on the disk, oldest first."""
    folder = library / PUBLISHED
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"\d{6,}", name))


def current_number(library: Path) -> int:
    """The generation that ``CURRENT`` names; raises as ``current``, without opening it."""
    return _read_current(library)[0]


def _read_current(library: Path) -> tuple[int, str]:
    try:
        with _readable(library / CURRENT):
            text = (library / CURRENT).read_text("ascii", "replace")
    except FileNotFoundError:
        if generations(library):
            raise _damaged(library / CURRENT, "is missing") from None
        raise LibraryNotFound(
            f"{library} holds nothing to ask yet; `livi-index build FOLDER` fills it"
        ) from None
    if not (parts := re.fullmatch(r"(\d{6,}) ([0-9a-f]{64})\n", text)):
        raise _damaged(library / CURRENT, "does not name a generation")
    return int(parts[1]), parts[2]


def _open(library: Path, generation: int, digest: str, recheck: bool) -> Generation:
    folder = library / PUBLISHED / folder_name(generation)
    with contextlib.ExitStack() as undo:
        try:
            with _readable(folder / MANIFEST):
                hold = undo.enter_context((folder / MANIFEST).open("rb"))
                with contextlib.suppress(OSError):  # a file system without locks: no protection
                    fcntl.flock(hold, fcntl.LOCK_SH)
                content = hold.read()
        except FileNotFoundError:
            raise _damaged(folder / MANIFEST, "is missing") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise _damaged(folder / MANIFEST, "is not the one that was published")
        try:
            manifest = Manifest.from_bytes(content)
        except OtherFormat as error:
            raise LibraryDamaged(
                f"{folder} was published by another version of livi-index (format {error}, this one"
                f" reads {FORMAT}); `livi-index build` publishes it anew, without computing"
                " anything again"
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(folder / MANIFEST, f"cannot be read ({error})") from error
        _verify(library, folder, manifest, recheck)
        opened = Generation(folder, manifest, hold)
        undo.pop_all()
        return opened


def _verify(library: Path, folder: Path, manifest: Manifest, recheck: bool) -> None:
    known = {} if recheck else _remembered(library)
    fresh = False
    for file in manifest.files:
        path = folder / file.name
        try:
            with _readable(path):
                if known.get(f"{folder.name}/{file.name}") != [*_looks(path), file.sha256]:
                    fresh = True
                    _compare(folder, file)
        except FileNotFoundError:
            raise _damaged(path, "is missing") from None
    if fresh:
        remember(library, folder, manifest)


def _compare(folder: Path, file: SavedFile) -> None:
    path = folder / file.name
    try:
        with _readable(path):
            found = saved_file(path)
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    if found != file:
        raise _damaged(path, "is not what was published")


def remember(library: Path, folder: Path, manifest: Manifest) -> None:
    """Note that the files of a generation were compared, so that they need not be again."""
    with contextlib.suppress(OSError):  # a library may be read-only
        seen = {
            f"{folder.name}/{file.name}": [*_looks(folder / file.name), file.sha256]
            for file in manifest.files
        }
        write_whole(library / VERIFIED, json.dumps(seen, indent=1).encode())


def is_due(library: Path) -> bool:
    """Whether it is long ago that every byte of what answers was compared."""
    try:
        return time.time() - (library / VERIFIED).stat().st_mtime > RECHECK_S
    except FileNotFoundError:
        return True


def _looks(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _remembered(library: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads((library / VERIFIED).read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Tell what the system says against reading a file; that it is not there is for the caller."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error


def _damaged(path: Path, what: str) -> LibraryDamaged:
    return LibraryDamaged(
        f"{path} {what}; `livi-index build` makes it anew from the library's database, without"
        " computing anything again"
    )


def _rows(ascending: NDArray[np.int64], wanted: IntArray) -> IntArray:
    """Where the wanted values are, in their order; those that are not there are left out."""
    wanted = np.asarray(wanted, np.int64)
    at = np.searchsorted(ascending, wanted)
    inside = at < len(ascending)
    inside[inside] = ascending[at[inside]] == wanted[inside]
    return np.asarray(at[inside], np.int64)


def _search(
    index: ShardedIndex, living: NDArray[np.int64], queries: FloatArray, k: int, threads: int
) -> Matches:
    """Search, and widen the search until the dead that were met leave k living, or there are no
    more."""
    if len(living) == len(index):
        return index.search(queries, k, threads=threads)
    k = min(k, len(living))
    asked = min(2 * k, len(index))
    while True:
        found = index.search(queries, asked, threads=threads)
        at = np.minimum(np.searchsorted(living, found.keys), max(len(living) - 1, 0))
        alive = living[at] == found.keys if len(living) else np.zeros(found.keys.shape, np.bool_)
        answer = best(found.keys, np.where(alive, found.scores, -np.inf), k)
        if asked >= len(index) or (answer.counts >= k).all():
            return answer
        asked = min(2 * asked, len(index))
