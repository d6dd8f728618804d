"""What may be wrong on this machine: decoders, onnxruntime, models, the library and its disk.

Nothing is changed. A ``problem`` keeps something from working, a ``warning`` may do so some day.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from livi_index import __version__
from livi_index.audio import decode, decoders
from livi_index.errors import LibraryNotFound, LiviError
from livi_index.generations import current
from livi_index.library import default_library
from livi_index.models import DEFAULT_MODEL, available_models, find_model, usable_cpus, verify

# File systems on which a lock of one machine may mean nothing to another.
SHARED_SYSTEMS = frozenset(
    "9p afs ceph cifs fuse.glusterfs fuse.sshfs glusterfs lustre ncpfs nfs nfs4 smb3 smbfs".split()
)
LEAST_FREE = 1_000_000_000  # bytes, for any work at all

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    what: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index doctor --json`` prints them."""
        return asdict(self)


def examine(library: str | Path | None = None) -> Iterator[Finding]:
    """Look at one thing after the other. Raises nothing."""
    place = Path(os.path.abspath(default_library() if library is None else library))
    yield Finding("program", "ok", f"livi-index {__version__}, Python {platform.python_version()}")
    yield Finding("machine", "ok", f"{platform.platform()}, {usable_cpus()} processors to use")
    looks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("decoders", _decoders),
        ("inference", _inference),
        ("library", lambda: _library(place)),
        ("locks", lambda: _locks(place)),
        ("disk", lambda: _disk(place)),
        ("memory", lambda: _memory(place)),
    )
    for name, look in looks[:2]:
        yield _told(name, look)
    yield from _models()
    for name, look in looks[2:]:
        yield _told(name, look)


def _told(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (LiviError, OSError) as error:
        return Finding(name, "problem", str(error))


def _decoders() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "silence.wav"
        with wave.open(os.fspath(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(bytes(32_000))
        heard_s = decode(path).duration_s
    state: State = "ok" if abs(heard_s - 1) < 0.01 else "problem"
    return Finding("decoders", state, decoders())


def _inference() -> Finding:
    bundle = find_model(DEFAULT_MODEL)
    session = bundle.open(bundle.card.vocals.file)
    return Finding(
        "inference",
        "ok",
        f"{bundle.card.name} runs on {session.provider}, {session.threads} threads",
    )


def _models() -> Iterator[Finding]:
    for entry in available_models():
        try:
            verify(entry.bundle or find_model(entry.path))
        except LiviError as error:
            yield Finding("model", "problem", f"{entry.name}: {error}")
        else:
            yield Finding("model", "ok", f"{entry.name}, {entry.source}, whole")


def _library(place: Path) -> Finding:
    try:
        with current(place) as generation:
            counts = generation.counts
            told = f"generation {generation.id}, {counts['recordings']:,} recordings"
            return Finding("library", "ok", f"{place}: {told}")
    except LibraryNotFound:
        return Finding("library", "warning", f"{place}: nothing is published there yet")


def _locks(place: Path) -> Finding:
    folder = _existing(place)
    kind = _kind_of(folder)
    if kind in SHARED_SYSTEMS:
        return Finding(
            "locks", "warning",
            f"{folder} is on {kind}: build from one machine only, or keep the library on a local"
            " disk and copy it from there",
        )  # fmt: skip
    if os.access(folder, os.W_OK):
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return Finding("locks", "ok", f"{folder} is on {kind or 'a file system'} that keeps locks")


def _disk(place: Path) -> Finding:
    folder = _existing(place)
    free = shutil.disk_usage(folder).free
    # A new generation is built beside the current one.
    needed = max(LEAST_FREE, 2 * _published_bytes(place))
    state: State = "ok" if free >= needed else "problem" if free < needed / 2 else "warning"
    writable = "" if os.access(folder, os.W_OK) else "; you may not write there"
    told = f"{free / 1e9:,.1f} GB free at {folder}, {needed / 1e9:,.1f} GB should be{writable}"
    return Finding("disk", "warning" if writable and state == "ok" else state, told)


def _memory(place: Path) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    index = _index_bytes(place)
    state: State = "ok" if total > 2 * index + LEAST_FREE else "warning"
    told = f"{total / 1e9:,.1f} GB; the index takes {index / 1e9:,.1f} GB while it is published"
    return Finding("memory", state, told)


def _published_bytes(place: Path) -> int:
    try:
        with current(place) as generation:
            return sum(file.size for file in generation.manifest.files)
    except LiviError:
        return 0


def _index_bytes(place: Path) -> int:
    try:
        with current(place) as generation:
            files = generation.manifest.files
            return sum(file.size for file in files if file.name.endswith(".usearch"))
    except LiviError:
        return 0


def _existing(place: Path) -> Path:
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _kind_of(folder: Path) -> str | None:
    """The type of the file system, on Linux: that of the deepest mount point above."""
    if sys.platform != "linux":
        return None
    real, best, kind = os.path.join(os.path.realpath(folder), ""), "", None
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
        left, _, right = line.partition(" - ")
        point = os.path.join(left.split()[4].replace("\\040", " "), "")
        if real.startswith(point) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
