"""Walk folders, name each file by its content, read its tags.

`walk` only lists and stats: a nightly walk over a million unchanged files opens none of them.
It leaves out what by its suffix cannot be audio; whether the rest is audio, `looks_like_audio`
says by content, for new and changed files only. Everything left out is reported as `Skipped`.

A recording is the BLAKE2b hash of its demuxed audio packets, without decoding: a changed tag or
cover picture, a new name or place changes nothing. Where FFmpeg cannot take the file apart, its
bytes are hashed instead.

Names that are not UTF-8 come as `os.fsdecode` gives them (surrogateescape) and work as paths.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import Literal

import av
from tinytag import TinyTag, TinyTagException

from livi_index.containers import open_container, open_regular, sniff
from livi_index.errors import BadInput, UnreadableAudio
from livi_index.records import Root

__all__ = [
    "AudioFile", "Identity", "Skipped", "Tags", "content_hash", "format_id", "identify",
    "looks_like_audio", "parse_id", "read_tags", "recording_id", "walk",
]  # fmt: skip

IGNORE_FILE = ".liviignore"

SkipReason = Literal[
    "hidden", "excluded", "not_audio", "symlink", "not_regular", "unreadable", "missing"
]

_CHUNK_BYTES = 1 << 20
# Never songs, and many: covers, texts, playlists, archives, video that is not sold as music.
_OTHER_SUFFIX = re.compile(
    r"""\.(7z|accurip|avi|bak|bmp|bz2|cfg|conf|css|csv|cue|db|doc|docx|duckdb|epub|exe|ffp|gif|gz
    |htm|html|ico|ini|iso|jpeg|jpg|js|json|jsonl|lnk|log|lrc|m3u|m3u8|md|md5|mid|midi|mkv|mov|mpg
    |nfo|npy|onnx|par2|pdf|php|pl|pls|png|pt|py|rar|rtf|sfv|sh|sha256|sql|sqlite|srt|svg|tar|tif
    |tiff|toml|torrent|txt|url|usearch|webp|wmv|wpl|xls|xlsx|xml|xspf|xz|yaml|yml|zip|zst)""",
    re.VERBOSE | re.IGNORECASE,
)
# tinytag promises ParseError for damaged files; the rest is what its tables may still raise.
_TAG_FAULTS = (TinyTagException, OSError, ValueError, LookupError, TypeError, struct.error)


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A file that may be audio, as the file system describes it."""

    path: Path  # absolute
    root: Path  # the root of this run under which it was found
    size: int  # bytes
    mtime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that the walk left out, and why."""

    path: Path
    reason: SkipReason
    detail: str


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says about itself; strings are trimmed and never empty."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    isrc: str | None = None
    year: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What is learnt of a new file without decoding it."""

    content_hash: bytes  # 32 bytes
    tags: Tags


def walk(
    roots: Iterable[str | Path | Root],
    *,
    exclude: Sequence[str] = (),
    follow_symlinks: bool = False,
) -> Iterator[AudioFile | Skipped]:
    """Every file under the roots that may be audio, each once, and what was left out.

    The order is that of the roots and, inside, of the names' bytes, folder by folder. `exclude`
    and the lines of `.liviignore` files are globs as in .gitignore: without a slash they match a
    name at any depth, with one a path from the root (or from the ignore file's folder), a slash
    at the end only folders, `**` any number of folders, `!` takes back. A `Root` has its own.
    Raises BadInput for a glob that cannot be read.
    """
    named = [
        root if isinstance(root, Root) else Root(Path(root), tuple(exclude), follow_symlinks)
        for root in roots
    ]
    by_path = {Path(os.path.abspath(root.path)): root for root in reversed(named)}
    single = {os.path.realpath(path) for path in by_path if path.is_file()}
    walker = _Walker(frozenset(single))
    for path in dict.fromkeys(Path(os.path.abspath(root.path)) for root in named):
        if os.path.realpath(path) in single:
            yield from walker.single_file(path)
        else:
            yield from walker.folders(replace(by_path[path], path=path))


def looks_like_audio(path: str | Path) -> bool:
    """Whether the first bytes are those of an audio file.

    Raises UnreadableAudio if it cannot be opened or is not a regular file.
    """
    with open_regular(path) as file:
        return sniff(file) is not None


def identify(path: str | Path) -> Identity:
    """Hash and tags of a file.

    Raises UnreadableAudio, with code "not_audio" if its content is not audio.
    """
    if not looks_like_audio(path):
        raise UnreadableAudio(Path(path), "not_audio", "this is not an audio file")
    return Identity(content_hash(path), read_tags(path))


def content_hash(path: str | Path) -> bytes:
    """32 bytes, BLAKE2b of the first audio stream's packets, of the file where that fails.

    Raises UnreadableAudio if the file cannot be opened or read.
    """
    with open_regular(path) as file:
        return _packet_hash(file) or _file_hash(file)


