"""Many short tracks in one build, for ``benchmarks.nights``: what grows while it runs?

Tracks of 0.6 to 2 seconds in four formats, each its own: tones too low for a voice, and in every
fiftieth a moment of a real song. Memory that belongs to a process alone (USS), and its open files,
are read every two seconds, for the build itself and for its decoding workers, and held against how
far it was.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from numpy.typing import NDArray

from benchmarks.processes import children_s
from benchmarks.results import ROOT

RATE = 16_000
SUNG_EVERY = 50
KINDS = ("wav", "wav", "wav", "flac", "flac", "wav", "ogg", "wav", "mp3", "wav")
IN_FOLDER = 500
PERIOD_S = 2.0
SETTLED = 0.2  # of the run, in which whatever is made once is made

FloatArray = NDArray[np.float32]


def make_tracks(real: Path, folder: Path, n: int) -> None:
    """Tracks 0 to n - 1; those that are there stay as they are."""
    songs = [soundfile.read(path, dtype="float32", always_2d=True) for path in _songs(real)]
    for number in range(n):
        path = folder / f"{number // IN_FOLDER:03}" / f"{number:06}.{KINDS[number % len(KINDS)]}"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        if number % SUNG_EVERY == 7:
            samples, rate = songs[number // SUNG_EVERY % len(songs)]
            first = rng.integers(len(samples) // 4, 3 * len(samples) // 4)
            soundfile.write(path, samples[first : first + 2 * rate], rate)
        else:
            soundfile.write(path, _tones(rng), RATE)


def _songs(real: Path) -> list[Path]:
    return sorted((*real.glob("*.mp3"), *real.glob("*.ogg")))[:4]


def _tones(rng: np.random.Generator) -> FloatArray:
    t = np.arange(int(RATE * rng.uniform(0.6, 2.0)), dtype=np.float32) / RATE
    pitches = rng.uniform(40, 90, 3).astype(np.float32)
    sound: FloatArray = 0.1 * np.sin(2 * np.pi * pitches[:, None] * t).sum(axis=0)
    return sound


@dataclass(frozen=True)
class Sample:
    """A build at one moment; ``done`` tracks of it, bytes that are its processes' alone."""

    at_s: float
    done: int
    main_bytes: int
    main_files: int
    worker_bytes: int  # of the largest
    worker_files: int  # of the one with the most
    workers: int


@dataclass(frozen=True)
class Watched:
    """A build from its start to its end."""

    report: dict[str, Any]
    seconds: float
    cpu_s: float
    samples: list[Sample]

    def figures(self) -> dict[str, Any]:
        """Slopes in bytes for 1,000 tracks, over what came after the first ``SETTLED``."""
        last = max(sample.done for sample in self.samples)
        late = [s for s in self.samples if SETTLED * last <= s.done <= 0.98 * last]
        done = np.array([sample.done for sample in late]) / 1000
        slopes = {
            name: round(float(np.polyfit(done, [getattr(s, name) for s in late], 1)[0]))
            for name in ("main_bytes", "worker_bytes")
        }
        counts = {
            name: [min(getattr(s, name) for s in late), max(getattr(s, name) for s in late)]
            for name in ("main_bytes", "worker_bytes", "main_files", "worker_files")
        }
        kept = ("seen", "indexed", "instrumental", "failed", "duplicates", "left", "audio_seconds")
        return {
            **{name: self.report[name] for name in kept},
            "seconds": round(self.seconds, 1),
            "cpu_s": round(self.cpu_s, 1),
            "bytes_for_1000_tracks": slopes,
            "least_and_most": counts,
            "samples": len(late),
            "stages_s": self.report["stages"],
        }


def watch(folder: Path, library: Path, log: Path, jobs: int, max_hours: float) -> Watched:
    """Build a library from a folder and look at it all the while; SystemExit where it fails."""
    words = ["build", str(folder), "--library", str(library), "--json", "--log", "json"]
    words += ["--jobs", str(jobs), "--normal-priority", "--max-hours", str(max_hours)]
    command = [sys.executable, "-m", "livi_index", *words]
    began, samples = time.monotonic(), list[Sample]()
    cpu_before_s = children_s()
    with log.open("w") as told, log.with_suffix(".json").open("w+") as answer:
        with subprocess.Popen(command, cwd=ROOT, stdout=answer, stderr=told) as program:
            while program.poll() is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    samples.append(_sample(program.pid, time.monotonic() - began, log))
                time.sleep(PERIOD_S)
        answer.seek(0)
        content = answer.read()
    if program.returncode not in (0, 3):
        raise SystemExit(f"the build failed:\n{log.read_text()[-2000:]}")
    took_s = time.monotonic() - began
    return Watched(json.loads(content), took_s, children_s() - cpu_before_s, samples)


def _sample(pid: int, at_s: float, log: Path) -> Sample:
    main = psutil.Process(pid)
    workers = []
    for child in main.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            workers.append((child.memory_full_info().uss, child.num_fds()))
    memory, files = zip(*workers, strict=True) if workers else ((0,), (0,))
    uss = main.memory_full_info().uss
    n = len(workers)
    return Sample(at_s, _done(log), uss, main.num_fds(), max(memory), max(files), n)


def _done(log: Path) -> int:
    """How far the log says that it is."""
    for line in reversed(log.read_text().splitlines()[-5:]):
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if event.get("stage") == "tracks":
                return int(event["done"])
    return 0
