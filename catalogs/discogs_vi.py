"""Discogs-VI-YT: 99 thousand works with 493 thousand versions, matched to official YouTube videos.

Its splits are disjoint from the test sets of SHS100K and Da-TACOS. The light files hold a clique's
versions with a title and one video each; the full file, one clique a line, has every track of a
version, with its artists, and goes without splits, as "test". Files are looked for by the video's
id, as its own tools name them (``audio/kv/kv-jdTn_F3Q.mp4``).

    Discogs-VI-YT-20240701-light.json.train, .val, .test    {clique: [{version_id, youtube_id, …}]}
    Discogs-VI-YT-20240701.jsonl                            {"clique_id": …, "versions": […]}
    *clique*.json                                           one such clique
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogs import Entry, Split
from catalogs.datasets import About, Audio, Size, checked, find_lists, no_lists
from livi_index.errors import BadInput

ABOUT = About(
    title="Discogs-VI-YT",
    home="https://doi.org/10.5281/zenodo.13983028",
    licence="CC BY-NC-SA 4.0 (metadata); code AGPL-3.0",
    citation='R. O. Araz, X. Serra and D. Bogdanov, "Discogs-VI: A Musical Version Identification'
    ' Dataset Based on Public Editorial Metadata", ISMIR 2024',
    audio="by the YouTube ids in its files; not all can be had everywhere",
    # Of the dump of July 2024; what a split alone holds was not published in numbers.
    sizes={("train", "val", "test"): (Size(98_785, 493_049),)},
)
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_YOUTUBE = re.compile(r"v=([\w-]{11})")

Clique = tuple[str, list[dict[str, Any]]]


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """The recordings of all splits at hand; see ``datasets.Dataset.read``."""
    folder = metadata or root
    audio = Audio(root)
    entries = []
    for split, path in _files(folder):
        try:
            entries += [
                _entry(audio, clique, version, split)
                for clique, versions in _cliques(path)
                for version in versions
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} cannot be read as cliques ({error!r})") from error
    if not entries:
        raise no_lists(ABOUT, folder, "Discogs-VI-YT-*-light.json.test (or .train, .val)")
    return checked(entries, ABOUT, whole)


def _files(folder: Path) -> Iterator[tuple[Split, Path]]:
    found = [
        (split, path)
        for split in SPLITS
        for path in find_lists(folder, f"Discogs-VI-YT-*.json.{split}")[:1]
    ]
    if found:
        yield from found
    else:
        full = find_lists(folder, "Discogs-VI-YT-*.jsonl", "*clique*.json")
        yield from (("test", path) for path in full[:1])


def _cliques(path: Path) -> Iterator[Clique]:
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            records = (json.loads(line) for line in lines)
            yield from ((record["clique_id"], record["versions"]) for record in records)
        return
    value = json.loads(path.read_bytes())
    if "versions" in value:
        yield value["clique_id"], value["versions"]
    else:
        yield from value.items()


def _entry(audio: Audio, clique: str, version: dict[str, Any], split: Split) -> Entry:
    track = version["tracks"][0] if "tracks" in version else version
    videos = [video["url"] for video in version.get("youtube_video", ())]
    names = [found[1] for url in videos if (found := _YOUTUBE.search(url))]
    if "youtube_id" in version:
        names.insert(0, version["youtube_id"])
    artists = track.get("track_artist_names") or track.get("release_artist_names") or []
    return Entry(
        recording_id=version["version_id"],
        work_id=clique,
        path=audio.find(*(names or [version["version_id"]])),
        title=track.get("track_title", ""),
        artist=", ".join(artists),
        split=split,
    )
