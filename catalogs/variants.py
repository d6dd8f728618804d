"""Other recordings of works that were rendered: without a voice, with a softer one, without words.

The rows of a folder's ``manifest.jsonl`` decide, so that no seed has to be known again, and a row
alone decides its samples as before. An instrumental version is laid out and played anew: in a key,
at a tempo and by a band that no row of its work has, by a melody instrument in two of three, in
the third by the accompaniment alone. A softer version is the same recording but for the balance
of voice and backing, under the same id, and is to be asked for in a library without the original.
A wordless one sings one syllable again and again in place of all words; a whispered one has all
words, and nothing but breath in its voice.

What comes of a test split measures, and nothing of it may be heard in training: a row keeps its
split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from catalogs.manifest import (
    N_BANDS,
    Row,
    draw_artist,
    draw_change,
    draw_codec,
    draw_delivery,
    draw_room,
)
from catalogs.score import choose, compose, seeded
from livi_index.errors import BadInput

KEYS = range(-5, 6)  # semitones from the key in which a work was composed
SYLLABLES = ("la", "na", "doo", "ah", "oh")
VOWELS = re.compile("[aeiouy]+", re.IGNORECASE)
CLEAR_DB = 6.0  # of the voice to the band
DRAWS = 8  # of tempos, of which the one farthest from all others is kept


def read_rows(folder: Path) -> list[Row]:
    """The rows of a folder that was rendered. Raises BadInput."""
    path = folder / "manifest.jsonl"
    try:
        return [Row.from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{path} is no manifest of a rendered folder ({error}); `python -m catalogs render`"
            " writes one"
        ) from error


def instrumental_rows(rows: Sequence[Row]) -> list[Row]:
    """A new instrumental version of each work of which ``rows`` holds a sung one."""
    return [_played(list(versions)) for versions in _works(rows)]


def softer_rows(rows: Sequence[Row], voice_db: float, versions: int) -> list[Row]:
    """``versions`` sung rows of each work, drawn from its own, with the voice at ``voice_db``."""
    chosen: list[Row] = []
    for work in _works(rows):
        sung = [row for row in work if row.kind == "sung"]
        drawn = seeded("softer", sung[0].work_id).permutation(len(sung))[:versions]
        chosen += [replace(sung[i], voice_to_backing_db=voice_db) for i in sorted(drawn.tolist())]
    return chosen


def wordless_rows(rows: Sequence[Row], works: int) -> list[Row]:
    """A wordless and a whispered version of the first works, the voice well above the band."""
    found = []
    for work in list(_works(rows))[:works]:
        sung = next(row for row in work if row.kind == "sung")
        clear = replace(sung, voice_to_backing_db=CLEAR_DB)
        syllable = choose(seeded("wordless", sung.work_id), SYLLABLES)
        form = tuple(
            replace(section, lines=tuple(_hummed(line, syllable) for line in section.lines))
            for section in sung.form
        )
        found.append(replace(clear, recording_id=f"{sung.work_id}-wordless", form=form))
        found.append(replace(clear, recording_id=f"{sung.work_id}-whispered", breath=1.0))
    return found


def _hummed(line: str, syllable: str) -> str:
    """As many syllables as the line has, about."""
    n_vowels = sum(len(VOWELS.findall(word)) or 1 for word in line.split())
    return " ".join([syllable] * n_vowels)


def _works(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each work that is sung."""
    ordered = sorted(rows, key=lambda row: row.work_id)
    for _, work in groupby(ordered, key=lambda row: row.work_id):
        versions = list(work)
        if any(row.kind == "sung" for row in versions):
            yield versions


def _played(versions: Sequence[Row]) -> Row:
    """Without a voice, unlike all ``versions`` of its work."""
    whole = min((row for row in versions if row.kind == "sung"), key=lambda row: row.lacks)
    rng = seeded("played anew", whole.work_id, whole.tune_seed)
    keys = sorted(set(KEYS) - {row.change.semitones for row in versions})
    bands = sorted(set(range(N_BANDS[whole.split])) - {row.band_seed for row in versions})
    tune, key = compose(whole.tune_seed), choose(rng, keys)
    changes = [draw_change(tune, whole.form, key, rng) for _ in range(DRAWS)]
    tempos = [row.change.tempo_factor for row in versions]
    return replace(
        whole,
        recording_id=f"{whole.work_id}-n",
        kind="instrumental",
        title=f"{whole.poem} (instrumental)",
        artist=draw_artist(rng),
        change=max(changes, key=lambda one: min(abs(one.tempo_factor - t) for t in tempos)),
        voice=None,
        **draw_delivery(rng),
        backing=choose(rng, ("lead", "lead", "band")),
        band_seed=choose(rng, bands),
        anthem=None,
        voice_to_backing_db=None,
        room=draw_room(rng),
        codec=draw_codec(rng),
    )
