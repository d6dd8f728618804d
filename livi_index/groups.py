"""Version groups of a whole library, and what is new among them.

Two recordings are a pair when each is among the nearest of the other, by the same score as a query
gives, and that score is above a threshold. Groups are the connected components of the pairs, but
with doubt in favour of splitting: two groups that a pair connects become one only when at least
half of all pairs across them are pairs as well. So a medley does not tie the songs it is made of
together. Nothing is merged, moved or deleted anywhere; this is a report.

``news`` are the pairs of recordings that were not there when news were last told. Which those were
is kept in the library, in ``news.npy``.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from livi_index.database import translated
from livi_index.generations import RecordingInfo
from livi_index.library import Library, n_enough
from livi_index.ranking import RankOptions
from livi_index.records import IntArray
from livi_index.scan import format_id
from livi_index.vectors import write_whole

NEWS = "news.npy"
CHUNK_INFOS = 1000
# What is like a version is for the groups to find out, and each pair is asked for from both sides.
DIRECT = RankOptions(relay_from=math.inf, certain_from=-math.inf)

Watcher = Callable[[int, int], None]


@dataclass(frozen=True)
class PairOptions:
    """When two recordings are a pair; ``min_score`` goes before ``min_probability``."""

    min_probability: float = 0.9
    min_score: float | None = None
    neighbours: int = 50  # of a recording; each of a pair must be among those of the other


@dataclass(frozen=True)
class Member:
    """A recording in a group or a pair, at the first of its paths."""

    recording_id: str  # 16 hexadecimal digits
    path: str
    title: str | None
    artist: str | None


@dataclass(frozen=True)
class Pair:
    """Two recordings that are probably versions of one song; the new one is ``first``."""

    score: float
    probability: float | None
    first: Member
    second: Member

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index news --json`` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class Group:
    """Versions of one song, as far as can be told; ``score`` is that of its weakest needed link."""

    number: int  # from 1, the largest first
    score: float
    probability: float | None
    members: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index groups --json`` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class News:
    """New pairs, best first; ``known`` (n,) are all recordings that there are now."""

    pairs: tuple[Pair, ...]
    new_recordings: int
    known: IntArray

    def remember(self, library: str | Path) -> None:
        """Let the next news begin here. LibraryNotWritable where the disk refuses."""
        content = io.BytesIO()
        np.save(content, self.known)
        path = Path(library) / NEWS
        with translated(path):
            write_whole(path, content.getvalue())


class Link(NamedTuple):
    """How alike two recordings are; ``probability`` is None where the model gives none."""

    score: float
    probability: float | None


Links = dict[int, dict[int, Link]]  # recording → its partners


def find_groups(
    library: Library, options: PairOptions | None = None, progress: Watcher | None = None
) -> list[Group]:
    """All groups of two recordings and more, the largest first. Raises BadInput where there is no
    threshold to go by."""
    options = options or PairOptions()
    ids = library.recording_ids()
    near = neighbours(library, ids.tolist(), options, progress)
    joined = join(mutual(near))
    numbers = [number for members, _ in joined for number in members]
    known = _members(library, numbers)
    return [
        Group(
            n,
            link.score,
            link.probability,
            tuple(sorted((known[m] for m in members), key=lambda member: member.path)),
        )
        for n, (members, link) in enumerate(joined, 1)
    ]


def find_news(
    library: Library, options: PairOptions | None = None, progress: Watcher | None = None
) -> News:
    """The pairs of recordings that are new since ``News.remember``; at first, all pairs."""
    options = options or PairOptions()
    ids = library.recording_ids()
    new = ids[~np.isin(ids, _told(library.path))].tolist()
    near = neighbours(library, new, options, progress)
    partners = {b for links in near.values() for b in links} - set(new)
    # Old recordings have neighbours of their own, among which the new one must be.
    near |= neighbours(library, sorted(partners), options)
    pairs = sorted(
        (-link.score, a, b, link)
        for a, links in mutual(near).items()
        for b, link in links.items()
        if a in set(new) and (a < b or b in partners)
    )
    known = _members(library, [number for _, a, b, _ in pairs for number in (a, b)])
    told = tuple(Pair(link.score, link.probability, known[a], known[b]) for _, a, b, link in pairs)
    return News(told, len(new), np.array(ids))


def _told(place: Path) -> IntArray:
    try:
        return np.asarray(np.load(place / NEWS, allow_pickle=False), np.int64)
    except (OSError, ValueError, EOFError):
        return np.zeros(0, np.int64)


def neighbours(
    library: Library,
    ids: Sequence[int],
    options: PairOptions,
    progress: Watcher | None = None,
) -> Links:
    """What each of these recordings is a version of, as far as it can tell; the cost of it all."""
    if options.min_score is None:
        library.check_probability(options.min_probability)
    links: Links = {}
    for n, number in enumerate(ids):
        if progress is not None:
            progress(n, len(ids))
        found = library.score(library.stored(number), DIRECT, without=(number,))
        close = slice(
            n_enough(
                found,
                options.neighbours,
                options.min_score,
                None if options.min_score is not None else options.min_probability,
            )
        )
        scores = found.scores[close].tolist()
        likely = None if found.probabilities is None else found.probabilities[close].tolist()
        near = map(Link, scores, likely or [None] * len(scores))
        links[number] = dict(zip(found.recording_ids[close].tolist(), near, strict=True))
    return links


def mutual(near: Links) -> Links:
    """Of neighbours, those that hold both ways, with the lower of both scores."""
    return {
        a: {b: min(link, near[b][a]) for b, link in links.items() if a in near.get(b, ())}
        for a, links in near.items()
    }


def join(links: Links) -> list[tuple[list[int], Link]]:
    """Groups of two and more, the largest first, each with the last link that joined parts of it.
    ``links`` are symmetric."""
    group_of: dict[int, int] = {number: number for number in links}
    members: dict[int, list[int]] = {number: [number] for number in links}
    weakest: dict[int, Link] = {}
    pairs = sorted(
        (-link.score, a, b, link) for a, near in links.items() for b, link in near.items() if a < b
    )
    for _, a, b, link in pairs:
        one, other = group_of[a], group_of[b]
        if one == other:
            continue
        if len(members[one]) < len(members[other]):
            one, other = other, one
        inside = set(members[one])
        across = sum(len(inside & links[m].keys()) for m in members[other])
        if 2 * across < len(members[one]) * len(members[other]):
            continue
        for m in members[other]:
            group_of[m] = one
        members[one] += members.pop(other)
        weakest[one] = link
    found = [(sorted(m), weakest[name]) for name, m in members.items() if len(m) > 1]
    return sorted(found, key=lambda group: (-len(group[0]), -group[1].score, group[0]))


def _members(library: Library, ids: Iterable[int]) -> Mapping[int, Member]:
    wanted = list(dict.fromkeys(ids))
    found: dict[int, Member] = {}
    for first in range(0, len(wanted), CHUNK_INFOS):
        part = library.generation.metadata(wanted[first : first + CHUNK_INFOS])
        found |= {number: _member(info) for number, info in part.items()}
    return found


def _member(info: RecordingInfo) -> Member:
    return Member(format_id(info.recording_id), os.fspath(info.path), info.title, info.artist)


def rows(groups: Iterable[Group]) -> Iterator[tuple[object, ...]]:
    """One row a member: group, score, probability, recording, path, title, artist."""
    for group in groups:
        for m in group.members:
            yield (
                group.number, group.score, group.probability, m.recording_id, m.path, m.title,
                m.artist,
            )  # fmt: skip
