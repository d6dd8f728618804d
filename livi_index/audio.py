"""Any audio file -> float32 mono samples at 16 kHz.

soundfile decodes first, PyAV (FFmpeg) second; the other way round for opus, for mp3 and for what
libsndfile does not know. The second is asked when the first fails or
ends early, and the longer result is kept. Both are read block by block, so that a damaged file
keeps what came before the damage and a ten-hour file costs only what `max_s` allows. Lengths in
headers are compared with what was decoded and never believed.

Channels are averaged in numpy for both: FFmpeg's own mono is 1.41 times louder, and a vector
must not depend on the decoder. Resampling is soxr's streaming HQ.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from livi_index.containers import Kind, has_length_tag, open_container, open_regular, sniff
from livi_index.errors import UnreadableAudio

__all__ = [
    "SAMPLE_RATE", "Audio", "FailureCode", "FloatArray", "decode", "decoders", "load_audio",
]  # fmt: skip

FloatArray: TypeAlias = NDArray[np.float32]

SAMPLE_RATE = 16_000  # samples a second of everything after this module

FailureCode = Literal[
    "not_found", "permission", "not_regular", "io_error",  # cannot be opened
    "not_audio", "no_audio_stream", "undecodable", "garbage", "too_short",  # cannot be used
    "changed",  # was written to while it was read
    "timeout", "worker_died", "out_of_memory",  # cost its worker process
]  # fmt: skip

MIN_S = 0.5  # shorter is no recording
SALVAGE_S = 3.0  # a damaged file with less than this is lost
_COMPLETE = 0.98  # share of the stated length below which a file ended early
_DAMAGED_SHARE = 0.02  # of the packets; fewer are scratches, such as a tag at the end
_RATES = (2_000, 768_000)  # Hz; headers outside are damaged
_BLOCK_SAMPLES = 1 << 18  # over all channels
# Lossy decoders overshoot full scale on loud masters, by less than 6 dB; damage goes far beyond.
_OVERLOAD = 2.0
_OVERLOADED_SHARE = 0.001

_SOUNDFILE_KINDS = frozenset({"wav", "w64", "flac", "mp3", "ogg", "opus", "aiff", "caf"})
_DECODERS = {"soundfile": soundfile.__version__, "av": av.__version__}
_Block: TypeAlias = tuple[int, FloatArray]  # sample rate, mono samples (n,)


@dataclass(frozen=True)
class Audio:
    """What was decoded of one file."""

    samples: FloatArray  # (T,) mono at SAMPLE_RATE, within [-1, 1]
    duration_s: float  # of `samples`, not of the header
    truncated: bool  # the cap was reached, or the file ends before its stated end
    decoder: str  # name and version, such as "soundfile 0.14.0"


class _Fault(Exception):
    """One decoder gave up; the other may still do better."""

    def __init__(self, code: FailureCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code: FailureCode = code
        self.reason = reason


@dataclass
class _Take:
    """The outcome of one decoder."""

    decoder: str
    samples: FloatArray
    stated_s: float | None
    capped: bool
    code: FailureCode | None  # why it gave up, None if it did not
    reason: str

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def complete(self) -> bool:
        whole = self.stated_s is None or self.duration_s >= _COMPLETE * self.stated_s
        return self.code is None and (self.capped or whole)


@dataclass
class _Source:
    stated_s: float | None  # length by the header, None where the header only guesses
    blocks: Generator[_Block, None, None]


def decoders() -> str:
    """What decodes here, with versions: a file that failed under others is worth another try."""
    return ", ".join(f"{name} {version}" for name, version in _DECODERS.items())


def load_audio(path: str | Path, *, max_s: float | None = None) -> FloatArray:
    """Decode a file to (T,) float32 mono samples at 16 kHz; see `decode`."""
    return decode(path, max_s=max_s).samples


def decode(path: str | Path, *, max_s: float | None = None) -> Audio:
    """Decode a file, at most `max_s` seconds of it.

    A damaged file gives what could be decoded, if that is at least 3 s, and is marked truncated.
    Raises UnreadableAudio, whose `code` is a FailureCode.
    """
    path = Path(path)
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        kind = sniff(file)
        if kind is None:
            raise UnreadableAudio(path, "not_audio", "this is not an audio file")
        takes = _takes(file, kind, max_s)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UnreadableAudio(path, "changed", "it was changed while being read; try again")
    return _verdict(path, takes)


def _takes(file: FileIO, kind: Kind, max_s: float | None) -> list[_Take]:
    takes = []
    for name in _decoder_order(kind):
        takes.append(_take(name, file, kind, max_s))
        if takes[-1].complete:
            break
    return takes


def _decoder_order(kind: Kind) -> tuple[str, ...]:
    if kind not in _SOUNDFILE_KINDS:
        return ("av",)
    # mp3: python-soundfile seeks after each block, where libmpg123 loses what a frame borrows from
    # those before it; and libsndfile stops at a guessed length where there is no length tag.
    if kind in ("opus", "mp3"):
        return ("av", "soundfile")
    return ("soundfile", "av")


def _take(name: str, file: FileIO, kind: Kind, max_s: float | None) -> _Take:
    """Run one decoder to its end, its fault or the cap."""
    track = _Track(max_s)
    stated_s, code, reason = None, None, ""
    try:
        source = _OPENERS[name](file, kind)
        stated_s = source.stated_s
        with closing(source.blocks) as blocks:
            track.fill(blocks)
        track.check()
    except _Fault as fault:
        code, reason = fault.code, fault.reason
    decoder = f"{name} {_DECODERS[name]}"
    return _Take(decoder, track.samples(), stated_s, track.full, code, reason)


def _verdict(path: Path, takes: list[_Take]) -> Audio:
    usable = [take for take in takes if take.code in (None, "undecodable")]
    best = max(usable, key=lambda take: (take.complete, len(take.samples)), default=takes[-1])
    if best.code is not None and (not usable or best.duration_s < SALVAGE_S):
        raise UnreadableAudio(path, best.code, best.reason)
    if best.duration_s < MIN_S:
        raise UnreadableAudio(path, "too_short", f"it lasts only {best.duration_s:.2f} s")
    stated_s = max((t.stated_s or 0.0 for t in takes), default=0.0)
    truncated = best.capped or not best.complete or best.duration_s < _COMPLETE * stated_s
    return Audio(best.samples, best.duration_s, truncated, best.decoder)


class _Track:
    """Collects blocks of any rate as 16 kHz samples, up to a cap."""

    def __init__(self, max_s: float | None) -> None:
        self._cap = None if max_s is None else round(max_s * SAMPLE_RATE)
        self._buffer: FloatArray = np.empty(0, np.float32)
        self._length = 0
        self._overloaded = 0
        self._rate = 0
        self._resampler: soxr.ResampleStream | None = None

    @property
    def full(self) -> bool:
        return self._cap is not None and self._length >= self._cap

    def fill(self, blocks: Iterable[_Block]) -> None:
        """Take blocks to their end or to the cap; keep what came before a fault."""
        try:
            for rate, block in blocks:
                self._add(rate, block)
                if self.full:
                    break
        finally:
            self._flush()

    def check(self) -> None:
        if self._overloaded > _OVERLOADED_SHARE * self._length:
            raise _Fault("garbage", "it decodes far beyond full scale, as damaged files do")

    def samples(self) -> FloatArray:
        """(T,) what was collected; the track is not used afterwards."""
        self._resize(self._length)
        return self._buffer

    def _add(self, rate: int, block: FloatArray) -> None:
        if not _RATES[0] <= rate <= _RATES[1]:
            raise _Fault("undecodable", f"a sample rate of {rate} Hz is damage")
        if not np.isfinite(block.sum()):
            raise _Fault("garbage", "it decodes to numbers that are not finite")
        if rate != self._rate:
            self._flush()
            self._rate = rate
            if rate != SAMPLE_RATE:
                self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32", "HQ")
        self._append(self._resampler.resample_chunk(block) if self._resampler else block)

    def _flush(self) -> None:
        """Take out what the resampler still holds."""
        if self._resampler is not None:
            self._append(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        self._resampler, self._rate = None, 0

    def _append(self, block: FloatArray) -> None:
        if self._cap is not None:
            block = block[: self._cap - self._length]
        end = self._length + len(block)
        if end > len(self._buffer):
            self._resize(max(end, 2 * len(self._buffer)))
        self._overloaded += int(np.count_nonzero(np.abs(block) > _OVERLOAD))
        np.clip(block, -1.0, 1.0, out=self._buffer[self._length : end])
        self._length = end

    def _resize(self, size: int) -> None:
        # In place: the block moves by remapping, so the peak is one copy and not two.
        self._buffer.resize(size, refcheck=False)


def _open_soundfile(file: FileIO, kind: Kind) -> _Source:
    file.seek(0)
    try:
        # The open file, which is the checked one, and notes what the system refuses to read of it:
        # libsndfile, given a descriptor, would take that for the end of the sound.
        sound = soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        raise _Fault("undecodable", f"damaged {kind} file ({error})") from error
    # A streamed FLAC states no length; libsndfile then says 2^63 - 1 frames.
    stated_s = sound.frames / sound.samplerate if sound.frames < 1 << 48 else None
    return _Source(stated_s, _soundfile_blocks(sound, kind))


def _soundfile_blocks(sound: soundfile.SoundFile, kind: Kind) -> Generator[_Block, None, None]:
    channels = sound.channels
    buffer = np.empty((max(1, _BLOCK_SAMPLES // channels), channels), np.float32)
    with sound:
        while True:
            try:
                # Not read(): that believes the length in the header.
                n_frames = sound.buffer_read_into(buffer, dtype="float32")
            except soundfile.SoundFileError as error:
                raise _Fault("undecodable", f"damaged {kind} file ({error})") from error
            if n_frames <= 0:
                return
            # einsum sums the short axis four times faster than mean.
            mono = np.einsum("tc->t", buffer[:n_frames]) * np.float32(1 / channels)
            yield sound.samplerate, mono.astype(np.float32, copy=False)


def _open_av(file: FileIO, kind: Kind) -> _Source:
    # Before FFmpeg has the file: it would not notice that somebody else moved its position.
    guessed = kind == "aac" or (kind == "mp3" and not has_length_tag(file))
    try:
        container = open_container(file)
    except (av.FFmpegError, OSError) as error:
        raise _av_fault(kind, error) from error
    stream = next(iter(container.streams.audio), None)
    # PyAV issue 2344: decoding a stream without a codec context kills the process.
    if stream is None or stream.codec_context is None:
        container.close()
        raise _Fault("no_audio_stream", f"this {kind} file holds no sound that can be decoded")
    stream.codec_context.thread_count = 1  # PyAV issue 1962: its threads can deadlock
    stated_s = None
    if not guessed and stream.duration and stream.time_base:
        stated_s = float(stream.duration * stream.time_base)
    return _Source(stated_s, _av_blocks(container, stream, kind))


def _av_blocks(
    container: av.container.InputContainer, stream: av.AudioStream, kind: Kind
) -> Generator[_Block, None, None]:
    """Mono blocks of about a second; packets that do not decode are passed over."""
    rate, n_pending = 0, 0
    pending: list[FloatArray] = []
    with container:
        for frame in _av_frames(container, stream, kind):
            if pending and (frame.sample_rate != rate or n_pending >= rate):
                yield rate, np.concatenate(pending)
                pending, n_pending = [], 0
            rate = frame.sample_rate
            pending.append(_mono(frame))
            n_pending += frame.samples
        if pending:
            yield rate, np.concatenate(pending)


def _av_frames(
    container: av.container.InputContainer, stream: av.AudioStream, kind: Kind
) -> Iterator[av.AudioFrame]:
    packets = container.demux(stream)
    n_packets, n_damaged = 0, 0
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            raise _av_fault(kind, error) from error
        if packet is None:
            break
        n_packets += 1
        try:
            yield from packet.decode()
        except (av.FFmpegError, OSError) as error:
            _av_fault(kind, error)  # memory is no damage: raised there
            n_damaged += 1
    if n_damaged > _DAMAGED_SHARE * n_packets + 1:
        raise _Fault("undecodable", f"damaged {kind} file ({n_damaged} packets do not decode)")


def _av_fault(kind: Kind, error: av.FFmpegError | OSError) -> _Fault:
    """What PyAV raised, as a fault; OSErrors without a class of its own are our file's."""
    if isinstance(error, MemoryError):
        raise error
    # Damaged files make FFmpeg seek to places that are none.
    if not isinstance(error, av.FFmpegError) and error.errno != errno.EINVAL:
        return _Fault("io_error", error.strerror or "cannot be read")
    return _Fault("undecodable", f"damaged {kind} file ({error.strerror})")


def _mono(frame: av.AudioFrame) -> FloatArray:
    """(n,) float32 mean over the channels of a frame of any sample format."""
    data = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        data = data.reshape(-1, channels).T
    mono = data.sum(axis=0, dtype=np.float32 if data.dtype.kind == "f" else np.float64)
    if data.dtype == np.uint8:
        mono = mono / channels / 128.0 - 1.0
    elif data.dtype.kind == "i":
        mono = mono / channels / float(1 << 8 * data.itemsize - 1)
    else:
        mono = mono * np.float32(1 / channels)
    return np.ascontiguousarray(mono, dtype=np.float32)


_OPENERS: dict[str, Callable[[FileIO, Kind], _Source]] = {
    "soundfile": _open_soundfile,
    "av": _open_av,
}
