"""Sung covers from a seed: the sound of what a manifest lists.

``manifest`` chooses; a row alone decides its samples. A voice sings the words of a row on its
score, each line spoken by a synthesiser of the system and put on the melody; a band or an anthem
plays. Voice and backing stay apart as ``Stems`` until they are mixed, so that another balance
costs nothing. ``write_catalogue`` makes a folder of audio files with tags, in lossy formats, with
``manifest.jsonl`` and ``entries.csv``; ``read`` gives its entries again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogs import Entry, plain
from catalogs.backing import Band, anthems, excerpt, pick_band, play, solo
from catalogs.datasets import About
from catalogs.manifest import Row
from catalogs.mixing import SAMPLE_RATE, FloatArray, Stems, mix, reverberate, write_audio
from catalogs.score import Phrase, Score, compose, fit, lay_out, seeded
from catalogs.voices import Spoken, Voice, sing, speak_lines

ABOUT = About(
    title="sung covers",
    home="this project: `python -m catalogs render`",
    licence="MIT as far as it is ours; the words are public domain, anthems CC BY 4.0",
    citation="this project",
    audio="made from a seed, by synthesisers of the system",
    sizes={},  # as many works as were asked for
)
PREROLL_S = 0.35  # for the consonants before a line's first vowel
MALE_CENTRE, FEMALE_CENTRE = 53.0, 62.0  # MIDI numbers: F3 and D4
_FEMALE_NAMES = re.compile(
    "slt|alicia|andrea|anika|annie|aunty|belinda|linda|grandma|shelby|steph2?|f[1-5]", re.IGNORECASE
)


def read(root: Path, *, metadata: Path | None = None, whole: bool = True) -> list[Entry]:
    """The recordings of a folder that was rendered; see ``datasets.Dataset.read``."""
    return plain.read(root, metadata=metadata, whole=whole)


def score_of(row: Row) -> Score:
    """What is played, and sung by a voice that agrees with the spelling about syllables."""
    return lay_out(compose(row.tune_seed), row.form, row.change)


def band_of(row: Row) -> Band:
    """Who plays in ``row`` unless its backing is an anthem."""
    if row.backing == "solo":
        return solo(row.band_seed, row.split)
    return pick_band(row.band_seed, row.split, lead=row.backing == "lead")


def lrc_of(row: Row) -> str:
    """When each line of ``row`` is sung, in the LRC format; a line without words ends another."""
    score = score_of(row)
    lines: dict[float, str] = {}
    for phrase in score.phrases:  # where two meet, the end of one is the start of the next
        lines[float(phrase.onsets[0]) * score.slot_s] = phrase.text
        lines.setdefault(phrase.end * score.slot_s, "")
    return "".join(f"{_stamp(at)}{lines[at]}\n" for at in sorted(lines))


def _stamp(seconds: float) -> str:
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    return f"[{minutes:02}:{hundredths // 100:02}.{hundredths % 100:02}]"


def render_stems(row: Row, data: str | Path | None = None) -> Stems:
    """Voice, in its room, and backing of ``row``, both (T,) and not yet balanced.

    ``data`` is the folder of the development data and is needed for anthems only. Raises
    MissingSynthesiser or RuntimeError where what should sound is not installed.
    """
    score = score_of(row)
    n_samples = round(score.duration_s * SAMPLE_RATE)
    backing = _render_backing(row, score, n_samples, data)
    if row.voice is None:
        silence = np.zeros(n_samples, dtype=np.float32)
        return Stems(silence, reverberate(backing, row.room), np.zeros((0, 2)))
    voice, sung = render_voice(row, score)
    return Stems(reverberate(voice, row.room), backing, sung)


def render_voice(row: Row, score: Score) -> tuple[FloatArray, NDArray[np.float64]]:
    """The bare voice (T,) and its sung parts (n, 2) in seconds."""
    assert row.voice is not None
    voice = np.zeros(round(score.duration_s * SAMPLE_RATE) + SAMPLE_RATE, dtype=np.float32)
    parts = []
    for i, (phrase, spoken) in enumerate(sung_phrases(row, score)):
        onsets = phrase.onsets * score.slot_s
        begin = max(0.0, float(onsets[0]) - PREROLL_S)
        end = phrase.end * score.slot_s
        line = sing(
            spoken,
            onsets - begin,
            end - begin,
            440.0 * 2 ** ((phrase.midi - 69) / 12),
            rng=seeded("sing", row.recording_id, i),
            formant=row.formant,
            vibrato_cents=row.vibrato_cents,
            breath=row.breath,
        )
        place = round(begin * SAMPLE_RATE)
        voice[place : place + len(line)] += line
        parts.append((float(onsets[0]), end))
    return voice[: round(score.duration_s * SAMPLE_RATE)], np.array(parts).reshape(-1, 2)


def sung_phrases(row: Row, score: Score) -> Iterator[tuple[Phrase, Spoken]]:
    """Each phrase as the voice sings it, in its octave and with its syllables, and its speech."""
    assert row.voice is not None
    lines = list(dict.fromkeys(phrase.text for phrase in score.phrases))
    spoken = dict(zip(lines, _speak(row.voice, lines), strict=True))
    centre = FEMALE_CENTRE if _is_female(row.voice) else MALE_CENTRE
    mean = float(np.concatenate([phrase.midi for phrase in score.phrases]).mean())
    octave = 12 * round((centre - mean) / 12)
    for phrase in score.phrases:
        fitted = fit(phrase, spoken[phrase.text].n_syllables)
        moved = Phrase(fitted.text, fitted.onsets, fitted.end, fitted.midi + octave)
        yield moved, spoken[phrase.text]


def render(row: Row, data: str | Path | None = None) -> FloatArray:
    """The finished recording before its codec, (T,) with a peak of ``mixing.PEAK``."""
    return mix(render_stems(row, data), row.voice_to_backing_db or 0.0)


def write_catalogue(
    out: Path, rows: Sequence[Row], data: str | Path | None = None, workers: int = 1
) -> list[Entry]:
    """Write ``rows`` as files into ``out``, with ``manifest.jsonl`` and ``entries.csv``."""
    paths = write_rows(out, rows, data, workers)
    (out / "manifest.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    entries = [
        Entry(row.recording_id, row.work_id, path, row.title, row.artist, row.split, row.kind)
        for row, path in zip(rows, paths, strict=True)
    ]
    write_entries(out / "entries.csv", entries)
    return entries


def write_rows(
    out: Path, rows: Sequence[Row], data: str | Path | None = None, workers: int = 1
) -> list[Path]:
    """Write each row as an audio file in ``out`` and say where it is.

    Files that exist are left alone, so that an interrupted run goes on where it was.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{row.recording_id}{row.codec.suffix}" for row in rows]
    lacking = [(row, path) for row, path in zip(rows, paths, strict=True) if not path.exists()]
    if workers > 1 and lacking:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(_write_row, *zip(*lacking, strict=True), [data] * len(lacking)))
    else:
        for row, path in lacking:
            _write_row(row, path, data)
    return paths


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """A CSV table of ``entries``; paths are relative to its folder."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("recording_id", "work_id", "path", "title", "artist", "split", "kind"))
        for entry in entries:
            place = entry.path.relative_to(path.parent).as_posix()
            words = (entry.title, entry.artist, entry.split, entry.kind)
            table.writerow((entry.recording_id, entry.work_id, place, *words))


def read_entries(path: Path) -> list[Entry]:
    """What ``write_entries`` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [Entry(**(row | {"path": path.parent / row["path"]})) for row in rows]


