"""Training batches: voice stems × accompaniments, mixed anew at every step.

    python -m export.mixes OUT --data DATA     # training anthems as arrays, beside rendered bands

``Mixer`` takes a clip from the stems and a stretch of an accompaniment, each through its own
random room and equaliser, at a random level, and damages the sum a little (telephone, noise,
clipping). With the same stems it also makes what a vocal detector must tell apart: every backing
occurs with a voice and without.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.fft

from catalogs.backing import anthems
from export.stems import CLIP_PHONES, CLIP_SAMPLES, SAMPLE_RATE
from livi_index.audio import load_audio

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Mix:
    """``samples`` (160000,) float32; ``text`` sung in it, "" without a voice; ``voice`` and
    ``backing`` alone; ``phones`` (250,) int8 numbers of what the voice sounds."""

    samples: FloatArray
    text: str
    voice: FloatArray
    backing: FloatArray
    phones: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Stem:
    """A voice alone, what it sings, and its phones."""

    voice: FloatArray
    text: str
    phones: npt.NDArray[np.int8]


SILENCE = Stem(np.zeros(CLIP_SAMPLES, np.float32), "", np.zeros(CLIP_PHONES, np.int8))


class Stems:
    """All whole shards of folders, opened without reading them; new ones appear on ``refresh``."""

    def __init__(self, *folders: Path, shards: slice = slice(None)) -> None:
        self._folders = folders
        self._shards = shards
        self.refresh()

    def refresh(self) -> None:
        shards = [p for folder in self._folders for p in sorted(folder.glob("*.json"))]
        ready = [p.with_suffix(".npy") for p in shards[self._shards]]
        self._names = [p.stem for p in ready]
        self._sounds = [np.load(p, mmap_mode="r") for p in ready]
        self._texts = [json.loads(p.with_suffix(".json").read_text())["texts"] for p in ready]
        self._phones = [np.load(p.with_suffix(".phones")) for p in ready]

    def __len__(self) -> int:
        return sum(map(len, self._texts))

    def pick(self, rng: np.random.Generator) -> Stem:
        return self.run(rng, 1)[0]

    def run(self, rng: np.random.Generator, n: int) -> list[Stem]:
        """``n`` clips that follow each other in a shard: mostly one voice and one poem."""
        return self.place(rng, n)[1]

    def place(self, rng: np.random.Generator, n: int) -> tuple[str, list[Stem]]:
        """As ``run``, and the shard's name."""
        shard = int(rng.integers(len(self._sounds)))
        first = int(rng.integers(len(self._texts[shard]) - n + 1))
        sounds, texts, phones = self._sounds[shard], self._texts[shard], self._phones[shard]
        return self._names[shard], [
            Stem(sounds[i].astype(np.float32) / 32768, texts[i], phones[i])
            for i in range(first, first + n)
        ]


