"""Where is singing: samples → probabilities of 3 s windows → segments to encode.

The rule is that of LIVI (arXiv 2601.11262): windows of 3 s without overlap; the mean of their
probabilities is the track's vocalness, and a track below λ is instrumental; windows of at least
0.5 are sung; neighbouring sung windows join; each region is padded on both sides by up to 10 s;
regions that touch merge; slices of 30 s, the last one filled with zeros. Padding stops at the ends
of the file, a partial window at the end is filled with zeros.

``SegmentOptions.paper()`` is that rule. A bundle's card may name other values that serve its
encoder better: overlapping slices, tails with little singing dropped, weights by sung seconds, and
for a model that reads, segments dropped in which it read nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from livi_index.audio import SAMPLE_RATE
from livi_index.errors import BadModel
from livi_index.models import Bundle, Device, Witness
from livi_index.transcripts import Transcript, count, transcribe

BATCH_WINDOWS = 32
SHORTEST_S = 5.0  # of a recording: any two shorter ones are as alike as versions of a work
BESIDE = 0.3  # of a phone that is read in the window before or after
SILENCE = 1e-4  # -80 dB, root mean square: what is below has no harmony to compare

_SURE = 1e-3  # no detector is surer than that

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Voices:
    """What a detector hears in the n windows of a recording.

    ``singing`` (n,) float32 in 0…1: how likely there is a voice; ``speech`` (n,): how likely it
    speaks rather than sings, should there be one; None where the model does not tell.
    """

    singing: FloatArray
    speech: FloatArray | None = None

    @property
    def vocalness(self) -> float:
        return vocalness(self.singing)

    @property
    def spoken(self) -> float | None:
        """How much of the voice is plain speech, 0…1; None where nobody tells, or no voice is."""
        voiced = float(self.singing.sum(dtype=np.float64))
        if self.speech is None or voiced == 0:
            return None
        return float((self.singing * self.speech).sum(dtype=np.float64)) / voiced


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording that becomes one vector.

    ``vocalness`` is the mean probability of singing in it, ``sung_s`` how much of it lies in
    windows that count as sung. It may be shorter than what the encoder takes.
    """

    start_s: float
    end_s: float
    vocalness: float
    sung_s: float


