"""Nothing is asked of any network.

Every command that works with a library runs in a network namespace of its own without a route,
under ``strace``, which sees every socket of it and of its workers. Building with the bundled model
and asking it for songs and words must succeed there without one attempt to connect, bind or send
to an address. Needs root, for the namespace.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.endurance.faults import strace
from benchmarks.endurance.ground import livi
from benchmarks.results import ROOT

DEMO = ROOT / "catalogs" / "demo"
SONGS = ("harbour-lights-1.ogg", "harbour-lights-2.mp3", "lighthouse-keeper-1.mp3")
_ADDRESS = re.compile(r"sa_family=AF_INET|socket\((AF_INET|AF_INET6|AF_NETLINK|AF_PACKET)")


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """Each command once."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise SystemExit("this makes a network namespace, and needs root and unshare for it")
    music, library, log = place / "music", place / "library", place / "log"
    music.mkdir()
    for name in SONGS:
        shutil.copy(DEMO / name, music)
    here = ("--library", library)
    commands = (
        ("build", music, *here, "--quiet", "--normal-priority"),
        ("query", DEMO / "harbour-lights-3.opus", *here, "--json"),
        ("lyrics", "the lights of the harbour", *here),
        ("groups", *here, "--quiet"),
        ("status", *here),
        ("check", *here),
        ("doctor", *here),
        ("models", "list"),
    )
    alone = ["unshare", "--net", strace(), "-f", "-qq", "-e", "trace=%network", "-o", str(log)]
    problems, attempts, calls = [], 0, 0
    for words in commands:
        told = livi(*words, before=alone)
        lines = log.read_text(errors="replace").splitlines()
        calls += len(lines)
        asked = [line for line in lines if _ADDRESS.search(line)]
        attempts += len(asked)
        problems += [f"{words[0]}: {line}" for line in asked[:3]]
        if told.code != 0:
            problems.append(f"{words[0]} ended with {told}")
    return {
        "commands": [str(words[0]) for words in commands],
        "connection_attempts": attempts,
        "network_calls_of_any_kind": calls,
        "violations": problems,
    }
