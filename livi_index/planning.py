"""What a library lacks: the files that were found, held against the files that are known.

First by what the file system says: a file of known size, time and inode is not opened. Then, for
new and changed ones, by content: a recording that has been analysed needs nothing but the new
place, a content that could not be decoded is not tried again, the rest is a ``Job``.

Every file that was seen comes to one outcome. The first file of a recording stands for it
(``indexed``, ``instrumental``, ``reused``), every other one is a duplicate; a file that cannot be
used is ``failed``, or ``known_failed`` where nothing about it has changed since. What only the
system refused (permission, input and output, a file in the making) is tried again every time. What
cost its worker process is tried once more and then is in quarantine; that, and whatever else the
decoders failed at, is tried again when there is a new version of them, or when a run is told to.

A list is a CSV file: ``path``, and if there are such columns ``work``, ``title``, ``artist``, which
go before a file's own tags. Other columns, such as an id, are left alone.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar, get_args

from livi_index.audio import FailureCode, decoders
from livi_index.decode import DecodeFailure
from livi_index.errors import BadInput
from livi_index.guard import Absent, Census, below
from livi_index.records import Failure, FileRow, KnownFile
from livi_index.scan import AudioFile, Identity, Skipped, Tags, recording_id
from livi_index.store import Store

Outcome = Literal[
    "indexed", "instrumental", "reused", "duplicates", "failed", "known_failed", "skipped"
]

Item = TypeVar("Item")

REFUSED = frozenset({"permission", "not_regular", "io_error"})
TRIED_AGAIN = REFUSED | {"not_found", "changed"}
DEADLY = frozenset({"worker_died", "timeout"})  # codes of what cost its worker process
DEATHS = 2  # then it is in quarantine
_OF_DECODERS = DEADLY | {"no_audio_stream", "undecodable", "garbage", "too_short", "out_of_memory"}
EVERY = "all"  # to retry
# A file of another name is only audio if its content is; LICENSE is no damaged song.
_AUDIO_SUFFIX = re.compile(
    r"\.(aac|aif[cf]?|aiff|alac|ape|caf|flac|m4[ab]|mka|mp[234]|mpga|og[ag]|opus|w64|wave?|weba|wma"
    r"|wv)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Label:
    """What a list says of a file."""

    title: str | None = None
    artist: str | None = None
    work: str | None = None


@dataclass(frozen=True)
class Job:
    """A recording to analyse, by one of its files; ``row`` is None where the library has it.

    ``spaces`` are those in which it was not heard yet.
    """

    file: AudioFile
    recording_id: int
    content_hash: bytes | None
    row: FileRow | None
    spaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy:
    """A further file of a recording that has a job in this run and shares its outcome."""

    job: Job


@dataclass(frozen=True)
class Settled:
    """A file that needs no analysis, and what is to be written about it."""

    outcome: Outcome
    row: FileRow | None = None
    failure: Failure | None = None


@dataclass
class Plan:
    """The work of a run, as the walk shows it."""

    counts: Counter[Outcome] = field(default_factory=Counter)  # files that need nothing
    left_out: Counter[str] = field(default_factory=Counter)  # by the walk, by reason
    fresh: list[AudioFile] = field(default_factory=list)  # to be opened
    jobs: list[Job | Copy] = field(default_factory=list)  # known files that lack an analysis
    unopened: Sequence[AudioFile] = ()  # of the fresh ones, when a run ends early
    census: Census = field(default_factory=lambda: Census(()))  # what was found of what is known
    unseen: list[Path] = field(default_factory=list)  # named, but not there or suddenly empty
    notices: list[str] = field(default_factory=list)  # what could not be looked at

    @property
    def size(self) -> int:
        return len(self.fresh) + len(self.jobs)


def read_list(path: Path) -> dict[Path, Label]:
    """The files that a CSV file names; relative paths count from its folder. Raises BadInput."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise BadInput(f"{path} has no column called path; its first line names them")
            rows = [row for row in reader if row["path"]]
    except (OSError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as a list ({error})") from error
    base = Path(os.path.abspath(path)).parent
    return {Path(os.path.normpath(base / row["path"])): _label(row) for row in rows}


def _label(row: Mapping[str, str | None]) -> Label:
    def words(column: str) -> str | None:
        return " ".join((row.get(column) or "").split()) or None

    return Label(words("title"), words("artist"), words("work"))


def file_row(
    file: AudioFile, number: int | None, tags: Tags | None = None, label: Label | None = None
) -> FileRow:
    """What is kept of a file; no number: it cannot be used."""
    tags, label = tags or Tags(), label or Label()
    return FileRow(
        path=file.path,
        root=file.root,
        size=file.size,
        mtime_ns=file.mtime_ns,
        inode=file.inode,
        device=file.device,
        recording_id=number,
        title=label.title or tags.title,
        artist=label.artist or tags.artist,
        album=tags.album,
        year=tags.year,
        isrc=tags.isrc,
        work=label.work,
    )


class Planner:
    """What a library knows of files, recordings and failures, while a run goes through them."""

    def __init__(
        self,
        store: Store,
        model_id: str,
        spaces: Sequence[str],
        labels: Mapping[Path, Label] | None = None,
        published: Mapping[Path, Label] | None = None,
        retry: Collection[str] = (),
    ) -> None:
        """``retry``: codes of failures to try again, or EVERY."""
        self._retry = frozenset(retry)
        self._decoders = decoders()
        self._store = store
        self._failures = store.failures()
        self._heard = {space: store.analysed(model_id, space) for space in spaces}
        self._analysed = set.intersection(*self._heard.values())
        self._labels = labels or {}
        self._published = published or {}
        self._failed_contents = {
            f.content_hash: f
            for f in self._failures.values()
            if f.content_hash and not self._worth_a_try(f)
        }
        self._stand_for: set[int] = set()  # recordings that a file of this run stands for
        self._in_work: set[int] = set()
        self._tried_again: dict[Path, str] = {}  # codes
        self._new: set[Path] = set()  # paths that were not known
        self.arrived: set[int] = set()  # recordings that lie at such a path

    @cached_property
    def _files(self) -> dict[str, KnownFile]:
        return self._store.known_files()

    def plan_known(self, files: Iterable[tuple[AudioFile, int]]) -> Plan:
        """Go through known, unchanged files and their recordings, without a walk."""
        plan = Plan()
        for file, number in files:
            failure = self._failures.get(os.fspath(file.path))
            if failure is not None and not self._worth_a_try(failure):
                plan.counts["known_failed"] += 1
                continue
            if failure is not None:
                self._tried_again[file.path] = failure.code
            verdict = self._claim(Job(file, number, None, None))
            if isinstance(verdict, Job | Copy):
                plan.jobs.append(verdict)
            else:
                plan.counts[verdict] += 1
        return plan

    def plan(self, found: Iterable[AudioFile | Skipped], roots: Iterable[Path]) -> Plan:
        """Go through a walk. ``roots`` are the folders that may lose files by it."""
        census = Census([os.fspath(root) for root in dict.fromkeys(roots)])
        plan = Plan(census=census)
        before = [
            (path, known)
            for path, known in self._files.items()
            if not known.missing and any(census.folders_of(path))
        ]
        usable = (path for path, known in before if known.recording_id is not None)
        census.known.update(folder for path in usable for folder in census.folders_of(path))
        closed = []  # what could not be looked into
        for item in found:
            if isinstance(item, Skipped):
                self._note_skipped(item, plan)
                if item.reason in ("unreadable", "missing", "not_regular"):
                    closed.append(os.fspath(item.path))
            else:
                census.seen.update(census.folders_of(os.fspath(item.path)))
                self._sort(item, plan)
        shut = tuple(below(path) for path in closed if path not in census.roots)
        for path, known in before:
            if path in self._files and not f"{path}/".startswith(shut):
                census.absent.append(Absent(path, known.recording_id, known.size))
        self._find_unseen(plan, closed)
        return plan

    def _note_skipped(self, item: Skipped, plan: Plan) -> None:
        plan.left_out[item.reason] += 1
        if item.path in self._labels and item.reason == "missing":
            plan.unseen.append(item.path)
            plan.notices.append(f"{item.path} is in the list but not there")
        if item.reason == "unreadable":
            plan.notices.append(f"{item.path} cannot be read: {item.detail}")

    def _find_unseen(self, plan: Plan, closed: Sequence[str]) -> None:
        """Roots that are not there, or that are empty and were not."""
        census = plan.census
        absent = tuple(a.path for a in census.absent)
        for root in census.roots:
            lost = any(path.startswith(below(root)) for path in absent)
            if root in closed:
                census.closed.add(root)
            elif lost and not census.seen[root]:
                census.empty.add(root)
        plan.unseen += [Path(root) for root in census.roots if root in census.closed]
        plan.unseen += [Path(root) for root in census.roots if root in census.empty]

    def _sort(self, file: AudioFile, plan: Plan) -> None:
        verdict = self._by_stat(file)
        if verdict is None:
            plan.fresh.append(file)
        elif isinstance(verdict, Job | Copy):
            plan.jobs.append(verdict)
        else:
            plan.counts[verdict] += 1

    def _by_stat(self, file: AudioFile) -> Outcome | Job | Copy | None:
        """None for a file that must be opened."""
        known = self._files.pop(os.fspath(file.path), None)
        if known is None or known.missing:
            self._new.add(file.path)
            return None
        if not _unchanged(file, known) or self._renamed(file):
            return None
        if known.recording_id in self._analysed:
            return self._claim(Job(file, known.recording_id, None, None))
        failure = self._failures.get(os.fspath(file.path))
        if failure is not None:
            if not self._worth_a_try(failure):
                return "known_failed"
            self._tried_again[file.path] = failure.code
            return None
        if known.recording_id is None:
            return "skipped"
        return self._claim(Job(file, known.recording_id, None, None))

    def _renamed(self, file: AudioFile) -> bool:
        """Whether a list gives a file other words than those that are published."""
        label = self._labels.get(file.path, Label())
        old = self._published.get(file.path, Label())
        return any(
            new is not None and new != was
            for new, was in zip(
                (label.title, label.artist, label.work),
                (old.title, old.artist, old.work),
                strict=True,
            )
        )

    def _claim(self, job: Job) -> Outcome | Job | Copy:
        number = job.recording_id
        first = number not in self._stand_for
        self._stand_for.add(number)
        if number in self._analysed:
            return "reused" if first else "duplicates"
        self._in_work.add(number)
        lacking = tuple(space for space, heard in self._heard.items() if number not in heard)
        job = replace(job, spaces=lacking)
        return job if first else Copy(job)

    def settle(self, file: AudioFile, identity: Identity | DecodeFailure) -> Settled | Job | Copy:
        """What a file that was opened needs."""
        if isinstance(identity, DecodeFailure):
            return self.failed(file, identity)
        number = recording_id(identity.content_hash)
        if file.path in self._new:
            self.arrived.add(number)
        row = file_row(file, number, identity.tags, self._labels.get(file.path))
        known = self._failed_contents.get(identity.content_hash)
        if known is not None and number not in self._analysed:
            failure = replace(known, path=file.path)
            return Settled("known_failed", file_row(file, None), failure)
        verdict = self._claim(Job(file, number, identity.content_hash, row))
        return verdict if isinstance(verdict, Job | Copy) else Settled(verdict, row)

    def failed(
        self, file: AudioFile, why: DecodeFailure, content_hash: bytes | None = None
    ) -> Settled:
        """A file that cannot be used."""
        if why.code == "not_audio" and not _AUDIO_SUFFIX.fullmatch(file.path.suffix):
            return Settled("skipped", file_row(file, None))
        failure = Failure(file.path, why.code, why.reason, self._decoders, content_hash)
        if self._tried_again.get(file.path) != why.code:
            return Settled("failed", file_row(file, None), failure)
        # What the system refuses night after night is not written down every time.
        refused = why.code in TRIED_AGAIN and not self._retry
        return Settled("known_failed", None, None if refused else failure)

    def has_failed(self, path: Path) -> bool:
        """Whether an earlier run could not use a file."""
        return os.fspath(path) in self._failures

    def _worth_a_try(self, failure: Failure) -> bool:
        if failure.code in self._retry or EVERY in self._retry:
            return True
        return worth_a_try(failure, self._decoders)


def check_codes(retry: Collection[str]) -> None:
    """Raise BadInput for a code that no failure has."""
    known = (*get_args(FailureCode), EVERY)
    for code in retry:
        if code not in known:
            raise BadInput(f"no failure has the code {code!r}; there are: {', '.join(known)}")


def worth_a_try(failure: Failure, decoders: str) -> bool:
    """Whether it may go better with these decoders, without anybody asking for it."""
    if failure.code in TRIED_AGAIN:
        return True
    if failure.code in DEADLY and not in_quarantine(failure.code, failure.attempts):
        return True
    return failure.code in _OF_DECODERS and failure.decoder != decoders


def in_quarantine(code: str, attempts: int) -> bool:
    """Whether a file has killed so many workers that it is only tried when asked for."""
    return code in DEADLY and attempts >= DEATHS


def _unchanged(file: AudioFile, known: KnownFile) -> bool:
    return (file.size, file.mtime_ns, file.inode) == (known.size, known.mtime_ns, known.inode)


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in their order, ``size`` at a time."""
    return (items[first : first + size] for first in range(0, len(items), size))
