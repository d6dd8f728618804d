"""Synthetic voices that sing: a line is spoken, taken apart, and put together again on a melody.

A synthesiser speaks one line, and it is known when each phone begins. The speech is kept as a
smooth spectral envelope and a degree of voicing every 5 ms. Singing is then a source and a filter:
pulses at the pitch of the melody, with vibrato and glides, and noise where the speech had noise,
through the envelope. Time is warped so that vowels carry the length of a note while consonants keep
theirs.

Analyse once, sing many times: ``sing`` costs a few milliseconds a second of audio. All audio here
is float32 mono at 16 kHz. The envelope is the "true envelope" (iterated cepstral smoothing, Röbel
and Rodet 2005); the filter is its minimum-phase response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from catalogs.engines import SAMPLE_RATE, TELLS_PHONES, FloatArray, Phone, Voice, say_and_tell

HOP = 80  # samples: one frame every 5 ms
_FFT = 512
_N_CEPSTRA = 64
_SILENCE_DB = -60.0
_LEAST_VOWEL_VOICING = 0.92

_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029")
_TRAIN_VARIANTS = (
    "f1 f2 f4 f5 m1 m2 m4 m5 m7 m8 Alex Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco"
    " Mario Michael Mike adam anika antonio aunty belinda benjamin boris caleb ed edward gustave"
    " iven john kaukovalta klatt klatt3 klatt5 linda marcelo max michel norbert pablo paul pedro"
    " quincy rob robert sandro shelby steph travis victor grandma grandpa announcer Nguyen Storm"
).split()
_TEST_VARIANTS = "f3 m3 m6 Alicia Andrea david miguel zac iven3 klatt2 steph2 edward2".split()
TRAIN_VOICES = (
    *(Voice("espeak", f"{a}+{v}") for v in _TRAIN_VARIANTS for a in _ACCENTS),
    *(Voice("flite", n) for n in ("slt", "kal16")),
    Voice("festival", "kal"),
)
TEST_VOICES = (
    *(Voice("espeak", f"{a}+{v}") for v in _TEST_VARIANTS for a in _ACCENTS[:3]),
    *(Voice("flite", n) for n in ("rms", "awb")),
    Voice("festival", "slt"),
)
# More throats for training clips, where they are installed; catalogues are fixed and have none.
MORE_VOICES = (
    *(Voice("rhvoice", n) for n in ("alan", "bdl", "clb")),
    *(Voice("pico", n) for n in ("en-US", "en-GB")),
    Voice("festival", "ked"),
)


@dataclass(frozen=True)
class Spoken:
    """A spoken line taken apart, ready to be sung.

    ``cepstra`` (F, 64) float32: log-amplitude envelope as real cepstra, a frame every 5 ms;
    ``voicing`` (F,) float32 in 0..1; ``vowels`` (S, 2) float32: start and end of each syllable's
    vowel in seconds of the speech; ``end_s``: where its last phone ends. ``phones`` are named as
    the engine names them (espeak: IPA; flite and festival: CMU).
    """

    text: str
    voice: Voice
    cepstra: FloatArray
    voicing: FloatArray
    vowels: FloatArray
    end_s: float
    phones: tuple[Phone, ...] = ()

    @property
    def n_syllables(self) -> int:
        return len(self.vowels)


def speak(voice: Voice, text: str) -> Spoken:
    """Speak one line and take it apart; ``RuntimeError`` if the engine says nothing."""
    return speak_lines(voice, [text])[0]


def speak_lines(voice: Voice, lines: Sequence[str]) -> list[Spoken]:
    """``speak`` for several lines; engines that start slowly are started once."""
    said = say_and_tell(voice, lines)
    if voice.engine not in TELLS_PHONES:
        from catalogs.aligner import align  # its package is needed for these voices alone

        pairs = zip(said, lines, strict=True)
        said = [(samples, align(samples, text)) for (samples, _), text in pairs]
    return [take_apart(voice, text, *each) for text, each in zip(lines, said, strict=True)]


def take_apart_recording(samples: FloatArray, voice: Voice) -> Spoken | None:
    """A few seconds of somebody speaking, ready to be sung; None where nobody speaks.

    (T,) float32 at 16 kHz. Syllables are the peaks of loudness of what is voiced, at least 0.12 s
    apart; a vowel is taken to last 50 ms to both sides of its peak.
    """
    phones = [Phone("", 0.0, len(samples) / SAMPLE_RATE, vowel=False)]
    spoken = take_apart(voice, "", samples, phones)
    loudness = np.exp(spoken.cepstra[:, 0]) * spoken.voicing
    loudness = np.convolve(loudness, np.hanning(13)[1:-1], mode="same")
    middle = loudness[1:-1]
    peaks = 1 + np.flatnonzero((middle >= loudness[:-2]) & (middle > loudness[2:]))
    peaks = peaks[loudness[peaks] > 0.15 * loudness.max()]
    kept: list[int] = []
    for peak in peaks:
        if not kept or (peak - kept[-1]) * HOP >= 0.12 * SAMPLE_RATE:
            kept.append(int(peak))
    if not kept:
        return None
    at = np.array(kept, dtype=np.float32) * (HOP / SAMPLE_RATE)
    vowels = np.stack([np.maximum(at - 0.05, 0.0), np.minimum(at + 0.05, spoken.end_s)], axis=1)
    return replace(spoken, vowels=vowels)


def sing(
    spoken: Spoken,
    onsets_s: npt.ArrayLike,
    end_s: float,
    pitches_hz: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    formant: float = 1.0,
    vibrato_cents: float = 30.0,
    breath: float = 0.03,
) -> FloatArray:
    """The line sung: (T,) float32 at 16 kHz with T = end_s · 16000, RMS about 0.1 where voiced.

    Syllable i's vowel begins at ``onsets_s[i]`` on ``pitches_hz[i]``; the last ends at ``end_s``.
    ``formant`` > 1 shortens the vocal tract, ``breath`` is the share of noise in voiced sound.
    """
    onsets = np.asarray(onsets_s, dtype=np.float64)
    pitches = np.asarray(pitches_hz, dtype=np.float64)
    assert len(onsets) == len(pitches) == spoken.n_syllables, "one note a syllable"
    n_frames = round(end_s * SAMPLE_RATE / HOP)
    times = np.arange(n_frames) * (HOP / SAMPLE_RATE)
    source_times = _warp(spoken, onsets, end_s, times)
    frames = source_times * (SAMPLE_RATE / HOP)
    cepstra = _at(spoken.cepstra, frames)
    voicing = _at(spoken.voicing[:, None], frames)[:, 0]
    f0 = _pitch_contour(onsets, pitches, times, vibrato_cents, rng)
    audible = (frames >= 0).astype(np.float32)
    pulses, noise = _excitation(f0, rng)
    voiced_part = _shape(pulses, cepstra, voicing * audible, formant, high_cut=True)
    rough = np.maximum(breath, 1.0 - voicing) * audible
    noisy_part = _shape(noise, cepstra, rough, formant, high_cut=False)
    song = voiced_part + noisy_part
    level = np.sqrt(np.mean(np.square(song[np.abs(song) > 1e-4]))) if np.any(song) else 1.0
    out = np.zeros(round(end_s * SAMPLE_RATE), dtype=np.float32)
    n = min(len(out), len(song))
    out[:n] = song[:n] * (0.1 / max(float(level), 1e-6))
    return out


def phones_sung(
    spoken: Spoken, onsets_s: npt.ArrayLike, end_s: float, times_s: npt.ArrayLike
) -> list[str]:
    """Names of the phones that ``sing`` sounds at these times, "" for none."""
    times = np.asarray(times_s, dtype=np.float64)
    source = _warp(spoken, np.asarray(onsets_s, dtype=np.float64), end_s, times)
    starts = np.array([phone.start_s for phone in spoken.phones])
    index = np.searchsorted(starts, source, side="right") - 1
    return [
        spoken.phones[i].name if i >= 0 and at < spoken.phones[i].end_s else ""
        for i, at in zip(index, source, strict=True)
    ]


# --- the melody: time and pitch


def _warp(
    spoken: Spoken, onsets: npt.NDArray[np.float64], end_s: float, times: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Time in the speech for each output time, −1 before the line begins.

    Consonants keep their spoken length, but take at most 45 % of the way to the vowel before. A
    vowel's glides at its ends keep their length too, its steady part is stretched, and what a
    diphthong moves towards comes late, as singers have it.
    """
    starts, ends = spoken.vowels[:, 0].astype(np.float64), spoken.vowels[:, 1].astype(np.float64)
    out_points: list[float] = []
    in_points: list[float] = []
    lead = min(float(starts[0]), onsets[0])
    out_points.append(onsets[0] - lead)
    in_points.append(starts[0] - lead)
    for i in range(len(onsets)):
        last = i + 1 == len(onsets)
        next_out = end_s if last else onsets[i + 1]
        next_in = spoken.end_s if last else starts[i + 1]
        consonants = min(next_in - ends[i], 0.45 * (next_out - onsets[i]))
        vowel_end = next_out - consonants
        length, spoken_length = vowel_end - onsets[i], ends[i] - starts[i]
        glide = min(0.05, 0.25 * length)
        out_points += [onsets[i], onsets[i] + glide, max(vowel_end - 2 * glide, onsets[i] + glide)]
        in_points += [starts[i], starts[i] + 0.3 * spoken_length, starts[i] + 0.55 * spoken_length]
        out_points.append(vowel_end)
        in_points.append(ends[i])
    out_points.append(end_s)
    in_points.append(spoken.end_s)
    warped = np.interp(times, np.maximum.accumulate(out_points), in_points)
    return np.where(times < out_points[0], -1.0, warped)


