"""What is heard of one recording that is asked for, in each space of a model.

``Ear`` does for a query what ``analysis`` does for a catalogue, with the same rules from the same
card: segments of singing for the first space, windows over the whole recording for the others. Its
sessions are opened when first needed, while the file is still being decoded.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livi_index.answers import QueryInfo, Span
from livi_index.audio import SAMPLE_RATE, Audio, FloatArray, decode
from livi_index.errors import BadInput, NoSinging
from livi_index.models import Bundle, Space
from livi_index.opened import Opened
from livi_index.ranking import Heard
from livi_index.transcripts import Transcript
from livi_index.vocals import (
    SHORTEST_S,
    Segment,
    SegmentOptions,
    Voices,
    confirmed,
    counted,
    cut_batches,
    over_all,
    segments,
    transcribed,
)

MAX_QUERY_S = 2 * 3600.0  # of a query's audio; more would need gigabytes


@dataclass(frozen=True, eq=False)
class Query:
    """A recording that is asked for: ``heard`` in the spaces in which there is something."""

    info: QueryInfo
    heard: dict[str, Heard]


class Ear:
    """The models of a bundle, for one recording at a time."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.options = SegmentOptions.from_bundle(bundle)
        self._models = Opened(bundle, threads)

    def hear_file(self, path: str | Path, spaces: Collection[str]) -> Query:
        """Raises UnreadableAudio, and what ``hear`` does."""
        # Opening the models takes as long as decoding; both leave Python's lock alone.
        with ThreadPoolExecutor(1) as other:
            decoding = other.submit(decode, path, max_s=MAX_QUERY_S)
            self._open(spaces)
            audio = decoding.result()
        return self.hear(audio, spaces, os.fspath(path))

    def hear(self, audio: Audio, spaces: Collection[str], path: str | None = None) -> Query:
        """What there is to compare in these spaces of the model.

        Raises NoSinging where there is nothing in any of them, BadModel, MissingRuntime.
        """
        heard = {
            space.name: found
            for space in self._models.others
            if space.name in spaces and (found := self._whole(audio, space))
        }
        voices = None
        silent = f"less than {SHORTEST_S:g} s can be heard in it, too little to compare it by"
        if self._models.singing.name in spaces:
            voices, found, silent = self._sung(audio)
            heard |= {self._models.singing.name: found} if found else {}
        if not heard:
            raise NoSinging(f"{path or 'the query'}: {silent}")
        info = query_info(path, audio.duration_s, heard, truncated=audio.truncated)
        if voices:
            info = replace(info, vocalness=voices.vocalness, speech=voices.spoken)
        return Query(info, heard)

    def listen(self, audio: Audio) -> tuple[Voices, Transcript | None]:
        """What the detector hears in a recording, and what is read of it; None where nothing is.

        Raises BadModel, MissingRuntime.
        """
        voices = self._models.detector.voices(audio.samples)
        pieces = segments(voices.singing, audio.duration_s, self.options)
        return voices, self._encoded(audio.samples, pieces)[1] if pieces else None

    def _sung(self, audio: Audio) -> tuple[Voices, Heard | None, str]:
        """The voices in it, what they sing, and why that may be nothing."""
        voices = self._models.detector.voices(audio.samples)
        pieces = segments(voices.singing, audio.duration_s, self.options)
        if not pieces:
            least = self.options.min_vocalness
            why = (
                "too little singing to compare it by its words (vocalness"
                f" {voices.vocalness:.2f}, at least {least:.2f} is needed); ask with a"
                " recording in which somebody sings"
            )
            return voices, None, why
        vectors, transcript = self._encoded(audio.samples, pieces)
        voices = confirmed(voices, transcript, self._models.witness, self.options.window_s)
        kept, counts = counted(pieces, transcript, self.options)
        if len(kept) == 0:
            why = (
                "no words can be heard in it, so there is nothing to compare it by; ask with a"
                " recording in which somebody sings words"
            )
            return voices, None, why
        start_s, end_s = _times([pieces[row] for row in kept])
        return voices, Heard(vectors[kept], start_s, end_s, counts, transcript), ""

    def _whole(self, audio: Audio, space: Space) -> Heard | None:
        pieces = over_all(audio.samples, space.window_s, space.hop_s)
        if not pieces:
            return None
        encoder = self._models.other_encoders[space.name]
        batches = cut_batches(audio.samples, pieces, space.window_s, encoder.batch)
        vectors = encoder.encode_each(batches)
        return Heard(vectors, *_times(pieces), np.ones(len(pieces), np.float32))

    def _encoded(
        self, samples: FloatArray, pieces: list[Segment]
    ) -> tuple[FloatArray, Transcript | None]:
        """The vectors (n, D) of segments, and what was read of all of them."""
        encoder = self._models.encoder
        batches = cut_batches(samples, pieces, encoder.window_s, encoder.batch)
        parts = [encoder.read(windows) for windows in batches]
        vectors = np.concatenate([part.vectors for part in parts])
        return vectors, transcribed([part.guesses for part in parts], pieces, encoder.clip_s)

    def _open(self, spaces: Collection[str]) -> None:
        if self._models.singing.name in spaces:
            _ = self._models.detector, self._models.encoder
        if any(space.name in spaces for space in self._models.others):
            _ = self._models.other_encoders


def query_info(
    path: str | None,
    duration_s: float,
    heard: dict[str, Heard],
    *,
    truncated: bool,
) -> QueryInfo:
    """What an answer says of a query; its ``segments`` are those of the first space."""
    of = heard.get("lyrics") or next(iter(heard.values()))
    times = zip(of.start_s.tolist(), of.end_s.tolist(), strict=True)
    spans = tuple(Span(*pair) for pair in times)
    return QueryInfo(path, duration_s, None, spans, truncated=truncated)


def as_audio(samples: NDArray[Any]) -> Audio:
    """Samples (T,) at SAMPLE_RATE as if they were decoded. Raises BadInput for other arrays."""
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise BadInput(
            f"samples are one row of floats at {SAMPLE_RATE} Hz, these are {samples.dtype} of shape"
            f" {samples.shape}"
        )
    return Audio(samples.astype(np.float32), len(samples) / SAMPLE_RATE, False, "")


def _times(pieces: list[Segment]) -> tuple[FloatArray, FloatArray]:
    """Starts and ends (n,) of segments."""
    start_s = np.array([piece.start_s for piece in pieces], np.float32)
    return start_s, np.array([piece.end_s for piece in pieces], np.float32)
