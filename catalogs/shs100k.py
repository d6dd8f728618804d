"""SHS100K: 9 thousand works of SecondHandSongs with 109 thousand recordings on YouTube.

The splits name recordings by the numbers of their work and of the version in it; ``list`` has their
titles, artists and addresses. Many of the videos are gone (WEALY could collect 82 %), and whoever
has some names the files in one of these ways, which are looked for in this order:

    8110_3.mp3   8110-3.mp3   8110/3.mp3   and, where there is a list, <YouTube id>.mp3

    SHS100K-TRAIN, -VAL, -TEST    set_id, ver_id
    list                          set_id, ver_id, title, performer, url, status     (all by tabs)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from catalogs import Entry, Split
from catalogs.datasets import About, Audio, Size, checked, find_lists, lines_of, no_lists
from livi_index.errors import BadInput

ABOUT = About(
    title="SHS100K",
    home="https://github.com/NovaFrost/SHS100K2",
    licence="none stated; metadata from SecondHandSongs.com, recordings on YouTube",
    citation='X. Xu, X. Chen and D. Yang, "Key-invariant convolutional neural network toward'
    ' efficient cover song identification", ICME 2018',
    audio="by the YouTube addresses in its list, many of which are gone",
    sizes={
        ("train",): (Size(5324, 87091),),
        ("val",): (Size(1842, 10884),),
        ("test",): (Size(1692, 10547),),
    },
)
SPLITS: dict[Split, str] = {"train": "SHS100K-TRAIN", "val": "SHS100K-VAL", "test": "SHS100K-TEST"}
_YOUTUBE = re.compile(r"(?:v=|youtu\.be/|/embed/)([\w-]{11})")


class _Known(NamedTuple):
    title: str
    performer: str
    url: str


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """The recordings of all splits at hand; see ``datasets.Dataset.read``."""
    folder = metadata or root
    known = _known(folder)
    audio = Audio(root)
    entries = [
        _entry(audio, *pair, known.get(pair), split)
        for split, name in SPLITS.items()
        for path in find_lists(folder, name)[:1]
        for pair in _pairs(path)
    ]
    if not entries:
        raise no_lists(ABOUT, folder, f"{', '.join(SPLITS.values())}, at least one of them,")
    return checked(entries, ABOUT, whole)


def _pairs(path: Path) -> list[tuple[str, str]]:
    pairs = [tuple(line.split()) for line in lines_of(path)]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise BadInput(f"{path}: a line is a work's number and a version's, not {' '.join(bad[0])}")
    return [(pair[0], pair[1]) for pair in pairs]


def _known(folder: Path) -> dict[tuple[str, str], _Known]:
    """What ``list`` says of each recording; nothing where there is none."""
    rows = [line.split("\t") for path in find_lists(folder, "list")[:1] for line in lines_of(path)]
    return {(row[0], row[1]): _Known(row[2], row[3], row[4]) for row in rows if len(row) >= 5}


def _entry(audio: Audio, work: str, version: str, known: _Known | None, split: Split) -> Entry:
    names = [f"{work}_{version}", f"{work}-{version}", f"{work}/{version}"]
    if known and (video := _YOUTUBE.search(known.url)):
        names.append(video[1])
    title, artist = (known.title, known.performer) if known else ("", "")
    return Entry(f"{work}_{version}", work, audio.find(*names), title, artist, split)