def recording_id(content_hash: bytes) -> int:
    """A positive 63-bit integer made of the first 8 bytes of the hash."""
    return int.from_bytes(content_hash[:8], "big") & 0x7FFF_FFFF_FFFF_FFFF or 1


def format_id(recording_id: int) -> str:
    """The 16 hexadecimal digits that users see."""
    return f"{recording_id:016x}"


def parse_id(text: str) -> int:
    """Read back what `format_id` wrote; raises ValueError for anything else."""
    if not re.fullmatch(r"[0-7][0-9a-f]{15}", text) or int(text, 16) == 0:
        raise ValueError(f"{text!r} is not a recording id: 16 hexadecimal digits are expected")
    return int(text, 16)


def read_tags(path: str | Path) -> Tags:
    """Title, artist, album, ISRC and year; what is absent or damaged is None.

    Raises UnreadableAudio if the file cannot be opened or read.
    """
    with open_regular(path) as file:
        try:
            tag = TinyTag.get(file_obj=file, duration=False)
        except _TAG_FAULTS:
            return Tags()
    year = re.search(r"\d{4}", str(tag.year or ""))
    return Tags(
        title=_text(tag.title),
        artist=_text(tag.artist),
        album=_text(tag.album),
        isrc=_text(next(iter(tag.other.get("isrc") or ()), None)),
        year=int(year.group()) if year else None,
    )


def _text(value: object) -> str | None:
    """A tag as one trimmed line of valid Unicode."""
    if not isinstance(value, str):
        return None
    value = value.encode("utf-8", "replace").decode().replace("\0", " ")
    return " ".join(value.split()) or None


def _packet_hash(file: FileIO) -> bytes | None:
    """None where FFmpeg cannot take the file apart to its end."""
    digest = blake2b(digest_size=32)
    n_packets = 0
    try:
        with open_container(file) as container:
            stream = container.streams.audio[0]
            context = stream.codec_context
            if context is None:
                return None
            name = context.codec.name
            # PCM packets say nothing of their form: the same bytes can be two recordings.
            if name.startswith("pcm_"):
                digest.update(f"{name} {context.sample_rate} {context.channels}".encode())
            is_mpeg = name.startswith("mp3")
            for packet in container.demux(stream):
                # A tag at the end of an mp3 comes as a packet that begins with no frame.
                if packet.size and not (is_mpeg and bytes(memoryview(packet)[:1]) != b"\xff"):
                    digest.update(packet)
                    n_packets += 1
    except (av.FFmpegError, IndexError, OSError):
        return None  # OSError: damage made FFmpeg seek to nowhere, or the file remembers it
    return digest.digest() if n_packets else None


def _file_hash(file: FileIO) -> bytes:
    digest = blake2b(digest_size=32)
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.digest()


class _Walker:
    """One walk over several roots; remembers the folders it has seen."""

    def __init__(self, single_files: frozenset[str]) -> None:
        self._single_files = single_files
        self._seen: set[tuple[int, int] | str] = set()
        self._seen_files: set[str] = set()

    def single_file(self, path: Path) -> Iterator[AudioFile]:
        """A file named as a root: taken whatever it is called, once."""
        real = os.path.realpath(path)
        if real not in self._seen_files:
            self._seen_files.add(real)
            yield _audio_file(os.fspath(path), path.parent, os.stat(path))

    def folders(self, root: Root) -> Iterator[AudioFile | Skipped]:
        globs = _Globs.parse(os.fspath(root.path), root.exclude)
        # A stack and not recursion: folders can be nested deeper than Python calls.
        stack: list[tuple[str, tuple[_Globs, ...]]] = [(os.fspath(root.path), (globs,))]
        while stack:
            folder, rules = stack.pop()
            try:
                if self._is_known(folder):
                    continue
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
                rules += _ignore_file(folder, entries)
            except OSError as error:
                yield _fault(folder, error)
                continue
            folders = []
            for entry in entries:
                found = self._look(entry, root, rules)
                if isinstance(found, str):
                    folders.append((found, rules))
                elif found is not None:
                    yield found
            stack.extend(reversed(folders))

    def _is_known(self, folder: str) -> bool:
        status = os.stat(folder)
        # Some network file systems give no inode numbers: there the real path must do.
        key = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)
        known = key in self._seen
        self._seen.add(key)
        return known

    def _look(
        self, entry: os.DirEntry[str], root: Root, rules: tuple[_Globs, ...]
    ) -> AudioFile | Skipped | str | None:
        """What an entry is: a folder to enter (str), a result, or nothing worth a word."""
        try:
            return self._classify(entry, root, rules)
        except OSError as error:
            return _fault(entry.path, error)

    def _classify(
        self, entry: os.DirEntry[str], root: Root, rules: tuple[_Globs, ...]
    ) -> AudioFile | Skipped | str | None:
        if entry.name == IGNORE_FILE:
            return None
        if entry.name.startswith("."):
            return Skipped(Path(entry.path), "hidden", "the name begins with a dot")
        if entry.is_symlink() and not root.follow_symlinks:
            return Skipped(Path(entry.path), "symlink", "links are not followed")
        is_folder = entry.is_dir(follow_symlinks=root.follow_symlinks)
        if glob := _excluding_glob(rules, entry.path, is_folder):
            return Skipped(Path(entry.path), "excluded", f"by {glob}")
        if is_folder:
            return entry.path
        suffix = os.path.splitext(entry.name)[1]
        if _OTHER_SUFFIX.fullmatch(suffix):
            return Skipped(Path(entry.path), "not_audio", f"{suffix} files are not audio")
        status = entry.stat(follow_symlinks=root.follow_symlinks)
        if not stat.S_ISREG(status.st_mode):
            return Skipped(Path(entry.path), "not_regular", "a device, pipe or socket")
        if self._single_files and os.path.realpath(entry.path) in self._single_files:
            return None
        return _audio_file(entry.path, root.path, status)


