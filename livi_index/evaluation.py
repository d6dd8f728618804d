"""How well the versions that a list names are found: in a library, or by vectors of any system.

A list is a CSV file with a column ``work`` and one that says which recording is meant: ``path`` (as
for ``build --list``; relative ones count from the list's folder) or ``id`` (a library's 16 digits;
for a file of vectors, its names). Where it has both, a library goes by ``path``, vectors by ``id``;
where it has no ``id``, the names of vectors are the paths as the list writes them.

Every listed recording asks for the others of its work among all listed ones. What is not in the
list is left out, since nobody said which work it is of. What is listed and has no vector is counted
by reason and lowers the coverage. Two rankings are possible in a library: by the cosine of whole
tracks, which is exact and what papers report, and as ``livi-index query`` ranks, where those that
are no candidates come behind them in the order of their cosines.

A file of vectors is a NumPy archive: ``ids`` (N,) and ``vectors`` (N, dim), or one array a
recording under its name, (dim,) or (segments, dim). Lengths mean nothing: cosines are compared.
"""

from __future__ import annotations

import csv
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from livi_index.errors import BadInput
from livi_index.library import BOTH, SPACE, Library, open_library
from livi_index.metrics import Scores, rank_scores, rank_vectors, summarise
from livi_index.scan import parse_id

SCHEMA = 1
BEHIND = 1e3  # what is no candidate scores its cosine less this

Ranking = Literal["tracks", "query"]
Reason = Literal["unknown", "unreadable", "no_singing", "two_works"]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Works:
    """A list, one entry a row. ``names`` are its ids, or its paths as it writes them; ``paths`` are
    absolute, None where it has only ids."""

    file: Path
    works: tuple[str, ...]
    names: tuple[str, ...]
    paths: tuple[Path, ...] | None


@dataclass(frozen=True)
class Evaluation:
    """``missing`` counts listed recordings that took no part, by reason; ``scores.coverage`` is
    the share of those that did. ``unlisted`` are recordings at hand that the list does not name."""

    source: str
    list: str
    ranking: Ranking
    model: str | None
    generation: int | None
    listed: int
    works: int  # of the recordings that took part
    missing: dict[Reason, int]
    unlisted: int
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index eval --json`` prints them."""
        return {"schema": SCHEMA, **asdict(self), "scores": self.scores.as_json()}


def evaluate_at(
    source: str | Path | None,
    works: str | Path,
    ranking: Ranking = "tracks",
    space: str = BOTH,
) -> Evaluation:
    """Evaluate a library (None: the default one) or, where ``source`` is a file, its vectors.

    Tracks are compared in one space, that of lyrics unless another one is named. Raises BadInput
    where the list or the file cannot be read, leaves nothing to find, or has no such space.
    """
    listed = read_works(Path(works))
    if source is not None and os.path.isfile(source):
        if ranking != "tracks":
            raise BadInput(f"{source} holds vectors only: no other ranking than tracks is possible")
        return evaluate_vectors(Path(source), listed)
    with open_library(source) as library:
        return evaluate_library(library, listed, ranking, space)


def read_works(path: Path) -> Works:
    """Read a list. Raises BadInput."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as a list of works ({error})") from error
    if "work" not in columns or not columns & {"path", "id"}:
        raise BadInput(
            f"{path}: its first line must name the columns work and path (or id), it names"
            f" {', '.join(sorted(map(str, columns))) or 'nothing'}"
        )
    needed = [name for name in ("work", "path", "id") if name in columns]
    for number, row in enumerate(rows, 1):
        if lacking := [name for name in needed if not row[name]]:
            raise BadInput(f"{path}: row {number} below the first line has no {lacking[0]}")
    base = Path(os.path.abspath(path)).parent
    paths = tuple(Path(os.path.normpath(base / row["path"])) for row in rows if "path" in row)
    return Works(
        file=path,
        works=tuple(row["work"] for row in rows),
        names=tuple(row["id" if "id" in columns else "path"] for row in rows),
        paths=paths if "path" in columns else None,
    )


