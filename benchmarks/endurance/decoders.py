"""A decoder that hangs or dies costs its limit and two seconds, and its own file.

Real worker processes decode with a function that sleeps, spins, ignores SIGTERM, crashes, leaves,
asks for all memory or is killed, as the name of the file says. Between them lie good files, and all
of these must come through. Then the workers are killed from outside, over and over, which must cost
no file at all.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.endurance import faulty_decoders
from benchmarks.endurance.ground import song, timely
from livi_index.audio import Audio
from livi_index.decode import DecodePool

FAULTS = {
    "hang": "timeout",
    "spin": "timeout",
    "stubborn": "timeout",
    "crash": "worker_died",
    "leave": "worker_died",
    "killed": "worker_died",
    "eat": "out_of_memory",
}
LIMIT_S = 4.0
SLACK_S = 2.0
KILLED_FILES = 40


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """n files of each fault, one after the other, each followed by a good one."""
    good = song(place / "good.ogg", 1, 4.0)
    took_s: dict[str, float] = defaultdict(float)
    violations, tried = [], 0
    with DecodePool(
        1, time_limit_s=LIMIT_S, memory_bytes=1 << 28, decode=faulty_decoders.by_name
    ) as pool:
        list(pool.decode_all([good]))
        for i in timely(range(n), end_s):
            for fault, code in FAULTS.items():
                path = Path(shutil.copy(good, place / f"{fault}-{i}.ogg"))
                began = time.monotonic()
                ((_, result),) = pool.decode_all([path])
                took_s[fault] = max(took_s[fault], time.monotonic() - began)
                tried += 1
                if isinstance(result, Audio) or result.code != code:
                    violations.append(f"{path.name} came to {result}")
                ((_, after),) = pool.decode_all([good])
                if not isinstance(after, Audio):
                    violations.append(f"after {path.name} a good file came to {after}")
    slow = {fault: s for fault, s in took_s.items() if s > LIMIT_S + SLACK_S}
    violations += [f"{fault} cost {s:.1f} s" for fault, s in slow.items()]
    killed, lost = _killed_from_outside(place, good)
    return {
        "faults": list(FAULTS),
        "files": tried,
        "limit_s": LIMIT_S,
        "worst_s": {fault: round(s, 2) for fault, s in took_s.items()},
        "workers_killed_from_outside": killed,
        "violations": violations + lost,
    }


def _killed_from_outside(place: Path, good: Path) -> tuple[int, list[str]]:
    """Kill a worker after every few files; how often, and what was lost by it."""
    paths = [Path(shutil.copy(good, place / f"slow-{i}.ogg")) for i in range(KILLED_FILES)]
    n_killed, results = 0, {}
    with DecodePool(2, decode=faulty_decoders.by_name) as pool:
        for path, result in pool.decode_all(paths):
            results[path] = result
            if len(results) % 4 == 1:
                children = psutil.Process().children()
                workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
                if workers:
                    workers[0].kill()
                    n_killed += 1
    lost = [f"{p.name} came to {results.get(p)}" for p in paths
            if not isinstance(results.get(p), Audio)]  # fmt: skip
    return n_killed, lost
