"""Whisper, of any size: what is sung in windows of 30 s.

Radford et al., "Robust speech recognition via large-scale weak supervision", 2022, by transformers.
Decoding is that of the LIVI paper: best path first, and where the tokens of a window repeat
themselves or are improbable, drawn at random at rising temperatures. What is drawn depends on the
seed and on the windows of one call alone: a run over recordings that was interrupted goes on as if
it had not been.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from export.hub import Found, loaded
from livi_index.audio import SAMPLE_RATE

WINDOW = 30 * SAMPLE_RATE  # samples

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DecodingOptions:
    """The paper's choices."""

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    max_compression: float = 1.35  # of a window's tokens by zlib; above, the next temperature
    min_log_probability: float = -1.0  # of a window's tokens, on average
    language: str | None = None  # None: told by the model, window by window
    batch: int = 8  # windows at once
    seed: int = 0


class Transcriber:
    """A Whisper model, opened; computes in float32 on a processor and in float16 on CUDA.

    Raises BadModel for a folder that holds none.
    """

    def __init__(
        self, found: Found, options: DecodingOptions | None = None, *, device: str = "cpu"
    ) -> None:
        from transformers import (
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
            WhisperTokenizer,
        )

        self.name, self.options = found.name, options or DecodingOptions()
        self._device = device
        self._dtype = torch.float16 if device.startswith("cuda") else torch.float32
        model = loaded(WhisperForConditionalGeneration, found.path, found.name)
        self._model = model.to(device=device, dtype=self._dtype)
        self._features = loaded(WhisperFeatureExtractor, found.path, found.name)
        self._tokens = loaded(WhisperTokenizer, found.path, found.name)

    def transcribe(self, windows: FloatArray) -> list[str]:
        """(N, 480000) samples, filled with zeros where the song ends → N texts as written."""
        batch, texts = self.options.batch, []
        for first in range(0, len(windows), batch):
            texts += self._batch(windows[first : first + batch])
        return texts

    def _batch(self, windows: FloatArray) -> list[str]:
        mel = self._features([*windows], sampling_rate=SAMPLE_RATE, return_tensors="pt")
        devices = [torch.device(self._device)] if self._device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(self.options.seed)
            tokens = self._model.generate(
                mel.input_features.to(self._device, self._dtype), **self._arguments()
            )
        texts: list[str] = self._tokens.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _arguments(self) -> dict[str, object]:
        arguments: dict[str, object] = {
            "num_beams": 1,
            "condition_on_prev_tokens": False,
            "temperature": self.options.temperatures,
            "compression_ratio_threshold": self.options.max_compression,
            "logprob_threshold": self.options.min_log_probability,
            "return_timestamps": True,
        }
        if self.options.language is not None:  # an English-only model takes neither
            arguments |= {"language": self.options.language, "task": "transcribe"}
        return arguments
