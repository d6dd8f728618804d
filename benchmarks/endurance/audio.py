"""Damaged and hostile audio costs its own file only.

Songs of the demonstration in six formats, cut to some seconds, are damaged in six ways and lie
among whole ones; beside them bombs: ten hours of silence in a megabyte, eight channels at 192 kHz,
a header that states three gigabytes which the disk does not hold, playlists under the names of
songs. One build takes all of it. Every file must come to an outcome, every whole song must be
there, and no worker may ever have held more than 1.5 GB.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import soundfile
from numpy.typing import NDArray

from benchmarks.endurance.ground import PLAIN, command, contents, environment_of
from benchmarks.results import ROOT
from livi_index.audio import SAMPLE_RATE, load_audio

DEMO = ROOT / "catalogs" / "demo"
CONTAINERS = {".mp3": "mp3", ".ogg": "ogg", ".opus": "ogg", ".m4a": "mp4"}
CLIP_S = 8.0
WORKER_BYTES = 1.5e9
OUTCOMES = ("indexed", "instrumental", "reused", "duplicates", "failed", "known_failed", "skipped")
PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile whole-000.wav\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nwhole-000.wav\n#EXT-X-ENDLIST\n",
    "pls": "[playlist]\nFile1=http://localhost/x.mp3\n",
    "xspf": '<?xml version="1.0"?><playlist><location>file:///etc/passwd</location></playlist>',
}

Bytes = NDArray[np.uint8]


def clip(song: Path, target: Path, skip_s: float) -> Path:
    """Some seconds of a song, as they are or as wav or flac."""
    if target.suffix in (".wav", ".flac"):
        first = round(skip_s * SAMPLE_RATE)
        part = load_audio(song, max_s=skip_s + CLIP_S)[first:]
        soundfile.write(target, part, SAMPLE_RATE, subtype="PCM_16")
        return target
    with av.open(str(song)) as old, av.open(str(target), "w", CONTAINERS[target.suffix]) as new:
        source = old.streams.audio[0]
        stream = new.add_stream_from_template(source)
        for packet in old.demux(source):
            at = float((packet.pts or 0) * packet.time_base) - skip_s
            if packet.dts is not None and 0 <= at < CLIP_S:
                packet.stream = stream
                new.mux(packet)
    return target


def damaged(data: Bytes, rng: np.random.Generator, how: int) -> Bytes:
    """One of six kinds of damage, somewhere."""
    data, size = data.copy(), len(data)
    at = int(rng.integers(size))
    if how == 0:
        return data[:at]
    if how == 1:
        places = rng.integers(0, size, max(1, size // 100))
        data[places] = rng.integers(0, 256, len(places))
    elif how == 2:
        data[rng.integers(0, min(size, 200), 8)] = rng.integers(0, 256, 8)
    elif how == 3:
        data[at : at + 4096] = 0
    elif how == 4:
        return np.concatenate([data[:at], data[at // 2 :]])
    else:
        return np.concatenate([rng.integers(0, 256, 2000, dtype=np.uint8), data])
    return data


def bombs(folder: Path, hours: int) -> None:
    """Small files that ask for much."""
    minute = np.zeros((SAMPLE_RATE * 60, 1), np.int16)
    with soundfile.SoundFile(folder / "bomb-silence.flac", "w", SAMPLE_RATE, 1) as file:
        for _ in range(60 * hours):
            file.write(minute)
    t = np.arange(192_000) / 192_000
    second = np.tile(0.3 * np.sin(2 * np.pi * 440 * t)[:, None], 8)
    with soundfile.SoundFile(folder / "bomb-wide.flac", "w", 192_000, 8, "PCM_24") as file:
        for _ in range(30):
            file.write(second)
    soundfile.write(folder / "bomb-sparse.wav", minute, SAMPLE_RATE)
    with (folder / "bomb-sparse.wav").open("r+b") as file:
        size = 3_000_000_000
        file.seek(4), file.write((size - 8).to_bytes(4, "little"))
        file.seek(40), file.write((size - 44).to_bytes(4, "little"))
        file.truncate(size)
    for name, text in PLAYLISTS.items():
        (folder / f"bomb-{name}.mp3").write_text(text)


def material(folder: Path, n: int) -> int:
    """n damaged files, a whole one for every twenty, and bombs; how many there are in all."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    songs = sorted(path for path in DEMO.iterdir() if path.suffix in CONTAINERS)
    whole = []
    for i in range(max(6, n // 20)):
        song, kind = songs[i % len(songs)], ("", "", ".wav", "", "", ".flac")[i % 6]
        target = folder / f"whole-{i:03}{kind or song.suffix}"
        whole.append(clip(song, target, skip_s=5.0 + i // len(songs) * 7.0))
    for i in range(n):
        source = whole[int(rng.integers(len(whole)))]
        data = np.frombuffer(source.read_bytes(), np.uint8)
        path = folder / f"damaged-{i:04}{source.suffix}"
        path.write_bytes(damaged(data, rng, i % 6).tobytes())
    bombs(folder, 10 if n >= 100 else 1)
    return len(list(folder.iterdir()))


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """A build of n damaged files among others; the time is not limited."""
    music, library = place / "music", place / "library"
    n_files = material(music, n)
    n_whole = len(list(music.glob("whole-*")))
    words = command("build", music, "--library", library, *PLAIN, "--json")
    pipe, began, worker_bytes = subprocess.PIPE, time.monotonic(), 0
    with subprocess.Popen(
        words, cwd=ROOT, env=environment_of({}), stdout=pipe, stderr=pipe, text=True
    ) as process:
        family = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker_bytes = max([worker_bytes, *map(peak_bytes, family.children())])
            time.sleep(0.1)
        out, err = process.communicate()
    violations = []
    if process.returncode != 3:
        violations.append(f"the build ended with {process.returncode}: {err[-400:]}")
        return {"files": n_files, "violations": violations}
    report = json.loads(out)
    if sum(report[name] for name in OUTCOMES) != n_files:
        violations.append(f"{n_files} files, but the report says {report}")
    found = contents(library)
    there = {Path(row[0].decode()).name for row in found["files"]}
    lost = [path.name for path in music.glob("whole-*") if path.name not in there]
    violations += [f"{name} is whole and not there" for name in lost]
    violations += [f"{name} was taken for a song" for name in there if name in _never()]
    if worker_bytes > WORKER_BYTES:
        violations.append(f"a worker held {worker_bytes:,} bytes")
    return {
        "files": n_files,
        "damaged": n,
        "whole": n_whole,
        "outcomes": {name: report[name] for name in OUTCOMES},
        "codes": Counter(code for _, code in found["failures"]),
        "truncated": report["truncated"],
        "worker_peak_bytes": worker_bytes,
        "build_s": round(time.monotonic() - began),
        "violations": violations,
    }


def _never() -> set[str]:
    return {f"bomb-{name}.mp3" for name in PLAYLISTS}


def peak_bytes(process: psutil.Process) -> int:
    """The most that a process has ever held, of its own and shared; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return max(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), default=0
    )
