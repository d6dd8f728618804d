"""What a build would do, without doing it.

The walk is the real one, and so is the comparison with what is known; nothing is opened, decoded or
written. So a file that is new here may turn out to be a known one that was moved, and what is no
audio counts until it is opened: the numbers are upper bounds. Time and disk are estimated from what
this library took so far on this machine; before its first build there is no estimate of time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from livi_index.build import BuildOptions
from livi_index.database import PUBLISHED, write_lock
from livi_index.guard import Held, leaving
from livi_index.library import default_library
from livi_index.models import Bundle
from livi_index.moving import Move, Transfer, models_for
from livi_index.planning import Job, Plan, Planner, check_codes, read_list
from livi_index.scan import walk
from livi_index.scope import (
    nothing_there,
    open_store,
    outside,
    published_labels,
    roots_to_walk,
)
from livi_index.status import bytes_below
from livi_index.store import DATABASE, Store

SCHEMA = 1
RUNS = 10  # of which the speed is taken
BYTES_PER_S = 20_000.0  # of audio, before anything is known: 160 kbit/s
SEGMENT_EVERY_S = 15.0
ROW_BYTES = 300  # of a segment in all tables, beside its vectors


@dataclass(frozen=True)
class Forecast:
    """What a run would find. ``audio_seconds`` and ``disk_bytes`` are what it would add."""

    library: str
    model: str
    unchanged: int  # files that need nothing
    known_failed: int
    new: int  # files to open
    new_bytes: int
    to_analyse: int  # known recordings that lack an analysis
    move: Move | None  # of the library, to another model, as it stands now
    to_move: int  # known recordings that the other model would hear, beside the new ones
    absent: int  # known files that were not found, before the new ones are opened
    held: tuple[Held, ...]  # folders that would keep theirs all the same
    skipped: int
    audio_seconds: float
    seconds: float | None  # None: nothing was measured yet
    disk_bytes: int
    disk_free: int
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index build --dry-run --json`` prints them."""
        move = self.move.to_json() if self.move else None
        return {"schema": SCHEMA, **asdict(self), "move": move}


def forecast(
    roots: Iterable[str | Path],
    library: str | Path | None = None,
    options: BuildOptions | None = None,
) -> Forecast:
    """Look at what ``build`` would be given the same arguments. Raises what it would raise."""
    options = options or BuildOptions()
    place = Path(os.path.abspath(default_library() if library is None else library))
    named = list(dict.fromkeys(Path(os.path.abspath(root)) for root in roots))
    labels = read_list(options.files) if options.files else {}
    check_codes(options.retry)
    with ExitStack() as stack:
        if place.exists():
            stack.enter_context(write_lock(place))
            store = stack.enter_context(open_store(place))
        else:
            store = stack.enter_context(Store(stack.enter_context(TemporaryDirectory())))
        walked = roots_to_walk(
            store,
            named,
            exclude=options.exclude,
            follow_symlinks=options.follow_symlinks,
            has_list=options.files is not None,
        )
        if not any(os.path.lexists(path) for path in (*(r.path for r in walked), *labels)):
            raise nothing_there(place, named, options.files)
        models = models_for(place, store, options.model)
        bundle = models.own
        published = published_labels(place) if labels else {}
        card, retry = bundle.card, options.retry
        planner = Planner(store, card.model_id, card.space_names, labels, published, retry)
        found = outside(
            place,
            walk(
                [*walked, *labels],
                exclude=options.exclude,
                follow_symlinks=options.follow_symlinks,
            ),
        )
        plan = planner.plan(found, [root.path for root in walked if not root.path.is_file()])
        transfer = Transfer(store, models, retry=options.retry) if models.moving else None
        return _forecast(place, store, bundle, plan, options, transfer)


def _forecast(
    place: Path,
    store: Store,
    bundle: Bundle,
    plan: Plan,
    options: BuildOptions,
    transfer: Transfer | None,
) -> Forecast:
    # A new file may be any of the absent ones: only those whose size no new file has are gone.
    sizes = {file.size for file in plan.fresh}
    leaves = leaving(plan.census, set(), sizes, store.devices(), force=options.force_prune)
    jobs = [job for job in plan.jobs if isinstance(job, Job)]
    new_bytes = sum(file.size for file in plan.fresh)
    seconds, size = store.totals()
    known = transfer.plan.jobs if transfer else []
    to_move = [job for job in known if isinstance(job, Job)]
    to_decode = new_bytes + sum(job.file.size for job in jobs)
    if transfer:  # both models hear what is new
        to_decode += new_bytes + sum(job.file.size for job in to_move)
    audio_s = to_decode * seconds / size if size else to_decode / BYTES_PER_S
    speed = _speed(store)
    return Forecast(
        library=os.fspath(place),
        model=bundle.card.name,
        unchanged=plan.counts["reused"] + plan.counts["duplicates"],
        known_failed=plan.counts["known_failed"],
        new=len(plan.fresh),
        new_bytes=new_bytes,
        to_analyse=len(jobs),
        move=transfer.standing() if transfer else None,
        to_move=len(to_move),
        absent=len(plan.census.absent),
        held=leaves.held,
        skipped=plan.counts["skipped"] + plan.left_out.total(),
        audio_seconds=round(audio_s, 1),
        seconds=None if speed is None else round(audio_s / speed, 1),
        disk_bytes=round(audio_s * _bytes_per_s(place, bundle, seconds)),
        disk_free=shutil.disk_usage(_existing(place)).free,
        notices=tuple(plan.notices),
    )


def _speed(store: Store) -> float | None:
    """Seconds of audio a second, in the last runs that had some to do."""
    counts = [run.counts for run in store.runs()]
    worked = [c for c in counts if float(c.get("audio_seconds") or 0) > 0][-RUNS:]
    took_s = sum(float(c.get("seconds") or 0) for c in worked)
    return sum(float(c["audio_seconds"] or 0) for c in worked) / took_s if took_s else None


def _bytes_per_s(place: Path, bundle: Bundle, seconds: float) -> float:
    """Disk that a second of audio takes in the library, all generations together."""
    if seconds:
        return (bytes_below(place / PUBLISHED) + (place / DATABASE).stat().st_size) / seconds
    return sum(
        (4 * space.dim + ROW_BYTES) / (space.hop_s or SEGMENT_EVERY_S)
        for space in bundle.card.spaces
    )


def _existing(place: Path) -> Path:
    return next(folder for folder in (place, *place.parents) if folder.exists())
