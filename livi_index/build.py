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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from livi_index.analysis import Analyst
from livi_index.database import write_lock
from livi_index.decode import DecodePool
from livi_index.errors import BadInput, BadModel, LibraryDamaged, LibraryNotFound
from livi_index.generations import current
from livi_index.ledger import SEEN, Done, Ledger, NewFailure
from livi_index.library import KEPT, default_library, keep_bundle
from livi_index.models import DEFAULT_MODEL, Bundle, find_model, open_bundle, usable_cpus
from livi_index.pipeline import Clock, Pipeline
from livi_index.planning import Copy, Label, Plan, Planner, Settled, read_list
from livi_index.publishing import PublishedModel, PublishOptions, Space, publish
from livi_index.reading import Spoilt, Track, read
from livi_index.records import Run
from livi_index.scan import AudioFile, Skipped, walk
from livi_index.store import Store
from livi_index.vectors import write_whole

SCHEMA = 1
LAST_RUN = "last-run.json"  # the report of the last run that came to its end
DECODED_AHEAD_S = 1200.0  # of audio that waits for its analysis: 77 MB
DONE_AHEAD = 16  # recordings that wait to be committed
SAMPLE_BYTES = 64_000  # of a second of decoded audio
WORKER_BYTES = 2 << 30


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
    missing: int  # paths where nothing is any more, also of what was moved
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
    place = Path(os.path.abspath(default_library() if library is None else library))
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
        self._clock = Clock()
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
        ledger = Ledger(planner, plan)
        if plan.size:
            self._index(planner, plan, ledger)
        self._write(ledger, plan)
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

    def _index(self, planner: Planner, plan: Plan, ledger: Ledger) -> None:
        keep_bundle(self._place, self._bundle)
        threads = self._options.threads or usable_cpus()
        analyst = Analyst(self._bundle, self._space.name, threads, self._clock)
        with ExitStack() as stack:
            pool = stack.enter_context(_pool(self._options))
            line = Pipeline()
            stack.callback(line.join)
            stack.callback(pool.close)  # wakes the thread that waits for a decoder
            stack.callback(line.stop)
            tracks = read(planner, plan, pool, self._clock)
            try:
                for item in self._analysed(line, analyst, tracks):
                    ledger.add(item)
                    self._tell("tracks", ledger.n_done, plan.size, ledger)
                    self._write_when_due(ledger)
            except BaseException:
                # Whatever ended the run, what is done is done.
                self._write(ledger)
                raise

    def _analysed(
        self, line: Pipeline, analyst: Analyst, tracks: Iterator[Track | Settled | Copy | Spoilt]
    ) -> Iterator[Done]:
        if self._options.in_a_row:
            return analyst.analyse(tracks)
        decoded = line.ahead(tracks, DECODED_AHEAD_S, _weight_s)
        return line.ahead(analyst.analyse(decoded), DONE_AHEAD, lambda _: 1)

    def _write_when_due(self, ledger: Ledger) -> None:
        now_s = self._clock.seconds
        waited = now_s - self._written_s >= self._options.commit_s
        if ledger.n_pending and (waited or ledger.n_pending >= self._options.commit_tracks):
            self._write(ledger)
            if now_s - self._published_s >= self._options.publish_s:
                self._publish(ledger)

    def _write(self, ledger: Ledger, plan: Plan | None = None) -> None:
        """Commit what is done; with the plan, at the end, also what is gone."""
        lost = (plan.missing, plan.forgotten) if plan else ()
        with self._clock.time("commit"):
            self._store.commit(ledger.batch(*lost))
        ledger.clear()
        self._written_s = self._clock.seconds

    def _publish(self, ledger: Ledger) -> int | None:
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

    def _report(self, plan: Plan, ledger: Ledger) -> BuildReport:
        counts = {name: ledger.counts[name] for name in SEEN}
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
            missing=len(plan.missing) + len(plan.forgotten),
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
        ledger: Ledger | None = None,
    ) -> None:
        if self._progress is not None:
            failed = ledger.counts["failed"] if ledger else 0
            heard_s = ledger.audio_seconds if ledger else 0.0
            now_s = self._clock.seconds
            self._progress(Progress(stage, done, total, failed, heard_s, now_s))


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


def _weight_s(item: object) -> float:
    return item.audio.duration_s if isinstance(item, Track) else 0.0
