"""What was read of a recording: its phones in order, and when each of them sounds.

A reader guesses many times a second what sounds; a transcript keeps a phone once however long it is
held, and leaves out where nothing is said. Phones are numbers from 1 to 63, and only the model that
read them knows what they stand for. Where another phone was nearly as likely it is kept as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# ``other``: what it may have been as well, 0 where there is no doubt
PHONE_DTYPE = np.dtype([("time_s", "<f4"), ("phone", "u1"), ("other", "u1")])

Transcript = NDArray[np.void]  # (L,) PHONE_DTYPE, in order of time

DOUBT = 64  # times the other phone is added to a guess
_DIGITS = 3  # of a second, so that times which should be the same are


def transcribe(
    guesses: NDArray[np.integer],
    start_s: NDArray[np.floating],
    end_s: NDArray[np.floating],
    clip_s: float,
) -> Transcript:
    """What was read of N windows that begin and end there (N,), guesses (N, C, G).

    A guess is a phone, 0 for none, and ``DOUBT`` times another one that it may be. A window is C
    clips of ``clip_s`` in a row, with silence after its end. Windows may overlap: where clips do,
    the earliest is used, so windows on one grid share their clips. Clips are read each for itself,
    so a phone that is held across their seam is guessed in both, and kept once.
    """
    n_clips = guesses.shape[1]
    firsts = np.round(start_s[:, None].astype(np.float64) + clip_s * np.arange(n_clips), _DIGITS)
    lasts = np.minimum(firsts + clip_s, end_s[:, None].astype(np.float64)).round(_DIGITS)
    parts = [np.zeros(0, PHONE_DTYPE)]
    free_s, held = -np.inf, 0
    for place in np.lexsort((-lasts.ravel(), firsts.ravel())):
        window, clip = divmod(int(place), n_clips)
        first_s, last_s, read = firsts[window, clip], lasts[window, clip], guesses[window, clip]
        if max(first_s, free_s) < last_s:
            phones = _phones(read, first_s, clip_s, held if first_s == free_s else 0)
            parts.append(between(phones, max(first_s, free_s), last_s))
            free_s = last_s
            held = read[int(np.ceil((last_s - first_s) / clip_s * len(read) - 1e-6)) - 1]
    return np.concatenate(parts)


def _phones(guesses: NDArray[np.integer], start_s: float, clip_s: float, held: int) -> Transcript:
    best = guesses % DOUBT
    before = np.concatenate([[held % DOUBT], best[:-1]])
    at = np.flatnonzero((best != 0) & (best != before))
    phones = np.zeros(len(at), PHONE_DTYPE)
    phones["time_s"] = start_s + at * (clip_s / len(guesses))
    phones["phone"] = best[at]
    phones["other"] = guesses[at] // DOUBT
    return phones


def between(transcript: Transcript, start_s: float, end_s: float) -> Transcript:
    """The phones that begin in a stretch."""
    first, last = np.searchsorted(transcript["time_s"], _times([start_s, end_s]))
    return transcript[first:last]


def count(
    transcript: Transcript, start_s: NDArray[np.floating], end_s: NDArray[np.floating]
) -> NDArray[np.int64]:
    """(N,) how many phones begin in each of N stretches."""
    first, last = (np.searchsorted(transcript["time_s"], _times(t)) for t in (start_s, end_s))
    return np.asarray(np.maximum(last - first, 0), np.int64)


def _times(times_s: ArrayLike) -> NDArray[np.float32]:
    # In the precision of transcripts: a phone that begins with a stretch is in it.
    return np.asarray(times_s, np.float32)


def second_reading(transcript: Transcript) -> NDArray[np.uint8]:
    """(L,) the phones with the other one wherever there is doubt."""
    other: NDArray[np.uint8] = transcript["other"]
    return np.where(other > 0, other, transcript["phone"])
