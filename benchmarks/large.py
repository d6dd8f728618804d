"""A library as large as people have them, for ``benchmarks.nights``: vectors and transcripts are
made as ``benchmarks.query`` makes them, but every recording has a real file.

The files have the size of songs and no content, so they take no disk; they lie in folders of
artists and albums, ten songs each, and look as the library's rows say. A build that walks them has
to stat each of them and to open none.

The graphs of the made vectors are built with a search of ``WIDTH`` in place of the product's 128,
in a quarter of its hours. They have the same size and are asked and grown in the same way; that
they find a little less says nothing about the product.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from benchmarks.query import BATCH, Made, Shape, made_batch
from livi_index import vectors
from livi_index.errors import LibraryNotFound
from livi_index.generations import current
from livi_index.keeping import keep_bundle
from livi_index.library import SPACE
from livi_index.models import Bundle, usable_cpus
from livi_index.publishing import PublishOptions, publish
from livi_index.records import Batch, FileRow, Root
from livi_index.scan import recording_id
from livi_index.scope import published_model
from livi_index.store import Store

SONG_BYTES = 4_000_000
IN_ALBUM, IN_ARTIST = 10, 100  # songs
WIDTH = 32


def content(number: int) -> bytes:
    """The hash of a recording's content."""
    return blake2b(number.to_bytes(8, "big"), digest_size=32).digest()


def place(music: Path, number: int) -> Path:
    """Where the song of a number lies."""
    folders = music / f"artist {number // IN_ARTIST:05}" / f"album {number // IN_ALBUM:06}"
    return folders / f"{number:07} song.mp3"


def make_files(music: Path, n: int) -> None:
    """Songs 1 to n; those that are there stay as they are."""
    for number in range(1, n + 1):
        path = place(music, number)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(SONG_BYTES + number)


def fill(library: Path, music: Path, bundle: Bundle, shape: Shape) -> None:
    """Put songs 1 to ``shape.recordings`` into a library, going on where an earlier run stopped."""
    space = bundle.card.space(SPACE)
    reads = space.clips is not None and space.clips.alignment != ""
    made = made_of(bundle, shape)
    keep_bundle(library, bundle)
    with Store(library) as store:
        store.remember_walk([Root(music)], {})
        done = len(store.analysed(bundle.card.model_id, SPACE))
        for first in range(done + 1, shape.recordings + 1, BATCH):
            numbers = range(first, min(first + BATCH, shape.recordings + 1))
            plain = made_batch(made, numbers, bundle.card.model_id, shape.versions, reads=reads)
            store.commit(_placed(plain, music))


def _placed(batch: Batch, music: Path) -> Batch:
    """The same recordings under ids as hashes are, at the files that are there."""
    ids = {r.recording_id: recording_id(content(r.recording_id)) for r in batch.recordings}
    return replace(
        batch,
        files=list(_rows(batch, ids, music)),
        recordings=[
            replace(r, recording_id=ids[r.recording_id], content_hash=content(r.recording_id))
            for r in batch.recordings
        ],
        analyses=[replace(a, recording_id=ids[a.recording_id]) for a in batch.analyses],
    )


def _rows(batch: Batch, ids: dict[int, int], music: Path) -> Iterator[FileRow]:
    for number, file in zip(ids, batch.files, strict=True):
        path = place(music, number)
        status = os.stat(path)
        yield replace(
            file,
            path=path,
            root=music,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            inode=status.st_ino,
            device=status.st_dev,
            recording_id=ids[number],
        )


def made_of(bundle: Bundle, shape: Shape) -> Made:
    """Vectors in all spaces of a model."""
    whole = next((space for space in bundle.card.spaces if space.hop_s), None)
    return Made(shape, bundle.card.space(SPACE).dim, whole)


def make_library(library: Path, music: Path, bundle: Bundle, shape: Shape) -> Made:
    """Fill and publish a library with its files, unless it is there already."""
    made = made_of(bundle, shape)
    try:
        with current(library) as generation:
            if generation.counts["recordings"] >= shape.recordings:
                return made
    except LibraryNotFound:
        pass
    make_files(music, shape.recordings)
    fill(library, music, bundle, shape)
    usual, vectors.EXPANSION_ADD = vectors.EXPANSION_ADD, WIDTH
    try:
        with Store(library) as store:
            publish(store, library, published_model(bundle), PublishOptions(threads=usable_cpus()))
    finally:
        vectors.EXPANSION_ADD = usual
    return made
