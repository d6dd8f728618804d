"""What the data sets share: their shape, the search for their audio, their sizes, their lists.

A data set is a module with ``ABOUT`` (where it comes from, its licence, whom to cite, how its audio
is come by, its published sizes) and ``read(root)``, which gives one ``Entry`` for every recording
of its metadata. None of them is downloaded, and none but ``sung`` and Covers80 come with audio: a
user has it, has part of it, or has it under names of their own. So ``read`` looks for each
recording below ``root``, by the names that the data set's own tools give, and what is missing is
counted and said (``report``), never passed over.

What was published has a size, and ``read`` holds the metadata against it: half a list is an error
unless ``whole=False`` says that it is meant.
"""

from __future__ import annotations

import csv
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from catalogs import Entry, Split
from livi_index.errors import BadInput
from livi_index.scan import AudioFile, walk

NAMES = ("covers80", "shs100k", "discogs_vi", "da_tacos", "jamendo_lyrics", "plain", "sung")
COLUMNS = ("path", "work", "title", "artist", "id", "split", "kind")
NAMED = 3  # of those that are missing, in a report


@dataclass(frozen=True)
class Size:
    works: int
    recordings: int

    def __str__(self) -> str:
        return f"{self.recordings:,} recordings of {self.works:,} works"


@dataclass(frozen=True)
class About:
    """``sizes`` are those that were published, of the splits that each key names together; any of
    them is right where there are several."""

    title: str
    home: str
    licence: str
    citation: str
    audio: str
    sizes: Mapping[tuple[Split, ...], tuple[Size, ...]]


class Dataset(Protocol):
    """The shape of a data set's module."""

    ABOUT: About

    def read(self, root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
        """Every recording of the data set. Its lists are below ``metadata``, by default ``root``.

        Raises BadInput where there are none, or where they are of another size than published.
        """
        ...


def dataset(name: str) -> Dataset:
    """A data set by its name. Raises BadInput, naming those that there are."""
    if name not in NAMES:
        raise BadInput(f"there is no data set {name!r}; there are: {', '.join(NAMES)}")
    module: Dataset = importlib.import_module(f"catalogs.{name}")
    return module


class Audio:
    """The files below a folder, by name."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise BadInput(f"{root} is no folder; name the one that holds the audio")
        self._root = root
        self._by_stem: dict[str, list[Path]] = {}
        for found in walk([root], follow_symlinks=True):
            if isinstance(found, AudioFile):
                self._by_stem.setdefault(found.path.stem, []).append(found.path)

    def find(self, *names: str) -> Path:
        """The file of the first name that there is, else where it was looked for.

        A name has no suffix; where it has folders, the file must lie in folders of those names.
        """
        for name in names:
            *folders, stem = name.split("/")
            for path in self._by_stem.get(stem, ()):
                if not folders or list(path.parts[-1 - len(folders) : -1]) == folders:
                    return path
        return self._root / names[0]

    def files(self) -> Iterator[Path]:
        """All of them, in the order of the walk."""
        for paths in self._by_stem.values():
            yield from paths


def find_lists(folder: Path, *patterns: str) -> list[Path]:
    """Files of a data set's metadata: of the first pattern that has any, where it lies highest.

    They are looked for two levels deep and no deeper: there may be a million files of audio.
    """
    for pattern in patterns:
        for above in ("", "*/", "*/*/"):
            if found := sorted(path for path in folder.glob(above + pattern) if path.is_file()):
                return found
    return []


def no_lists(about: About, folder: Path, wanted: str) -> BadInput:
    """The error where a folder holds no metadata of a data set."""
    return BadInput(
        f"{folder} holds no list of {about.title}: {wanted} is needed, from {about.home}; name its"
        " folder with --metadata where it lies apart from the audio"
    )


def checked(entries: list[Entry], about: About, whole: bool) -> list[Entry]:
    """The same entries, once their number is what was published. Raises BadInput."""
    ids = Counter((entry.split, entry.recording_id) for entry in entries)
    if twice := [f"{name} ({split})" for (split, name), n in ids.items() if n > 1]:
        raise BadInput(f"{about.title}: {len(twice)} recordings are listed twice, first {twice[0]}")
    present = {entry.split for entry in entries}
    for splits, sizes in about.sizes.items():
        if whole and present >= set(splits):
            size = size_of(entry for entry in entries if entry.split in splits)
            if size not in sizes:
                raise BadInput(
                    f"{about.title}, {' + '.join(splits)}: {size}, but"
                    f" {' or '.join(map(str, sizes))} were published; if a part is meant, say so"
                    " (--part)"
                )
    return entries


def size_of(entries: Iterable[Entry]) -> Size:
    pairs = [(entry.work_id, entry.recording_id) for entry in entries]
    return Size(len({work for work, _ in pairs}), len(pairs))


def on_disk(entries: Iterable[Entry]) -> list[Entry]:
    """Those whose audio is there."""
    return [entry for entry in entries if entry.path.is_file()]


def report(entries: Sequence[Entry], there: Sequence[Entry]) -> Iterator[str]:
    """What is on disk of each split, and what is not, in words."""
    for split in dict.fromkeys(entry.split for entry in entries):
        listed = [entry for entry in entries if entry.split == split]
        found = {entry.recording_id: entry.work_id for entry in there if entry.split == split}
        works = Counter(found.values())
        line = (
            f"{split}: {size_of(listed)}; {len(found):,} on disk ({len(found) / len(listed):.1%})"
        )
        if found:
            pairs = sum(n > 1 for n in works.values())
            line += f", of {len(works):,} works, {pairs:,} of them with two or more"
        missing = [entry.recording_id for entry in listed if entry.recording_id not in found]
        if missing:
            more = ", …" if len(missing) > NAMED else ""
            line += f"; {len(missing):,} missing: {', '.join(missing[:NAMED])}{more}"
        yield line


def write_csv(entries: Iterable[Entry], file: TextIO) -> None:
    """A list for ``livi-index build --list`` and ``livi-index eval --works``; paths absolute."""
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for entry in entries:
        table.writerow(
            (
                entry.path.absolute(),
                entry.work_id,
                entry.title,
                entry.artist,
                entry.recording_id,
                entry.split,
                entry.kind,
            )
        )


def rows_of(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with at least these columns. Raises BadInput."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, restval="")
            lacking = [name for name in needed if name not in (reader.fieldnames or ())]
            rows = [] if lacking else list(reader)
    except (OSError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({error})") from error
    if lacking:
        raise BadInput(f"{path} has no column {', '.join(lacking)}; its first line names them")
    return rows


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises BadInput."""
    try:
        text = path.read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error})") from error
    return [line for line in text.splitlines() if line.strip()]
