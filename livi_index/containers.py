"""Open a media file without trusting it.

Names and headers lie, so nothing here looks at a suffix: `open_regular` refuses everything
that is not a regular file (a FIFO would hang the reader for ever), `sniff` names the format
by its first bytes, and `open_container` gives FFmpeg the open file, a list of formats it may
use and no way to open another. Without that list a text file that begins with `ffconcat` or
`#EXTM3U` makes FFmpeg read whatever file it names.

Paths that are not UTF-8 work everywhere, because libraries get the open file, not the path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

import av
import av.container

from livi_index.errors import UnreadableAudio

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Kind = Literal[
    "wav", "w64", "flac", "mp3", "ogg", "opus", "mp4", "aac", "aiff", "caf",
    "wma", "matroska", "ape", "wavpack",
]  # fmt: skip

_FFMPEG_FORMATS = "mp3,mov,flac,ogg,wav,w64,aac,asf,matroska,ape,wv,aiff,caf"
_SNIFF_BYTES = 65_536
_BUFFER_BYTES = 262_144

_PREFIXES: tuple[tuple[bytes, Kind], ...] = (
    (b"fLaC", "flac"),
    (b"caff", "caf"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"MAC ", "ape"),
    (b"wvpk", "wavpack"),
)
# Kilobits a second by 4-bit index, for (MPEG-1, MPEG-2 and 2.5) and layers I, II, III.
_BITRATES_1 = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_BITRATES_2 = {
    1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


class RegularFile(FileIO):
    """An open file. Leaving its ``with`` block raises UnreadableAudio, code "io_error", if the
    system ever refused to read some of it.

    Libraries take a refusal for damage or for the file's end, and the next attempt may succeed:
    what was made of such a file is not what is in it.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor, "r")
        self._path = path
        self._refused: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            self._refused = error
            raise

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As of any file, but a refusal reads as its end: libsndfile, which asks in this way, can
        be told of no other, and would make it the end of the sound too."""
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            self._refused = error
            return 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if self._refused is not None:
            reason = self._refused.strerror or "cannot be read"
            raise UnreadableAudio(self._path, "io_error", reason) from self._refused


def open_regular(path: str | Path) -> RegularFile:
    """Open a regular file for reading, unbuffered.

    Raises UnreadableAudio with code "not_found", "permission", "not_regular" or "io_error".
    """
    path = Path(path)
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would otherwise wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UnreadableAudio(path, "not_found", "there is no such file") from error
    except PermissionError as error:
        raise UnreadableAudio(path, "permission", "no permission to read it") from error
    except OSError as error:
        raise UnreadableAudio(path, "io_error", error.strerror or "cannot be opened") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableAudio(path, "not_regular", "this is a folder or a device, not a file")
    return RegularFile(descriptor, path)


def sniff(file: BinaryIO | FileIO) -> Kind | None:
    """Name the format of an open file by its content; None if it is no audio known here."""
    head = _read_at(file, 0)
    tagged = head[:3] == b"ID3"
    if tagged:
        head = _read_at(file, _id3_bytes(head))
    return _sniff_bytes(head) or ("mp3" if tagged else None)


def open_container(file: BinaryIO | FileIO) -> av.container.InputContainer:
    """Open the file with FFmpeg, limited to audio formats and to this one file.

    Raises av.FFmpegError where no allowed demuxer takes it. The caller closes the container.
    """
    file.seek(0)
    return av.open(
        file,
        mode="r",
        metadata_errors="replace",
        buffer_size=_BUFFER_BYTES,
        options={"protocol_whitelist": "file", "format_whitelist": _FFMPEG_FORMATS},
    )


def has_length_tag(file: BinaryIO | FileIO) -> bool:
    """Whether an MP3 states its length (Xing, Info, VBRI); else its length is a guess."""
    head = _read_at(file, 0)
    if head[:3] == b"ID3":
        head = _read_at(file, _id3_bytes(head))
    return any(tag in head[:4096] for tag in (b"Xing", b"Info", b"VBRI"))


def _read_at(file: BinaryIO | FileIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(_SNIFF_BYTES) or b""


def _id3_bytes(head: bytes) -> int:
    """Length of the ID3v2 tag that begins here: four bytes of seven bits, and its header."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 127
    return 10 + size


def _sniff_bytes(head: bytes) -> Kind | None:
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    if head[:4] == b"OggS":
        return "opus" if b"OpusHead" in head[:512] else "ogg"
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return "mp4"
    return _sniff_frames(head)


def _sniff_frames(head: bytes) -> Kind | None:
    """MP3 and bare AAC have no magic number: look for three frames that follow each other."""
    position = head.find(b"\xff")
    while position >= 0:
        if _frames_follow(head, position, _mpeg_frame_bytes):
            return "mp3"
        if _frames_follow(head, position, _adts_frame_bytes):
            return "aac"
        position = head.find(b"\xff", position + 1)
    return None


def _frames_follow(head: bytes, start: int, frame_bytes: Callable[[bytes], int]) -> bool:
    for _ in range(3):
        length = frame_bytes(head[start : start + 7])
        if not length:
            return False
        start += length
    return True


def _mpeg_frame_bytes(header: bytes) -> int:
    """Length of the MPEG audio frame that begins here, 0 if none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3:
        return 0
    bitrate = (_BITRATES_1 if version == 3 else _BITRATES_2)[layer][bitrate_index] * 1000
    rate = _MPEG_RATES[version][rate_index]
    if layer == 1:
        return (12 * bitrate // rate + padding) * 4
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * bitrate // rate + padding


def _adts_frame_bytes(header: bytes) -> int:
    """Length of the AAC ADTS frame that begins here, 0 if none does."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 and header[2] >> 2 & 15 < 13 else 0
