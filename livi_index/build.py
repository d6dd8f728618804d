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
no audio, under a name that does not claim to be, is ``skipped`` and not seen. A run whose time is
up takes no more files: those that it did not come to are ``left`` for the next one, and not seen.

Where a library is being moved to another model (``moving``), that one then hears, in the time that
is left, known recordings that it has not heard; these are counted apart.

Folders that were named once are walked again by every run that names none. Only what lies below
the folders of a run can be found missing by it, and ``guard`` says what of that may leave.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from datetime import time as TimeOfDay
from pathlib import Path
from typing import Any, Literal

from livi_index.analysis import Analyst
from livi_index.database import write_lock
from livi_index.decode import DecodePool
from livi_index.guard import Held, Leaving, leaving
from livi_index.keeping import keep_bundle
from livi_index.ledger import SEEN, SHOWN_FAILURES, Done, Ledger, NewFailure
from livi_index.library import default_library
from livi_index.models import Bundle, usable_cpus
from livi_index.moving import (
    Models,
    Move,
    Transfer,
    begin,
    forget_models,
    models_for,
    newer_bundled,
    remove_note,
    write_note,
)
from livi_index.pipeline import Clock, Pipeline
from livi_index.planning import Copy, Label, Plan, Planner, Settled, check_codes, read_list
from livi_index.publishing import PublishOptions, publish
from livi_index.reading import Spoilt, Track, read
from livi_index.records import ModelChoice, Pruned, Root, Run
from livi_index.scan import AudioFile, Skipped, walk
from livi_index.scope import (
    nothing_there,
    open_store,
    outside,
    published_labels,
    published_model,
    roots_to_walk,
)
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
    exclude: tuple[str, ...] = ()  # globs as in .gitignore; kept with the folders
    follow_symlinks: bool = False  # kept with the folders
    files: Path | None = None  # a CSV file that names files, beside the folders
    model: str | None = None  # a name or a folder; default: what the library has or is moved to
    jobs: int = 0  # decoding processes; 0: one for each processor
    threads: int = 0  # of inference; 0: one for each processor
    max_minutes: float = 60.0  # of a file that are indexed; what is longer is marked as truncated
    max_hours: float | None = None  # that the run goes on taking files
    until: TimeOfDay | None = None  # local time until which it does
    prune: bool = False  # delete what is known of files that are gone
    force_prune: bool = False  # the same, and whatever the guard says
    retry: tuple[str, ...] = ()  # codes of failures to try again, or "all"
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
    spoken: int  # of those indexed: plain speech
    left: int  # files that the run did not come to before its time was up
    missing: int  # paths where nothing is any more, also of what was moved
    pruned: int  # recordings of which nothing is known any more
    held: tuple[Held, ...]  # folders that keep their files, though some are gone
    unseen: tuple[str, ...]  # named in this run, but not there or suddenly empty
    move: Move | None  # of the library, to another model
    moved: int  # recordings that the other model heard in this run
    move_failed: int  # files of such recordings that newly failed
    newer_model: str | None  # version of the library's model that has come with this package
    notices: tuple[str, ...]
    new_failures: tuple[NewFailure, ...]  # the first of them
    stages: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index build --json`` prints them."""
        move = self.move.to_json() if self.move else None
        return {"schema": SCHEMA, **asdict(self), "move": move}

    @property
    def complete(self) -> bool:
        """Whether everything could be read but what is known to be unreadable."""
        return not (self.failed or self.move_failed or self.unseen)


@dataclass(frozen=True)
class Progress:
    """How far a run is; ``total`` is 0 while it is not known."""

    stage: Literal["walk", "tracks", "move", "publish"]
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
    check_codes(options.retry)
    if not place.exists() and not any(map(os.path.lexists, (*named, *labels))):
        raise nothing_there(place, named, options.files)
    with write_lock(place), open_store(place) as store:
        walked = roots_to_walk(
            store,
            named,
            exclude=options.exclude,
            follow_symlinks=options.follow_symlinks,
            has_list=options.files is not None,
        )
        if not walked and not labels:
            raise nothing_there(place, named, options.files)
        models = models_for(place, store, options.model)
        return _Run(store, place, models, options, progress).go(walked, labels)


def _limit_s(options: BuildOptions, now: datetime) -> float | None:
    """How long a run that begins now takes files."""
    limits = [] if options.max_hours is None else [options.max_hours * 3600]
    if options.until is not None:
        end = datetime.combine(now, options.until)
        end += timedelta(days=end <= now)
        limits.append((end - now).total_seconds())
    return min(limits, default=None)


@dataclass(frozen=True)
class _Hearing:
    """A model that hears what a plan lists; ``standing`` is that of the move which it belongs to,
    when it began."""

    bundle: Bundle
    planner: Planner
    plan: Plan
    ledger: Ledger
    standing: Move | None = None


class _Run:
    """One run of ``build``."""

    def __init__(
        self,
        store: Store,
        place: Path,
        models: Models,
        options: BuildOptions,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._store = store
        self._place = place
        self._models = models
        self._options = options
        self._progress = progress
        self._clock = Clock(_limit_s(options, datetime.now()))
        self._written_s = self._published_s = 0.0
        self._mended: tuple[str, ...] = ()  # what was found damaged, and then published anew

    def go(self, roots: list[Root], labels: dict[Path, Label]) -> BuildReport:
        before = self._store.state
        self._remember_folders(roots)
        published = published_labels(self._place) if labels else {}
        card, retry = self._models.own.card, self._options.retry
        planner = Planner(self._store, card.model_id, card.space_names, labels, published, retry)
        with self._clock.time("walk"):
            plan = self._walk(planner, roots, labels)
        named = [root.path for root in roots]
        if plan.unseen and set(plan.unseen) >= {*named, *labels} and not plan.census.absent:
            raise nothing_there(self._place, named, self._options.files)
        self._models, said = begin(self._place, self._store, self._models)
        plan.notices += said
        ledger = Ledger(planner, plan)
        if plan.size:
            self._index(_Hearing(self._models.own, planner, plan, ledger))
        leaves = self._leaving(planner, plan)
        self._write(ledger, leaves)
        pruned = self._prune(plan, ledger, leaves)
        self._remember(plan, leaves)
        report = self._report(plan, ledger, leaves, pruned)
        report = self._move(report, ledger)
        if self._store.state != before:
            ended_at = self._clock.started_at + self._clock.seconds
            numbers = {k: v for k, v in report.to_json().items() if isinstance(v, int | float)}
            self._store.record_run(Run(self._clock.started_at, ended_at, card.model_id, numbers))
        return self._end(report, self._publish(ledger))

    def _move(self, report: BuildReport, ledger: Ledger) -> BuildReport:
        """Let the model that is to take over hear what it has not heard."""
        if not self._models.moving:
            return report
        self._publish(ledger)  # what is new is to answer before the long part
        force = self._options.force_prune
        transfer = Transfer(
            self._store, self._models, retry=self._options.retry, leave_absent=force
        )
        heard = Ledger(transfer.planner, transfer.plan)
        if transfer.plan.size and not self._clock.is_over:
            standing = transfer.standing()
            bundle = self._models.target
            self._index(_Hearing(bundle, transfer.planner, transfer.plan, heard, standing))
        self._write(heard)
        move = transfer.standing()
        write_note(self._place, move)
        if move.complete:
            # Before it is published: then at the worst the next run publishes it.
            self._models = replace(self._models, own=self._models.target)
            self._store.choose(ModelChoice(*self._models.choice, move.since))
        failures = (*report.new_failures, *heard.new_failures)
        return replace(
            report,
            audio_seconds=round(report.audio_seconds + heard.audio_seconds, 3),
            model=self._models.own.card.name,
            move=move,
            moved=heard.n_analysed,
            move_failed=heard.counts["failed"],
            new_failures=failures[:SHOWN_FAILURES],
        )

    def _walk(self, planner: Planner, roots: list[Root], labels: dict[Path, Label]) -> Plan:
        options = self._options
        everything = walk(
            [*roots, *labels], exclude=options.exclude, follow_symlinks=options.follow_symlinks
        )

        def told() -> Iterator[AudioFile | Skipped]:
            for number, item in enumerate(outside(self._place, everything)):
                if number % 1000 == 0:
                    self._tell("walk", number, 0)
                yield item

        return planner.plan(told(), [root.path for root in roots if not root.path.is_file()])

    def _leaving(self, planner: Planner, plan: Plan) -> Leaving:
        sizes = {file.size for file in plan.unopened}
        force = self._options.force_prune
        devices = self._store.devices()
        return leaving(plan.census, planner.arrived, sizes, devices, force=force)

    def _prune(self, plan: Plan, ledger: Ledger, leaves: Leaving) -> Pruned:
        options = self._options
        if not (options.prune or options.force_prune):
            return Pruned(0, 0)
        if ledger.n_done < plan.size:
            plan.notices.append("nothing was pruned, as not every new file was opened yet")
            return Pruned(0, 0)
        return self._store.prune(leaves.may_go(plan.census.roots))

    def _remember_folders(self, roots: list[Root]) -> None:
        """At once, since a first run may be stopped before it comes to its end."""
        known = {root.path: root for root in self._store.roots()}
        known |= {root.path: root for root in roots if root.path.is_dir()}
        self._store.remember_walk(list(known.values()), self._store.devices())

    def _remember(self, plan: Plan, leaves: Leaving) -> None:
        """On which devices folders are, and which of them is gone for good."""
        census, held = plan.census, {one.folder for one in leaves.held}
        # What is not there and not held has nothing that is known.
        lost = census.closed - held
        roots = [root for root in self._store.roots() if os.fspath(root.path) not in lost]
        walked = {*census.known, *census.seen}
        devices = {f: n for f, n in self._store.devices().items() if f in held or f not in walked}
        now = {folder: n for folder, n in census.devices().items() if folder not in held}
        self._store.remember_walk(roots, devices | now)

    def _index(self, hearing: _Hearing) -> None:
        bundle, plan, ledger = hearing.bundle, hearing.plan, hearing.ledger
        keep_bundle(self._place, bundle)
        threads = self._options.threads or usable_cpus()
        analyst = Analyst(bundle, threads, self._clock)
        stage: Literal["tracks", "move"] = "move" if hearing.standing else "tracks"
        with ExitStack() as stack:
            pool = stack.enter_context(_pool(self._options))
            line = Pipeline()
            stack.callback(line.join)
            stack.callback(pool.close)  # wakes the thread that waits for a decoder
            stack.callback(line.stop)
            tracks = read(hearing.planner, plan, pool, self._clock)
            try:
                for item in self._analysed(line, analyst, tracks):
                    ledger.add(item)
                    self._tell(stage, ledger.n_done, plan.size, ledger)
                    self._write_when_due(hearing)
            except BaseException:
                # Whatever ended the run, what is done is done.
                self._write_heard(hearing)
                raise

    def _analysed(
        self, line: Pipeline, analyst: Analyst, tracks: Iterator[Track | Settled | Copy | Spoilt]
    ) -> Iterator[Done]:
        if self._options.in_a_row:
            return analyst.analyse(tracks)
        decoded = line.ahead(tracks, DECODED_AHEAD_S, _weight_s)
        return line.ahead(analyst.analyse(decoded), DONE_AHEAD, lambda _: 1)

    def _write_when_due(self, hearing: _Hearing) -> None:
        ledger = hearing.ledger
        now_s = self._clock.seconds
        waited = now_s - self._written_s >= self._options.commit_s
        if ledger.n_pending and (waited or ledger.n_pending >= self._options.commit_tracks):
            self._write_heard(hearing)
            if not hearing.standing and now_s - self._published_s >= self._options.publish_s:
                self._publish(ledger)

    def _write_heard(self, hearing: _Hearing) -> None:
        self._write(hearing.ledger)
        if hearing.standing:
            write_note(self._place, hearing.standing.after(hearing.ledger.n_analysed))

    def _write(self, ledger: Ledger, leaves: Leaving | None = None) -> None:
        """Commit what is done; at the end, also what leaves."""
        lost = (leaves.missing, leaves.forgotten) if leaves else ()
        with self._clock.time("commit"):
            self._store.commit(ledger.batch(*lost))
        ledger.clear()
        self._written_s = self._clock.seconds

    def _publish(self, ledger: Ledger) -> int | None:
        if self._store.state.version == 0:
            return None
        self._tell("publish", ledger.n_done, ledger.n_done, ledger)
        model = published_model(self._models.own)
        with self._clock.time("publish"):
            options = PublishOptions(threads=usable_cpus())
            published = publish(self._store, self._place, model, options)
        self._mended += (published.damage,) if published.damage else ()
        self._published_s = self._clock.seconds
        return published.generation

    def _report(self, plan: Plan, ledger: Ledger, leaves: Leaving, pruned: Pruned) -> BuildReport:
        counts = {name: ledger.counts[name] for name in SEEN}
        return BuildReport(
            seen=sum(counts.values()),
            **counts,
            seconds=self._clock.seconds,
            audio_seconds=round(ledger.audio_seconds, 3),
            model=self._models.own.card.name,
            library=os.fspath(self._place),
            generation=None,
            skipped=ledger.counts["skipped"] + plan.left_out.total(),
            truncated=ledger.truncated,
            spoken=ledger.spoken,
            left=plan.size - ledger.n_done,
            missing=len(leaves.missing) + len(leaves.forgotten),
            pruned=pruned.recordings,
            held=leaves.held,
            unseen=self._unseen(plan, leaves),
            move=None,
            moved=0,
            move_failed=0,
            newer_model=self._newer_model(),
            notices=self._notices(plan, leaves),
            new_failures=tuple(ledger.new_failures),
            stages={},
        )

    def _newer_model(self) -> str | None:
        chosen = self._models.moving or self._options.model is not None
        return None if chosen else newer_bundled(self._models.own)

    def _unseen(self, plan: Plan, leaves: Leaving) -> tuple[str, ...]:
        """What was named and is not there; not what emptied itself by moving elsewhere."""
        held = {one.folder for one in leaves.held}
        fine = plan.census.empty | (plan.census.closed if self._options.force_prune else set())
        return tuple(
            path for path in map(os.fspath, plan.unseen) if path in held or path not in fine
        )

    def _notices(self, plan: Plan, leaves: Leaving) -> tuple[str, ...]:
        held = {one.folder for one in leaves.held}
        lost = [f"{root} is not there" for root in sorted(plan.census.closed - held)]
        return (*map(str, leaves.held), *lost, *plan.notices)

    def _end(self, report: BuildReport, generation: int | None) -> BuildReport:
        if report.move and report.move.complete:
            remove_note(self._place)
        notices = (*report.notices, *map(_told, self._mended))
        if self._options.prune or self._options.force_prune:
            notices += tuple(forget_models(self._place, self._store, self._models))
        stages = {str(name): round(s, 3) for name, s in self._clock.stages.items()}
        seconds = round(self._clock.seconds, 3)
        report = replace(
            report, generation=generation, seconds=seconds, stages=stages, notices=notices
        )
        # Beside the database: a run that finds nothing new leaves that untouched.
        note = {"started_at": self._clock.started_at, **report.to_json()}
        write_whole(self._place / LAST_RUN, json.dumps(note, indent=1).encode())
        return report

    def _tell(
        self,
        stage: Literal["walk", "tracks", "move", "publish"],
        done: int,
        total: int,
        ledger: Ledger | None = None,
    ) -> None:
        if self._progress is not None:
            failed = ledger.counts["failed"] if ledger else 0
            heard_s = ledger.audio_seconds if ledger else 0.0
            now_s = self._clock.seconds
            self._progress(Progress(stage, done, total, failed, heard_s, now_s))


def _told(damage: str) -> str:
    """The damage that a publication met, without the advice to build."""
    return f"{damage.partition(';')[0]}; all of it was made anew"


def _pool(options: BuildOptions) -> DecodePool:
    max_s = options.max_minutes * 60
    return DecodePool(
        options.jobs or usable_cpus(),
        # A second for a minute of audio is ten times what the slowest format takes.
        time_limit_s=max(60.0, options.max_minutes),
        memory_bytes=max(WORKER_BYTES, round(3 * SAMPLE_BYTES * max_s)),
        max_s=max_s,
    )


def _weight_s(item: object) -> float:
    return item.audio.duration_s if isinstance(item, Track) else 0.0