def evaluate_library(
    library: Library, works: Works, ranking: Ranking = "tracks", space: str = BOTH
) -> Evaluation:
    """What a library holds of the list's recordings, ranked by it."""
    if ranking == "tracks" and space == BOTH:
        space = SPACE
    findable = library.recording_ids(space)
    numbers, reasons = _numbers(library, works, set(findable.tolist()))
    matched = _match(numbers, reasons, works)
    ids = np.array(sorted(matched.of), np.int64)
    labels = [matched.of[number] for number in ids.tolist()]
    _need_pairs(labels, works)
    vectors = _tracks(library, ids, SPACE if space == BOTH else space)
    if ranking == "tracks":
        results = rank_vectors(vectors, labels, ids, vectors, labels, ids)
    else:
        rows = _QueryRows(library, ids, vectors, space)
        results = rank_scores(rows, labels, ids, labels, ids)
    return Evaluation(
        source=os.fspath(library.path),
        list=os.fspath(works.file),
        ranking=ranking,
        model=library.bundle.card.name,
        generation=library.generation.id,
        listed=len(ids) + matched.missing.total(),
        works=len(set(labels)),
        missing={reason: matched.missing[reason] for reason in get_args(Reason)},
        unlisted=len(findable) - len(ids) - matched.missing["two_works"],
        scores=summarise(results, n_items=len(ids), n_missing=matched.missing.total()),
    )


def evaluate_vectors(file: Path, works: Works) -> Evaluation:
    """The vectors of a file for the list's recordings, by cosine."""
    names, vectors = read_vectors(file)
    at_hand = set(names)
    found = [name if name in at_hand else None for name in works.names]
    matched = _match(found, [(name, "unknown") for name in works.names], works)
    chosen = [row for row, name in enumerate(names) if name in matched.of]
    ids = [names[row] for row in chosen]
    labels = [matched.of[name] for name in ids]
    _need_pairs(labels, works)
    part = vectors[chosen]
    results = rank_vectors(part, labels, ids, part, labels, ids)
    return Evaluation(
        source=os.fspath(file),
        list=os.fspath(works.file),
        ranking="tracks",
        model=None,
        generation=None,
        listed=len(ids) + matched.missing.total(),
        works=len(set(labels)),
        missing={reason: matched.missing[reason] for reason in get_args(Reason)},
        unlisted=len(names) - len(ids) - matched.missing["two_works"],
        scores=summarise(results, n_items=len(ids), n_missing=matched.missing.total()),
    )


def read_vectors(file: Path) -> tuple[list[str], FloatArray]:
    """Names and unit vectors (N, dim) of a NumPy archive. Raises BadInput."""
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no archive")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{file} cannot be read as a NumPy archive of arrays ({error})") from error
    if {"ids", "vectors"} <= set(arrays):
        names, vectors = [str(name) for name in arrays["ids"].ravel()], arrays["vectors"]
    else:
        names, vectors = list(arrays), _stacked(file, arrays.values())
    if vectors.ndim != 2 or len(vectors) != len(names) or vectors.dtype.kind != "f":
        raise BadInput(
            f"{file}: {len(names)} ids do not go with vectors of shape {vectors.shape} and type"
            f" {vectors.dtype}; floats of shape (number of ids, dim) are needed"
        )
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise BadInput(f"{file}: {twice[0]} stands for {names.count(twice[0])} vectors")
    unit = _unit(vectors)
    if len(bad := np.flatnonzero(~np.isfinite(unit).all(axis=1))):
        raise BadInput(f"{file}: the vector of {names[bad[0]]} is zero or not finite")
    return names, unit


def _stacked(file: Path, arrays: Iterable[NDArray[Any]]) -> FloatArray:
    """(N, dim): segments of a recording are made unit and their mean is taken."""
    means = [a if a.ndim == 1 else _unit(a).mean(axis=0) if a.ndim == 2 else None for a in arrays]
    shapes = {None if mean is None else mean.shape for mean in means}
    if len(shapes) != 1 or None in shapes:
        raise BadInput(
            f"{file} is no file of vectors: it needs `ids` and `vectors`, or one array a recording,"
            " (dim,) or (segments, dim), all of one dim"
        )
    return np.array(means)


