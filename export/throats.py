"""Real voices re-sung with their words: people who read aloud what is written down.

    python -m export.throats OUT --readings DATA --reader READER/checkpoint.pt --clips 3000

The readings are French, and the reader knows English phones, so each French phone counts as the
English one that the reader most often hears in its place. A whole recording is aligned to its text
by the most likely path through the phones that the reader names at each moment (what is said
before and after the text goes to a state for anything). Pieces that fit badly are left out; the
others are sung as ``export.stems`` sings what synthesisers say, and a shard is of the same files.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from catalogs.engines import SAMPLE_RATE, Phone, Voice, pronounce
from catalogs.readings import Reading, read_texts
from catalogs.voices import Spoken, take_apart
from export.phones import PHONES, french_phone
from export.reader import CLIP_SAMPLES, GUESSES, Reader
from export.stems import CLIPS_PER_SHARD, Clip, take, write_shard
from export.train import load_reader
from livi_index.audio import load_audio
from livi_index.errors import BadInput, LiviError

_GUESSES_PER_S = GUESSES * SAMPLE_RATE / CLIP_SAMPLES
_ANYTHING_NATS = 1.0  # by which the state for anything is less likely than the likeliest phone
_LEAST_FIT_NATS = -2.0  # mean distance of a piece's phones to the likeliest ones
_PIECE_WORDS = 2, 9
_PAUSE_S = 0.3
_MARGIN_S = 0.04
_VOWELS = frozenset(PHONES[1 : PHONES.index("b")])

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    """A word of a text as its phones, numbers of ``export.phones``."""

    text: str
    phones: tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """A word where it was read: ``bounds_s`` (P + 1,) of its phones, and how well they fit."""

    word: Word
    bounds_s: npt.NDArray[np.float64]
    fit_nats: float


def words_of(text: str) -> list[Word]:
    """The words of a French text with the phones that espeak gives them, line by line."""
    words: list[Word] = []
    for line in text.splitlines():
        plain = [w for w in re.split(r"[^\w'’]+", line.lower()) if re.search(r"\w", w)]
        for word, phones in zip(plain, pronounce(Voice("espeak", "fr"), plain), strict=True):
            numbers = [french_phone(phone.name) for phone in phones]
            if known := tuple(n for n in numbers if n > 0):
                words.append(Word(word, known))
    return words


@torch.no_grad()
def heard(reader: Reader, samples: FloatArray) -> FloatArray:
    """(T, 40) log-probabilities of the phone at each moment, 41.6 a second."""
    n = -(-len(samples) // CLIP_SAMPLES)
    clips = torch.from_numpy(np.pad(samples, (0, n * CLIP_SAMPLES - len(samples))))
    parts = [reader.both(part)[1] for part in clips.reshape(n, -1).split(8)]
    log_phones = torch.cat(parts).log_softmax(dim=-1).flatten(0, 1).numpy()
    return np.asarray(log_phones[: int(len(samples) / SAMPLE_RATE * _GUESSES_PER_S)])


def place(words: Sequence[Word], log_phones: FloatArray) -> list[Placed]:
    """Each word at its time: the most likely path of (T, 40) through all phones in order.

    Between words there may be silence, before and after all of them anything. ``ValueError`` if
    there are more phones than moments.
    """
    phones = np.array([p for word in words for p in word.phones])
    firsts = np.cumsum([0, *(len(word.phones) for word in words)])
    states, owner = _states(phones, firsts)
    if len(states) > len(log_phones):
        raise ValueError("more phones than moments")
    path = _likeliest_path(states, log_phones)
    best = log_phones.max(axis=1)
    placed: list[Placed] = []
    owned = owner[path]
    begins = np.searchsorted(np.maximum.accumulate(owned), np.arange(len(phones)), side="left")
    inside = owned >= 0
    ends = np.zeros(len(phones), dtype=np.int64)
    np.maximum.at(ends, owned[inside], np.flatnonzero(inside) + 1)
    loss = log_phones[np.arange(len(path)), np.maximum(states[path], 0)] - best
    for i, word in enumerate(words):
        first, last = firsts[i], firsts[i + 1]
        bounds = np.array([*begins[first:last], ends[last - 1]]) / _GUESSES_PER_S
        fit = float(loss[begins[first] : ends[last - 1]].mean())
        placed.append(Placed(word, bounds, fit))
    return placed


def _states(
    phones: npt.NDArray[np.int64], firsts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The phone of each state (0 for silence, −1 for anything) and whose phone it is, or −1."""
    states, owner = [-1], [-1]
    for i, phone in enumerate(phones):
        if i in firsts[1:-1]:
            states.append(0)
            owner.append(-1)
        states.append(int(phone))
        owner.append(i)
    return np.array([*states, -1]), np.array([*owner, -1])


