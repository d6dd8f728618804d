"""Da-TACOS, benchmark subset: 1,000 works in 13 versions each, and 2,000 others as noise.

Only features were published; whoever has the audio names a file by its performance (``P_22``), as
the features are. The metadata mark performances without singing: those are "instrumental" here.
A noise recording is the only one of its work, so it is found but never asked for.

    da-tacos_benchmark_subset_metadata.json    {work: {performance: {perf_title, instrumental, …}}}
    da-tacos_benchmark*.csv                    clique,version,title,performer,id
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from catalogs import Entry, Kind
from catalogs.datasets import About, Audio, Size, checked, find_lists, no_lists, rows_of
from livi_index.errors import BadInput

ABOUT = About(
    title="Da-TACOS benchmark",
    home="https://mtg.github.io/da-tacos",
    licence="CC BY-NC-SA 4.0 (metadata and features)",
    citation="F. Yesiler, C. Tralie, A. Correya, D. F. Silva, P. Tovstogan, E. Gómez and X. Serra,"
    ' "Da-TACOS: A Dataset for Cover Song Identification and Understanding", ISMIR 2019',
    audio="was not published",
    sizes={("test",): (Size(3000, 15_000),)},
)
METADATA = "da-tacos_benchmark_subset_metadata.json"
TABLE = "da-tacos_benchmark*.csv"


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """Every recording; see ``datasets.Dataset.read``."""
    folder = metadata or root
    audio = Audio(root)
    if found := find_lists(folder, METADATA):
        entries = list(_from_json(found[0], audio))
    elif found := find_lists(folder, TABLE):
        entries = list(_from_table(found[0], audio))
    else:
        raise no_lists(ABOUT, folder, METADATA)
    return checked(entries, ABOUT, whole)


def _from_json(path: Path, audio: Audio) -> Iterator[Entry]:
    try:
        for work, performances in json.loads(path.read_bytes()).items():
            for name, facts in performances.items():
                kind: Kind = "instrumental" if facts["instrumental"] == "Yes" else "sung"
                title, artist = facts["perf_title"], facts["perf_artist"]
                yield Entry(name, work, audio.find(name), title, artist, "test", kind)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} cannot be read as metadata of Da-TACOS ({error!r})") from error


def _from_table(path: Path, audio: Audio) -> Iterator[Entry]:
    for row in rows_of(path, ("clique", "title", "performer", "id")):
        name = row["id"]
        yield Entry(name, row["clique"], audio.find(name), row["title"], row["performer"], "test")
