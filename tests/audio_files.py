"""Small real audio files of every format, for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

# suffix -> (FFmpeg container, codec), where libsndfile cannot write it
_FFMPEG = {
    "m4a": ("mp4", "aac"),
    "alac.m4a": ("mp4", "alac"),
    "aac": ("adts", "aac"),
    "wma": ("asf", "wmav2"),
    "opus": ("ogg", "libopus"),
}
KINDS = ("wav", "flac", "mp3", "ogg", "aiff", *_FFMPEG)


def tones(seconds: float, rate: int = 44_100, channels: int = 2) -> NDArray[np.float32]:
    """(T, channels) float32: other tones in every channel, in bursts so that delays show."""
    t = np.arange(round(seconds * rate)) / rate
    envelope = 0.15 + 0.85 * (np.sin(2 * np.pi * 1.3 * t) > 0)
    pitches = 220.0 * 2 ** (np.arange(channels) * 7 / 12)
    return (0.4 * envelope[:, None] * np.sin(2 * np.pi * pitches * t[:, None])).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate: int = 44_100) -> Path:
    """Write (T, channels) samples in the format that the suffix names."""
    kind = "alac.m4a" if path.name.endswith("alac.m4a") else path.suffix[1:]
    if kind in _FFMPEG:
        _write_ffmpeg(path, samples, rate, *_FFMPEG[kind])
    else:
        _write_soundfile(path, samples, rate)
    return path


def retag(source: Path, target: Path, container: str, **tags: str) -> Path:
    """Copy the packets into a new file with other tags."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container) as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        new.metadata.update(tags)
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def _write_soundfile(path: Path, samples: NDArray[np.float32], rate: int) -> None:
    with soundfile.SoundFile(path, "w", rate, samples.shape[1]) as file:
        # At most a second at once: libsndfile overflows its stack on long Ogg writes.
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])


def _write_ffmpeg(
    path: Path, samples: NDArray[np.float32], rate: int, container: str, codec: str
) -> None:
    layout = "stereo" if samples.shape[1] == 2 else "mono"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=48_000 if codec == "libopus" else rate, layout=layout)
        stream.codec_context.bit_rate = 128_000
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=stream.rate)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.reshape(1, -1)), format="flt", layout=layout
        )
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        fifo = av.AudioFifo()
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(converted)
        size = stream.codec_context.frame_size or 1024
        while chunk := fifo.read(size) or fifo.read(size, partial=True):
            file.mux(stream.encode(chunk))
        file.mux(stream.encode(None))