def _likeliest_path(states: npt.NDArray[np.int64], log_phones: FloatArray) -> npt.NDArray[np.int64]:
    """(T,) the state at each moment: each follows the one before; silences may be skipped."""
    n, count = len(log_phones), len(states)
    anything = log_phones.max(axis=1) - _ANYTHING_NATS
    after_silence = np.zeros(count, dtype=bool)
    after_silence[2:] = states[1:-1] == 0
    score = np.full(count, -np.inf)
    score[:2] = 0.0
    moves = np.zeros((n, count), dtype=np.int8)
    rows = np.arange(count)
    for t in range(n):
        if t:
            ways = np.full((3, count), -np.inf)
            ways[0] = score
            ways[1, 1:] = score[:-1]
            ways[2, 2:] = np.where(after_silence[2:], score[:-2], -np.inf)
            moves[t] = ways.argmax(axis=0)
            score = ways[moves[t], rows]
        score = score + np.where(states < 0, anything[t], log_phones[t][states])
    path = np.zeros(n, dtype=np.int64)
    path[-1] = count - 1 if score[-1] >= score[-2] else count - 2
    for t in range(n - 1, 0, -1):
        path[t - 1] = path[t] - moves[t, path[t]]
    return path


def pieces(
    placed: Sequence[Placed], samples: FloatArray, voice: Voice, rng: np.random.Generator
) -> list[Spoken]:
    """Up to eight words each, taken apart and ready to be sung; those that fit badly left out."""
    ready: list[Spoken] = []
    for run in _runs(placed):
        while run:
            size = int(rng.integers(*_PIECE_WORDS))
            some, run = run[:size], run[size:]
            if np.mean([word.fit_nats for word in some]) >= _LEAST_FIT_NATS:
                ready += _piece(some, samples, voice)
    return ready


def _runs(placed: Sequence[Placed]) -> list[list[Placed]]:
    """Words that fit and were read without a pause between them."""
    runs: list[list[Placed]] = [[]]
    for word in placed:
        fits = word.fit_nats >= 2 * _LEAST_FIT_NATS
        last_s = runs[-1][-1].bounds_s[-1] if runs[-1] else word.bounds_s[0]
        if not fits or word.bounds_s[0] - last_s > _PAUSE_S:
            runs.append([])
        if fits:
            runs[-1].append(word)
    return runs


def _piece(some: Sequence[Placed], samples: FloatArray, voice: Voice) -> list[Spoken]:
    start_s = max(0.0, float(some[0].bounds_s[0]) - _MARGIN_S)
    end_s = float(some[-1].bounds_s[-1]) + _MARGIN_S
    part = samples[int(start_s * SAMPLE_RATE) : int(end_s * SAMPLE_RATE)]
    phones = [
        Phone(PHONES[number], float(a) - start_s, float(b) - start_s, PHONES[number] in _VOWELS)
        for word in some
        for number, a, b in zip(
            word.word.phones, word.bounds_s[:-1], word.bounds_s[1:], strict=True
        )
    ]
    if not any(phone.vowel for phone in phones):
        return []
    return [take_apart(voice, " ".join(word.word.text for word in some), part, phones)]


def make_shard(texts: Sequence[Reading], reader: Reader, seed: int, number: int) -> list[Clip]:
    """One shard of real voices that sing what they read; all readers equally often."""
    rng = np.random.default_rng([seed, number])
    names = sorted({reading.reader for reading in texts})
    clips: list[Clip] = []
    while len(clips) < CLIPS_PER_SHARD:
        name = names[rng.integers(len(names))]
        own = [reading for reading in texts if reading.reader == name]
        reading = own[rng.integers(len(own))]
        samples = load_audio(reading.path)
        try:
            placed = place(words_of(reading.text), heard(reader, samples))
        except ValueError:
            continue
        voice = Voice("recording", reading.path.stem)
        ready = pieces(placed, samples, voice, rng)
        first = int(rng.integers(max(1, len(ready) - 24)))
        for _ in range(3):
            clips += take(ready[first : first + 24], voice, rng)
    return clips[:CLIPS_PER_SHARD]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make clips of real voices, re-sung.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--readings", type=Path, required=True, help="the data with readings/")
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=3_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (LiviError, OSError) as error:
        parser.exit(1, f"{error}\n")


def _run(arguments: argparse.Namespace) -> None:
    """All shards that are not there yet."""
    texts = read_texts(arguments.readings, "train")
    if not texts:
        raise BadInput(f"{arguments.readings}/readings holds no readings with their texts")
    reader = load_reader(arguments.reader)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.first, arguments.first + -(-arguments.clips // CLIPS_PER_SHARD)):
        if not (arguments.out / f"{number:06d}.json").exists():
            clips = make_shard(texts, reader, arguments.seed, number)
            write_shard(arguments.out, number, clips)
            print(f"shard {number}: {len(clips)} clips", flush=True)


if __name__ == "__main__":
    main()
