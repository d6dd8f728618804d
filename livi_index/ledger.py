"""The books of a run: what has come of each file, and what of it is still to be written.

Further files of a recording that is being analysed wait here for what comes of it.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from livi_index.analysis import Analysed
from livi_index.decode import DecodeFailure
from livi_index.planning import Copy, Job, Outcome, Plan, Planner, Settled
from livi_index.reading import Spoilt
from livi_index.records import Analysis, Batch, Failure, FileRow, Recording

SHOWN_FAILURES = 20
SEEN: tuple[Outcome, ...] = (
    "indexed", "instrumental", "reused", "duplicates", "failed", "known_failed",
)  # fmt: skip

Done = Settled | Copy | Analysed | Spoilt


@dataclass(frozen=True)
class NewFailure:
    """A file that failed in this run, for the first time or in a new way."""

    path: str
    code: str
    message: str


class Ledger:
    """What has come of each file, and what of it is still to be written."""

    def __init__(self, planner: Planner, plan: Plan) -> None:
        self.counts: Counter[Outcome] = Counter(plan.counts)
        self.audio_seconds = 0.0
        self.truncated = 0
        self.spoken = 0
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
        self._recovered: list[Path] = []

    @property
    def n_pending(self) -> int:
        return len(self._rows) + len(self._analyses)

    @property
    def n_analysed(self) -> int:
        """Recordings, in this run."""
        return self.counts["indexed"] + self.counts["instrumental"]

    def batch(self, missing: Sequence[Path] = (), forgotten: Sequence[Path] = ()) -> Batch:
        return Batch(
            files=self._rows,
            recordings=self._recordings,
            analyses=self._analyses,
            failures=self._failures,
            missing=missing,
            forgotten=forgotten,
            recovered=self._recovered,
        )

    def add(self, item: Done) -> None:
        if isinstance(item, Settled):
            self._settle(item)
        elif isinstance(item, Copy):
            self._add_copy(item.job)
        elif isinstance(item, Spoilt):
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
            self._recover(job)

    def _add_analysed(self, item: Analysed) -> None:
        job = item.job
        self._settle(Settled("instrumental" if item.instrumental else "indexed", job.row))
        self._recover(job)
        if job.content_hash is not None:
            self._recordings.append(Recording(job.recording_id, job.content_hash, item.duration_s))
        self._analyses += item.analyses
        self.audio_seconds += item.duration_s
        self.truncated += item.truncated
        self.spoken += item.spoken

    def _recover(self, job: Job) -> None:
        if job.row is None and self._planner.has_failed(job.file.path):
            self._recovered.append(job.file.path)

    def _release(self, number: int, why: DecodeFailure | None) -> None:
        self._came_to[number] = why
        for job in self._copies.pop(number, ()):
            self._add_copy(job)
