"""What people see: progress, tables and sentences.

Results go to standard output, everything else to standard error. What comes from files (names,
tags, messages about them) is hostile text: a title can hold escape sequences that rewrite the
screen, or characters that turn a line around. All of it goes through ``safe``, and none of it is
ever read as markup.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from livi_index.answers import SPOKEN, Answer, Hit, Match, QueryInfo, WordsInfo
from livi_index.text import safe as safe

if TYPE_CHECKING:
    from livi_index.build import BuildReport, Progress
    from livi_index.models import ModelEntry
    from livi_index.moving import Move
    from livi_index.status import Status

    Watcher = Callable[[Progress], None]

LONGEST_TAG = 200  # characters
LONGEST_TEXT = 1_000_000  # bytes
PLAIN_EVERY_S = 5.0
_STAGES = {
    "walk": "looking for files",
    "tracks": "indexing",
    "move": "moving to the other model",
    "publish": "publishing",
}


_logs_json = False


def log_as(kind: Literal["text", "json"] | None) -> None:
    """Make standard error sentences, or one JSON object a line; None leaves it as it is."""
    global _logs_json
    if kind is not None:
        _logs_json = kind == "json"


def complain(text: str, event: str = "problem", **details: object) -> None:
    """Say something on standard error."""
    line = " ".join(text.splitlines())
    if _logs_json:
        _log(event, message=line, **details)
    else:
        print(f"livi-index: {safe(line)}", file=sys.stderr, flush=True)


def _log(event: str, **details: object) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"at": at, "event": event, **details}), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Say something that was asked for."""
    print(safe(text), flush=True)


def read_standard_input() -> str:
    """What is piped in, so far as it can be words of a song."""
    return sys.stdin.buffer.read(LONGEST_TEXT).decode("utf-8", "replace")


def print_json(value: object) -> None:
    """One object, one line; ASCII, so that no name can do harm."""
    print(json.dumps(value, ensure_ascii=True), flush=True)


