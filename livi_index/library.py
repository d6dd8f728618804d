"""A folder that answers questions: which recordings are versions of this one, and where.

``open_library(path).query(song)`` hears a song as the library heard its own (``hearing``), and
ranks what it holds by the words, the harmony or both (``ranking`` and ``fusion`` say how). Every
hit says where it is like the query. ``query_lyrics(text)`` asks for words in the same way
(``words``).

All of an answer comes from one published generation, that which was current when the library was
opened. A recording that is in the library is recognised by its content and not decoded again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import platformdirs
from numpy.typing import NDArray

from livi_index.alignment import Aligner, read_scoring
from livi_index.answers import (
    Answer,
    Hit,
    LibraryInfo,
    Match,
    NearMiss,
    QueryInfo,
    WordsInfo,
    WordsMatch,
)
from livi_index.audio import FloatArray
from livi_index.calibration import IN_NATS, Calibration
from livi_index.encoders import TextEncoder
from livi_index.errors import BadInput, BadModel, LibraryNotFound
from livi_index.familiarity import Familiarity
from livi_index.fusion import score_in_all
from livi_index.generations import Generation, RecordingInfo, current
from livi_index.hearing import Ear, Query, as_audio, query_info
from livi_index.keeping import bundle_for
from livi_index.models import Bundle, usable_cpus
from livi_index.profiles import Profiles, read_profiles
from livi_index.ranking import (
    WHOLE,
    Heard,
    RankOptions,
    Scored,
    best_pairs,
    score_candidates,
)
from livi_index.records import IntArray
from livi_index.scan import content_hash, format_id, recording_id
from livi_index.spelling import Spelling, read_spelling
from livi_index.transcripts import Transcript
from livi_index.words import Spelt, cut_passages, places, seek

SPACE = "lyrics"
BOTH = "both"  # all spaces of the model, fused where its card says how
WORDS = "words"  # the name in a card's calibration of typed words against recordings
SHOWN_PAIRS = 5  # of a hit, at most
WORTH_SHOWING = 0.7  # of the best pair's score: below, a pair says more about chance
NO_BETTER = 0.5  # that a version by its words is likely, where these are far from what is known
PLAIN_WORDS = "these are the words that are sung in a song"  # that any text encoder knows
_PROBABLE = {WORDS: "that words are sung in a recording"}


def default_library() -> Path:
    """Where the library is unless told: ``LIVI_LIBRARY``, else the platform's user data folder."""
    chosen = os.environ.get("LIVI_LIBRARY")
    return Path(chosen) if chosen else platformdirs.user_data_path("livi-index") / "library"


def open_library(
    path: str | Path | None = None, *, model: Bundle | None = None, threads: int | None = None
) -> Library:
    """Open what is published at ``path``, by default at ``default_library()``.

    ``model`` is found by the library's own note of it unless given. Raises LibraryNotFound,
    LibraryDamaged, and BadModel where the model it was built with is not at hand.
    """
    place = default_library() if path is None else Path(path)
    if not place.is_dir():
        raise LibraryNotFound(
            f"there is no library at {place}; `livi-index build FOLDER` makes one, --library or"
            " LIVI_LIBRARY name another place"
        )
    generation = current(place)
    try:
        bundle = bundle_for(place, generation.manifest, model)
    except BadModel:
        generation.close()
        raise
    return Library(place, generation, bundle, threads=threads)


