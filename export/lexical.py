"""A space of words that needs no network: letters → counts of letter groups → a unit vector.

    letters ─▶ n-grams within and across words ─▶ dampened counts × idf − mean ─▶ projection ─▶ unit

A misheard or misspelt word keeps most of its groups, so texts that sound alike lie close. Groups
are numbered by a polynomial of their letters modulo a prime, the same arithmetic in numpy, torch
and ONNX; which of them are features, and their weights, is learned from training texts. The start
of the projection is random, each row drawn from a BLAKE2b hash of its number, so that it can be
made again anywhere; ``export.fit`` then learns it.

Everything here is arithmetic on integers and one product, so the module is exported twice: behind
the reader as ``audio.onnx`` (samples → vector) and alone as ``text.onnx`` (letters → vector).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.reader import ALPHABET, encode_text

SIZES = (2, 3, 4)  # letters in a group
_BASE = len(ALPHABET)
_BUCKETS = 65_521  # a prime below 2**16: groups of four letters share buckets, rarely


@dataclass(frozen=True)
class LexicalOptions:
    """Sizes of a space."""

    features: int = 4096
    dim: int = 384


def collapse(log_letters: Tensor) -> Tensor:
    """The best path: (B, T, 29) → (B, T) letters, joined, without blanks, 0 at the end."""
    best = log_letters.argmax(dim=-1)
    before = torch.cat([torch.zeros_like(best[:, :1]), best[:, :-1]], dim=1)
    kept = (best != 0) & (best != before)
    place = torch.where(kept, kept.long().cumsum(dim=1) - 1, best.shape[1])
    room = torch.zeros(best.shape[0], best.shape[1] + 1, dtype=torch.long)
    return room.scatter(1, place, best)[:, :-1]


def buckets(letters: Tensor) -> Tensor:
    """Numbers of all letter groups: (B, L) indices → (B, G) in 0 … ``_BUCKETS``; 0 is none.

    A space is put before the first letter, so that words begin alike wherever they stand.
    """
    padded = torch.cat([torch.ones_like(letters[:, :1]), letters], dim=1)
    groups = []
    for size in SIZES:
        count = padded.shape[1] - size + 1
        code = torch.full_like(padded[:, :count], size)
        whole = torch.ones_like(code, dtype=torch.bool)
        for i in range(size):
            letter = padded[:, i : i + count]
            code = (code * _BASE + letter) % _BUCKETS
            whole = whole & (letter != 0)
        groups.append(torch.where(whole, code + 1, 0))
    return torch.cat(groups, dim=1)


class LexicalSpace(nn.Module):
    """(B, L) letter indices → (B, dim) unit vectors; a text without features gives a zero vector.

    Buffers: ``feature_of`` (65522,) the feature of a bucket, 0 for none; ``idf`` and ``mean``
    (features + 1,); parameter ``projection`` (features + 1, dim), whose first row stays zero.
    """

    def __init__(self, options: LexicalOptions) -> None:
        super().__init__()
        rows = options.features + 1
        self.options = options
        self.register_buffer("feature_of", torch.zeros(_BUCKETS + 1, dtype=torch.int32))
        self.register_buffer("idf", torch.zeros(rows))
        self.register_buffer("mean", torch.zeros(rows))
        self.projection = nn.Parameter(torch.from_numpy(_hashed_rows(rows, options.dim)))

    def forward(self, letters: Tensor) -> Tensor:
        return self.embed(self.counts(letters))

    def counts(self, letters: Tensor) -> Tensor:
        """(B, L) → (B, features + 1) how often each feature occurs."""
        feature = self.feature_of[buckets(letters)].long()
        zeros = torch.zeros(letters.shape[0], len(self.idf))
        return zeros.scatter_add(1, feature, torch.ones(feature.shape))

    def embed(self, counts: Tensor) -> Tensor:
        """(B, features + 1) counts → (B, dim) unit vectors."""
        return unit(self.weighted(counts) @ self.projection)

    def weighted(self, counts: Tensor) -> Tensor:
        """Dampened, weighted, unit, and less what all texts share."""
        bag = torch.log1p(counts) * self.idf
        return unit(bag) - self.mean * (bag.sum(dim=1, keepdim=True) > 0)

    @torch.no_grad()
    def learn(self, texts: Iterable[str]) -> None:
        """Choose features and weights from training texts of about a segment's length."""
        rows = [np.unique(buckets(letters_of([text]))[0].numpy()) for text in texts]
        found = np.bincount(np.concatenate(rows), minlength=_BUCKETS + 1)
        found[0] = 0
        idf = np.log((len(rows) + 1) / (found + 1.0))
        share = found / len(rows)
        worth = share * (1 - share) * idf  # neither everywhere nor nowhere
        chosen = np.argsort(-worth, kind="stable")[: self.options.features]
        self.feature_of.zero_()
        self.feature_of[torch.from_numpy(chosen)] = torch.arange(
            1, len(chosen) + 1, dtype=torch.int32
        )
        self.idf[1 : len(chosen) + 1] = torch.from_numpy(idf[chosen]).float()
        self.mean.zero_()
        bags = [unit(torch.log1p(self.counts(letters_of([text]))) * self.idf) for text in texts]
        self.mean.copy_(torch.cat(bags).mean(dim=0))


def unit(vectors: Tensor) -> Tensor:
    """Rows at length 1, zero rows left at zero."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-6)


def letters_of(texts: list[str]) -> Tensor:
    """(B, L) letter indices of plain texts, zeros at the end."""
    rows = [encode_text(text) for text in texts]
    out = torch.zeros(len(rows), max(4, *map(len, rows)), dtype=torch.long)
    for row, letters in zip(out, rows, strict=True):
        row[: len(letters)] = torch.tensor(letters, dtype=torch.long)
    return out


def _hashed_rows(rows: int, dim: int) -> npt.NDArray[np.float32]:
    """(rows, dim) signs ±1/√dim drawn from BLAKE2b of the row's number; the first row is zero."""
    table = np.zeros((rows, dim), dtype=np.float32)
    for row in range(1, rows):
        bits = b"".join(
            hashlib.blake2b(f"{row}:{part}".encode(), digest_size=64).digest()
            for part in range(-(-dim // 512))
        )
        signs = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))[:dim]
        table[row] = (2.0 * signs - 1.0) / np.sqrt(dim)
    return table
