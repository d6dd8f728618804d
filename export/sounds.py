"""Sounds that a vocal detector must know beside voices and bands, made from nothing or from voices.

What is no singing: noise of any colour, applause, crowds, bowed and blown tones that waver as a
voice does. What is: whispered, shouted and layered voices, which a synthesiser seldom makes. All
take float32 samples at 16 kHz and give as many, and everything random comes from the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import signal

from export.mixes import at_level
from export.stems import SAMPLE_RATE

FloatArray = npt.NDArray[np.float32]

_LEVEL = 0.1  # root mean square of what is made here
_WHISPER_FFT = 512
_BODY_HZ = (200.0, 6000.0)  # where the resonances of an instrument's body lie


def noise(rng: np.random.Generator, n: int) -> FloatArray:
    """From white (power even over frequency) to brown (falling with its square), some of it in
    waves, as wind, rain and surf have them, some of it in a band."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.arange(len(spectrum)) * SAMPLE_RATE / n
    spectrum *= np.maximum(frequency, 20.0) ** (-rng.uniform(0.0, 2.0) / 2)
    if rng.random() < 0.3:
        low = np.exp(rng.uniform(np.log(50), np.log(3000)))
        spectrum *= (frequency > low) & (frequency < low * rng.uniform(1.5, 8))
    sound = np.fft.irfft(spectrum, n)
    if rng.random() < 0.5:
        sound *= _waves(rng, n, rng.uniform(0.3, 3.0))
    return _levelled(sound)


def applause(rng: np.random.Generator, n: int) -> FloatArray:
    """Many hands: short bursts at random moments, each with a resonance of its own."""
    a_second = np.exp(rng.uniform(np.log(8), np.log(400)))
    sound = np.zeros(n + SAMPLE_RATE // 4)
    for _ in range(12):  # hands that sound alike
        hits = np.zeros(len(sound))
        at = rng.integers(0, n, rng.poisson(a_second / 12 * n / SAMPLE_RATE))
        hits[at] = rng.uniform(0.2, 1.0, len(at))
        burst = rng.standard_normal(400) * np.exp(-np.arange(400) / rng.uniform(20, 90))
        b, a = signal.iirpeak(rng.uniform(700, 3000), rng.uniform(1.0, 3.0), fs=SAMPLE_RATE)
        sound += signal.lfilter(b, a, signal.fftconvolve(hits, burst)[: len(sound)])
    return _levelled(sound[:n] * _waves(rng, n, 0.3))


def crowd(rng: np.random.Generator, voices: Sequence[FloatArray]) -> FloatArray:
    """People who talk at once, too many to follow one, in a hall."""
    n = len(voices[0])
    sound = np.zeros(n)
    for voice in voices:
        turned = np.roll(voice, int(rng.integers(n)))
        sound += at_level(turned, _LEVEL) * rng.uniform(0.5, 1.0)
    tail = rng.standard_normal(SAMPLE_RATE) * np.exp(-np.arange(SAMPLE_RATE) * 5.0 / SAMPLE_RATE)
    hall = signal.fftconvolve(sound, tail)[:n]
    return _levelled(sound / max(sound.std(), 1e-6) + hall / max(hall.std(), 1e-6))


def wavering(rng: np.random.Generator, n: int) -> FloatArray:
    """A bowed or blown tone that glides from note to note, with vibrato, through a fixed body."""
    n_notes = max(1, int(n / SAMPLE_RATE * rng.uniform(0.5, 4.0)))
    lowest = np.exp(rng.uniform(np.log(100), np.log(600)))
    notes = np.repeat(rng.integers(0, 18, n_notes), -(-n // n_notes))[:n]
    smooth = int(rng.uniform(0.01, 0.12) * SAMPLE_RATE)
    glide = np.convolve(np.pad(notes, smooth, mode="edge"), np.ones(smooth) / smooth, mode="same")
    t = np.arange(n) / SAMPLE_RATE
    vibrato = rng.uniform(0, 0.7) * np.sin(2 * np.pi * rng.uniform(4, 7) * t)
    pitch = lowest * 2 ** ((glide[smooth : smooth + n] + vibrato) / 12)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    falls = rng.uniform(0.8, 1.8)  # of the harmonics, as a power
    sound = np.zeros(n)
    for harmonic in range(1, 25):
        inside = harmonic * pitch < 0.45 * SAMPLE_RATE
        sound += np.sin(2 * np.pi * harmonic * phase) * inside * harmonic**-falls
    for _ in range(int(rng.integers(0, 4))):
        hertz = np.exp(rng.uniform(*np.log(_BODY_HZ)))
        b, a = signal.iirpeak(hertz, rng.uniform(1.0, 6.0), fs=SAMPLE_RATE)
        sound += rng.uniform(0.5, 3.0) * signal.lfilter(b, a, sound)
    return _levelled(sound * _waves(rng, n, 1.0))


def whispered(rng: np.random.Generator, voice: FloatArray) -> FloatArray:
    """The voice with nothing but breath in it: its spectra, smoothed over harmonics, on noise."""
    _, _, spectra = signal.stft(voice, nperseg=_WHISPER_FFT)
    width = int(rng.integers(9, 17))  # bins, 280 to 530 Hz: wider than harmonics lie apart
    envelope = signal.convolve(np.abs(spectra), np.hanning(width + 2)[1:-1, None], mode="same")
    breath = signal.stft(rng.standard_normal(len(voice)), nperseg=_WHISPER_FFT)[2]
    tilt = np.linspace(0.2, 1.0, len(envelope))[:, None] ** rng.uniform(0.3, 1.0)
    sound = signal.istft(envelope * tilt * breath, nperseg=_WHISPER_FFT)[1]
    return at_level(np.resize(sound, len(voice)).astype(np.float32), _LEVEL)


def shouted(rng: np.random.Generator, voice: FloatArray) -> FloatArray:
    """The voice driven hard: its loud parts bent, more of its high ones."""
    driven = np.tanh(at_level(voice, _LEVEL) * rng.uniform(15, 80))
    return at_level(np.append(driven[0], np.diff(driven)).astype(np.float32) + driven, _LEVEL)


def layered(voices: Sequence[FloatArray]) -> FloatArray:
    """Several voices at once, each with words of its own."""
    together = np.sum([at_level(voice, _LEVEL) for voice in voices], axis=0)
    return at_level(together.astype(np.float32), _LEVEL)


NOT_SUNG: tuple[Callable[[np.random.Generator, int], FloatArray], ...] = (noise, applause, wavering)


def _waves(rng: np.random.Generator, n: int, a_second: float) -> npt.NDArray[np.float64]:
    """Loudness (n,) in 0.05…1 that comes and goes."""
    knots = np.arange(0, n + SAMPLE_RATE / a_second, SAMPLE_RATE / a_second)
    return np.interp(np.arange(n), knots, rng.uniform(0.05, 1.0, len(knots)))


def _levelled(sound: npt.NDArray[np.float64]) -> FloatArray:
    return at_level(sound.astype(np.float32), _LEVEL)
