"""From stems to a file: rooms, the balance of voice and backing, and lossy codecs with tags.

Voice and backing stay apart as ``Stems`` until ``mix``, so that a mixture can be made anew at
another level. The level is the ratio of mean powers over the sung parts, which ``Stems.sung``
lists. Rooms are a direct sound, a few early reflections and noise that decays exponentially.
All audio is (T,) float32 mono at 16 kHz; files are encoded by PyAV.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from catalogs.score import seeded

SAMPLE_RATE = 16_000
PEAK = 0.89  # of every mixture; -1 dBFS
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Stems:
    """A recording in parts; ``sung`` (n, 2) holds start and end of the sung parts in seconds."""

    voice: FloatArray
    backing: FloatArray
    sung: NDArray[np.float64]


@dataclass(frozen=True)
class Room:
    """Reverberation: time of decay by 60 dB, and the level of what is reflected."""

    decay_s: float
    wet_db: float
    seed: int


@dataclass(frozen=True)
class Codec:
    """How a file is encoded; ``suffix`` decides the format."""

    suffix: Literal[".mp3", ".ogg", ".opus", ".m4a"]
    kbps: int
    sample_rate: int


_ENCODERS = {".mp3": ("libmp3lame", "mp3"), ".opus": ("libopus", "ogg"), ".m4a": ("aac", "mp4")}


def reverberate(audio: FloatArray, room: Room) -> FloatArray:
    """``audio`` (T,) in ``room``, cut to the same length."""
    return _convolve(audio, _impulse_response(room))[: len(audio)]


def mix(stems: Stems, voice_to_backing_db: float) -> FloatArray:
    """Voice over backing at the level asked for over the sung parts, with a peak of ``PEAK``.

    Where nobody sings or nobody plays there is no balance to keep and the parts are added.
    """
    voice, backing = mean_power(stems.voice, stems.sung), mean_power(stems.backing, stems.sung)
    gain = 1.0
    if voice > 0 and backing > 0:
        gain = float(np.sqrt(voice / backing * 10 ** (-voice_to_backing_db / 10)))
    mixture = stems.voice + np.float32(gain) * stems.backing
    return np.asarray(
        mixture * np.float32(PEAK / max(float(np.abs(mixture).max(initial=0.0)), 1e-6))
    )


def mean_power(audio: FloatArray, sung: NDArray[np.float64]) -> float:
    """Mean square of ``audio`` over the parts (n, 2) in seconds; 0 where there are none."""
    parts = [audio[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in sung]
    n = sum(map(len, parts))
    return sum(float(np.square(part, dtype=np.float64).sum()) for part in parts) / n if n else 0.0


def write_audio(path: Path, audio: FloatArray, codec: Codec, tags: dict[str, str]) -> None:
    """Encode ``audio`` into ``path``, which appears complete or not at all."""
    resampled = soxr.resample(audio, SAMPLE_RATE, codec.sample_rate).astype(np.float32)
    samples = np.clip(resampled * 32767, -32768, 32767).astype(np.int16)
    part = path.with_name(path.name + ".part")
    # PyAV's wheels hold no Vorbis encoder for one channel; libsndfile does.
    write = _write_vorbis if codec.suffix == ".ogg" else _write_with_av
    write(part, samples, codec, tags)
    part.replace(path)


def _write_with_av(
    path: Path, samples: NDArray[np.int16], codec: Codec, tags: dict[str, str]
) -> None:
    import av

    encoder, container = _ENCODERS[codec.suffix]
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(encoder, rate=codec.sample_rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = codec.kbps * 1000
        output.metadata.update(tags)
        stream.metadata.update(tags)  # where Ogg keeps its comments
        for start in range(0, len(samples), codec.sample_rate):
            block = np.ascontiguousarray(samples[None, start : start + codec.sample_rate])
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = codec.sample_rate
            frame.pts = start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _write_vorbis(
    path: Path, samples: NDArray[np.int16], codec: Codec, tags: dict[str, str]
) -> None:
    import soundfile

    # libsndfile turns 0..1 into a quality; about 0.9..0.4 is 40..96 kbit/s of one channel.
    level = float(np.interp(codec.kbps, (32, 96), (0.95, 0.4)))
    with soundfile.SoundFile(
        path, "w", codec.sample_rate, 1, "VORBIS", format="OGG", compression_level=level
    ) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        for start in range(0, len(samples), codec.sample_rate):  # long blocks overflow its stack
            file.write(samples[start : start + codec.sample_rate])


def _impulse_response(room: Room) -> FloatArray:
    rng = seeded("room", room.seed)
    n = max(int(room.decay_s * SAMPLE_RATE), 1)
    time = np.arange(n) / SAMPLE_RATE
    tail = rng.standard_normal(n) * 10 ** (-3 * time / room.decay_s)
    tail = np.convolve(tail, np.hanning(7)[1:-1], mode="same")  # air takes the treble
    tail[: int(0.012 * SAMPLE_RATE)] = 0
    tail *= 1 / max(float(np.sqrt(np.square(tail).sum())), 1e-9)
    for delay in rng.uniform(0.004, 0.045, 6):
        place = int(delay * SAMPLE_RATE)
        if place < n:
            tail[place] += rng.choice([-1, 1]) * 0.35 * 10 ** (-12 * delay)
    response = tail * 10 ** (room.wet_db / 20)
    response[0] = 1.0
    return response.astype(np.float32)


def _convolve(audio: FloatArray, response: FloatArray) -> FloatArray:
    """Overlap and add in blocks: a whole song in one transform is slower."""
    size = 1 << int(np.ceil(np.log2(4 * len(response))))
    step = size - len(response) + 1
    n_blocks = -(-len(audio) // step)
    blocks = np.pad(audio, (0, n_blocks * step - len(audio))).reshape(n_blocks, step)
    spectrum = np.fft.rfft(response, size)
    out = np.zeros(n_blocks * step + size, dtype=np.float32)
    for i, block in enumerate(blocks):
        out[i * step : i * step + size] += np.fft.irfft(np.fft.rfft(block, size) * spectrum, size)
    return out
