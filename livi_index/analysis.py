"""From decoded recordings to what a library keeps of them: where is singing, and its vectors.

Windows are encoded in batches of a fixed size that reach across recordings, since most songs have
no multiple of it. A recording's samples are let go with its last window, so only those of the few
recordings in the current batch are held; a batch's windows are cut when it is encoded, so an hour
of radio never lies in memory twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from livi_index.encoders import BATCH_WINDOWS, AudioEncoder, pool
from livi_index.models import Bundle
from livi_index.pipeline import Clock
from livi_index.planning import Job
from livi_index.reading import Track
from livi_index.records import Analysis
from livi_index.vocals import (
    Segment,
    SegmentOptions,
    VocalDetector,
    counted,
    cut,
    segments,
    transcribed,
    vocalness,
)

Other = TypeVar("Other")


@dataclass(frozen=True, eq=False)
class Analysed:
    """A recording, analysed; an instrumental one has no vectors."""

    job: Job
    duration_s: float
    analysis: Analysis


class Analyst:
    """The models of one space of a bundle at work; they are opened when first needed."""

    def __init__(self, bundle: Bundle, space: str, threads: int, clock: Clock) -> None:
        self._bundle = bundle
        self._space = space
        self._threads = threads
        self._clock = clock
        self._options = SegmentOptions.from_bundle(bundle)

    @cached_property
    def _detector(self) -> VocalDetector:
        return VocalDetector(self._bundle, threads=self._threads)

    @cached_property
    def _encoder(self) -> AudioEncoder:
        return AudioEncoder(self._bundle, self._space, threads=self._threads)

    def analyse(self, items: Iterator[Track | Other]) -> Iterator[Analysed | Other]:
        """Tracks become what was found in them; whatever else comes goes on as it is.

        An item may overtake those before it. Raises BadModel, MissingRuntime.
        """
        waiting: deque[_Sung] = deque()
        for item in items:
            if not isinstance(item, Track):
                yield item
                continue
            with self._clock.time("vocals"):
                probabilities = self._detector.probabilities(item.audio.samples)
            pieces = segments(probabilities, item.audio.duration_s, self._options)
            if pieces:
                waiting.append(_Sung(item, vocalness(probabilities), pieces, self._dim))
            else:
                yield self._result(item, vocalness(probabilities))
            del item
            while sum(sung.n_left for sung in waiting) >= BATCH_WINDOWS:
                yield from self._encode(waiting)
        while waiting:
            yield from self._encode(waiting)

    @property
    def _dim(self) -> int:
        return self._bundle.card.space(self._space).dim

    def _encode(self, waiting: deque[_Sung]) -> Iterator[Analysed]:
        """Encode one batch of what waits longest; yields what is complete by that."""
        parts: list[tuple[_Sung, int]] = []
        room = BATCH_WINDOWS
        for sung in waiting:
            parts.append((sung, min(room, sung.n_left)))
            room -= parts[-1][1]
            if room == 0:
                break
        with self._clock.time("encode"):
            windows = np.concatenate([sung.next(n, self._encoder.window_s) for sung, n in parts])
            encoded = self._encoder.read(windows)
        first = 0
        for sung, n in parts:
            part = slice(first, first + n)
            guesses = None if encoded.guesses is None else encoded.guesses[part]
            sung.add(encoded.vectors[part], guesses)
            first += n
        while waiting and waiting[0].n_left == 0:
            yield self._finished(waiting.popleft())

    def _finished(self, sung: _Sung) -> Analysed:
        plain = self._result(sung.track, sung.vocalness)
        transcript = transcribed(sung.guesses, sung.pieces, self._encoder.clip_s)
        kept, counts = counted(sung.pieces, transcript, self._options)
        if len(kept) == 0:
            return plain
        pieces = [sung.pieces[row] for row in kept]
        analysis = replace(
            plain.analysis,
            sung=True,
            vector=pool(sung.vectors[kept], counts),
            start_s=[piece.start_s for piece in pieces],
            end_s=[piece.end_s for piece in pieces],
            vocalness=[piece.vocalness for piece in pieces],
            weight=counts,
            vectors=sung.vectors[kept],
            transcript=transcript,
        )
        return replace(plain, analysis=analysis)

    def _result(self, track: Track, track_vocalness: float) -> Analysed:
        """What is kept of a track without singing."""
        analysis = Analysis(
            recording_id=track.job.recording_id,
            model_id=self._bundle.card.model_id,
            space=self._space,
            track_vocalness=track_vocalness,
            sung=False,
            truncated=track.audio.truncated,
            decoder=track.audio.decoder,
        )
        return Analysed(track.job, track.audio.duration_s, analysis)


class _Sung:
    """A track on its way through the encoder."""

    def __init__(self, track: Track, vocalness: float, pieces: list[Segment], dim: int) -> None:
        self.track = track
        self.vocalness = vocalness
        self.pieces = pieces
        self.vectors = np.zeros((len(pieces), dim), np.float32)
        self.guesses: list[npt.NDArray[np.uint16] | None] = []  # of some pieces each
        self._n_done = 0

    @property
    def n_left(self) -> int:
        return len(self.pieces) - self._n_done

    def next(self, n: int, window_s: float) -> npt.NDArray[np.float32]:
        """(n, window) samples of its next pieces."""
        pieces = self.pieces[self._n_done : self._n_done + n]
        return cut(self.track.audio.samples, pieces, window_s)

    def add(
        self, vectors: npt.NDArray[np.float32], guesses: npt.NDArray[np.integer] | None
    ) -> None:
        self.vectors[self._n_done : self._n_done + len(vectors)] = vectors
        self._n_done += len(vectors)
        self.guesses.append(None if guesses is None else guesses.astype(np.uint16))
