"""What of a transcript is kept: a recogniser that hears no words still writes some.

The rules are the paper's (facts of its code, in order): stock phrases go, a word that is said three
times and more in a row is said once, and what then has fewer than four words is no text. They are
made to do what they mean. As published, a word boundary after its full stop keeps "Thank you." in
nearly always, and "music" is cut out of every line that sings of it; here both go where they are an
utterance of their own, however they are bracketed.

Loops are found by their structure, since no list has them all: a text that zlib makes tiny, or one
phrase again and again. Refrains repeat as well; the limits leave them alone.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

STOCK = ("thank you", "music")
MIN_WORDS = 4
MAX_COMPRESSION = 4.0  # times that zlib makes a text shorter: songs stay below 3
MAX_RUN = 6  # times that one phrase may follow itself
LONGEST_PHRASE = 12  # words

_WORD = r"[\w'’]+"
_STOCK = f"(?:{'|'.join(STOCK)})"
_MARKS = re.compile(rf"[\[(*♪♫]\W*{_STOCK}\W*[\])*♪♫]", re.IGNORECASE)
_UTTERANCE = re.compile(
    rf"(?:^|(?<=[.!?…\n]))\s*{_STOCK}\s*(?:[.!?…]+|(?=\n)|$)",
    re.IGNORECASE,
)
_STUTTER = re.compile(rf"(?<![\w'’])({_WORD})(?:[\s,]+\1(?![\w'’])){{2,}}", re.IGNORECASE)


@dataclass(frozen=True)
class Cleaned:
    """A text that is kept, or "" and why it is ``rejected``."""

    text: str
    rejected: str | None = None


def clean(heard: str) -> Cleaned:
    """What is kept of a transcript of one segment."""
    text = _STUTTER.sub(r"\1", without_stock(heard).strip())
    words = re.findall(_WORD, text)
    if not words:
        return Cleaned("", "no words")
    if len(words) < MIN_WORDS:
        return Cleaned("", f"fewer than {MIN_WORDS} words")
    if reason := loop(text):
        return Cleaned("", reason)
    return Cleaned(text)


def without_stock(text: str) -> str:
    """The text without stock phrases that are utterances of their own, or between brackets."""
    return _UTTERANCE.sub(" ", _MARKS.sub("\n", text))


def loop(text: str) -> str | None:
    """How a text repeats itself as no song does, or None."""
    if (ratio := compression(text)) > MAX_COMPRESSION:
        return f"a loop: zlib makes it {ratio:.1f} times shorter"
    words = [word.lower() for word in re.findall(_WORD, text)]
    if (run := longest_run(words)) > MAX_RUN:
        return f"a loop: one phrase {run} times in a row"
    return None


def compression(text: str) -> float:
    """How many times shorter zlib makes the UTF-8 bytes of a text."""
    data = text.encode()
    return len(data) / max(1, len(zlib.compress(data)))


def longest_run(words: list[str]) -> int:
    """How many times in a row some phrase of up to ``LONGEST_PHRASE`` words is there."""
    best = 1 if words else 0
    for size in range(1, min(LONGEST_PHRASE, len(words) // 2) + 1):
        same = 0  # words in a row that equal the one a phrase before
        for i in range(size, len(words)):
            same = same + 1 if words[i] == words[i - size] else 0
            best = max(best, 1 + same // size)
    return best
