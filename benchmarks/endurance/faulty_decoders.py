"""Decoders that go wrong as real ones do; workers import them by name."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np

from livi_index import audio


def by_name(path: Path, *, max_s: float | None) -> audio.Audio:
    """Misbehave as the stem of the file says; decode all others."""
    fault = _FAULTS.get(path.stem.split("-")[0])
    if fault is not None:
        fault()
    return audio.decode(path, max_s=max_s)


def _hang() -> None:
    time.sleep(3600)


def _spin() -> None:
    while True:
        pass


def _stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _hang()


def _crash() -> None:
    ctypes.string_at(0)


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(np.ones(1 << 24))


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _leave() -> None:
    os._exit(7)


def _bug() -> None:
    raise KeyError("nobody expects this")


def _slow() -> None:
    time.sleep(0.5)


_FAULTS = {
    "hang": _hang,
    "spin": _spin,
    "stubborn": _stubborn,
    "crash": _crash,
    "eat": _eat,
    "killed": _killed,
    "leave": _leave,
    "bug": _bug,
    "slow": _slow,
}