@dataclass(frozen=True)
class SegmentOptions:
    """How probabilities become segments; the defaults are the paper's."""

    min_vocalness: float = 0.5  # λ: below it a track is instrumental
    window_threshold: float = 0.5  # a window counts as sung from here on
    padding_s: float = 10.0  # added on each side of a sung region
    length_s: float = 30.0  # of a slice
    hop_s: float = 30.0  # from one slice to the next
    min_tail_sung_s: float = 0.0  # a region's short last slice needs this much singing
    min_phones_per_s: float = 0.0  # that are read in a segment; below, no words are sung in it
    min_densest_phones_per_s: float = 0.0  # in some segment; below, no words in the recording
    weighting: Literal["equal", "sung", "read"] = "equal"  # of segments in a track's vector
    window_s: float = 3.0  # that one probability speaks for

    def __post_init__(self) -> None:
        if not 0 < self.hop_s <= self.length_s or self.window_s <= 0 or self.padding_s < 0:
            raise ValueError(f"segments of {self.length_s} s need a hop within it: {self}")
        if self.weighting not in ("equal", "sung", "read"):
            raise ValueError(f"weighting is equal, sung or read, not {self.weighting!r}")

    @classmethod
    def paper(cls) -> SegmentOptions:
        """Exactly the rule of the paper."""
        return cls()

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> SegmentOptions:
        """What the bundle's card asks for. Raises BadModel for a field that does not exist."""
        return cls._from_card(bundle.card.segments, f"the card of {bundle.path}")

    @classmethod
    def _from_card(cls, values: Mapping[str, Any], where: str) -> SegmentOptions:
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise BadModel(f"{where} has unknown segment options: {', '.join(unknown)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise BadModel(f"{where} has segment options that cannot be used: {error}") from error


class VocalDetector:
    """The detector of a bundle, opened: samples → what is heard in each window.

    Raises BadModel or MissingRuntime as ``Bundle.open`` does.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, device: Device = "auto"
    ) -> None:
        spec = bundle.card.vocals
        self.window_s = spec.window_s
        self._window = round(spec.window_s * SAMPLE_RATE)
        self._tells_speech = spec.tells_speech
        self._session = bundle.open(spec.file, threads=threads, device=device)
        self.provider = self._session.provider

    def voices(self, samples: FloatArray) -> Voices:
        """(T,) float32 mono 16 kHz → ceil(T / window) windows, the last one filled with zeros.

        Raises BadModel where the graph answers with another number of values than its card says.
        """
        assert samples.ndim == 1 and samples.dtype == np.float32
        n_full = len(samples) // self._window
        n_whole = n_full * self._window
        parts = [np.zeros((0, 1 + self._tells_speech), np.float32)]
        if n_full:
            parts.append(self._run(samples[:n_whole].reshape(n_full, self._window)))
        if n_whole < len(samples):
            last = np.zeros((1, self._window), np.float32)
            last[0, : len(samples) - n_whole] = samples[n_whole:]
            parts.append(self._run(last))
        heard = np.concatenate(parts)
        return Voices(heard[:, 0], heard[:, 1] if self._tells_speech else None)

    def probabilities(self, samples: FloatArray) -> FloatArray:
        """``voices``' probabilities of singing alone, (ceil(T / window),) float32 in 0…1."""
        return self.voices(samples).singing

    def _run(self, windows: FloatArray) -> FloatArray:
        heard: FloatArray = self._session.run(windows, BATCH_WINDOWS)
        if heard[0].size != 1 + self._tells_speech:
            raise BadModel(
                f"the vocal detector answers {heard[0].size} numbers a window, not what its card"
                " says; reinstall the model"
            )
        return heard.reshape(len(windows), -1)


def confirmed(
    voices: Voices, transcript: Transcript | None, witness: Witness | None, window_s: float
) -> Voices:
    """What is heard in each window when it is known what was read of it; the same where there is
    no witness."""
    if witness is None or transcript is None:
        return voices
    heard, read = evidence(voices, transcript, window_s)
    odds = witness.detector * heard + witness.phones * read + witness.offset
    singing = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
    return replace(voices, singing=singing.astype(np.float32))


def evidence(
    voices: Voices, transcript: Transcript | None, window_s: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of each of n windows the log-odds that the detector gives, and how many phones were read in
    it, and in part in those beside it, both (n,)."""
    likely = np.clip(voices.singing.astype(np.float64), _SURE, 1 - _SURE)
    phones = np.zeros(len(likely) + 2)
    if transcript is not None:
        starts_s = window_s * np.arange(len(likely))
        phones[1:-1] = count(transcript, starts_s, starts_s + window_s)
    return np.log(likely / (1 - likely)), phones[1:-1] + BESIDE * (phones[:-2] + phones[2:])


def vocalness(probabilities: FloatArray) -> float:
    """The mean probability of singing; 0 for a recording without windows."""
    return float(probabilities.mean(dtype=np.float64)) if len(probabilities) else 0.0


def segments(
    probabilities: FloatArray, duration_s: float, options: SegmentOptions
) -> list[Segment]:
    """What of a recording is encoded, in order of time; empty for an instrumental one.

    Where every slice would be dropped as a tail, the one with the most singing is kept.
    """
    if len(probabilities) == 0 or vocalness(probabilities) < options.min_vocalness:
        return []
    pieces: list[Segment] = []
    tails: list[Segment] = []
    for start_s, end_s in _padded_regions(probabilities, duration_s, options):
        *whole, last = [
            _segment(probabilities, slice_start_s, slice_end_s, duration_s, options)
            for slice_start_s, slice_end_s in _slices(start_s, end_s, options)
        ]
        is_short = last.end_s - last.start_s < options.length_s
        dropped = is_short and last.sung_s < options.min_tail_sung_s
        pieces += whole
        (tails if dropped else pieces).append(last)
    if not pieces and tails:
        pieces = [max(tails, key=lambda tail: tail.sung_s)]
    return pieces


def over_all(samples: FloatArray, length_s: float, hop_s: float) -> list[Segment]:
    """Slices of a whole recording, sung or not, without those in which nothing can be heard.

    A short last slice is left out where it lies in the one before it by more than half, all of a
    recording where it is shorter than SHORTEST_S.
    """
    duration_s = len(samples) / SAMPLE_RATE
    if duration_s < SHORTEST_S:
        return []
    options = SegmentOptions(length_s=length_s, hop_s=hop_s)
    *slices, last = _slices(0.0, duration_s, options)
    if not slices or last[1] - last[0] >= length_s / 2:
        slices.append(last)
    return [
        Segment(start_s, end_s, 0.0, 0.0)
        for start_s, end_s in slices
        if _is_heard(samples[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)])
    ]


def _is_heard(samples: FloatArray) -> bool:
    return len(samples) > 0 and float(np.square(samples).mean(dtype=np.float64)) >= SILENCE**2


def rated(
    pieces: Sequence[Segment], probabilities: FloatArray, duration_s: float, options: SegmentOptions
) -> list[Segment]:
    """The same segments with how much is sung in them by other probabilities."""
    return [
        _segment(probabilities, piece.start_s, piece.end_s, duration_s, options) for piece in pieces
    ]


def transcribed(
    guesses: Sequence[npt.NDArray[np.integer] | None],
    pieces: Sequence[Segment],
    clip_s: float | None,
) -> Transcript | None:
    """What was read of all segments (N), guesses (n, C, G) of some of them each, in their order.

    None where the model does not read.
    """
    read = [part for part in guesses if part is not None]
    if not read or clip_s is None:
        return None
    start_s = np.array([piece.start_s for piece in pieces])
    end_s = np.array([piece.end_s for piece in pieces])
    return transcribe(np.concatenate(read), start_s, end_s, clip_s)


def counted(
    pieces: Sequence[Segment], transcript: Transcript | None, options: SegmentOptions
) -> tuple[IntArray, FloatArray]:
    """Which of N segments are kept, (n,) ascending, and what each of those counts, (n,) float32.

    What was read of the recording is the second witness of singing, where the model reads: a
    detector takes some strings and brass for voices, but nobody reads words in them. A song may
    pause for long, but it is dense somewhere; an instrument that seems to speak at times is not.
    """
    sung_s = np.array([piece.sung_s for piece in pieces], np.float32)
    rows = np.arange(len(pieces))
    worth = np.ones(len(pieces), np.float32)
    if options.weighting == "sung":
        # A slice between two regions may hold no sung window and still carries some of the song.
        worth = np.maximum(sung_s, np.float32(1.0))
    if transcript is None:
        return rows, worth
    start_s = np.array([piece.start_s for piece in pieces])
    end_s = np.array([piece.end_s for piece in pieces])
    phones, lengths_s = count(transcript, start_s, end_s), end_s - start_s
    if options.weighting == "read":
        worth = np.maximum(phones, 1).astype(np.float32)
    if not (phones >= options.min_densest_phones_per_s * lengths_s).any():
        return rows[:0], worth[:0]
    kept = np.flatnonzero(phones >= options.min_phones_per_s * lengths_s)
    return kept, worth[kept]


def cut(samples: FloatArray, pieces: Sequence[Segment], length_s: float) -> FloatArray:
    """(N, length) float32 windows of the samples, each filled with zeros after its segment."""
    windows = np.zeros((len(pieces), round(length_s * SAMPLE_RATE)), np.float32)
    for window, piece in zip(windows, pieces, strict=True):
        first, last = round(piece.start_s * SAMPLE_RATE), round(piece.end_s * SAMPLE_RATE)
        sound = samples[first : min(last, first + len(window))]
        window[: len(sound)] = sound
    return windows


def cut_batches(
    samples: FloatArray, pieces: Sequence[Segment], length_s: float, batch: int
) -> Iterator[FloatArray]:
    """The same windows, ``batch`` at a time: a day of radio never lies in memory twice."""
    for first in range(0, len(pieces), batch):
        yield cut(samples, pieces[first : first + batch], length_s)


def _padded_regions(
    probabilities: FloatArray, duration_s: float, options: SegmentOptions
) -> list[tuple[float, float]]:
    sung = np.concatenate([[False], probabilities >= options.window_threshold, [False]])
    edges = np.flatnonzero(sung[1:] != sung[:-1]) * options.window_s
    regions: list[tuple[float, float]] = []
    for first_s, last_s in edges.reshape(-1, 2):
        start_s = max(0.0, float(first_s) - options.padding_s)
        end_s = min(duration_s, float(last_s) + options.padding_s)
        if regions and start_s <= regions[-1][1]:
            regions[-1] = (regions[-1][0], end_s)
        elif start_s < end_s:
            regions.append((start_s, end_s))
    return regions


def _slices(start_s: float, end_s: float, options: SegmentOptions) -> list[tuple[float, float]]:
    """Slices from the start of a region until one reaches its end."""
    beyond_s = max(0.0, end_s - start_s - options.length_s)
    n_slices = 1 + int(np.ceil(round(beyond_s / options.hop_s, 9)))
    starts_s = [start_s + i * options.hop_s for i in range(n_slices)]
    return [(s, min(s + options.length_s, end_s)) for s in starts_s]


def _segment(
    probabilities: FloatArray,
    start_s: float,
    end_s: float,
    duration_s: float,
    options: SegmentOptions,
) -> Segment:
    first = int(start_s // options.window_s)
    last = min(len(probabilities), int(np.ceil(end_s / options.window_s)))
    window_starts_s = np.arange(first, last) * options.window_s
    window_ends_s = np.minimum(window_starts_s + options.window_s, duration_s)
    inside_s = np.minimum(window_ends_s, end_s) - np.maximum(window_starts_s, start_s)
    heard = probabilities[first:last]
    sung_s = inside_s[heard >= options.window_threshold].sum()
    return Segment(start_s, end_s, float((heard * inside_s).sum() / inside_s.sum()), float(sung_s))
