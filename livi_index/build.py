"""Fill a library from folders: walk, plan, decode, find singing, encode, commit, publish.

Three stages run at the same time, joined by bounded queues: files are opened and decoded in worker
processes (``decode``), one thread finds the singing and encodes it (``analysis``), and the caller's
thread commits what is done. What was committed is kept whatever happens then; a run does only what
the library lacks (``planning``).

Every audio file that was seen comes to exactly one outcome:

    seen = indexed + instrumental + reused + duplicates + failed + known_failed

``indexed`` and ``instrumental`` are recordings analysed in this run, ``reused`` were analysed
before, ``duplicates`` are further files of a recording that another file of this run stands for,
``failed`` are new failures and ``known_failed`` those that an earlier run met. What turns out to be
no audio, under a name that does not claim to be, is ``skipped`` and not seen.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from livi_index.analysis import Analysed, Analyst, Track
from livi_index.database import write_lock
from livi_index.decode import DecodeFailure, DecodePool
from livi_index.errors import BadInput, BadModel, LibraryDamaged, LibraryNotFound
from livi_index.generations import current
from livi_index.library import KEPT, default_library, keep_bundle
from livi_index.models import DEFAULT_MODEL, Bundle, find_model, open_bundle, usable_cpus
from livi_index.pipeline import Pipeline
from livi_index.planning import (
    Copy,
    Job,
    Label,
    Outcome,
    Plan,
    Planner,
    Settled,
    chunks,
    read_list,
)
from livi_index.publishing import PublishedModel, PublishOptions, Space, publish
from livi_index.records import Analysis, Batch, Failure, FileRow, Recording, Run
from livi_index.scan import AudioFile, Skipped, identify, walk
from livi_index.store import Store
from livi_index.vectors import write_whole

SCHEMA = 1
LAST_RUN = "last-run.json"  # the report of the last run that came to its end
CHUNK_FILES = 128  # opened together, then decoded while the system still holds them in memory
DECODED_AHEAD_S = 1200.0  # of audio that waits for its analysis: 77 MB
DONE_AHEAD = 16  # recordings that wait to be committed
SHOWN_FAILURES = 20
SAMPLE_BYTES = 64_000  # of a second of decoded audio
WORKER_BYTES = 2 << 30

Stage = Literal["walk", "identify", "decode", "vocals", "encode", "commit", "publish"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class BuildOptions:
    exclude: tuple[str, ...] = ()  # globs as in .gitignore
    follow_symlinks: bool = False
    files: Path | None = None  # a CSV file that names files, beside the folders
    model: str | None = None  # a name or a folder; default: what the library was built with
    jobs: int = 0  # decoding processes; 0: one for each processor
    threads: int = 0  # of inference; 0: one for each processor
    max_minutes: float = 60.0  # of a file that are indexed; what is longer is marked as truncated
    commit_tracks: int = 100  # in one transaction, at most
    commit_s: float = 10.0  # from one transaction to the next, while tracks come
    publish_s: float = 3600.0  # from one publication to the next in a long build
    in_a_row: bool = False  # stages take turns in one thread


@dataclass(frozen=True)
class NewFailure:
    """A file that failed in this run, for the first time or in a new way."""

    path: str
    code: str
    message: str


@dataclass(frozen=True)
class BuildReport:
    """What a run did. ``stages`` are seconds at work; they overlap, as stages do."""

    seen: int
    indexed: int
    reused: int
    instrumental: int
    failed: int
    known_failed: int
    duplicates: int
    seconds: float
    audio_seconds: float  # of the recordings that were analysed
    model: str
    library: str
    generation: int | None  # that answers now; None where the library is still empty
    skipped: int  # files that are no audio, and whatever the walk left out
    truncated: int  # of those analysed: not heard to their end
    missing: int  # files that left the answers
    unseen: tuple[str, ...]  # named in this run, but not there or suddenly empty
    notices: tuple[str, ...]
    new_failures: tuple[NewFailure, ...]  # the first of them
    stages: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index build --json`` prints them."""
        return {"schema": SCHEMA, **asdict(self)}

    @property
    def complete(self) -> bool:
        """Whether everything could be read but what is known to be unreadable."""
        return not self.failed and not self.unseen