def _unit(vectors: NDArray[Any]) -> FloatArray:
    """Rows of length one; not a number where a row has no direction."""
    rows: FloatArray = vectors.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True)
class _Matched:
    """Work of each recording that takes part, and how many do not."""

    of: dict[Any, str]
    missing: Counter[Reason]


def _match(found: Sequence[Any], otherwise: Sequence[tuple[Any, Reason]], works: Works) -> _Matched:
    """Rows of a list held against what was found: None there stands for ``otherwise``, which is
    what the row names and why it is not at hand. Rows of one recording count once."""
    of: dict[Any, str] = {}
    without: dict[Any, Reason] = {}
    torn = set()
    for key, (name, reason), work in zip(found, otherwise, works.works, strict=True):
        if key is None:
            without[name] = reason
        elif of.setdefault(key, work) != work:
            torn.add(key)
    missing: Counter[Reason] = Counter(without.values())
    missing["two_works"] = len(torn)
    return _Matched({key: work for key, work in of.items() if key not in torn}, missing)


def _tracks(library: Library, ids: IntArray, space: str) -> FloatArray:
    """Unit vectors (n, dim) of recordings, zero where one has none in the space."""
    there = np.isin(ids, library.generation.recording_ids(space))
    vectors = library.generation.recording_vectors(ids[there], space)
    tracks = np.zeros((len(ids), vectors.shape[1]), np.float32)
    tracks[there] = _unit(vectors)
    return tracks


def _numbers(
    library: Library, works: Works, findable: set[int]
) -> tuple[list[int | None], list[tuple[Any, Reason]]]:
    """The recording of each row, None where it has no vector, and why that may be."""
    generation = library.generation
    named: Sequence[Any]
    if works.paths is not None:
        named = works.paths
        places = [os.fsencode(path) for path in named]
        known = dict(generation.ask(_WHERE.format("path, recording_id FROM files"), [places]))
        broken = {row[0] for row in generation.ask(_WHERE.format("path FROM failures"), [places])}
        numbers = [known.get(place) for place in places]
        unread = [place in broken for place in places]
    else:
        named = [_parsed(text, works.file) for text in works.names]
        there = {row[0] for row in generation.ask("SELECT recording_id FROM recordings")}
        numbers = [number if number in there else None for number in named]
        unread = [False] * len(named)
    reasons: list[tuple[Any, Reason]] = [
        (name, "no_singing" if number else "unreadable" if bad else "unknown")
        for name, number, bad in zip(named, numbers, unread, strict=True)
    ]
    return [number if number in findable else None for number in numbers], reasons


_WHERE = "SELECT {} WHERE path IN (SELECT unnest(?::BLOB[]))"


def _parsed(text: str, file: Path) -> int:
    try:
        return parse_id(text)
    except ValueError as error:
        raise BadInput(f"{file}: {error}; name recordings of a library by their path") from error


def _need_pairs(labels: Sequence[str], works: Works) -> None:
    if len(set(labels)) < len(labels):
        return
    if len(set(works.works)) == len(works.works):
        raise BadInput(f"{works.file} names no work with two recordings: there is nothing to find")
    raise BadInput(
        f"of no work in {works.file} are two recordings here: {len(labels)} of"
        f" {len(works.works)} that it lists have a vector"
    )


class _QueryRows:
    """Scores as queries of a library give them: (n, N) for n of its N recordings ``ids``."""

    def __init__(self, library: Library, ids: IntArray, vectors: FloatArray, space: str) -> None:
        self._library = library
        self._space = space
        self._ids = ids
        self._vectors = vectors

    def __call__(self, rows: IntArray) -> FloatArray:
        scores = self._vectors[rows] @ self._vectors.T - np.float32(BEHIND)
        for line, number in zip(scores, self._ids[rows].tolist(), strict=True):
            heard = self._library.stored(number)
            found = self._library.score(heard, space=self._space, without=(number,))
            place = np.searchsorted(self._ids, found.recording_ids)
            here = np.append(self._ids, 0)[place] == found.recording_ids
            line[place[here]] = found.scores[here]
        return scores
