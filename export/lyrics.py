"""Words that somebody has written down for a recording: preferred to what a recogniser hears.

They are looked for beside the file and in folders that are named, as ``NAME.lrc`` or ``NAME.txt``,
then among the file's tags. Lines may have times (the LRC format, wherever it is found); words
without times belong to the whole recording only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinytag import TinyTag, TinyTagException

LONGEST_LINE_S = 8.0  # what is sung of a line that nothing follows for long
_STAMP = re.compile(r"\[(\d{1,3}):(\d{1,2}(?:[.:]\d{1,3})?)\]")
_WORD_STAMP = re.compile(r"<\d{1,3}:\d{1,2}(?:[.:]\d{1,3})?>")
_OFFSET = re.compile(r"^\[offset:\s*([+-]?\d+)\s*\]", re.IGNORECASE | re.MULTILINE)
_ABOUT = re.compile(r"^\[[a-z#]+:[^\]]*\]\s*$", re.IGNORECASE | re.MULTILINE)

Kind = Literal["lrc", "txt", "tag"]


@dataclass(frozen=True)
class Line:
    """One sung line and when it begins and ends."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Lyrics:
    """The words of a recording: with times as ``lines``, or without as ``text``; one is empty.

    ``kind`` and ``source`` say where they are from.
    """

    kind: Kind
    source: str
    lines: tuple[Line, ...]
    text: str

    def between(self, start_s: float, end_s: float) -> str:
        """The lines of a stretch, those whose middle lies in it, one to a line."""
        middles = ((line.start_s + line.end_s) / 2 for line in self.lines)
        return "\n".join(
            line.text
            for line, middle in zip(self.lines, middles, strict=True)
            if start_s <= middle < end_s
        )

    @property
    def whole(self) -> str:
        """All words."""
        return self.text or "\n".join(line.text for line in self.lines)


def find_lyrics(audio: Path, folders: Sequence[Path] = ()) -> Lyrics | None:
    """The words of a recording, from the first place that has some."""
    for folder in (audio.parent, *folders):
        for kind in ("lrc", "txt"):
            path = folder / f"{audio.stem}.{kind}"
            if path.is_file() and (found := read_lyrics(_decoded(path), kind, path.name)):
                return found
    return _tagged(audio)


def read_lyrics(text: str, kind: Kind, source: str) -> Lyrics | None:
    """Words as they are written; None where there are none."""
    lines = tuple(_timed(text))
    if lines:
        return Lyrics(kind, source, lines, "")
    plain = _ABOUT.sub("", text).strip()
    return Lyrics(kind, source, (), plain) if plain else None


def _timed(text: str) -> Iterator[Line]:
    shift = _OFFSET.search(text)
    earlier_s = int(shift.group(1)) / 1000 if shift else 0.0  # a positive offset: words come sooner
    starts: list[tuple[float, str]] = []
    for row in text.splitlines():
        stamps = list(_STAMP.finditer(row))
        if stamps:
            words = " ".join(_WORD_STAMP.sub("", row[stamps[-1].end() :]).split())
            starts += [(max(0.0, _seconds(stamp) - earlier_s), words) for stamp in stamps]
    starts.sort(key=lambda start: start[0])
    ends_s = [*(start_s for start_s, _ in starts[1:]), math.inf]
    for (start_s, words), end_s in zip(starts, ends_s[: len(starts)], strict=True):
        if words:
            yield Line(start_s, min(end_s, start_s + LONGEST_LINE_S), words)


def _seconds(stamp: re.Match[str]) -> float:
    return 60 * int(stamp.group(1)) + float(stamp.group(2).replace(":", "."))


def _decoded(path: Path) -> str:
    """Text files say nothing of their encoding: Unicode where it is that, else Windows' Latin."""
    data = path.read_bytes()
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _tagged(audio: Path) -> Lyrics | None:
    try:
        tag = TinyTag.get(audio, duration=False)
    except (TinyTagException, OSError, ValueError, LookupError, TypeError):
        return None
    for text in tag.other.get("lyrics") or ():
        if found := read_lyrics(text, "tag", audio.name):
            return found
    return None