@dataclass(frozen=True)
class Progress:
    """How far a run is; ``total`` is 0 while it is not known."""

    stage: Literal["walk", "tracks", "publish"]
    done: int
    total: int
    failed: int
    audio_seconds: float
    seconds: float


@dataclass(frozen=True)
class _Spoilt:
    """A job that came to nothing."""

    job: Job
    why: DecodeFailure


_Done = Settled | Copy | Analysed | _Spoilt


def build(
    roots: Iterable[str | Path],
    library: str | Path | None = None,
    options: BuildOptions | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> BuildReport:
    """Make a library hold what lies under the roots, and publish it.

    Raises LibraryLocked, LibraryDamaged, LibraryNotWritable, BadModel, MissingRuntime, and BadInput
    where nothing of what was named is there. What was committed before is kept, and on leaving by
    any exception, also KeyboardInterrupt, what is analysed by then is committed.
    """
    options = options or BuildOptions()
    place = default_library() if library is None else Path(library)
    named = list(dict.fromkeys(Path(os.path.abspath(root)) for root in roots))
    labels = read_list(options.files) if options.files else {}
    if not place.exists() and not any(map(os.path.lexists, (*named, *labels))):
        raise _nothing_there(named, options)
    with write_lock(place), Store(place) as store:
        bundle = _model_for(place, store, options)
        return _Run(store, place, bundle, options, progress).go(named, labels)


def _nothing_there(named: Iterable[Path], options: BuildOptions) -> BadInput:
    what = ", ".join(map(str, named)) or f"what {options.files} lists"
    return BadInput(f"{what}: no such file or folder; name the folders that hold your music")


def _model_for(place: Path, store: Store, options: BuildOptions) -> Bundle:
    """The library's own model: vectors of two models say nothing about each other."""
    own = _own_model(place, store)
    if own is None:
        return find_model(options.model or DEFAULT_MODEL)
    if options.model is None:
        kept = place / KEPT / own
        return open_bundle(kept) if kept.is_dir() else find_model(own)
    bundle = find_model(options.model)
    if bundle.card.model_id != own:
        raise BadModel(
            f"{place} was built with another model than {bundle.card.name} {bundle.card.version};"
            " leave --model away, or name another --library for this model"
        )
    return bundle


def _own_model(place: Path, store: Store) -> str | None:
    try:
        with current(place) as generation:
            return generation.manifest.model_id
    except (LibraryDamaged, LibraryNotFound):
        runs = store.runs()
        return runs[-1].model_id if runs else None


def _published_labels(place: Path) -> dict[Path, Label]:
    try:
        with current(place) as generation:
            rows = generation.ask("SELECT path, title, artist, work FROM files")
    except (LibraryDamaged, LibraryNotFound):
        return {}
    return {Path(os.fsdecode(row[0])): Label(*row[1:]) for row in rows}


class _Clock:
    """Seconds that each stage was at work; each stage belongs to one thread."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self._started = time.monotonic()
        self.stages: dict[Stage, float] = defaultdict(float)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[stage] += time.monotonic() - started

    def each(self, stage: Stage, values: Iterator[Value]) -> Iterator[Value]:
        """The same values; the time until each comes is the stage's."""
        while True:
            with self.time(stage):
                found = list(zip((None,), values, strict=False))
            if not found:
                return
            yield found.pop()[1]


class _Ledger:
    """What has come of each file, and what of it is still to be written."""

    def __init__(self, planner: Planner, plan: Plan) -> None:
        self.counts: Counter[Outcome] = Counter(plan.counts)
        self.audio_seconds = 0.0
        self.truncated = 0
        self.new_failures: list[NewFailure] = []  # the first ones
        self.n_done = 0
        self._planner = planner
        self._came_to: dict[int, DecodeFailure | None] = {}  # of the recordings of this run
        self._copies: dict[int, list[Job]] = defaultdict(list)  # that wait for that
        self.clear()

    def clear(self) -> None:
        """Forget what was to be written."""
        self._rows: list[FileRow] = []
        self._recordings: list[Recording] = []
        self._analyses: list[Analysis] = []
        self._failures: list[Failure] = []

    @property
    def n_pending(self) -> int:
        return len(self._rows) + len(self._analyses)

    def batch(self, missing: Iterable[Path] = ()) -> Batch:
        return Batch(
            files=self._rows,
            recordings=self._recordings,
            analyses=self._analyses,
            failures=self._failures,
            missing=list(missing),
        )

    def add(self, item: _Done) -> None:
        if isinstance(item, Settled):
            self._settle(item)
        elif isinstance(item, Copy):
            self._add_copy(item.job)
        elif isinstance(item, _Spoilt):
            self._spoil(item.job, item.why)
            self._release(item.job.recording_id, item.why)
        else:
            self._add_analysed(item)
            self._release(item.job.recording_id, None)

    def _settle(self, item: Settled) -> None:
        self.counts[item.outcome] += 1
        self.n_done += 1
        self._rows += [item.row] if item.row else []
        if item.failure is not None:
            self._failures.append(item.failure)
            if item.outcome == "failed" and len(self.new_failures) < SHOWN_FAILURES:
                failure = item.failure
                path = os.fspath(failure.path)
                self.new_failures.append(NewFailure(path, failure.code, failure.message))

    def _spoil(self, job: Job, why: DecodeFailure) -> None:
        settled = self._planner.failed(job.file, why, job.content_hash)
        # A file that was fine once keeps its recording: another model has heard it.
        self._settle(settled if job.row else replace(settled, row=None))

    def _add_copy(self, job: Job) -> None:
        if job.recording_id not in self._came_to:
            self._copies[job.recording_id].append(job)
        elif why := self._came_to[job.recording_id]:
            self._spoil(job, why)
        else:
            self._settle(Settled("duplicates", job.row))

    def _add_analysed(self, item: Analysed) -> None:
        job = item.job
        self._settle(Settled("indexed" if item.analysis.sung else "instrumental", job.row))
        if job.content_hash is not None:
            self._recordings.append(Recording(job.recording_id, job.content_hash, item.duration_s))
        self._analyses.append(item.analysis)
        self.audio_seconds += item.duration_s
        self.truncated += item.analysis.truncated

    def _release(self, number: int, why: DecodeFailure | None) -> None:
        self._came_to[number] = why
        for job in self._copies.pop(number, ()):
            self._add_copy(job)


class _Run:
    """One run of ``build``."""

    def __init__(
        self,
        store: Store,
        place: Path,
        bundle: Bundle,
        options: BuildOptions,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._store = store
        self._place = place
        self._bundle = bundle
        self._options = options
        self._progress = progress
        self._clock = _Clock()
        self._space = bundle.card.spaces[0]
        self._written_s = self._published_s = 0.0

    def go(self, named: list[Path], labels: dict[Path, Label]) -> BuildReport:
        before = self._store.state
        published = _published_labels(self._place) if labels else {}
        model_id = self._bundle.card.model_id
        planner = Planner(self._store, model_id, self._space.name, labels, published)
        with self._clock.time("walk"):
            plan = self._walk(planner, named, labels)
        if plan.unseen and set(plan.unseen) >= {*named, *labels} and not plan.n_kept:
            raise _nothing_there(named, self._options)
        ledger = _Ledger(planner, plan)
        if plan.size:
            self._index(planner, plan, ledger)
        self._write(ledger, plan.missing)
        report = self._report(plan, ledger)
        if self._store.state != before:
            ended_at = self._clock.started_at + self._clock.seconds
            numbers = {k: v for k, v in report.to_json().items() if isinstance(v, int | float)}
            self._store.record_run(Run(self._clock.started_at, ended_at, model_id, numbers))
        return self._end(report, self._publish(ledger))

    def _walk(self, planner: Planner, named: list[Path], labels: dict[Path, Label]) -> Plan:
        options = self._options
        everything = walk(
            [*named, *labels], exclude=options.exclude, follow_symlinks=options.follow_symlinks
        )

        def told() -> Iterator[AudioFile | Skipped]:
            for number, item in enumerate(_outside(self._place, everything)):
                if number % 1000 == 0:
                    self._tell("walk", number, 0)
                yield item

        return planner.plan(told(), [path for path in named if not path.is_file()])

    def _index(self, planner: Planner, plan: Plan, ledger: _Ledger) -> None:
        keep_bundle(self._place, self._bundle)
        threads = self._options.threads or usable_cpus()
        analyst = Analyst(self._bundle, self._space.name, threads, self._clock.time)
        with ExitStack() as stack:
            pool = stack.enter_context(_pool(self._options))
            line = Pipeline()
            stack.callback(line.join)
            stack.callback(pool.close)  # wakes the thread that waits for a decoder
            stack.callback(line.stop)
            read = _read(planner, plan, pool, self._clock)
            try:
                for item in self._analysed(line, analyst, read):
                    ledger.add(item)
                    self._tell("tracks", ledger.n_done, plan.size, ledger)
                    self._write_when_due(ledger)
            except BaseException:
                # Whatever ended the run, what is done is done.
                self._write(ledger)
                raise

    def _analysed(
        self, line: Pipeline, analyst: Analyst, read: Iterator[Track | Settled | Copy | _Spoilt]
    ) -> Iterator[_Done]:
        if self._options.in_a_row:
            return analyst.analyse(read)
        decoded = line.ahead(read, DECODED_AHEAD_S, _weight_s)
        return line.ahead(analyst.analyse(decoded), DONE_AHEAD, lambda _: 1)

    def _write_when_due(self, ledger: _Ledger) -> None:
        now_s = self._clock.seconds
        waited = now_s - self._written_s >= self._options.commit_s
        if ledger.n_pending and (waited or ledger.n_pending >= self._options.commit_tracks):
            self._write(ledger)
            if now_s - self._published_s >= self._options.publish_s:
                self._publish(ledger)

    def _write(self, ledger: _Ledger, missing: Iterable[Path] = ()) -> None:
        with self._clock.time("commit"):
            self._store.commit(ledger.batch(missing))
        ledger.clear()
        self._written_s = self._clock.seconds

    def _publish(self, ledger: _Ledger) -> int | None:
        if self._store.state.version == 0:
            return None
        self._tell("publish", ledger.n_done, ledger.n_done, ledger)
        card = self._bundle.card
        spaces = (Space(self._space.name, self._space.dim),)
        model = PublishedModel(card.model_id, card.name, card.version, spaces)
        with self._clock.time("publish"):
            options = PublishOptions(threads=usable_cpus())
            published = publish(self._store, self._place, model, options)
        self._published_s = self._clock.seconds
        return published.generation

    def _report(self, plan: Plan, ledger: _Ledger) -> BuildReport:
        counts = {name: ledger.counts[name] for name in _SEEN}
        return BuildReport(
            seen=sum(counts.values()),
            **counts,
            seconds=self._clock.seconds,
            audio_seconds=round(ledger.audio_seconds, 3),
            model=self._bundle.card.name,
            library=os.fspath(self._place),
            generation=None,
            skipped=ledger.counts["skipped"] + plan.left_out.total(),
            truncated=ledger.truncated,
            missing=len(plan.missing),
            unseen=tuple(map(os.fspath, plan.unseen)),
            notices=tuple(plan.notices),
            new_failures=tuple(ledger.new_failures),
            stages={},
        )

    def _end(self, report: BuildReport, generation: int | None) -> BuildReport:
        stages = {str(name): round(s, 3) for name, s in self._clock.stages.items()}
        seconds = round(self._clock.seconds, 3)
        report = replace(report, generation=generation, seconds=seconds, stages=stages)
        # Beside the database: a run that finds nothing new leaves that untouched.
        note = {"started_at": self._clock.started_at, **report.to_json()}
        write_whole(self._place / LAST_RUN, json.dumps(note, indent=1).encode())
        return report

    def _tell(
        self,
        stage: Literal["walk", "tracks", "publish"],
        done: int,
        total: int,
        ledger: _Ledger | None = None,
    ) -> None:
        if self._progress is not None:
            failed = ledger.counts["failed"] if ledger else 0
            heard_s = ledger.audio_seconds if ledger else 0.0
            now_s = self._clock.seconds
            self._progress(Progress(stage, done, total, failed, heard_s, now_s))


_SEEN: tuple[Outcome, ...] = (
    "indexed", "instrumental", "reused", "duplicates", "failed", "known_failed",
)  # fmt: skip


def _pool(options: BuildOptions) -> DecodePool:
    max_s = options.max_minutes * 60
    return DecodePool(
        options.jobs or usable_cpus(),
        # A second for a minute of audio is ten times what the slowest format takes.
        time_limit_s=max(60.0, options.max_minutes),
        memory_bytes=max(WORKER_BYTES, round(3 * SAMPLE_BYTES * max_s)),
        max_s=max_s,
    )


def _outside(place: Path, items: Iterable[AudioFile | Skipped]) -> Iterator[AudioFile | Skipped]:
    """What is not of the library itself, which may lie among the songs."""
    own = os.path.realpath(place)
    inside: dict[Path, bool] = {}
    for item in items:
        folder = item.path.parent
        if folder not in inside:
            inside[folder] = f"{os.path.realpath(folder)}/".startswith(f"{own}/")
        if not inside[folder]:
            yield item


def _read(
    planner: Planner, plan: Plan, pool: DecodePool, clock: _Clock
) -> Iterator[Track | Settled | Copy | _Spoilt]:
    """Open and decode: first what is known but lacks an analysis, then what is new."""
    for known in chunks(plan.jobs, CHUNK_FILES):
        yield from (item for item in known if isinstance(item, Copy))
        yield from _decoded([job for job in known if isinstance(job, Job)], pool, clock)
    for files in chunks(plan.fresh, CHUNK_FILES):
        paths = [file.path for file in files]
        identities = dict(clock.each("identify", pool.map(identify, paths)))
        jobs = []
        for file in files:
            item = planner.settle(file, identities[file.path])
            if isinstance(item, Job):
                jobs.append(item)
            else:
                yield item
        yield from _decoded(jobs, pool, clock)


def _decoded(jobs: list[Job], pool: DecodePool, clock: _Clock) -> Iterator[Track | _Spoilt]:
    by_path = {job.file.path: job for job in jobs}
    for path, audio in clock.each("decode", pool.decode_all(by_path)):
        job = by_path[path]
        if isinstance(audio, DecodeFailure):
            yield _Spoilt(job, audio)
        elif _has_changed(job.file):
            reason = "it was written to or moved while it was read; the next run tries it again"
            yield _Spoilt(job, DecodeFailure("changed", reason))
        else:
            yield Track(job, audio)
        del audio  # not to be held until the next one comes


def _has_changed(file: AudioFile) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return True
    now = (status.st_size, status.st_mtime_ns, status.st_ino)
    return now != (file.size, file.mtime_ns, file.inode)


def _weight_s(item: object) -> float:
    return item.audio.duration_s if isinstance(item, Track) else 0.0
