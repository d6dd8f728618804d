"""What was read of a recording: its phones in order, and when each of them sounds.

A reader guesses many times a second what sounds; a transcript keeps a phone once however long it is
held, and leaves out where nothing is said. Phones are numbers from 1, and only the model that read
them knows what they stand for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PHONE_DTYPE = np.dtype([("time_s", "<f4"), ("phone", "u1")])

Transcript = NDArray[np.void]  # (L,) PHONE_DTYPE, in order of time

_DIGITS = 3  # of a second, so that times which should be the same are


def transcribe(
    guesses: NDArray[np.integer],
    start_s: NDArray[np.floating],
    end_s: NDArray[np.floating],
    clip_s: float,
) -> Transcript:
    """What was read of N windows that begin and end there (N,), guesses (N, C, G), 0 for no phone.

    A window is C clips of ``clip_s`` in a row, with silence after its end. Windows may overlap: of
    clips that do, the earliest is used, so those on one grid share their clips.
    """
    n_clips = guesses.shape[1]
    firsts = np.round(start_s[:, None].astype(np.float64) + clip_s * np.arange(n_clips), _DIGITS)
    lasts = np.minimum(firsts + clip_s, np.round(end_s[:, None].astype(np.float64), _DIGITS))
    parts = [np.zeros(0, PHONE_DTYPE)]
    free_s = -np.inf
    for place in np.lexsort((-lasts.ravel(), firsts.ravel())):
        window, clip = divmod(int(place), n_clips)
        first_s, last_s = firsts[window, clip], lasts[window, clip]
        if free_s <= first_s < last_s:
            parts.append(between(_phones(guesses[window, clip], first_s, clip_s), first_s, last_s))
            free_s = last_s
    return np.concatenate(parts)


def _phones(guesses: NDArray[np.integer], start_s: float, clip_s: float) -> Transcript:
    before = np.concatenate([[0], guesses[:-1]])
    at = np.flatnonzero((guesses != 0) & (guesses != before))
    phones = np.zeros(len(at), PHONE_DTYPE)
    phones["time_s"] = start_s + at * (clip_s / len(guesses))
    phones["phone"] = guesses[at]
    return phones


def between(transcript: Transcript, start_s: float, end_s: float) -> Transcript:
    """The phones that begin in a stretch."""
    first, last = np.searchsorted(transcript["time_s"], [start_s, end_s])
    return transcript[first:last]


def count(
    transcript: Transcript, start_s: NDArray[np.floating], end_s: NDArray[np.floating]
) -> NDArray[np.int64]:
    """(N,) how many phones begin in each of N stretches."""
    first, last = (np.searchsorted(transcript["time_s"], times) for times in (start_s, end_s))
    return np.asarray(np.maximum(last - first, 0), np.int64)
