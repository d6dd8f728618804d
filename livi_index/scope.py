"""What a build is about: which folders, and walked how.

A folder that was named once belongs to the library, with the globs and the treatment of links it
was named with; a run that names nothing is about all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from livi_index.errors import BadInput, LibraryDamaged, LibraryNotFound
from livi_index.generations import current, generations
from livi_index.models import Bundle
from livi_index.planning import Label
from livi_index.publishing import PublishedModel, Space
from livi_index.records import Root
from livi_index.scan import AudioFile, Skipped
from livi_index.store import DATABASE, Store


def open_store(place: Path) -> Store:
    """The database of a library; LibraryDamaged where one is missing that was there."""
    if generations(place) and not (place / DATABASE).exists():
        raise LibraryDamaged(
            f"{place / DATABASE} is missing; `livi-index check --repair` restores it from what is"
            " published, or put a backup in its place"
        )
    return Store(place)


def nothing_there(place: Path, named: Iterable[Path], files: Path | None) -> BadInput:
    """The error for a build that has nothing to walk."""
    what = ", ".join(map(str, named))
    if not what and files is None:
        return BadInput(f"{place} knows no folders yet; name the folders that hold your music")
    what = what or f"what {files} lists"
    return BadInput(f"{what}: no such file or folder; name the folders that hold your music")


def roots_to_walk(
    store: Store,
    named: Sequence[Path],
    *,
    exclude: tuple[str, ...] = (),
    follow_symlinks: bool = False,
    has_list: bool = False,
) -> list[Root]:
    """What was named, else every folder of the library, walked as it was then."""
    if named or has_list:
        return [Root(path, exclude, follow_symlinks) for path in named]
    return [
        replace(
            root,
            exclude=exclude or root.exclude,
            follow_symlinks=follow_symlinks or root.follow_symlinks,
        )
        for root in store.roots()
    ]


def published_model(bundle: Bundle) -> PublishedModel:
    """What a generation says of a model."""
    card = bundle.card
    spaces = tuple(Space(space.name, space.dim) for space in card.spaces)
    return PublishedModel(card.model_id, card.name, card.version, spaces)


def published_labels(place: Path) -> dict[Path, Label]:
    """Title, artist and work of every file that is published."""
    try:
        with current(place) as generation:
            rows = generation.ask("SELECT path, title, artist, work FROM files")
    except (LibraryDamaged, LibraryNotFound):
        return {}
    return {Path(os.fsdecode(row[0])): Label(*row[1:]) for row in rows}


def outside(place: Path, items: Iterable[AudioFile | Skipped]) -> Iterator[AudioFile | Skipped]:
    """What is not of the library itself, which may lie among the songs."""
    own = os.path.realpath(place)
    inside: dict[Path, bool] = {}
    for item in items:
        folder = item.path.parent
        if folder not in inside:
            inside[folder] = f"{os.path.realpath(folder)}/".startswith(f"{own}/")
        if not inside[folder]:
            yield item
