"""What file systems hold that nobody expects, and models that do not belong to a library.

``filesystems``: one folder with all of it, each line of the table with what must come of it.
``models``: every way of asking or filling a library with another model than its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.endurance.ground import READER, build, contents, difference, livi, song
from benchmarks.results import ROOT
from livi_index.build import BuildOptions, Progress
from livi_index.build import build as run_build
from livi_index.store import DATABASE

OTHER = ROOT / "tests" / "data" / "tiny-bundle"
YEAR_S = 365 * 86_400

# Name, as bytes, of a file that holds a song; each must be found by its own name.
NAMES = {
    "not UTF-8": b"caf\xe9.wav",
    "composed": "\u00e9.wav".encode(),
    "decomposed": "e\u0301.wav".encode(),
    "newline": b"two\nlines.wav",
    "255 bytes": b"n" * 251 + b".wav",
    "leading dash": b"-rf.wav",
    "escape": b"a\x1b[31mred.wav",
    "turned around": "gpj.\u202ewav".encode(),
    "quote and glob": b"it's [a] *.wav",
    "mtime in the future": b"future.wav",
    "mtime before 1970": b"past.wav",
}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has 107 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


# Name, how it is made, and for what reason the walk leaves it out; None: not seen at all.
ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe.mp3": (_fifo, "not_regular"),
    "socket.mp3": (_socket, "not_regular"),
    "loop": (lambda path: path.symlink_to(path.parent), "symlink"),
    "self.mp3": (lambda path: path.symlink_to(path), "symlink"),
    "zero.mp3": (lambda path: path.symlink_to("/dev/zero"), "symlink"),
    "nothing.mp3": (lambda path: path.symlink_to("gone"), "symlink"),
}


def filesystems(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """One build of everything, once more without links being followed and with."""
    music, library = place / "music", place / "library"
    problems: list[str] = []
    for i, name in enumerate(NAMES.values()):
        made = song(place / "song.wav", i, 4.0)
        music.mkdir(exist_ok=True)
        os.rename(made, os.fsencode(music) + b"/" + name)
    for name, seconds in ((b"future.wav", 10 * YEAR_S), (b"past.wav", -60 * YEAR_S)):
        at = time.time() + seconds
        os.utime(os.fsencode(music) + b"/" + name, (at, at))
    for name, (make, _) in ODD.items():
        make(music / name)
    for options in ((), ("--follow-symlinks",), ()):
        told = build(music, library, *options)
        if told.code != 0:
            problems.append(f"{options}: {told}")
        there = sorted(os.path.basename(row[0]) for row in contents(library)["files"])
        if there != sorted(NAMES.values()):
            problems.append(f"{options}: there are {there}")
    problems += _reasons(music) + _clock(music, library) + _changing(place)
    return {
        "names": list(NAMES),
        "left_out": list(ODD),
        "clock_going_back": True,
        "changing_while_read": True,
        "violations": problems,
    }


def _reasons(music: Path) -> list[str]:
    from livi_index.scan import Skipped, walk

    found = {item.path.name: item.reason for item in walk([music]) if isinstance(item, Skipped)}
    expected = {name: reason for name, (_, reason) in ODD.items()}
    return [] if found == expected else [f"left out: {found}, not {expected}"]


def _clock(music: Path, library: Path) -> list[str]:
    """All that a library has noted was noted by a clock that was a year ahead."""
    before = contents(library)
    with duckdb.connect(str(library / DATABASE)) as connection:
        for table, column in (("changes", "changed_at"), ("recordings", "added_at"),
                              ("runs", "started_at"), ("runs", "ended_at")):  # fmt: skip
            connection.execute(f"UPDATE {table} SET {column} = {column} + {YEAR_S}")
    problems = []
    song(music / "new.wav", 999, 4.0)
    for words in (("build", "--until", "00:00"), ("status",), ("failures",), ("check",)):
        extra = ["--max-hours", "1"] if words[0] == "build" else []
        told = livi(*words, *extra, "--library", library)
        if told.code != 0:
            problems.append(f"after the clock went back, {words[0]}: {told}")
    after = contents(library)
    if len(after["files"]) != len(before["files"]) + 1:
        problems.append("after the clock went back a new song is not there")
    return problems


def _changing(place: Path) -> list[str]:
    """A file that grows while it is read is not stored, and is the next time."""
    music, library = place / "growing", place / "grown"
    path = song(music / "growing.wav", 1, 4.0)

    def grow(now: Progress) -> None:
        if now.stage == "walk":
            with path.open("ab") as file:
                file.write(b"\0\0")

    options = BuildOptions(model=os.fspath(READER), jobs=1, threads=1)
    report = run_build([music], library, options, progress=grow)
    codes = [failure.code for failure in report.new_failures]
    again = run_build([music], library, options)
    fine = (codes, again.indexed, again.failed) == (["changed"], 1, 0)
    return [] if fine else [f"a growing file came to {codes}, then {again}"]


def models(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """Another model never answers for the library's own, and never writes among its vectors."""
    music, library = place / "music", place / "library"
    for i in range(3):
        song(music / f"{i}.wav", i, 8.0)
    build(music, library)
    song(music / "3.wav", 3, 8.0)  # so that there is work for whoever is taken
    before, problems = contents(library), []
    query = ("query", music / "0.wav", "--json", "--library", library)
    twin = shutil.copytree(READER, place / "twin")
    card = json.loads((twin / "card.json").read_text())
    (twin / "card.json").write_text(json.dumps(card | {"model_id": "ab" * 32}))
    broken = shutil.copytree(READER, place / "broken")
    with (broken / "sound.onnx").open("ab") as file:
        file.write(b"x")
    refusals = {
        "query with another": (*query, "--model", OTHER),
        "query with a namesake": (*query, "--model", twin),
        "words with another": ("lyrics", "a b c", "--library", library, "--model", OTHER),
        "build with a damaged one": ("build", music, "--library", library, "--model", broken),
        "build with none": ("build", music, "--library", library, "--model", place / "none"),
    }
    for what, words in refusals.items():
        told = livi(*words)
        if told.code != 1 or told.out or "Traceback" in told.err or not _says_what_to_do(told.err):
            problems.append(f"{what}: {told}")
        if says := difference(contents(library), before):
            problems.append(f"{what}: the library has {says}")
    kept = library / "models" / card["model_id"]
    kept.rename(place / "away")
    told = livi(*query)
    if told.code != 1 or not _says_what_to_do(told.err):
        problems.append(f"without its model: {told}")
    (place / "away").rename(kept)
    told = livi("build", music, "--library", library, "--jobs", "1", "--model", twin, "--quiet")
    if told.code != 0:
        problems.append(f"a move to another model: {told}")
    with duckdb.connect(str(library / DATABASE), read_only=True) as connection:
        rows = "SELECT model_id, count(*) FROM analyses GROUP BY ALL ORDER BY ALL"
        held = connection.execute(rows).fetchall()
    if sorted(held) != sorted([(card["model_id"], 4), ("ab" * 32, 4)]):
        problems.append(f"after the move the database holds {held}")
    return {"refusals": [*refusals, "query without its model"], "violations": problems}


def _says_what_to_do(text: str) -> bool:
    return any(
        word in text for word in ("--model", "models install", "models list", "again", "reinstall")
    )