def _pitch_contour(
    onsets: npt.NDArray[np.float64],
    pitches: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    vibrato_cents: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """(F,) Hz: steps smoothed over about 60 ms, vibrato that sets in on long notes, slow drift."""
    index = np.clip(np.searchsorted(onsets - 0.03, times, side="right") - 1, 0, len(onsets) - 1)
    cents = 1200.0 * np.log2(pitches[index])
    kernel = np.hanning(15)[1:-1]
    padded = np.pad(cents, len(kernel) // 2, mode="edge")
    cents = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    held = np.clip((times - onsets[index] - 0.2) / 0.3, 0.0, 1.0)
    rate = rng.uniform(4.8, 6.5)
    cents += vibrato_cents * held * np.sin(2 * np.pi * (rate * times + rng.uniform()))
    knots = np.arange(0, times[-1] + 1, 0.25)
    drift = np.interp(times, knots, rng.normal(0, 6, size=len(knots)))
    return np.asarray(2.0 ** ((cents + drift) / 1200.0))


# --- source and filter


def _at(values: FloatArray, frames: npt.NDArray[np.float64]) -> FloatArray:
    """Rows of ``values`` at fractional positions, linear between frames."""
    position = np.clip(frames, 0, len(values) - 1.001)
    low = position.astype(np.int64)
    share = (position - low).astype(np.float32)[:, None]
    return np.asarray(values[low] * (1 - share) + values[low + 1] * share, dtype=np.float32)


def _excitation(
    f0: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Pulses of unit power at ``f0`` (one value a frame), and white noise of unit power."""
    n = len(f0) * HOP
    per_sample = np.repeat(f0, HOP)
    phase = np.cumsum(per_sample / SAMPLE_RATE)
    wraps = np.flatnonzero(np.diff(np.floor(phase)) > 0)
    late = (phase[wraps + 1] % 1.0) / (per_sample[wraps + 1] / SAMPLE_RATE)
    size = np.sqrt(SAMPLE_RATE / per_sample[wraps])
    pulses = np.zeros(n + 1, dtype=np.float32)
    pulses[wraps + 1] += (size * (1 - late)).astype(np.float32)
    pulses[wraps] += (size * late).astype(np.float32)
    return pulses[:n], rng.standard_normal(n, dtype=np.float32)


def _shape(
    source: FloatArray, cepstra: FloatArray, gain: FloatArray, formant: float, *, high_cut: bool
) -> FloatArray:
    """``source`` through the minimum-phase filter of each frame, overlapped and added."""
    response = _minimum_phase(cepstra, formant)
    if high_cut:  # voices lose their harmonics towards the top
        frequency = np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1)
        response = response * (1 / (1 + (frequency / 6500.0) ** 6)).astype(np.float32)
    window = np.hanning(2 * HOP + 1)[:-1].astype(np.float32)
    padded = np.pad(source, (HOP, HOP))
    n_frames = len(cepstra)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP][:n_frames]
    spectra = np.fft.rfft(pieces * window * gain[:, None], _FFT) * response
    filtered = np.fft.irfft(spectra, _FFT).astype(np.float32)
    n_slots = -(-_FFT // HOP)
    filtered = np.pad(filtered, ((0, 0), (0, n_slots * HOP - _FFT)))
    blocks = np.zeros((n_frames + n_slots, HOP), dtype=np.float32)
    for slot in range(n_slots):
        blocks[slot : slot + n_frames] += filtered[:, slot * HOP : (slot + 1) * HOP]
    return blocks.reshape(-1)[HOP : HOP + n_frames * HOP]


def _minimum_phase(cepstra: FloatArray, formant: float) -> npt.NDArray[np.complex64]:
    """(F, 257) complex responses; the envelope is stretched along frequency by ``formant``."""
    folded = np.zeros((len(cepstra), _FFT), dtype=np.float32)
    if formant != 1.0:
        envelope = np.fft.rfft(_symmetric(cepstra), _FFT).real
        bins = np.clip(np.arange(_FFT // 2 + 1) / formant, 0, _FFT // 2 - 1e-3)
        low = bins.astype(np.int64)
        share = bins - low
        envelope = envelope[:, low] * (1 - share) + envelope[:, low + 1] * share
        cepstra = np.fft.irfft(envelope, _FFT)[:, :_N_CEPSTRA].astype(np.float32)
    folded[:, 0] = cepstra[:, 0]
    folded[:, 1:_N_CEPSTRA] = 2 * cepstra[:, 1:]
    return np.exp(np.fft.rfft(folded, _FFT)).astype(np.complex64)


def _symmetric(cepstra: FloatArray) -> FloatArray:
    full = np.zeros((len(cepstra), _FFT), dtype=np.float32)
    full[:, :_N_CEPSTRA] = cepstra
    full[:, -_N_CEPSTRA + 1 :] = cepstra[:, :0:-1]
    return full


# --- analysis of the speech


def take_apart(voice: Voice, text: str, samples: FloatArray, phones: list[Phone]) -> Spoken:
    """A spoken line whose phones are known, (T,) float32 at 16 kHz, ready to be sung."""
    vowels = [(p.start_s, p.end_s) for p in phones if p.vowel]
    end_s = min(len(samples) / SAMPLE_RATE, max((p.end_s for p in phones), default=0.0))
    if not phones or end_s <= 0.05:
        raise RuntimeError(f"{voice} said nothing for {text!r}")
    if not vowels:
        vowels = [(0.3 * end_s, 0.7 * end_s)]
    padded = np.pad(samples, (_FFT // 2, _FFT // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::HOP]
    voicing, period = _voicing(frames)
    for start_s, stop_s in vowels:  # low voices show too few periods in a frame to be found voiced
        span = slice(int(start_s * SAMPLE_RATE / HOP), int(stop_s * SAMPLE_RATE / HOP))
        voicing[span] = np.maximum(voicing[span], _LEAST_VOWEL_VOICING)
    cepstra = _envelope(frames, int(np.clip(0.55 * period, 24, _N_CEPSTRA)))
    spans = np.asarray(vowels, dtype=np.float32)
    return Spoken(text, voice, cepstra, voicing, spans, end_s, tuple(phones))


def _voicing(frames: FloatArray) -> tuple[FloatArray, float]:
    """Voicing (F,) from the normalised autocorrelation, and the median period in samples."""
    windowed = frames * np.hanning(_FFT).astype(np.float32)
    power = np.abs(np.fft.rfft(windowed, 2 * _FFT)) ** 2
    correlation = np.fft.irfft(power)[:, :_FFT]
    taper = np.correlate(np.hanning(_FFT), np.hanning(_FFT), mode="full")[_FFT - 1 :]
    taper = taper / taper[0]
    shortest, longest = SAMPLE_RATE // 400, SAMPLE_RATE // 60
    energy = np.maximum(correlation[:, :1], 1e-9)
    normal = correlation[:, shortest:longest] / energy / taper[shortest:longest]
    peak = normal.max(axis=1)
    loud = correlation[:, 0] > 0.01 * np.percentile(correlation[:, 0], 95)
    voiced = loud & (peak > 0.7)
    period = shortest + float(np.median(normal[voiced].argmax(axis=1))) if voiced.any() else 100.0
    return np.clip((peak - 0.35) / 0.35, 0.0, 1.0).astype(np.float32), period


def _envelope(frames: FloatArray, order: int) -> FloatArray:
    """(F, 64) real cepstra of the log envelope that lies on the peaks of the spectrum."""
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_FFT).astype(np.float32)))
    floor = spectrum.max() * 10 ** (_SILENCE_DB / 20)
    log_spectrum = np.log(np.maximum(spectrum, max(float(floor), 1e-6)))
    lifter = np.zeros(_FFT, dtype=np.float32)
    lifter[:order] = lifter[_FFT - order + 1 :] = 1.0
    envelope = log_spectrum
    for _ in range(3):
        cepstra = np.fft.irfft(envelope, _FFT) * lifter
        smooth = np.fft.rfft(cepstra).real
        envelope = np.maximum(log_spectrum, smooth)
    return np.asarray(cepstra[:, :_N_CEPSTRA], dtype=np.float32)
