"""Vector files in a row, filled and asked as one index.

    segments.lyrics.00.usearch        a graph of vectors that is searched (``vectors``)
    segments.lyrics.00.keys.npy       its keys (n,) int64, ascending
    segments.lyrics.00.vectors.npy    its vectors (n, dim) float16, in the order of the keys

The two arrays hold again what is in the graph: usearch hands vectors out one by one, each as an
object of Python from a place of its own, while an answer compares thousands of them, and those of
one recording lie side by side in the array.

Only the last file grows, and only it is loaded for that; full ones stay mapped and are linked, not
written again, when the whole is saved elsewhere. A file is full at an eighth of all vectors, so a
night writes little again, and the number of files grows with the logarithm of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livi_index.errors import LibraryDamaged
from livi_index.vectors import (
    FloatArray,
    IntArray,
    Matches,
    SavedFile,
    VectorIndex,
    link,
    merge,
    nothing,
    refusals,
    saved_file,
)

SHARD_SIZE = 5_000_000  # vectors in one file, at most
FULL = 250_000  # vectors that one file has room for, at least
FULL_SHARE = 8  # of all vectors, one in so many goes into one file
CHUNK = 16_384  # vectors that are written at once
PART = 128  # vectors that are taken at once: they stay in the processor's cache

HalfArray = NDArray[np.float16]


class ShardedIndex:
    """Files ``stem.00.*``, ``stem.01.*`` … of unit vectors of one space under keys > 0."""

    def __init__(self, dim: int, *, shard_size: int = SHARD_SIZE) -> None:
        self.dim = dim
        self.shard_size = shard_size
        self._shards: list[_Shard] = []
        self._known: dict[str, SavedFile] = {}

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        *,
        dim: int,
        shard_size: int = SHARD_SIZE,
        known: Collection[SavedFile] = (),
    ) -> ShardedIndex:
        """Map saved files, named by their graphs; LibraryDamaged as ``VectorIndex.open``.

        ``known`` says what is in some of them: those are not read to be linked.
        """
        opened = cls(dim, shard_size=shard_size)
        opened._shards = [_Shard.open(path, dim) for path in paths]
        opened._known = {file.name: file for file in known}
        return opened

    def __len__(self) -> int:
        return sum(len(shard.index) for shard in self._shards)

    @property
    def keys(self) -> IntArray:
        """All keys (n,) int64, ascending."""
        every = (shard.keys for shard in self._shards)
        return np.sort(np.concatenate([np.zeros(0, np.int64), *every]))

    def contains(self, keys: IntArray) -> NDArray[np.bool_]:
        """Which of the keys (n,) are here, (n,) bool."""
        found = np.zeros(len(keys), np.bool_)
        for shard in self._shards:
            found |= shard.contains(keys)
        return found

    def add(self, keys: IntArray, vectors: FloatArray, *, threads: int = 0) -> None:
        """As ``VectorIndex.add``; begins a new file wherever the last one is full."""
        if self.contains(keys).any():
            raise ValueError("keys must be positive, unique and new to the index")
        done = 0
        while done < len(keys):
            index = self._growing()
            part = slice(done, done + room(len(self), self.shard_size) - len(index))
            index.add(keys[part], vectors[part], threads=threads)
            done += len(keys[part])

    def _growing(self) -> VectorIndex:
        full = room(len(self), self.shard_size)
        if not self._shards or len(self._shards[-1].index) >= full:
            self._shards.append(_Shard(VectorIndex(self.dim)))
        elif (path := self._shards[-1].path) is not None:
            self._shards[-1] = _Shard(VectorIndex.open(path, dim=self.dim, view=False))
        return self._shards[-1].index

    def get(self, keys: IntArray) -> NDArray[np.float32]:
        """The stored vectors (n, dim) of the keys (n,); KeyError for a key that is not here."""
        vectors = np.empty((len(keys), self.dim), np.float32)
        found = np.zeros(len(keys), np.bool_)
        for shard in self._shards:
            found |= shard.fill(vectors, keys)
        if not found.all():
            raise KeyError(f"{int((~found).sum())} keys are not in the index")
        return vectors

    def search(
        self, queries: FloatArray, k: int, *, exact: bool | None = None, threads: int = 0
    ) -> Matches:
        """As ``VectorIndex.search``, over all files."""
        found = [s.index.search(queries, k, exact=exact, threads=threads) for s in self._shards]
        return merge(found, k) if found else nothing(len(queries))

    def save(self, folder: Path, stem: str) -> list[SavedFile]:
        """Write all files into another folder than they came from; always at least one of each.

        LibraryNotWritable where the disk does not take them.
        """
        if not self._shards:
            self._shards = [_Shard(VectorIndex(self.dim))]
        files: list[SavedFile] = []
        for number, shard in enumerate(self._shards):
            files += shard.save(folder / f"{stem}.{number:02}.usearch", self._known)
        return files


def room(n_vectors: int, largest: int = SHARD_SIZE) -> int:
    """How many of so many vectors the last file may hold."""
    return min(largest, max(FULL, n_vectors // FULL_SHARE))


@dataclass
class _Shard:
    """One file of several; ``path`` and ``table`` are where it lies, None once it has changed."""

    index: VectorIndex
    path: Path | None = None
    table: VectorTable | None = None

    @classmethod
    def open(cls, path: Path, dim: int) -> _Shard:
        table = VectorTable.open(path.with_suffix(""), dim=dim)
        return cls(VectorIndex.open(path, dim=dim, lookups=False), path, table)

    @property
    def keys(self) -> IntArray:
        return self.index.keys if self.table is None else self.table.keys

    def contains(self, keys: IntArray) -> NDArray[np.bool_]:
        return self.index.contains(keys) if self.table is None else self.table.find(keys)[0]

    def fill(self, vectors: NDArray[np.float32], keys: IntArray) -> NDArray[np.bool_]:
        if self.table is not None:
            return self.table.fill(vectors, keys)
        here = self.index.contains(keys)
        vectors[here] = self.index.get(keys[here])
        return here

    def save(self, path: Path, known: Mapping[str, SavedFile]) -> list[SavedFile]:
        new = [path, *_arrays(path.with_suffix(""))]
        if self.path is not None:
            old = [self.path, *_arrays(self.path.with_suffix(""))]
            return [link(*pair, known.get(pair[0].name)) for pair in zip(old, new, strict=True)]
        return [self.index.save(path), *write_table(self.index, path.with_suffix(""))]


class VectorTable:
    """Vectors by key as two mapped arrays: keys (n,) int64 ascending, halves (n, dim) float16."""

    def __init__(self, keys: IntArray, halves: HalfArray) -> None:
        self.keys = keys
        self.halves = halves

    @classmethod
    def open(cls, stem: Path, *, dim: int) -> VectorTable:
        """Map what ``write_table`` wrote; LibraryDamaged if it is not of this kind."""
        keys, halves = _arrays(stem)
        table = cls(mapped(keys, "<i8"), mapped(halves, "<f2", n_axes=2))
        if table.halves.shape != (len(table.keys), dim):
            shape = table.halves.shape
            raise LibraryDamaged(f"{halves} holds {shape} numbers for {len(table.keys)} keys")
        return table

    def find(self, keys: IntArray) -> tuple[NDArray[np.bool_], IntArray]:
        """Which of the keys (n,) are here (n,), and the rows of those."""
        rows = np.searchsorted(self.keys, keys)
        here = rows < len(self.keys)
        here[here] = self.keys[rows[here]] == keys[here]
        return here, rows[here]

    def fill(self, vectors: NDArray[np.float32], keys: IntArray) -> NDArray[np.bool_]:
        """Put vectors into the rows of (n, dim) whose keys (n,) are here, and say which these are.

        Rows of other keys stay as they were.
        """
        here, rows = self.find(keys)
        places = np.flatnonzero(here)
        for first in range(0, len(rows), PART):
            part = slice(first, first + PART)
            vectors[places[part]] = widened(self.halves[rows[part]])
        return here


def write_table(index: VectorIndex, stem: Path) -> list[SavedFile]:
    """Write what is in an index as arrays; nothing may read them before this returns.

    LibraryNotWritable where the disk does not take them.
    """
    all_keys, (keys, halves) = index.keys, _arrays(stem)
    shape = (len(all_keys), index.dim)
    with refusals(stem):
        np.save(keys, all_keys)
        # Not mapped for this: on a full disk that kills the process.
        with halves.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for first in range(0, len(all_keys), CHUNK):
                vectors = index.get(all_keys[first : first + CHUNK])
                file.write(vectors.astype("<f2").tobytes())
    return [saved_file(keys), saved_file(halves)]


def _arrays(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(f"{stem.name}.keys.npy"), stem.with_name(f"{stem.name}.vectors.npy")


def mapped(path: Path, dtype: Any, *, n_axes: int = 1) -> NDArray[Any]:
    """A saved array, read only, its pages read when they are needed.

    LibraryDamaged if it is missing or of another kind.
    """
    try:
        # An array without rows cannot be mapped.
        empty = np.load(path, mmap_mode=None) if path.stat().st_size < 1024 else None
        array: NDArray[Any] = np.load(path, mmap_mode="r") if empty is None else empty
    except (OSError, EOFError, ValueError) as error:
        raise LibraryDamaged(f"{path} cannot be read ({error})") from error
    if array.dtype != np.dtype(dtype) or array.ndim != n_axes:
        raise LibraryDamaged(f"{path} is an array of another kind")
    # Seen as a plain array: slices of np.memmap cost ten times as much.
    return np.asarray(array).view(np.ndarray)


def widened(halves: HalfArray) -> NDArray[np.float32]:
    """Finite numbers in single precision, exactly, in a third of the time that numpy takes."""
    bits = halves.view(np.int16).astype(np.int32)  # the sign fills the upper half
    bits <<= 13
    bits &= -0x70000001  # without the three bits of exponent that a half does not have
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)  # exponents count from -127, not from -15
    return wide