def clock(seconds: float) -> str:
    """1:05, 1:00:00"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# progress


@contextmanager
def progress(quiet: bool) -> Iterator[Watcher | None]:
    """What ``build`` tells its progress to: a bar on a terminal, else a line now and then."""
    if quiet:
        yield None
    elif _logs_json:
        yield _Seldom(lambda now: _log("progress", **asdict(now)), stages=True)
    elif sys.stderr.isatty():
        yield from _bar()
    else:
        yield _Seldom(_say_progress)


def _bar() -> Iterator[Watcher]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), BarColumn(bar_width=24), MofNCompleteColumn())
    words = TextColumn("{task.description}", markup=False)
    with Bars(*columns, words, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(_STAGES["walk"], total=None)

        stage = "walk"

        def show(now: Progress) -> None:
            nonlocal stage
            # Drawn a few times a second, and whenever a stage begins, however short it is.
            begins, stage = now.stage != stage, now.stage
            total, told = now.total or None, _sentence(now)
            bars.update(task, completed=now.done, total=total, description=told, refresh=begins)

        yield show


class _Seldom:
    """Passes on what it is told every few seconds, and if so asked when a stage begins."""

    def __init__(self, show: Watcher, *, stages: bool = False) -> None:
        self._show = show
        self._stages = stages
        self._stage = "walk"
        self._next = time.monotonic() + PLAIN_EVERY_S

    def __call__(self, now: Progress) -> None:
        begins = self._stages and now.stage != self._stage
        if begins or time.monotonic() >= self._next:
            self._stage = now.stage
            self._next = time.monotonic() + PLAIN_EVERY_S
            self._show(now)


def _say_progress(now: Progress) -> None:
    of = f" of {now.total:,}" if now.total else ""
    print(f"{now.done:,}{of} files: {_sentence(now)}", file=sys.stderr, flush=True)


def _sentence(now: Progress) -> str:
    parts = [_STAGES[now.stage]]
    if now.stage in ("tracks", "move") and now.seconds > 0 and now.done:
        rate = now.done / now.seconds
        parts += [
            f"{rate:.1f} files/s",
            f"{now.audio_seconds / now.seconds:.0f} s of audio/s",
            f"{clock((now.total - now.done) / rate)} left",
        ]
    if now.failed:
        parts.append(f"{now.failed:,} failed")
    return ", ".join(parts)


def counting(what: str, quiet: bool = False) -> Callable[[int, int], None] | None:
    """A progress that says every few seconds how many of how many are done."""
    next_at = time.monotonic() + PLAIN_EVERY_S

    def show(done: int, total: int) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + PLAIN_EVERY_S
            if _logs_json:
                _log("progress", stage=what, done=done, total=total)
            else:
                print(f"{done:,} of {total:,} {what}", file=sys.stderr, flush=True)

    return None if quiet else show


# what commands print


def print_report(report: BuildReport, *, as_json: bool, quiet: bool) -> None:
    for notice in report.notices:
        complain(notice, "notice")
    for failure in report.new_failures:
        complain(
            f"{failure.path}: {failure.message}", "failure", path=failure.path, code=failure.code
        )
    if (n := report.failed + report.move_failed - len(report.new_failures)) > 0:
        complain(f"… and {n:,} more failed")
    if _logs_json and not quiet:
        _log("done", **report.to_json())
    if as_json:
        print_json(report.to_json())
    elif not quiet:
        print_lines(_report_lines(report))


def _report_lines(report: BuildReport) -> Iterator[str]:
    speed = report.audio_seconds / report.seconds if report.seconds else 0
    yield f"{report.seen:,} audio files seen in {clock(report.seconds)}"
    for name, n in (
        ("newly indexed", report.indexed),
        ("instrumental, so without words to find", report.instrumental),
        ("of those indexed, plain speech", report.spoken),
        ("known before", report.reused),
        ("further copies of a recording", report.duplicates),
        ("newly failed", report.failed),
        ("failed before", report.known_failed),
        ("no longer there", report.missing),
        ("recordings deleted", report.pruned),
        ("left for the next run", report.left),
        ("known ones heard with the model to move to", report.moved),
        ("of those newly failed", report.move_failed),
        ("not heard to their end", report.truncated),
    ):
        if n:
            yield f"{n:>9,}  {name}"
    if report.audio_seconds:
        yield f"{clock(report.audio_seconds)} of audio, {speed:.0f} seconds a second"
    yield f"library   {report.library}"
    if report.generation is None:
        yield "The library is empty: nothing could be indexed."
    else:
        yield f"model     {report.model}, generation {report.generation}"
        if report.move:
            yield from move_lines(report.move)
        if report.newer_model:
            yield (
                f"Version {report.newer_model} of {report.model} has come with this program:"
                f" livi-index build --model {report.model}{_library_flag(report.library)}"
                " moves this library to it"
            )
        yield f"Next: livi-index query SONG{_library_flag(report.library)}"


def move_lines(move: Move) -> Iterator[str]:
    """How far a library has come on its way to another model."""
    to = f"model {move.model} {move.model_version}"
    if move.complete:
        but = f"; {move.failed:,} recordings it could not hear" if move.failed else ""
        yield f"This library has been moved from {move.answers} to {to}, which answers now{but}."
        return
    done, tenths = move.total - move.left, int(1000 * move.share) / 10
    failed = f", of them {move.failed:,} failed" if move.failed else ""
    yield (
        f"This library is being moved to {to}: {done:,} of {move.total:,} recordings are done"
        f" ({tenths:.1f} %{failed}), and {move.answers} answers until all are."
    )
    if move.absent:
        yield (
            f"{move.absent:,} of them are not as they were when they were last seen, and the move"
            " waits for them (--force-prune does not)."
        )


def _library_flag(library: str) -> str:
    from livi_index.library import default_library

    return "" if os.fspath(default_library()) == library else f" --library {library}"


def print_answer(answer: Answer, *, every: bool, as_json: bool) -> None:
    if not as_json:
        print_lines(_answer_lines(answer, every))
        return
    value = answer.to_json()
    if every:
        for shown, hit in zip(value["hits"], answer.hits, strict=True):
            shown["paths"] = list(hit.paths)
    print_json(value)


def _answer_lines(answer: Answer, every: bool) -> Iterator[str]:
    yield _question(answer)
    if isinstance(answer.query, QueryInfo) and answer.query.far:
        yield (
            f"  what is sung is far from what {answer.model} was trained on (distance"
            f" {answer.query.distance:.1f}): another language, or words that are hard to make out"
            + ("; by these alone no hit is likely" if answer.query.doubted else "")
        )
    if not answer.hits:
        yield f"  {_nothing(answer)}"
        return
    yield "   #  prob.   score  recording"
    for hit in answer.hits:
        probable = "    –" if hit.probability is None else f"{hit.probability:5.2f}"
        yield f"{hit.rank:4}  {probable}  {hit.score:6.2f}  {_title(hit)}"
        for path in hit.paths if every else (hit.path,):
            yield f"{'':21}{path}"
        if not every and len(hit.paths) > 1:
            yield f"{'':21}and {len(hit.paths) - 1:,} more (--all)"
        if hit.matches:
            yield f"{'':21}{_places(hit)}"


def _nothing(answer: Answer) -> str:
    asked_words = isinstance(answer.query, WordsInfo)
    told = "no song found with these words" if asked_words else "no version found"
    told += f" among {answer.library.recordings:,} recordings"
    if (best := answer.missed) is None:
        return told
    told += f"; the best one scores {best.score:.3f}"
    return told if best.probability is None else f"{told}, probability {best.probability:.3f}"


def _question(answer: Answer) -> str:
    asked = answer.query
    if isinstance(asked, WordsInfo):
        return safe(" ".join(asked.passages), LONGEST_TAG)
    cut = ", its end not heard" if asked.truncated else ""
    vocal = "" if asked.vocalness is None else f", vocalness {asked.vocalness:.2f}"
    speech = ", plain speech" if (asked.speech or 0.0) >= SPOKEN else ""
    return f"{asked.path}  ({clock(asked.duration_s)}{vocal}{speech}{cut})"


def _places(hit: Hit) -> str:
    pairs = [
        f"{clock(m.query_start_s)} ↔ {clock(m.hit_start_s)}"
        if isinstance(m, Match)
        else f"{clock(m.hit_start_s)}–{clock(m.hit_end_s)}"
        for m in hit.matches
    ]
    first = hit.matches[0]
    if not isinstance(first, Match):
        return f"sung at {', '.join(pairs)}"
    by = f"by {first.space}, " if len(hit.spaces) > 1 else ""
    return f"{by}matches {', '.join(pairs)}"


def _title(hit: Hit) -> str:
    words = [safe(word, LONGEST_TAG) for word in (hit.title, hit.artist) if word]
    cut = ["(its end is not indexed)"] if hit.truncated else []
    return " ".join([" – ".join(words) or "(no title)", clock(hit.duration_s), *cut])


def print_status(status: Status, *, as_json: bool) -> None:
    if as_json:
        print_json(status.to_json())
    else:
        print_lines(_status_lines(status))


def _status_lines(status: Status) -> Iterator[str]:
    yield f"library       {status.library}"
    yield f"model         {status.model} {status.model_version} ({status.model_id[:12]})"
    if status.move:
        yield from move_lines(status.move)
    yield f"generation    {status.generation}, published {when(status.published_at)}"
    yield f"on the disk   generations {', '.join(map(str, status.generations))}"
    for folder in status.folders:
        yield f"folder        {folder}"
    yield f"recordings    {status.recordings:,} at {status.files:,} paths"
    yield f"  with words  {status.indexed:,}, in {status.segments:,} segments"
    if status.spoken:
        yield f"  spoken      {status.spoken:,} of these, as audiobooks and podcasts are"
    yield f"  without     {status.instrumental:,} (instrumental)"
    yield f"  cut short   {status.truncated:,}"
    for space, n in list(status.spaces.items())[1:]:
        yield f"  by {space:<8} {n:,} can be found"
    command = f"livi-index build{_library_flag(status.library)}"
    for space in status.lacking:
        yield f"  by {space:<8} none yet: {command} fills it in"
    yield f"failures      {sum(status.failures.values()):,}"
    for code, n in status.failures.items():
        yield f"  {code:<11} {n:,}"
    yield f"on disk       {megabytes(status.bytes_on_disk)}"
    yield f"index         {megabytes(status.index_bytes)}, in memory while it is published"
    for run in status.runs:
        yield f"run           {when(run.started_at)}, {clock(run.seconds)}: {_counts(run.counts)}"


def _counts(counts: dict[str, Any]) -> str:
    names = ("seen", "indexed", "instrumental", "reused", "failed", "missing")
    return ", ".join(f"{counts[name]:,} {name}" for name in names if counts.get(name))


def when(at: float) -> str:
    """A time since 1970 as people here write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def megabytes(n: int) -> str:
    """1,234.5 MB"""
    return f"{n / 1e6:,.1f} MB"


def print_models(entries: Sequence[ModelEntry], *, as_json: bool) -> None:
    if as_json:
        print_json([_model(entry) for entry in entries])
    elif not entries:
        say("no model is here; `livi-index models install` installs one")
    else:
        print_lines(f"{m['name']:<20} {m['source']:<10} {m['about']}" for m in map(_model, entries))


def _model(entry: ModelEntry) -> dict[str, Any]:
    card = entry.bundle.card if entry.bundle else None
    return {
        "name": entry.name,
        "source": entry.source,
        "path": os.fspath(entry.path),
        "version": card.version if card else None,
        "model_id": card.model_id if card else None,
        "about": f"version {card.version}, licence {card.licence}" if card else entry.problem,
        "usable": card is not None,
    }


def print_lines(lines: Iterator[str]) -> None:
    print("\n".join(map(safe, lines)), flush=True)
