"""What a library answers, as values: to print, to pass on, and as the JSON of the command line.

An answer names what was asked, who answered, and the hits, each with the places where it is like
the query. Times are seconds from the beginning of a recording; scores are comparable only between
answers to one kind of question by one model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1
SPOKEN = 0.5  # of the voice in a recording, from which it is plain speech


@dataclass(frozen=True)
class Span:
    """A stretch of a recording."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class QueryInfo:
    """What was asked; ``path`` is None for samples, ``truncated``: its end was not heard.

    ``vocalness`` is None where nobody asked for singing, ``segments`` are those that were compared.
    ``distance`` is that of what is sung from what the model was trained on, None where that is not
    known; ``far``: hardly a recording of the training is as far; ``doubted``: none is, and words
    alone make no hit likely. ``speech``: how much of the voice is plain speech, 0…1, None where the
    model does not tell.
    """

    path: str | None
    duration_s: float
    vocalness: float | None
    segments: tuple[Span, ...]
    distance: float | None = None
    far: bool = False
    doubted: bool = False
    speech: float | None = None
    truncated: bool = False


@dataclass(frozen=True)
class WordsInfo:
    """The words that were asked for: as typed, and in passages as the model reads them."""

    text: str
    passages: tuple[str, ...]


@dataclass(frozen=True)
class LibraryInfo:
    """Who answered; ``recordings`` counts those that can be found."""

    path: str
    generation: int
    recordings: int


@dataclass(frozen=True)
class Match:
    """Two segments that are alike in a space: where each begins, and their score in it."""

    query_start_s: float
    hit_start_s: float
    score: float
    space: str


@dataclass(frozen=True)
class WordsMatch:
    """A segment of a hit, its score with the best passage, and that passage's number from 0."""

    passage: int
    hit_start_s: float
    hit_end_s: float
    score: float


@dataclass(frozen=True)
class Hit:
    """One recording that was found, whatever number of ``paths`` it lies at.

    ``probability`` that it is a version, or that the words are sung in it, comes from the model's
    calibration for that question, and is None if it has none.
    ``spaces`` are its scores in each space that was compared, None where it has no vectors in one.
    ``matches`` are its best pairs of segments, in the space that says most of it, or segments, best
    first, that do not overlap.
    """

    rank: int
    score: float
    probability: float | None
    recording_id: str  # 16 hexadecimal digits
    path: str
    title: str | None
    artist: str | None
    duration_s: float
    matches: tuple[Match, ...] | tuple[WordsMatch, ...]
    paths: tuple[str, ...]
    truncated: bool
    spaces: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class NearMiss:
    """The best of what was left out; ``probability`` as that of a hit."""

    score: float
    probability: float | None


@dataclass(frozen=True)
class Answer:
    """Hits, best first, with what was asked and who answered.

    ``missed`` is None but where ``min_score`` or ``min_probability`` left out everything.
    """

    query: QueryInfo | WordsInfo
    model: str
    library: LibraryInfo
    hits: tuple[Hit, ...]
    missed: NearMiss | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index query --json`` and ``lyrics --json`` print them.

        For words, ``query`` has ``text`` and ``passages``, and a match has ``passage`` in place of
        ``query_start_s``, and ``hit_end_s``; all else is the same.
        """
        values = {"schema": SCHEMA, **asdict(self)}
        del values["missed"]
        for part in (values["query"], *values["hits"]):
            part.pop("paths", None)
            part.pop("truncated", None)
        return values
