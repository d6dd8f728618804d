"""Samples or words → unit vectors of one space.

A space is named in a bundle's card: ``lyrics`` puts a window of singing and the words that are
sung in it in the same place, so recordings find recordings and typed words find recordings. All
signal processing is inside the bundle's graphs; here samples go in and vectors come out. Where a
bundle reads a window in clips, each for itself, windows that overlap by whole clips share them.

A track's vector is the weighted mean of the unit vectors of its segments, made unit again. The
authors' own code stores the mean as it is, which is shorter than one; ``pool`` does not.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from livi_index.audio import SAMPLE_RATE
from livi_index.errors import BadInput, BadModel
from livi_index.models import CUDA, Bundle, Device, Session, Space, may_run_on_cuda

BATCH_WINDOWS = 4  # that a processor gets together; it takes them one by one, which is faster
CUDA_BATCH_WINDOWS = 32  # fewer leave most of a GPU without work
BATCH_CLIPS = 1  # a processor reads two no faster, and gives back twice the memory
KEPT_CLIPS = 64
BATCH_TEXTS = 16
# Texts are padded to a multiple of this, so that a session meets few shapes.
TEXT_STEP = 64
UNIT_TOLERANCE = 1e-3

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼ′`´", "'"))


@dataclass(frozen=True, eq=False)
class Encoded:
    """N windows: ``vectors`` (N, dim) unit float32, and ``guesses`` (N, C, G), what was read at
    each of G moments of their C clips, None where a bundle does not read."""

    vectors: FloatArray
    guesses: npt.NDArray[np.integer] | None


class AudioEncoder:
    """The audio encoder of one space of a bundle, opened.

    Raises BadModel or MissingRuntime as ``Bundle.open`` does, BadModel for an unknown space.
    """

    def __init__(
        self,
        bundle: Bundle,
        space: str = "lyrics",
        *,
        threads: int | None = None,
        device: Device = "auto",
    ) -> None:
        spec = bundle.card.space(space)
        self.space = space
        self.dim = spec.dim
        self.window_s = spec.window_s
        self.window = round(spec.window_s * SAMPLE_RATE)
        self._session = _open_encoder(bundle, spec, threads, device)
        self.clip_s = spec.clips.clip_s if spec.clips else None
        self._reader = None
        if spec.clips:
            session = bundle.open(spec.clips.file, threads=threads, device=device)
            self._reader = _ClipReader(session, round(spec.clips.clip_s * SAMPLE_RATE))
        self.provider = self._session.provider
        self.batch = CUDA_BATCH_WINDOWS if self.provider == CUDA else BATCH_WINDOWS
        self._at_once = self.batch if self.provider == CUDA else 1

    def encode(self, windows: FloatArray) -> FloatArray:
        """(N, window) float32 mono 16 kHz samples → (N, dim) unit float32, N may be 0.

        A window has the same vector alone and among others, to 1e-4. Raises BadModel where the
        graph's answer is not finite, of another size, or not unit.
        """
        return self.read(windows).vectors

    def encode_each(self, batches: Iterable[FloatArray]) -> FloatArray:
        """The vectors of all windows of some batches, one after the other; raises as ``encode``."""
        parts = [self.encode(windows) for windows in batches]
        return np.concatenate([np.zeros((0, self.dim), np.float32), *parts])

    def read(self, windows: FloatArray) -> Encoded:
        """As ``encode``, with what was read on the way."""
        assert windows.dtype == np.float32 and windows.shape[1:] == (self.window,)
        if len(windows) == 0:
            return Encoded(np.zeros((0, self.dim), np.float32), None)
        guesses = self._reader.read(windows) if self._reader else None
        rows = windows if guesses is None else guesses.reshape(len(windows), -1)
        return Encoded(_checked(self._session.run(rows, self._at_once), self.dim), guesses)


def _open_encoder(bundle: Bundle, spec: Space, threads: int | None, device: Device) -> Session:
    if spec.cuda_encoder and may_run_on_cuda(device):
        session = bundle.open(spec.cuda_encoder, threads=threads, device=device)
        if session.provider == CUDA:
            return session
    return bundle.open(spec.encoder, threads=threads, device=device)


class _ClipReader:
    """Windows → what is read of their clips; a clip that was read lately is not read again."""

    def __init__(self, session: Session, clip: int) -> None:
        self._session = session
        self._clip = clip
        self._kept: dict[bytes, npt.NDArray[Any]] = {}  # by digest, oldest first

    def read(self, windows: FloatArray) -> npt.NDArray[Any]:
        """(N, window) samples → (N, clips in a window, what is read of one)."""
        clips = windows.reshape(-1, self._clip)
        digests = [hashlib.blake2b(clip.data, digest_size=16).digest() for clip in clips]
        new = {d: i for i, d in enumerate(digests) if d not in self._kept}
        known = {d: self._kept[d] for d in digests if d in self._kept}
        if new:
            read = self._session.run(clips[list(new.values())], BATCH_CLIPS)
            known |= dict(zip(new, read, strict=True))
        others = [(d, row) for d, row in self._kept.items() if d not in known]
        self._kept = dict([*others, *known.items()][-KEPT_CLIPS:])
        every = np.stack([known[d] for d in digests])
        return every.reshape(len(windows), -1, *every.shape[1:])


class TextEncoder:
    """The text side of one space of a bundle, opened; raises as ``AudioEncoder`` does."""

    def __init__(
        self, bundle: Bundle, space: str = "lyrics", *, threads: int | None = None
    ) -> None:
        spec = bundle.card.space(space)
        if spec.text is None:
            raise BadModel(f"model {bundle.card.name} cannot be asked for words in space {space}")
        self.space = space
        self.dim = spec.dim
        self._max_characters = spec.text.max_characters
        self._numbers = {character: i for i, character in enumerate(spec.text.alphabet) if i > 0}
        self._session = bundle.open(spec.text.file, threads=threads, device="cpu")

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, dim) unit float32; what exceeds the card's length is not read.

        Raises BadInput for a text without a letter that the model knows.
        """
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for first in range(0, len(texts), BATCH_TEXTS):
            rows = self._characters(texts[first : first + BATCH_TEXTS])
            vectors[first : first + BATCH_TEXTS] = self._session.run(rows, BATCH_TEXTS)
        return _checked(vectors, self.dim)

    def _characters(self, texts: Sequence[str]) -> IntArray:
        rows = [self._numbered(text) for text in texts]
        longest = max(len(row) for row in rows)
        characters = np.zeros((len(rows), -(-longest // TEXT_STEP) * TEXT_STEP), np.int64)
        for row, numbers in zip(characters, rows, strict=True):
            row[: len(numbers)] = numbers
        return characters

    def _numbered(self, text: str) -> list[int]:
        clean = normalise_text(text, "".join(self._numbers))[: self._max_characters]
        if not clean:
            raise BadInput(f"the words {text[:40]!r} hold no letter that this model can read")
        return [self._numbers[character] for character in clean]


def normalise_text(text: str, alphabet: str = "abcdefghijklmnopqrstuvwxyz'") -> str:
    """Lower case without accents; each run of characters outside the alphabet is one space."""
    plain = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).lower()
    letters = (c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return " ".join("".join(c if c in alphabet else " " for c in letters).split())


def pool(vectors: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """(N, dim) unit vectors, N ≥ 1, and (N,) weights ≥ 0 → (dim,) unit float32.

    The weighted mean, made unit again: a mean of unit vectors is shorter than one.
    """
    assert vectors.ndim == 2 and len(vectors) > 0
    mean = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    norm = np.linalg.norm(mean)
    assert norm > 0, "vectors that cancel out have no direction"
    unit: FloatArray = (mean / norm).astype(np.float32)
    return unit


def _checked(vectors: FloatArray, dim: int) -> FloatArray:
    if vectors.shape[1:] != (dim,):
        raise BadModel(f"the model made vectors of {vectors.shape[1:]}, its card says {dim}")
    norms = np.linalg.norm(vectors, axis=1)
    if (np.abs(norms - 1) > UNIT_TOLERANCE).any():
        raise BadModel("the model made vectors that are not of unit length")
    return vectors
