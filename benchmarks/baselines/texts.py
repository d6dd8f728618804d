"""The paper's text rows: what is sung, as text, in a space of texts.

``t_global`` is one vector of all words of a recording, ``t_local`` one for the words of every half
minute, averaged as sound is. The paper had them from Whisper's transcripts and a large text
encoder: ``export.teacher`` has both. Where a catalogue tells the true words, the text side of a
bundle can stand in: what perfect transcription would be worth in that bundle's own space, and a row
that runs on every machine.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.baselines.frontend import FloatArray
from benchmarks.baselines.livi import parameters_of
from benchmarks.results import bundle_of
from catalogs.jamendo_lyrics import Line
from livi_index.encoders import TextEncoder
from livi_index.errors import BadInput
from livi_index.vocals import SegmentOptions, VocalDetector

CHUNK_S = 30.0


@dataclass(frozen=True)
class Words:
    """A recording to a reader of texts: its file, and its lines, none where they are not known."""

    path: Path
    lines: Sequence[Line] = ()


class Space(Protocol):
    dim: int

    def encode(self, texts: Sequence[str]) -> FloatArray: ...


@dataclass(frozen=True, eq=False)
class Texts:
    """One row. ``facts`` say whose words in whose space; ``identity`` tells their weights apart."""

    space: Space
    local: bool
    facts: dict[str, Any]
    identity: str
    n_parameters: int | None = None
    teacher: Any = None  # an ``export.teacher.Teacher``

    def features(self, words: Words) -> list[str]:
        """The text, or those of half minutes."""
        if self.teacher is None:
            return given(words.lines, local=self.local)
        from export.teacher import texts_of
        from export.text_encoders import JOIN

        whole, parts = texts_of(self.teacher.tell(words.path))
        return parts if self.local else [JOIN.join(whole)] if whole else []

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """(texts in which the encoder finds something, dim) unit vectors."""
        found = [vector for text in texts if (vector := self._vector(text)) is not None]
        return np.stack(found) if found else np.zeros((0, self.space.dim), np.float32)

    def _vector(self, text: str) -> FloatArray | None:
        try:
            return np.asarray(self.space.encode([text])[0], np.float32)
        except BadInput:
            return None


def given(lines: Sequence[Line], *, local: bool) -> list[str]:
    """The text, or those of the half minutes in which lines begin."""
    texts: defaultdict[int, list[str]] = defaultdict(list)
    for line in lines:
        texts[int(line.start_s // CHUNK_S) if local else 0].append(line.text)
    return [" ".join(texts[number]) for number in sorted(texts)]


def open_row(options: Namespace, *, local: bool) -> Texts:
    """Given words in the bundle's space of texts, or what ``--whisper`` hears in that of
    ``--text-encoder``. Raises BadInput, BadModel."""
    bundle = bundle_of(options)
    card = bundle.card
    if options.whisper is None:
        encoder = TextEncoder(bundle)
        spec = card.spaces[0].text
        facts = {"words": "given", "text_encoder": {"name": card.name, "version": card.version}}
        n_parameters = parameters_of(bundle, [spec.file]) if spec else None
        return Texts(encoder, local, facts, card.model_id, n_parameters)
    from export.hub import find
    from export.teacher import Teacher
    from export.text_encoders import open_space
    from export.transcriber import Transcriber

    found = find(options.whisper, "--whisper")
    transcriber = Transcriber(found, device=options.device)
    teacher = Teacher(VocalDetector(bundle), SegmentOptions.paper(), transcriber)
    space = open_space(options.text_encoder or str(options.model), device=options.device)
    facts = {
        "words": f"heard by {found.name}, or beside the audio",
        "text_encoder": {"name": space.name, "version": ""},
    }
    identity = f"{found.name}-{space.name}-{card.model_id}"
    return Texts(space, local, facts, identity, None, teacher)
