"""LIVI itself among the other systems: a model bundle, as ``livi-index build`` uses it.

Segments of singing, a vector of each, their weighted mean. A recording without singing has none,
and lowers the coverage. Any bundle will do, one with the published weights too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from benchmarks.baselines.frontend import SAMPLE_RATE, FloatArray
from livi_index.encoders import AudioEncoder
from livi_index.models import Bundle
from livi_index.vocals import (
    Segment,
    SegmentOptions,
    VocalDetector,
    counted,
    cut,
    segments,
    transcribed,
)


@dataclass(frozen=True, eq=False)
class Windows:
    """``samples`` (S, window) of the ``pieces`` in which is singing."""

    samples: FloatArray
    pieces: list[Segment]


class Livi:
    """The lyrics space of a bundle; ``rule`` says what counts as sung, else its card does."""

    def __init__(
        self, bundle: Bundle, threads: int | None = None, rule: SegmentOptions | None = None
    ) -> None:
        self._bundle = bundle
        self._detector = VocalDetector(bundle, threads=threads)
        self._encoder = AudioEncoder(bundle, threads=threads)
        self._options = rule or SegmentOptions.from_bundle(bundle)

    @property
    def n_parameters(self) -> int | None:
        """Of all that a recording goes through."""
        card = self._bundle.card
        clips = card.spaces[0].clips
        reader = [clips.file] if clips else []
        return parameters_of(self._bundle, [card.vocals.file, *reader, card.spaces[0].encoder])

    def features(self, samples: FloatArray) -> Windows:
        probabilities = self._detector.probabilities(samples)
        pieces = segments(probabilities, len(samples) / SAMPLE_RATE, self._options)
        return Windows(cut(samples, pieces, self._encoder.window_s), pieces)

    def vectors(self, features: Windows) -> FloatArray:
        """(S, dim), each as long as it counts in the mean."""
        read = self._encoder.read(features.samples)
        transcript = transcribed([read.guesses], features.pieces, self._encoder.clip_s)
        kept, worth = counted(features.pieces, transcript, self._options)
        weighted: FloatArray = read.vectors[kept] * worth[:, None]
        return weighted


def parameters_of(bundle: Bundle, files: Sequence[str]) -> int | None:
    """How many numbers graphs hold, None where the package ``onnx`` is not installed."""
    if find_spec("onnx") is None:
        return None
    import onnx

    graphs = [onnx.load(bundle.path / name).graph for name in files]
    return sum(int(np.prod(value.dims)) for graph in graphs for value in graph.initializer)