class Backings:
    """Accompaniments without voices: 16 kHz int16 arrays of any length in one folder."""

    def __init__(self, folder: Path) -> None:
        self._sounds = [np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy"))]
        lengths = np.sqrt([len(s) for s in self._sounds])  # long files often, but not only they
        self._odds = lengths / lengths.sum()

    def pick(self, rng: np.random.Generator) -> FloatArray:
        """(160000,) float32 of RMS 0.1, or silence where the file is silent."""
        sound = self._sounds[int(rng.choice(len(self._sounds), p=self._odds))]
        at = int(rng.integers(max(1, len(sound) - CLIP_SAMPLES)))
        piece = sound[at : at + CLIP_SAMPLES].astype(np.float32) / 32768
        return at_level(np.pad(piece, (0, CLIP_SAMPLES - len(piece))), 0.1)


@dataclass(frozen=True)
class MixOptions:
    """How hard the mixes are."""

    instrumental: float = 0.12  # share without a voice
    bare: float = 0.12  # share without accompaniment
    voice_db: tuple[float, float] = (-6.0, 9.0)  # voice over backing, uniform
    room: float = 0.4  # share with reverberation on the voice
    equaliser: float = 0.6
    compressor: float = 0.4  # share whose soft sounds are raised, as in nearly all recordings
    echo: float = 0.2
    telephone: float = 0.2
    noise: float = 0.3


class Mixer:
    """Draws mixes; everything random comes from the generator that is passed in."""

    def __init__(self, stems: Stems, backings: Backings, options: MixOptions) -> None:
        self.stems, self.backings, self.options = stems, backings, options

    def draw(self, rng: np.random.Generator, *, ease: float = 0.0) -> Mix:
        """One mix; ``ease`` is the share of bare voices, and lets the others stand out."""
        if rng.random() < ease:
            stem = self.stems.pick(rng)
            level = np.float32(10 ** rng.uniform(-1.0, 0.2))
            return Mix(stem.voice * level, stem.text, stem.voice, SILENCE.voice, stem.phones)
        if rng.random() < self.options.instrumental:
            return self.mix(SILENCE, rng)
        return self.mix(self.stems.pick(rng), rng, ease=ease)

    def mix(self, stem: Stem, rng: np.random.Generator, *, ease: float = 0.0) -> Mix:
        """This voice in a random mix."""
        voice = self._colour(at_level(stem.voice, 0.1), rng) if stem.text else stem.voice
        backing = np.zeros(CLIP_SAMPLES, dtype=np.float32)
        if not stem.text or rng.random() >= self.options.bare:
            backing = self._equalise(self.backings.pick(rng), rng)
        level_db = rng.uniform(*self.options.voice_db) + ease * rng.uniform(5, 20)
        mixed = voice + backing * np.float32(10 ** (-level_db / 20))
        return Mix(self._damage(mixed, rng), stem.text, voice, backing, stem.phones)

    def _colour(self, voice: FloatArray, rng: np.random.Generator) -> FloatArray:
        if rng.random() < self.options.compressor:
            voice = _compressed(voice, float(rng.uniform(0.2, 0.6)))
        if rng.random() < self.options.echo:
            voice = _echoed(voice, rng)
        spectrum = scipy.fft.rfft(voice, 2 * CLIP_SAMPLES)
        if rng.random() < self.options.equaliser:
            spectrum *= _tilt(len(spectrum), rng)
        if rng.random() < self.options.room:
            spectrum *= scipy.fft.rfft(_room(rng), 2 * CLIP_SAMPLES)
        return at_level(scipy.fft.irfft(spectrum)[:CLIP_SAMPLES].astype(np.float32), 0.1)

    def _equalise(self, sound: FloatArray, rng: np.random.Generator) -> FloatArray:
        if rng.random() >= self.options.equaliser:
            return sound
        spectrum = scipy.fft.rfft(sound)
        spectrum *= _tilt(len(spectrum), rng)
        return at_level(scipy.fft.irfft(spectrum).astype(np.float32), 0.1)

    def _damage(self, mixed: FloatArray, rng: np.random.Generator) -> FloatArray:
        if rng.random() < self.options.telephone:
            spectrum = scipy.fft.rfft(mixed)
            frequency = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
            top, bottom = rng.uniform(3200, 7500), rng.uniform(20, 300)
            spectrum *= (frequency < top) * (frequency > bottom)
            mixed = scipy.fft.irfft(spectrum).astype(np.float32)
        if rng.random() < self.options.noise:
            hiss = rng.standard_normal(CLIP_SAMPLES, dtype=np.float32)
            mixed = mixed + hiss * np.float32(0.1 * 10 ** rng.uniform(-3.0, -0.9))
        return (mixed * np.float32(10 ** rng.uniform(-1.5, 0.5))).clip(-1.0, 1.0)


def at_level(sound: FloatArray, level: float) -> FloatArray:
    """``sound`` with this RMS over the parts that are not silent."""
    loud = sound[np.abs(sound) > 1e-3]
    rms = float(np.sqrt(np.mean(np.square(loud)))) if len(loud) else 0.0
    return sound * np.float32(level / rms) if rms > 1e-4 else sound


def _compressed(voice: FloatArray, share: float) -> FloatArray:
    """The level over 50 ms comes nearer to its loudest by ``share`` of the way in dB, and what is
    40 dB softer is raised as what is there."""
    size = SAMPLE_RATE // 20
    power = np.cumsum(np.pad(np.square(voice, dtype=np.float64), (size // 2 + 1, size // 2 - 1)))
    level = np.sqrt(np.maximum(power[size:] - power[:-size], 0.0) / size)
    loudest = max(float(level.max()), 1e-6)
    gain = (np.maximum(level, 0.01 * loudest) / loudest) ** -share
    return (voice * gain).astype(np.float32)


def _echoed(voice: FloatArray, rng: np.random.Generator) -> FloatArray:
    """One to three repeats, each softer, a slap or a beat apart."""
    late = int(rng.uniform(0.07, 0.4) * SAMPLE_RATE)
    share = float(rng.uniform(0.1, 0.45))
    echoed = voice.copy()
    for repeat in range(1, int(rng.integers(2, 5))):
        echoed[repeat * late :] += np.float32(share**repeat) * voice[: -repeat * late]
    return echoed


def _tilt(n_bins: int, rng: np.random.Generator) -> FloatArray:
    """Gains of a gentle random equaliser: ±8 dB at six frequencies, smooth between."""
    knots = np.array([50, 200, 600, 1500, 3500, 8000])
    gains = rng.uniform(-8, 8, len(knots))
    frequency = np.linspace(1, SAMPLE_RATE / 2, n_bins)
    curve = 10 ** (np.interp(np.log(frequency), np.log(knots), gains) / 20)
    return curve.astype(np.float32)


def _room(rng: np.random.Generator) -> FloatArray:
    """An impulse response: the direct sound and noise that dies within 0.2 to 1.5 s."""
    seconds = rng.uniform(0.2, 1.5)
    n = int(seconds * SAMPLE_RATE)
    tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n)
    tail *= rng.uniform(0.1, 0.9) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode the training anthems once, as arrays.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in anthems(arguments.data, "train"):
        samples = load_audio(path)
        np.save(arguments.out / f"{path.stem}.npy", (samples * 32767).astype(np.int16))


if __name__ == "__main__":
    main()