def _render_backing(row: Row, score: Score, n_samples: int, data: str | Path | None) -> FloatArray:
    if row.backing != "anthem":
        return play(score, band_of(row))
    from livi_index.audio import load_audio

    assert row.anthem is not None
    files = {path.stem: path for path in anthems(Path(data), row.split)} if data else {}
    if row.anthem not in files:
        raise FileNotFoundError(
            f"{row.recording_id}: {row.anthem} is not in {data}; give the data folder (--data)"
        )
    return excerpt(load_audio(files[row.anthem]), n_samples, row.band_seed)


def _speak(voice: Voice, lines: list[str]) -> list[Spoken]:
    """``speak_lines``; for espeak each time in a fresh process.

    The library keeps its oscillators between lines: what it says depends on what it said before.
    """
    if voice.engine != "espeak":
        return speak_lines(voice, lines)
    context = get_context("forkserver")
    context.set_forkserver_preload(["catalogs.voices"])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(speak_lines, voice, lines).result()


def _is_female(voice: Voice) -> bool:
    return _FEMALE_NAMES.fullmatch(voice.name.rpartition("+")[2]) is not None


def _write_row(row: Row, path: Path, data: str | Path | None) -> None:
    write_audio(path, render(row, data), row.codec, {"title": row.title, "artist": row.artist})
