"""From files to samples: open what is new, settle what needs no more, decode the rest.

Files are taken a hundred or so at a time, opened and then decoded while the system still holds
them in memory. All of it happens in the worker processes of a ``DecodePool``; a file that changes
meanwhile is not used, since its samples may be of neither state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from livi_index.audio import Audio
from livi_index.decode import DecodeFailure, DecodePool
from livi_index.pipeline import Clock
from livi_index.planning import Copy, Job, Plan, Planner, Settled, chunks
from livi_index.scan import AudioFile, identify

CHUNK_FILES = 128


@dataclass(frozen=True, eq=False)
class Track:
    """A recording, decoded."""

    job: Job
    audio: Audio


@dataclass(frozen=True)
class Spoilt:
    """A job that came to nothing."""

    job: Job
    why: DecodeFailure


def read(
    planner: Planner, plan: Plan, pool: DecodePool, clock: Clock
) -> Iterator[Track | Settled | Copy | Spoilt]:
    """Open and decode: first what is known but lacks an analysis, then what is new.

    When the clock's time is up no further file is taken, and ``plan.unopened`` says which new
    ones were not looked at.
    """
    for known in chunks(plan.jobs, CHUNK_FILES):
        yield from (item for item in known if isinstance(item, Copy))
        yield from _decoded([job for job in known if isinstance(job, Job)], pool, clock)
    for n, files in enumerate(chunks(plan.fresh, CHUNK_FILES)):
        if clock.is_over:
            plan.unopened = plan.fresh[n * CHUNK_FILES :]
            return
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


def _decoded(jobs: list[Job], pool: DecodePool, clock: Clock) -> Iterator[Track | Spoilt]:
    by_path = {job.file.path: job for job in jobs}
    in_time = takewhile(lambda _: not clock.is_over, by_path)
    for path, audio in clock.each("decode", pool.decode_all(in_time)):
        job = by_path[path]
        if isinstance(audio, DecodeFailure):
            yield Spoilt(job, audio)
        elif _has_changed(job.file):
            reason = "it was written to or moved while it was read; the next run tries it again"
            yield Spoilt(job, DecodeFailure("changed", reason))
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
