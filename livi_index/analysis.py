"""From decoded recordings to what a library keeps of them: where is singing, and its vectors.

Spaces that do not ask for singing come first, each with windows over the whole recording. Windows
of singing are encoded in batches of a fixed size that reach across recordings, since most songs
have no multiple of it. A recording's samples are let go with its last window, so only those of the
few recordings in the current batch are held; a batch's windows are cut when it is encoded, so an
hour of radio never lies in memory twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from livi_index.encoders import pool
from livi_index.models import Bundle, Space
from livi_index.opened import Opened
from livi_index.pipeline import Clock
from livi_index.planning import Job
from livi_index.reading import Track
from livi_index.records import Analysis
from livi_index.vocals import (
    Segment,
    SegmentOptions,
    Voices,
    confirmed,
    counted,
    cut,
    cut_batches,
    over_all,
    rated,
    segments,
    transcribed,
)

Other = TypeVar("Other")


@dataclass(frozen=True, eq=False)
class Analysed:
    """A recording, analysed in the spaces in which it was not yet."""

    job: Job
    duration_s: float
    analyses: tuple[Analysis, ...]
    instrumental: bool = False  # singing was looked for, and there is none

    @property
    def truncated(self) -> bool:
        return any(analysis.truncated for analysis in self.analyses)

    @property
    def spoken(self) -> bool:
        return any(analysis.spoken for analysis in self.analyses)


class Analyst:
    """The models of a bundle at work; they are opened when first needed."""

    def __init__(self, bundle: Bundle, threads: int, clock: Clock) -> None:
        self._bundle = bundle
        self._models = Opened(bundle, threads)
        self._clock = clock
        self._options = SegmentOptions.from_bundle(bundle)

    def analyse(self, items: Iterator[Track | Other]) -> Iterator[Analysed | Other]:
        """Tracks become what was found in them; whatever else comes goes on as it is.

        An item may overtake those before it. Raises BadModel, MissingRuntime.
        """
        waiting: deque[_Sung] = deque()
        for item in items:
            if not isinstance(item, Track):
                yield item
                continue
            done = tuple(
                self._whole(item, space)
                for space in self._models.others
                if space.name in item.job.spaces
            )
            if self._models.singing.name not in item.job.spaces:
                yield Analysed(item.job, item.audio.duration_s, done)
                continue
            with self._clock.time("vocals"):
                voices = self._models.detector.voices(item.audio.samples)
            pieces = segments(voices.singing, item.audio.duration_s, self._options)
            if pieces:
                waiting.append(_Sung(item, done, voices, pieces, self._models.singing.dim))
            else:
                yield self._instrumental(item, done, voices)
            del item
            while waiting and sum(sung.n_left for sung in waiting) >= self._models.encoder.batch:
                yield from self._encode(waiting)
        while waiting:
            yield from self._encode(waiting)

    def _whole(self, track: Track, space: Space) -> Analysis:
        """What is kept of a track in a space that does not ask for singing."""
        plain = self._nothing(track, space.name)
        pieces = over_all(track.audio.samples, space.window_s, space.hop_s)
        if not pieces:
            return plain
        with self._clock.time("whole"):
            encoder = self._models.other_encoders[space.name]
            batches = cut_batches(track.audio.samples, pieces, space.window_s, encoder.batch)
            vectors = encoder.encode_each(batches)
        return replace(
            plain,
            vector=pool(vectors),
            start_s=[piece.start_s for piece in pieces],
            end_s=[piece.end_s for piece in pieces],
            vocalness=np.zeros(len(pieces)),
            weight=np.ones(len(pieces)),
            vectors=vectors,
        )

    def _encode(self, waiting: deque[_Sung]) -> Iterator[Analysed]:
        """Encode one batch of what waits longest; yields what is complete by that."""
        parts: list[tuple[_Sung, int]] = []
        room = self._models.encoder.batch
        for sung in waiting:
            parts.append((sung, min(room, sung.n_left)))
            room -= parts[-1][1]
            if room == 0:
                break
        with self._clock.time("encode"):
            windows = np.concatenate(
                [sung.next(n, self._models.encoder.window_s) for sung, n in parts]
            )
            encoded = self._models.encoder.read(windows)
        first = 0
        for sung, n in parts:
            part = slice(first, first + n)
            guesses = None if encoded.guesses is None else encoded.guesses[part]
            sung.add(encoded.vectors[part], guesses)
            first += n
        while waiting and waiting[0].n_left == 0:
            yield self._finished(waiting.popleft())

    def _finished(self, sung: _Sung) -> Analysed:
        transcript = transcribed(sung.guesses, sung.pieces, self._models.encoder.clip_s)
        voices = confirmed(sung.voices, transcript, self._models.witness, self._options.window_s)
        kept, counts = counted(sung.pieces, transcript, self._options)
        if len(kept) == 0:
            return self._instrumental(sung.track, sung.done, voices)
        duration_s = sung.track.audio.duration_s
        pieces = [sung.pieces[row] for row in kept]
        pieces = rated(pieces, voices.singing, duration_s, self._options)
        analysis = replace(
            self._nothing(sung.track, self._models.singing.name, voices),
            sung=True,
            vector=pool(sung.vectors[kept], counts),
            start_s=[piece.start_s for piece in pieces],
            end_s=[piece.end_s for piece in pieces],
            vocalness=[piece.vocalness for piece in pieces],
            weight=counts,
            vectors=sung.vectors[kept],
            transcript=transcript,
        )
        return Analysed(sung.track.job, duration_s, (analysis, *sung.done))

    def _instrumental(self, track: Track, done: tuple[Analysis, ...], voices: Voices) -> Analysed:
        analysis = self._nothing(track, self._models.singing.name, voices)
        return Analysed(track.job, track.audio.duration_s, (analysis, *done), instrumental=True)

    def _nothing(self, track: Track, space: str, voices: Voices | None = None) -> Analysis:
        """What is kept of a track in which a space found nothing to compare."""
        return Analysis(
            recording_id=track.job.recording_id,
            model_id=self._bundle.card.model_id,
            space=space,
            track_vocalness=voices.vocalness if voices else 0.0,
            speech=voices.spoken if voices else None,
            sung=False,
            truncated=track.audio.truncated,
            decoder=track.audio.decoder,
        )


class _Sung:
    """A track on its way through the encoder."""

    def __init__(
        self,
        track: Track,
        done: tuple[Analysis, ...],
        voices: Voices,
        pieces: list[Segment],
        dim: int,
    ) -> None:
        self.track = track
        self.done = done  # in other spaces
        self.voices = voices
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
