"""Words to sing: public-domain poems, split by author so that no test word is ever learned.

Authors are dealt to the test by a hash of their name. Lines recur between poems and poets, so a
training poem that shares two lines with any test poem is dropped. The file holds one JSON object a
line: ``author``, ``title``, ``stanzas`` (lists of lines).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

_TEST_SHARE = 0.25


@dataclass(frozen=True)
class Poem:
    """One poem; ``lines`` are its stanzas joined, as printed."""

    author: str
    title: str
    lines: tuple[str, ...]


def plain(text: str) -> str:
    """``text`` in the recogniser's letters: a-z, apostrophe and single spaces."""
    decomposed = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).lower()
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return re.sub(r"[^a-z']+", " ", letters).strip()


def load_poems(path: str | Path) -> list[Poem]:
    """All poems of ``poems.jsonl.gz`` in the file's order."""
    with gzip.open(path, "rt", encoding="utf-8") as rows:
        read = [json.loads(row) for row in rows]
    return [
        Poem(r["author"], r["title"], tuple(line for s in r["stanzas"] for line in s)) for r in read
    ]


def is_test_author(author: str) -> bool:
    """Whether this poet's words are kept for measuring (about one in four)."""
    digest = hashlib.blake2b(author.encode(), digest_size=8, person=b"livi-sung-test").digest()
    return int.from_bytes(digest) / 2**64 < _TEST_SHARE


def test_poems(poems: list[Poem]) -> list[Poem]:
    """Poems of test authors."""
    return [p for p in poems if is_test_author(p.author)]


test_poems.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def training_poems(poems: list[Poem]) -> list[Poem]:
    """Poems of the other authors, without those that share two lines with a test poem."""
    held = {plain(line) for p in test_poems(poems) for line in p.lines if len(plain(line)) > 12}
    others = [p for p in poems if not is_test_author(p.author)]
    return [p for p in others if sum(plain(line) in held for line in p.lines) < 2]
