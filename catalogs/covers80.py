"""Covers80: 80 songs, each in (at least) two recordings, as low-quality mp3.

The archive holds a folder a song, and two lists that name one recording of each song in the same
order: 160 recordings, the published task. Three songs have further recordings in their folders,
164 in all; lists made from the folders (acoss, CoverHunter) have those. ``read`` goes by the first
of these that it finds: the two lists, the list of acoss, that of CoverHunter, the folders.

    covers32k/list1.list, list2.list         Song/artist+Album+01-Song
    covers80_annotations.csv                 work_id,track_id
    covers80_coverhunter.jsonl, or another   {"song": …, "version": "artist+Album+01-Song.mp3", …}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from catalogs import Entry
from catalogs.datasets import About, Audio, Size, checked, find_lists, lines_of, no_lists, rows_of
from livi_index.errors import BadInput

ABOUT = About(
    title="Covers80",
    home="http://labrosa.ee.columbia.edu/projects/coversongs/covers80",
    licence="none stated; commercial recordings, offered for research",
    citation='D. P. W. Ellis, "The covers80 cover song data set", 2007 (that page)',
    audio="in covers80.tgz, 164 MB, on that page: 32 kbit/s, 16 kHz, mono",
    sizes={("test",): (Size(80, 160), Size(80, 164))},
)
LISTS = (("list1.list", "list1.txt"), ("list2.list", "list2.txt"))


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """Every recording; see ``datasets.Dataset.read``."""
    audio = Audio(root)
    names = list(_listed(metadata or root)) or [
        (path.parent.name, path.stem) for path in audio.files() if path.suffix.lower() == ".mp3"
    ]
    if not names:
        raise no_lists(ABOUT, metadata or root, "list1.list and list2.list, or its folders of mp3,")
    return checked([_entry(audio, *name) for name in names], ABOUT, whole)


def _listed(folder: Path) -> Iterator[tuple[str, str]]:
    """Song and file name without suffix, by the first kind of list that there is."""
    pair = [path for names in LISTS for path in find_lists(folder, *names)[:1]]
    if len(pair) == len(LISTS):
        for path in pair:
            for line in lines_of(path):
                song, _, name = line.strip().partition("/")
                yield song, name.removesuffix(".mp3")
    elif tables := find_lists(folder, "covers80_annotations.csv"):
        for row in rows_of(tables[0], ("work_id", "track_id")):
            yield row["work_id"], row["track_id"]
    elif records := find_lists(folder, "covers80*.jsonl"):
        for line in lines_of(records[0]):
            try:
                record = json.loads(line)
                yield record["song"], record["version"].removesuffix(".mp3")
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{records[0]} is no list of Covers80 ({error!r})") from error


def _entry(audio: Audio, song: str, name: str) -> Entry:
    artist, *_, track = name.split("+")
    title = re.sub(r"^\d+-", "", track).replace("_", " ").strip()
    path = audio.find(f"{song}/{name}", name)
    return Entry(name, song, path, title, artist.replace("_", " ").strip(), "test")
