"""LIVI itself among the other systems: a model bundle, as ``livi-index build`` uses it.

Segments of singing, a vector of each, their mean. A recording without singing has none, and lowers
the coverage.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from benchmarks.baselines.frontend import SAMPLE_RATE, FloatArray
from livi_index.encoders import AudioEncoder
from livi_index.models import Bundle
from livi_index.vocals import SegmentOptions, VocalDetector, cut, segments


class Livi:
    """The lyrics space of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._detector = VocalDetector(bundle)
        self._encoder = AudioEncoder(bundle)
        self._options = SegmentOptions.from_bundle(bundle)

    @property
    def n_parameters(self) -> int | None:
        """Of detector and encoder, None where the package ``onnx`` is not installed."""
        if find_spec("onnx") is None:
            return None
        import onnx

        card = self._bundle.card
        models = [self._bundle.path / name for name in (card.vocals.file, card.spaces[0].encoder)]
        graphs = [onnx.load(model).graph for model in models]
        return sum(int(np.prod(value.dims)) for graph in graphs for value in graph.initializer)

    def features(self, samples: FloatArray) -> FloatArray:
        """(S, window) samples of the segments in which is singing."""
        probabilities = self._detector.probabilities(samples)
        pieces = segments(probabilities, len(samples) / SAMPLE_RATE, self._options)
        return cut(samples, pieces, self._encoder.window_s)

    def vectors(self, features: FloatArray) -> FloatArray:
        """(S, dim) unit vectors."""
        return self._encoder.encode(features)
