"""A folder that answers questions: which recordings are versions of this one, and where.

``open_library(path).query(song)`` decodes, finds the singing, encodes it, and ranks what the
library holds (``ranking`` says by what). Every hit says where it is like the query.
``query_lyrics(text)`` asks for words in the same way (``words`` says by what).

All of an answer comes from one published generation, that which was current when the library was
opened. A recording that is in the library is recognised by its content and not decoded again.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

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
    Span,
    WordsInfo,
    WordsMatch,
)
from livi_index.audio import SAMPLE_RATE, Audio, FloatArray, decode
from livi_index.database import translated
from livi_index.encoders import BATCH_WINDOWS, AudioEncoder, TextEncoder
from livi_index.errors import BadInput, BadModel, LibraryNotFound, NoSinging
from livi_index.generations import Generation, Manifest, RecordingInfo, current
from livi_index.models import (
    CARD,
    Bundle,
    Calibration,
    find_model,
    open_bundle,
    usable_cpus,
    verify,
)
from livi_index.ranking import RankOptions, Scored, Sung, best_pairs, score_candidates
from livi_index.records import IntArray
from livi_index.scan import content_hash, format_id, recording_id
from livi_index.spelling import Spelling, read_spelling
from livi_index.transcripts import Transcript
from livi_index.vocals import (
    Segment,
    SegmentOptions,
    VocalDetector,
    counted,
    cut_batches,
    segments,
    transcribed,
    vocalness,
)
from livi_index.words import Spelt, cut_passages, places, seek

SPACE = "lyrics"
WORDS = "words"  # the name in a card's calibration of typed words against recordings
MAX_QUERY_S = 2 * 3600.0  # of a query's audio; more would need gigabytes
SHOWN_PAIRS = 5  # of a hit, at most
WORTH_SHOWING = 0.7  # of the best pair's score: below, a pair says more about chance
KEPT = "models"  # a library's folder of the models it was built with
PLAIN_WORDS = "these are the words that are sung in a song"  # that any text encoder knows
_PROBABLE = {SPACE: "that a recording is a version", WORDS: "that words are sung in a recording"}


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
        bundle = _bundle_for(place, generation.manifest, model)
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
        self.options = SegmentOptions.from_bundle(bundle)
        self._threads = threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.generation.close()

    @property
    def info(self) -> LibraryInfo:
        n_recordings = len(self.generation.recording_ids(SPACE))
        return LibraryInfo(os.fspath(self.path), self.generation.id, n_recordings)

    def query(
        self,
        source: str | Path | FloatArray,
        *,
        k: int = 10,
        min_score: float | None = None,
        min_probability: float | None = None,
        include_self: bool = False,
        options: RankOptions | None = None,
    ) -> Answer:
        """The k most likely versions of a file, or of (T,) float32 mono 16 kHz samples.

        Hits reach ``min_score`` and ``min_probability``, both where both are given. A file that is
        itself in the library, under any name, is no hit unless ``include_self``.
        Raises UnreadableAudio, NoSinging where there is nothing to compare, LibraryNotFound where
        nothing in the library can be found, BadInput for k < 1 and as ``calibrated`` does.
        """
        self._check(k)
        enough = self._enough(SPACE, min_score, min_probability)
        if isinstance(source, np.ndarray):
            info, sung = self._analyse(None, _as_audio(source))
            itself: tuple[int, ...] = ()
        else:
            number = recording_id(content_hash(source))
            info, sung = self._known(source, number) or self._heard(source)
            itself = () if include_self else (number,)
        found = self.score(sung, options, without=itself)
        return self._answer(info, self._hits(sung, found, k, enough), found.scores, SPACE)

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
        than a song's, and as ``calibrated`` does, BadModel where the model cannot be asked for
        words, LibraryNotFound where nothing in the library can be found.
        """
        self._check(k)
        passages, vectors = self._read(text)
        enough = self._enough(WORDS, min_score, min_probability)
        spelt = self._spelt(passages)
        threads = self._threads or 0
        found = seek(self.generation, SPACE, vectors, k, spelt=spelt, threads=threads)
        scores = list(takewhile(enough, found.scores[:k].tolist()))
        ids = found.recording_ids[: len(scores)].tolist()
        known = self.generation.metadata(ids)
        hits = tuple(
            self._hit(n, known[number], score, WORDS, self._sung_at(number, vectors, spelt))
            for n, (number, score) in enumerate(zip(ids, scores, strict=True), 1)
        )
        return self._answer(WordsInfo(text, tuple(passages)), hits, found.scores, WORDS)

    def stored(self, recording_id: int) -> Sung:
        """What the library holds of a recording; KeyError if it holds nothing of it."""
        table = self.generation.segments_of(np.array([recording_id]), SPACE)
        if len(table) == 0:
            raise KeyError(f"recording {format_id(recording_id)} has no vectors here")
        vectors = self.generation.segment_vectors(table["segment_id"], SPACE)
        transcript = self.generation.transcripts_of(np.array([recording_id]), SPACE)[0]
        return Sung(vectors, table["start_s"], table["end_s"], table["weight"], transcript)

    def rank(
        self,
        sung: Sung,
        *,
        k: int = 10,
        min_score: float | None = None,
        min_probability: float | None = None,
        without: Collection[int] = (),
        options: RankOptions | None = None,
    ) -> tuple[Hit, ...]:
        """The k best hits for what is sung; ``without`` are recordings that are not offered.

        Raises BadInput as ``calibrated`` does.
        """
        enough = self._enough(SPACE, min_score, min_probability)
        return self._hits(sung, self.score(sung, options, without=without), k, enough)

    def score(
        self,
        sung: Sung,
        options: RankOptions | None = None,
        *,
        without: Collection[int] = (),
    ) -> Scored:
        """All candidates for what is sung, with their scores."""
        options, threads = options or RankOptions(), self._threads or 0
        return score_candidates(
            self.generation,
            SPACE,
            sung,
            options,
            aligner=self._aligner,
            without=without,
            threads=threads,
        )

    def probability(self, score: float, question: str = SPACE) -> float | None:
        """How likely a hit of this score is what was asked for; None without a calibration."""
        calibration = self.bundle.card.calibration.get(question)
        return calibration.probability(score, self.info.recordings) if calibration else None

    def calibrated(self, min_probability: float, question: str = SPACE) -> Calibration:
        """The curve by which hits are held against this probability.

        Raises BadInput where the model has none for the question, and unless 0 < probability < 1.
        """
        if not 0 < min_probability < 1:
            raise BadInput(
                f"a probability to ask for lies between 0 and 1 (0.9, say), not at"
                f" {min_probability:g}"
            )
        calibration = self.bundle.card.calibration.get(question)
        if calibration is None:
            raise BadInput(
                f"model {self.bundle.card.name} gives no probabilities {_PROBABLE[question]}, only"
                " scores; say which of them are enough with --min-score"
            )
        return calibration

    def _enough(
        self, question: str, min_score: float | None, min_probability: float | None
    ) -> Callable[[float], bool]:
        """Whether a score is that of a hit."""
        least = -math.inf if min_score is None else min_score
        if min_probability is None:
            return lambda score: score >= least
        # Not by the score that has the probability: a rounding could leave out what has just it.
        curve, n = self.calibrated(min_probability, question), self.info.recordings
        return lambda score: score >= least and curve.probability(score, n) >= min_probability

    def _hits(
        self, sung: Sung, found: Scored, k: int, enough: Callable[[float], bool]
    ) -> tuple[Hit, ...]:
        scores = list(takewhile(enough, found.scores[:k].tolist()))
        ids = found.recording_ids[: len(scores)]
        known = self.generation.metadata(ids)
        matches = self._matches(sung, ids)
        return tuple(
            self._hit(n, known[number], score, SPACE, matches[number])
            for n, (score, number) in enumerate(zip(scores, ids.tolist(), strict=True), 1)
        )

    def _answer(
        self,
        query: QueryInfo | WordsInfo,
        hits: tuple[Hit, ...],
        scores: FloatArray | NDArray[np.float64],
        question: str,
    ) -> Answer:
        """``scores`` are those of all candidates, best first."""
        missed = None
        if not hits and len(scores):
            best = float(scores[0])
            missed = NearMiss(best, self.probability(best, question))
        return Answer(query, self.bundle.card.name, self.info, hits, missed)

    def _check(self, k: int) -> None:
        if k < 1:
            raise BadInput(f"at least one hit must be asked for, not {k}")
        if self.info.recordings == 0:
            raise LibraryNotFound(
                f"{self.path} holds no recording with singing yet; `livi-index build FOLDER`"
                " fills it"
            )

    def _hit(
        self,
        rank: int,
        info: RecordingInfo,
        score: float,
        question: str,
        matches: tuple[Match, ...] | tuple[WordsMatch, ...],
    ) -> Hit:
        return Hit(
            rank=rank,
            score=score,
            probability=self.probability(score, question),
            recording_id=format_id(info.recording_id),
            path=os.fspath(info.path),
            title=info.title,
            artist=info.artist,
            duration_s=info.duration_s,
            matches=matches,
            paths=tuple(map(os.fspath, info.paths)),
            truncated=info.truncated,
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

    def _matches(self, sung: Sung, ids: IntArray) -> dict[int, tuple[Match, ...]]:
        """Of each recording (n,) ascending or not, the pairs of segments that are worth showing."""
        ids = np.sort(ids)
        pairs = best_pairs(self.generation, SPACE, sung, ids, SHOWN_PAIRS, self._aligner)
        found = {}
        for row, number in enumerate(ids.tolist()):
            scores = pairs.scores[row]
            worth = np.flatnonzero(np.isfinite(scores) & (scores >= WORTH_SHOWING * abs(scores[0])))
            query_start_s = sung.start_s[pairs.query_rows[row, worth]]
            columns = (query_start_s, pairs.hit_start_s[row, worth], scores[worth])
            found[number] = tuple(
                Match(*pair) for pair in zip(*(c.tolist() for c in columns), strict=True)
            )
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

    def _known(self, path: str | Path, number: int) -> tuple[QueryInfo, Sung] | None:
        """The query as the library holds it, if it does."""
        if number not in self.generation.recording_ids(SPACE):
            return None
        rows = self.generation.ask(
            "SELECT r.duration_s, a.vocalness, a.truncated FROM recordings r"
            " JOIN analyses a USING (recording_id) WHERE recording_id = ? AND space = ?",
            [number, SPACE],
        )
        duration_s, vocal, truncated = rows[0]
        sung = self.stored(number)
        return QueryInfo(os.fspath(path), duration_s, vocal, _spans(sung), truncated), sung

    def _heard(self, path: str | Path) -> tuple[QueryInfo, Sung]:
        # Opening the models takes as long as decoding; both leave Python's lock alone.
        with ThreadPoolExecutor(1) as other:
            decoding = other.submit(decode, path, max_s=MAX_QUERY_S)
            _ = self._detector, self._encoder
            audio = decoding.result()
        return self._analyse(path, audio)

    def _analyse(self, path: str | Path | None, audio: Audio) -> tuple[QueryInfo, Sung]:
        name = None if path is None else os.fspath(path)
        probabilities = self._detector.probabilities(audio.samples)
        vocal = vocalness(probabilities)
        pieces = segments(probabilities, audio.duration_s, self.options)
        if not pieces:
            raise NoSinging(
                f"{name or 'the query'}: too little singing to compare it by its words (vocalness"
                f" {vocal:.2f}, at least {self.options.min_vocalness:.2f} is needed); ask with a"
                " recording in which somebody sings"
            )
        vectors, transcript = self._encoded(audio.samples, pieces)
        kept, counts = counted(pieces, transcript, self.options)
        if len(kept) == 0:
            raise NoSinging(
                f"{name or 'the query'}: no words can be heard in it, so there is nothing to"
                " compare it by; ask with a recording in which somebody sings words"
            )
        sung = Sung(
            vectors[kept],
            np.array([pieces[row].start_s for row in kept], np.float32),
            np.array([pieces[row].end_s for row in kept], np.float32),
            counts,
            transcript,
        )
        return QueryInfo(name, audio.duration_s, vocal, _spans(sung), audio.truncated), sung

    def _encoded(
        self, samples: FloatArray, pieces: Sequence[Segment]
    ) -> tuple[FloatArray, Transcript | None]:
        """The vectors (n, D) of segments, and what was read of all of them."""
        encoder = self._encoder
        batches = cut_batches(samples, pieces, encoder.window_s, BATCH_WINDOWS)
        parts = [encoder.read(windows) for windows in batches]
        vectors = np.concatenate([part.vectors for part in parts])
        return vectors, transcribed([part.guesses for part in parts], pieces, encoder.clip_s)

    @property
    def _processors(self) -> int:
        return self._threads or usable_cpus()

    @cached_property
    def _aligner(self) -> Aligner | None:
        clips = self.bundle.card.space(SPACE).clips
        if clips is None or not clips.alignment:
            return None
        return Aligner(read_scoring(self.bundle, clips.alignment), threads=self._processors)

    @cached_property
    def _spelling(self) -> tuple[Spelling, Aligner] | None:
        clips = self.bundle.card.space(SPACE).clips
        if clips is None or not clips.alignment:
            return None
        phones = read_scoring(self.bundle, clips.alignment)
        spelling = read_spelling(self.bundle, clips.alignment, phones)
        return (spelling, Aligner(spelling.scoring, threads=self._processors)) if spelling else None

    @cached_property
    def _detector(self) -> VocalDetector:
        return VocalDetector(self.bundle, threads=self._threads)

    @cached_property
    def _encoder(self) -> AudioEncoder:
        return AudioEncoder(self.bundle, SPACE, threads=self._threads)

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        return TextEncoder(self.bundle, SPACE, threads=self._threads)


def keep_bundle(library: str | Path, bundle: Bundle) -> None:
    """Put a copy of a model into a library, so that it can be asked with it for ever.

    Raises BadModel where the bundle is damaged, LibraryNotWritable where the copy cannot be made.
    """
    folder = Path(library) / KEPT / bundle.card.model_id
    if (folder / CARD).is_file():
        return
    verify(bundle)
    with translated(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".keeping-", dir=folder.parent) as place:
            draft = Path(place) / "bundle"
            draft.mkdir()
            for name in (*bundle.card.files, CARD):
                shutil.copyfile(bundle.path / name, draft / name)
            draft.rename(folder)


def _bundle_for(library: Path, manifest: Manifest, model: Bundle | None) -> Bundle:
    made_with = f"{library} was built with model {manifest.model_name} {manifest.model_version}"
    if model is None:
        kept = library / KEPT / manifest.model_id
        try:
            return open_bundle(kept) if kept.is_dir() else find_model(manifest.model_id)
        except BadModel as error:
            raise BadModel(
                f"{made_with}, which is not at hand; `livi-index models install` it, name its"
                " folder with --model, or build the library anew with a model that is"
            ) from error
    if model.card.model_id != manifest.model_id:
        raise BadModel(
            f"{made_with} and cannot be asked with {model.card.name} {model.card.version} from"
            f" {model.path}; leave --model away, or build the library anew with it"
        )
    return model


def _as_audio(samples: NDArray[Any]) -> Audio:
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise BadInput(
            f"samples are one row of floats at {SAMPLE_RATE} Hz, these are {samples.dtype} of shape"
            f" {samples.shape}"
        )
    return Audio(samples.astype(np.float32), len(samples) / SAMPLE_RATE, False, "")


def _spans(sung: Sung) -> tuple[Span, ...]:
    times = zip(sung.start_s.tolist(), sung.end_s.tolist(), strict=True)
    return tuple(Span(*pair) for pair in times)
