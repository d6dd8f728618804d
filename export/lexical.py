"""A space of words that needs no network of its own: symbols → counts of groups → a unit vector.

    phones heard ─▶ n-grams ─▶ dampened counts × idf − mean ─▶ projection ─▶ unit ◀─ … ◀─ letters

What was heard is a string of phones, what is typed a string of letters; each has its own ``Bag``,
and both projections end in the same space. A misheard or misspelt word keeps most of its groups,
so texts that sound alike lie close.

Groups are numbered by a polynomial of their symbols modulo a prime, the same arithmetic in torch
and ONNX. Which of them are features, how much each says, and the projection are learned from
training texts and from what the reader heard of them, by ``export.fit``.

Everything here is arithmetic on integers and one product, so it is exported twice: behind the
reader as ``sound.onnx`` (phones → vector) and alone as ``text.onnx`` (letters → vector).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export.phones import PHONES
from export.reader import DOUBT

ALPHABET = "_ abcdefghijklmnopqrstuvwxyz'"
_BUCKETS = 65_521  # a prime below 2**16: groups of four symbols share buckets, rarely


@dataclass(frozen=True)
class BagOptions:
    """What a bag counts: groups of ``sizes`` symbols out of ``symbols``, the best ``features``."""

    symbols: int
    sizes: tuple[int, ...]
    features: int
    dim: int


@dataclass(frozen=True)
class LexicalOptions:
    """Sizes of a space."""

    phone_features: int = 6144
    letter_features: int = 1920
    dim: int = 512

    @property
    def sound(self) -> BagOptions:
        return BagOptions(len(PHONES), (2, 3, 4), self.phone_features, self.dim)

    @property
    def text(self) -> BagOptions:
        return BagOptions(len(ALPHABET), (2, 3, 4), self.letter_features, self.dim)


def collapse(guesses: Tensor) -> Tensor:
    """Guesses of a reader (B, T) → (B, T), one for each phone, without blanks, 0 at the end."""
    kept = begins(guesses)
    place = torch.where(kept, kept.long().cumsum(dim=1) - 1, guesses.shape[1])
    room = torch.zeros(guesses.shape[0], guesses.shape[1] + 1, dtype=torch.long)
    return room.scatter(1, place, guesses)[:, :-1]


def begins(guesses: Tensor) -> Tensor:
    """(B, T) where a phone is guessed that was not guessed just before."""
    best = guesses % DOUBT
    before = torch.cat([torch.zeros_like(best[:, :1]), best[:, :-1]], dim=1)
    return (best != 0) & (best != before)


def buckets(symbols: Tensor, options: BagOptions) -> Tensor:
    """Numbers of all groups: (B, L) symbols, 0 at the end → (B, G); 0 is none."""
    groups = []
    for size in options.sizes:
        count = symbols.shape[1] - size + 1
        code = torch.full_like(symbols[:, :count], size)
        whole = torch.ones_like(code, dtype=torch.bool)
        for i in range(size):
            symbol = symbols[:, i : i + count]
            code = (code * options.symbols + symbol) % _BUCKETS
            whole = whole & (symbol != 0)
        groups.append(torch.where(whole, code + 1, 0))
    return torch.cat(groups, dim=1)


class Bag(nn.Module):
    """(B, L) symbols → (B, dim) unit vectors; a string without features gives a zero vector.

    Buffers: ``feature_of`` (65522,) the feature of a bucket, 0 for none; ``idf`` and ``mean``
    (features + 1,); parameter ``projection`` (features + 1, dim), whose first row stays zero.
    """

    def __init__(self, options: BagOptions) -> None:
        super().__init__()
        rows = options.features + 1
        self.options = options
        self.register_buffer("feature_of", torch.zeros(_BUCKETS + 1, dtype=torch.int16))
        self.register_buffer("idf", torch.zeros(rows))
        self.register_buffer("mean", torch.zeros(rows))
        self.projection = nn.Parameter(torch.zeros(rows, options.dim))

    def forward(self, symbols: Tensor) -> Tensor:
        return self.embed(self.weighted(self.counts(symbols)))

    def counts(self, symbols: Tensor) -> Tensor:
        """(B, L) → (B, features + 1) how often each feature occurs."""
        feature = self.feature_of[buckets(symbols, self.options)].long()
        zeros = torch.zeros(symbols.shape[0], self.options.features + 1)
        return zeros.scatter_add(1, feature, torch.ones(feature.shape))

    def weighted(self, counts: Tensor) -> Tensor:
        """Dampened, weighted, unit, and less what all texts share; zero where there is nothing."""
        bag = torch.log1p(counts) * self.idf
        return unit(bag) - self.mean * (bag.sum(dim=1, keepdim=True) > 0)

    def embed(self, weighted: Tensor) -> Tensor:
        """(B, features + 1) → (B, dim) unit vectors."""
        return unit(weighted @ self.projection)

    @torch.no_grad()
    def learn(self, strings: Tensor) -> None:
        """Choose features and weights from (N, L) training strings of a segment's length each."""
        rows = [torch.unique(row).numpy() for row in buckets(strings, self.options)]
        found = np.bincount(np.concatenate(rows), minlength=_BUCKETS + 1)
        found[0] = 0
        idf = np.log((len(rows) + 1) / (found + 1.0))
        share = found / len(rows)
        worth = share * (1 - share) * idf  # neither everywhere nor nowhere
        chosen = np.argsort(-worth, kind="stable")[: self.options.features]
        chosen = torch.from_numpy(chosen[found[chosen] > 0])
        self.feature_of.zero_()
        self.feature_of[chosen] = torch.arange(1, len(chosen) + 1, dtype=torch.int16)
        self.idf.zero_()
        self.idf[1 : len(chosen) + 1] = torch.from_numpy(idf).float()[chosen]
        self.mean.zero_()
        bags = [unit(torch.log1p(self.counts(part)) * self.idf) for part in strings.split(256)]
        self.mean.copy_(torch.cat(bags).mean(dim=0))


class LexicalSpace(nn.Module):
    """What is heard and what is typed, in one space of unit vectors."""

    def __init__(self, options: LexicalOptions | None = None) -> None:
        super().__init__()
        self.options = options or LexicalOptions()
        self.sound = Bag(self.options.sound)
        self.text = Bag(self.options.text)


def unit(vectors: Tensor) -> Tensor:
    """Rows at length 1, zero rows left at zero."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-6)


def letters_of(texts: Sequence[str]) -> Tensor:
    """(B, L) letter numbers of plain texts, each after a space, zeros at the end."""
    return padded([[ALPHABET.index(letter) for letter in " " + text] for text in texts])


def padded(strings: Sequence[Sequence[int]]) -> Tensor:
    """(B, L) of symbol strings, zeros at the end, at least four wide."""
    out = torch.zeros(len(strings), max(4, *map(len, strings)), dtype=torch.long)
    for row, string in zip(out, strings, strict=True):
        row[: len(string)] = torch.tensor(string, dtype=torch.long)
    return out
