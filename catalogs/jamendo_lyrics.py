"""JamendoLyrics: 80 songs under Creative Commons in four languages, with their words in time.

Every song is a work of its own: nothing here is a version of anything. The data set is for what is
sung, and where: ``lines`` gives the words of a song. One song has left it since (79).

    JamendoLyrics.csv            Filepath, Artist, Title, Language, LicenseType, …
    mp3/<Filepath>
    annotations/lines/<stem>.csv    start_time,end_time,lyrics_line
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalogs import Entry
from catalogs.datasets import About, Audio, Size, checked, find_lists, no_lists, rows_of
from livi_index.errors import BadInput

ABOUT = About(
    title="JamendoLyrics",
    home="https://github.com/f90/jamendolyrics",
    licence="each song under its own Creative Commons licence, named in JamendoLyrics.csv",
    citation='S. Durand, D. Stoller and S. Ewert, "Similarity-based Audio-Lyrics Alignment of'
    ' Multiple Languages", ICASSP 2023',
    audio="in the repository, mp3",
    sizes={("test",): (Size(80, 80), Size(79, 79))},
)
TABLE = "JamendoLyrics.csv"


@dataclass(frozen=True)
class Line:
    """A line of a song, and when it is sung."""

    start_s: float
    end_s: float
    text: str


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """Every song; see ``datasets.Dataset.read``."""
    folder = metadata or root
    tables = find_lists(folder, TABLE)
    if not tables:
        raise no_lists(ABOUT, folder, TABLE)
    audio = Audio(root)
    entries = []
    for row in rows_of(tables[0], ("Filepath", "Artist", "Title")):
        name = Path(row["Filepath"]).stem
        place = audio.find(f"mp3/{name}", name)
        entries.append(Entry(name, name, place, row["Title"], row["Artist"], "test"))
    return checked(entries, ABOUT, whole)


def lines(metadata: Path, entry: Entry) -> list[Line]:
    """The words of a song, in order. Raises BadInput where they are not there."""
    path = metadata / "annotations" / "lines" / f"{entry.recording_id}.csv"
    columns = ("start_time", "end_time", "lyrics_line")
    try:
        rows = [tuple(row[name] for name in columns) for row in rows_of(path, columns)]
        return [Line(float(start), float(end), text) for start, end, text in rows]
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: {error}; times are numbers of seconds") from error