def _fault(path: str, error: OSError) -> Skipped:
    reason: SkipReason = "unreadable"
    if isinstance(error, FileNotFoundError):
        reason = "missing"
    elif isinstance(error, NotADirectoryError):
        reason = "not_regular"
    return Skipped(Path(path), reason, error.strerror or "cannot be read")


def _audio_file(path: str, root: Path, status: os.stat_result) -> AudioFile:
    return AudioFile(
        path=Path(path),
        root=root,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        device=status.st_dev,
    )


@dataclass(frozen=True)
class _Glob:
    text: str
    pattern: re.Pattern[str]  # of the path below the base, "/" between its parts
    only_folders: bool
    takes_back: bool


@dataclass(frozen=True)
class _Globs:
    """The globs of one ignore file, or of --exclude, and the folder they count from."""

    base: str
    globs: tuple[_Glob, ...]

    @classmethod
    def parse(cls, base: str, lines: Iterable[str]) -> _Globs:
        texts = (line.strip() for line in lines)
        return cls(base, tuple(_parse_glob(t) for t in texts if t and not t.startswith("#")))

    def verdict(self, path: str, is_folder: bool) -> _Glob | None:
        """The last glob that matches."""
        below = path[len(self.base) :].lstrip("/")
        for glob in reversed(self.globs):
            if (is_folder or not glob.only_folders) and glob.pattern.fullmatch(below):
                return glob
        return None


def _excluding_glob(rules: tuple[_Globs, ...], path: str, is_folder: bool) -> str | None:
    """The glob that excludes this path; deeper ignore files win over higher ones."""
    for globs in reversed(rules):
        if glob := globs.verdict(path, is_folder):
            return None if glob.takes_back else glob.text
    return None


def _ignore_file(folder: str, entries: list[os.DirEntry[str]]) -> tuple[_Globs, ...]:
    if not any(entry.name == IGNORE_FILE and entry.is_file() for entry in entries):
        return ()
    with open(os.path.join(folder, IGNORE_FILE), encoding="utf-8", errors="surrogateescape") as f:
        return (_Globs.parse(folder, f),)


def _parse_glob(text: str) -> _Glob:
    takes_back = text.startswith("!")
    body = text.removeprefix("!")
    path = body.rstrip("/")
    anywhere = "/" not in path
    regex = ("(?:.*/)?" if anywhere else "") + _glob_regex(path.lstrip("/"))
    try:
        pattern = re.compile(regex, re.DOTALL)
    except re.error as error:
        raise BadInput(f"the glob {text!r} cannot be read: {error.msg}") from error
    return _Glob(text, pattern, body.endswith("/"), takes_back)


def _glob_regex(glob: str) -> str:
    """`**/` any folders, `/**` all below, `*` and `?` inside a name, `[...]` one of a set."""
    tokens = re.compile(r"(\*\*/)|(/\*\*$)|(\*+)|(\?)|\[([!^]?)(\]?[^\]]*)\]|(.)", re.DOTALL)
    regex = ""
    for match in tokens.finditer(glob):
        folders, below, star, question, negated, members, plain = match.groups()
        if folders:
            regex += "(?:.*/)?"
        elif below:
            regex += "/.+"
        elif star:
            regex += "[^/]*"
        elif question:
            regex += "[^/]"
        elif members is not None:
            escaped = members.replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            regex += f"[{'^' if negated else ''}{escaped}]"
        else:
            regex += re.escape(plain)
    return regex