class Library:
    """One generation of a library and its model, open for questions; made by ``open_library``.

    Sessions and the catalog are opened when first needed.
    """

    def __init__(
        self, path: Path, generation: Generation, bundle: Bundle, *, threads: int | None = None
    ) -> None:
        self.path = path
        self.generation = generation
        self.bundle = bundle
        self.ear = Ear(bundle, threads)
        self._threads = threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.generation.close()

    @property
    def info(self) -> LibraryInfo:
        return self._info(BOTH)

    def _info(self, space: str) -> LibraryInfo:
        """``recordings`` are those that can be found in a space, or in any."""
        spaces = self.generation.spaces if space == BOTH else (space,)
        n_recordings = max(len(self.generation.recording_ids(name)) for name in spaces)
        return LibraryInfo(os.fspath(self.path), self.generation.id, n_recordings)

    def query(
        self,
        source: str | Path | FloatArray,
        *,
        k: int = 10,
        space: str = BOTH,
        min_score: float | None = None,
        min_probability: float | None = None,
        include_self: bool = False,
        options: RankOptions | None = None,
    ) -> Answer:
        """The k most likely versions of a file, or of (T,) float32 mono 16 kHz samples.

        ``space``: what is compared, ``lyrics``, ``harmony`` or both. Hits reach ``min_score`` and
        ``min_probability``, both where both are given. A file that is itself in the library, under
        any name, is no hit unless ``include_self``.
        Raises UnreadableAudio, NoSinging where there is nothing to compare, LibraryNotFound where
        nothing in the library can be found, BadInput for k < 1, a space that the library does not
        have, and as ``check_probability`` does.
        """
        space = self._resolved(space)
        self._check(k, space)
        self.check_probability(min_probability, space)
        itself: tuple[int, ...] = ()
        if isinstance(source, np.ndarray):
            query = self.ear.hear(as_audio(source), self._parts(space))
        else:
            number = recording_id(content_hash(source))
            query = self._known(source, number, space) or self.ear.hear_file(
                source, self._parts(space)
            )
            itself = () if include_self else (number,)
        found = self.score(query.heard, options, space=space, without=itself)
        hits = self._hits(query.heard, found, n_enough(found, k, min_score, min_probability))
        info = self._with_distance(query.info, self.distance(query.heard))
        return self._answer(info, hits, found, space)

    def _resolved(self, space: str) -> str:
        """The space, or BOTH where there is more than one and the model says how to fuse them."""
        if space == BOTH:
            fusion = self.bundle.card.fusion
            fused = fusion is not None and set(fusion.weights) <= set(self.generation.spaces)
            return BOTH if fused else self.generation.spaces[0]
        if space in self.generation.spaces:
            return space
        if space in self.bundle.card.space_names:
            raise BadInput(f"{self.path} was built without {space}; `livi-index build` fills it in")
        raise BadInput(
            f"there is no space {space!r} in {self.path}; there are:"
            f" {', '.join((*self.generation.spaces, BOTH))}"
        )

    def _parts(self, space: str) -> tuple[str, ...]:
        return self.generation.spaces if space == BOTH else (space,)

    def query_lyrics(
        self,
        text: str,
        *,
        k: int = 10,
        min_score: float | None = None,
        min_probability: float | None = None,
    ) -> Answer:
        """The k recordings in which these words are most likely sung, be they a line or a song.

        Case, accents, punctuation and line breaks do not matter, and some words may be misspelt.
        Hits reach ``min_score`` and ``min_probability``, both where both are given.
        Raises BadInput for k < 1, a text in which the model finds nothing to read or that is longer
        than a song's, and as ``check_probability`` does, BadModel where the model cannot be asked
        for words, LibraryNotFound where nothing in the library can be found.
        """
        self._check(k, SPACE)
        passages, vectors = self._read(text)
        self.check_probability(min_probability, WORDS)
        spelt = self._spelt(passages)
        threads = self._threads or 0
        seen = seek(self.generation, SPACE, vectors, k, spelt=spelt, threads=threads)
        scores = seen.scores.astype(np.float64)
        found = Scored(seen.recording_ids, scores, {SPACE: scores})
        found = replace(found, probabilities=self._probabilities(found, WORDS))
        ids = found.recording_ids[: n_enough(found, k, min_score, min_probability)]
        known = self.generation.metadata(ids)
        hits = tuple(
            self._hit(known[number], found, row, self._sung_at(number, vectors, spelt))
            for row, number in enumerate(ids.tolist())
        )
        return self._answer(WordsInfo(text, tuple(passages)), hits, found, SPACE)

    def stored(self, recording_id: int) -> dict[str, Heard]:
        """What the library holds of a recording, by space; KeyError if it holds nothing of it."""
        heard = {}
        for space in self.generation.spaces:
            table = self.generation.segments_of(np.array([recording_id]), space)
            if len(table) > 0:
                heard[space] = Heard(
                    self.generation.segment_vectors(table["segment_id"], space),
                    *(table["start_s"], table["end_s"], table["weight"]),
                    self.generation.transcripts_of(np.array([recording_id]), space)[0],
                )
        if not heard:
            raise KeyError(f"recording {format_id(recording_id)} has no vectors here")
        return heard

    def recording_ids(self, space: str = BOTH) -> IntArray:
        """Recordings (n,), ascending, that can be found in a space, or in any."""
        found = np.zeros(0, np.int64)
        for name in self._parts(self._resolved(space)):
            found = np.union1d(found, self.generation.recording_ids(name))
        return found

    def rank(
        self,
        heard: Mapping[str, Heard],
        *,
        k: int = 10,
        space: str = BOTH,
        min_score: float | None = None,
        min_probability: float | None = None,
        without: Collection[int] = (),
        options: RankOptions | None = None,
    ) -> tuple[Hit, ...]:
        """The k best hits for what was heard; ``without`` are recordings that are not offered.

        Raises BadInput as ``query`` does.
        """
        self.check_probability(min_probability, space)
        found = self.score(heard, options, space=space, without=without)
        return self._hits(heard, found, n_enough(found, k, min_score, min_probability))

    def score(
        self,
        heard: Mapping[str, Heard],
        options: RankOptions | None = None,
        *,
        space: str = BOTH,
        without: Collection[int] = (),
    ) -> Scored:
        """All candidates for what was heard, with their scores; none where nothing was heard in
        the space. ``options`` are for the space of words. Where what is sung is farther from what
        the model was trained on than all of that, words alone make nothing likely."""
        space, options = self._resolved(space), options or RankOptions()
        heard = {name: heard[name] for name in self._parts(space) if name in heard}
        if not heard:
            return Scored(np.zeros(0, np.int64), np.zeros(0))
        found = self._scored(heard, options, space, without)
        likely = self._probabilities(found, space)
        if likely is not None and SPACE in found.by_space and self._is_doubted(heard):
            likely = self._doubted(found, likely)
        return replace(found, probabilities=likely)

    def distance(self, heard: Mapping[str, Heard]) -> float | None:
        """How far what is sung is from what the model was trained on, as ``familiarity`` says;
        None where too little was read, or the model's card does not know."""
        read = _transcript(heard)
        return (
            None if self._familiarity is None or read is None else self._familiarity.distance(read)
        )

    def _is_doubted(self, heard: Mapping[str, Heard]) -> bool:
        usual, distance = self.bundle.card.familiar, self.distance(heard)
        return usual is not None and distance is not None and distance > usual.farthest

    def _with_distance(self, info: QueryInfo, distance: float | None) -> QueryInfo:
        usual = self.bundle.card.familiar
        if usual is None or distance is None:
            return info
        far, doubted = distance > usual.far, distance > usual.farthest
        return replace(info, distance=distance, far=far, doubted=doubted)

    def _doubted(self, found: Scored, likely: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities (C,) of candidates where words are not to be relied on."""
        ceiling = np.full(len(likely), NO_BETTER)
        for name in set(found.by_space) - {SPACE}:
            curve = self.bundle.card.calibration[name]
            logits = curve.logits(found.by_space[name], _drawn(found, name))
            by_itself = curve.probabilities(logits, self._info(name).recordings)
            ceiling = np.fmax(ceiling, by_itself)
        # They fall as scores do, also where a worse hit is the likelier one in another space.
        return np.asarray(np.minimum.accumulate(np.minimum(likely, ceiling)))

    def _scored(
        self, heard: Mapping[str, Heard], options: RankOptions, space: str, without: Collection[int]
    ) -> Scored:
        threads = self._threads or 0
        if space == BOTH:
            return score_in_all(
                self.generation,
                heard,
                self.bundle.card,
                options,
                aligner=self._aligner,
                without=without,
                threads=threads,
            )
        sung = space == SPACE
        return score_candidates(
            self.generation,
            space,
            heard[space],
            options if sung else WHOLE,
            aligner=self._aligner if sung else None,
            without=without,
            threads=threads,
        )

    def _probabilities(self, found: Scored, question: str) -> NDArray[np.float64] | None:
        """How likely candidates (C,) are what was asked for; None without a calibration."""
        curve = self._curve(question)
        if curve is None:
            return None
        n_recordings = self._info(SPACE if question == WORDS else question).recordings
        logits = curve.logits(found.scores, _drawn(found, question))
        likely = curve.probabilities(logits, n_recordings)
        # Some are held against a cohort without themselves, which may change places.
        return np.asarray(np.minimum.accumulate(likely))

    def _curve(self, question: str) -> Calibration | None:
        return IN_NATS if question == BOTH else self.bundle.card.calibration.get(question)

    def check_probability(self, min_probability: float | None, question: str = BOTH) -> None:
        """Raises BadInput where the model gives no probabilities for the question, and unless
        0 < probability < 1."""
        if min_probability is None:
            return
        if not 0 < min_probability < 1:
            raise BadInput(
                f"a probability to ask for lies between 0 and 1 (0.9, say), not at"
                f" {min_probability:g}"
            )
        if self._curve(question if question == WORDS else self._resolved(question)) is None:
            what = _PROBABLE.get(question, "that a recording is a version")
            raise BadInput(
                f"model {self.bundle.card.name} gives no probabilities {what}, only scores; say"
                " which of them are enough with --min-score"
            )

    def _hits(self, heard: Mapping[str, Heard], found: Scored, n: int) -> tuple[Hit, ...]:
        """The first n candidates."""
        ids = found.recording_ids[:n]
        known = self.generation.metadata(ids)
        spoken = self._spoken(found)[:n]
        matches: dict[int, tuple[Match, ...]] = {}
        for name in found.by_space:
            matches |= self._matches(name, heard[name], ids[spoken == name])
        return tuple(
            self._hit(known[number], found, row, matches[number])
            for row, number in enumerate(ids.tolist())
        )

    def _spoken(self, found: Scored) -> NDArray[np.str_]:
        """The space (C,) that says most of each candidate."""
        names = list(found.by_space)
        if len(names) < 2:
            return np.repeat(names, len(found.scores))
        curves = self.bundle.card.calibration
        worth = [curves[name].nats(found.by_space[name], _drawn(found, name)) for name in names]
        best: NDArray[np.intp] = np.argmax(np.nan_to_num(worth, nan=-np.inf), axis=0)
        return np.array(names)[best]

    def _answer(
        self, query: QueryInfo | WordsInfo, hits: tuple[Hit, ...], found: Scored, space: str
    ) -> Answer:
        missed = None
        if not hits and len(found.scores):
            missed = NearMiss(float(found.scores[0]), _probability(found, 0))
        return Answer(query, self.bundle.card.name, self._info(space), hits, missed)

    def _check(self, k: int, space: str) -> None:
        if k < 1:
            raise BadInput(f"at least one hit must be asked for, not {k}")
        if self._info(space).recordings == 0:
            what = "recording with singing" if space == SPACE else "recording"
            raise LibraryNotFound(
                f"{self.path} holds no {what} yet; `livi-index build FOLDER` fills it"
            )

    def _hit(
        self,
        info: RecordingInfo,
        found: Scored,
        row: int,
        matches: tuple[Match, ...] | tuple[WordsMatch, ...],
    ) -> Hit:
        return Hit(
            rank=row + 1,
            score=float(found.scores[row]),
            probability=_probability(found, row),
            recording_id=format_id(info.recording_id),
            path=os.fspath(info.path),
            title=info.title,
            artist=info.artist,
            duration_s=info.duration_s,
            matches=matches,
            paths=tuple(map(os.fspath, info.paths)),
            truncated=info.truncated,
            spaces={name: _number(values[row]) for name, values in found.by_space.items()},
        )

    def _read(self, text: str) -> tuple[list[str], FloatArray]:
        """The passages of a text and their vectors (P, D)."""
        spec = self.bundle.card.space(SPACE).text
        if spec is None:
            raise BadModel(
                f"model {self.bundle.card.name}, with which {self.path} was built, cannot be asked"
                " for words; ask with a recording (`livi-index query`), or build a library with a"
                " model that reads text"
            )
        passages = cut_passages(text, spec.alphabet)
        try:
            return passages, self._text_encoder.encode(passages)
        except BadModel as error:
            self._text_encoder.encode([PLAIN_WORDS])  # raises where it is the model's own fault
            raise BadInput(
                f"{text.strip()[:40]!r} holds nothing that model {self.bundle.card.name} knows;"
                " give more words, or other ones"
            ) from error

    def _matches(self, space: str, heard: Heard, ids: IntArray) -> dict[int, tuple[Match, ...]]:
        """Of each recording (n,) ascending or not, the pairs of segments that are worth showing."""
        ids = np.sort(ids)
        aligner = self._aligner if space == SPACE else None
        pairs = best_pairs(self.generation, space, heard, ids, SHOWN_PAIRS, aligner)
        found = {}
        for row, number in enumerate(ids.tolist()):
            scores = pairs.scores[row]
            worth = np.flatnonzero(np.isfinite(scores) & (scores >= WORTH_SHOWING * abs(scores[0])))
            query_start_s = heard.start_s[pairs.query_rows[row, worth]]
            columns = (query_start_s, pairs.hit_start_s[row, worth], scores[worth])
            rows = zip(*(column.tolist() for column in columns), [space] * len(worth), strict=True)
            found[number] = tuple(Match(*pair) for pair in rows)
        return found

    def _spelt(self, passages: list[str]) -> Spelt | None:
        if self._spelling is None:
            return None
        spelling, aligner = self._spelling
        return Spelt([spelling.spell(passage) for passage in passages], aligner)

    def _sung_at(
        self, recording_id: int, passages: FloatArray, spelt: Spelt | None
    ) -> tuple[WordsMatch, ...]:
        found = places(self.generation, SPACE, passages, recording_id, SHOWN_PAIRS, spelt=spelt)
        worth = found.scores >= WORTH_SHOWING * abs(found.scores[0])
        columns = (found.passages, found.start_s, found.end_s, found.scores)
        rows = zip(*(column[worth].tolist() for column in columns), strict=True)
        return tuple(WordsMatch(*row) for row in rows)

    def _known(self, path: str | Path, number: int, space: str) -> Query | None:
        """The query as the library holds it, if it does in all spaces that are compared."""
        rows = self.generation.ask(
            "SELECT a.space, r.duration_s, a.truncated, a.vocalness,"
            f" {self.generation.speech_column} FROM recordings r"
            " JOIN analyses a USING (recording_id) WHERE recording_id = ?",
            [number],
        )
        analysed = {row[0]: row[1:] for row in rows}
        parts = self._parts(space)
        if not set(parts) <= set(analysed):
            return None
        try:
            heard = {name: of for name, of in self.stored(number).items() if name in parts}
        except KeyError:
            return None
        if not heard:
            return None  # to be told why, by what hears it
        duration_s, truncated, *_ = analysed[parts[0]]
        info = query_info(os.fspath(path), duration_s, heard, truncated=truncated)
        if SPACE in analysed:
            info = replace(info, vocalness=analysed[SPACE][2], speech=analysed[SPACE][3])
        return Query(info, heard)

    @property
    def _processors(self) -> int:
        return self._threads or usable_cpus()

    @cached_property
    def _aligner(self) -> Aligner | None:
        clips = self.bundle.card.space(SPACE).clips
        if clips is None or not clips.alignment:
            return None
        scoring, profiles = read_scoring(self.bundle, clips.alignment), self._profiles
        return Aligner(scoring, profiles, threads=self._processors)

    @cached_property
    def _profiles(self) -> Profiles | None:
        clips = self.bundle.card.space(SPACE).clips
        return read_profiles(self.bundle, clips) if clips else None

    @cached_property
    def _familiarity(self) -> Familiarity | None:
        usual = self.bundle.card.familiar
        return None if usual is None else Familiarity(self.bundle, usual)

    @cached_property
    def _spelling(self) -> tuple[Spelling, Aligner] | None:
        clips = self.bundle.card.space(SPACE).clips
        if clips is None or not clips.alignment:
            return None
        phones = read_scoring(self.bundle, clips.alignment)
        spelling = read_spelling(self.bundle, clips.alignment, phones, self._profiles)
        if spelling is None:
            return None
        aligner = Aligner(spelling.scoring, spelling.profiles, threads=self._processors)
        return spelling, aligner

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        return TextEncoder(self.bundle, SPACE, threads=self._threads)


def n_enough(found: Scored, k: int, min_score: float | None, min_probability: float | None) -> int:
    """How many of the first k candidates are good enough."""
    enough = np.ones(len(found.scores[:k]), np.bool_)
    if min_score is not None:
        enough &= found.scores[:k] >= min_score
    if min_probability is not None and found.probabilities is not None:
        enough &= found.probabilities[:k] >= min_probability
    return int(enough.sum())


def _probability(found: Scored, row: int) -> float | None:
    return None if found.probabilities is None else float(found.probabilities[row])


def _transcript(heard: Mapping[str, Heard]) -> Transcript | None:
    """What was read of what is sung."""
    return heard[SPACE].transcript if SPACE in heard else None


def _drawn(found: Scored, space: str) -> NDArray[np.bool_]:
    """(C,) what the scores of a space are held against: all, where nothing was drawn."""
    every: NDArray[np.bool_] = np.ones(len(found.scores), np.bool_)
    return found.cohorts.get(space, every)


def _number(score: float) -> float | None:
    return None if math.isnan(score) else float(score)
