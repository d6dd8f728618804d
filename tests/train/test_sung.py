"""Sung covers: the fixed test split, and what a row sounds like, measured from outside."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthesisers import data_folder, need_band, need_voices, track_pitch

from catalogs import Split
from catalogs.manifest import DIGEST_FILE, LACKING, Row, first_works, make_split, manifest_sha256
from catalogs.mixing import mean_power, mix
from catalogs.originals import ORIGINALS, demo_rows
from catalogs.poems import plain
from catalogs.score import median_syllable_s
from catalogs.sung import (
    read_entries,
    render,
    render_stems,
    render_voice,
    score_of,
    sung_phrases,
    write_catalogue,
)
from catalogs.variants import instrumental_rows, softer_rows
from catalogs.voices import TEST_VOICES, TRAIN_VOICES, Voice

pytestmark = pytest.mark.train

DEMO = Path(__file__).parents[2] / "catalogs" / "demo"
SUNG_BY = (Voice("flite", "rms"), Voice("festival", "slt"), Voice("espeak", "en-us+f3"))


def short_row(voice: Voice | None = SUNG_BY[0]) -> Row:
    """About 25 s of the demonstration catalogue."""
    row = next(iter(demo_rows()))
    return replace(row, form=row.form[:2], voice=voice)


def level_db(row: Row, asked_db: float) -> float:
    """Voice to backing in the mixture, over the sung parts, by least squares."""
    stems = render_stems(row)
    mixture = mix(stems, asked_db)
    parts = np.column_stack([stems.voice, stems.backing])
    (voice, backing), *_ = np.linalg.lstsq(parts, mixture, rcond=None)
    ratio = voice**2 * mean_power(stems.voice, stems.sung)
    return float(10 * np.log10(ratio / (backing**2 * mean_power(stems.backing, stems.sung))))


@pytest.fixture(scope="module")
def test_rows() -> list[Row]:
    return make_split(data_folder())


@pytest.fixture(scope="module")
def train_rows() -> list[Row]:
    return make_split(data_folder(), "train", seed=1, works=60, distractors=20)


def test_the_test_split_is_the_one_that_was_fixed(test_rows: list[Row]) -> None:
    assert manifest_sha256(test_rows) == DIGEST_FILE.read_text().strip()


def test_the_test_split_has_its_parts(test_rows: list[Row]) -> None:
    kinds = [row.kind for row in test_rows]
    assert [kinds.count(k) for k in ("sung", "instrumental", "distractor")] == [1500, 500, 500]
    for row in (row for row in test_rows if row.kind == "sung"):
        assert row.voice_to_backing_db is not None and -5 <= row.voice_to_backing_db <= 6
        assert 0.8 <= row.change.tempo_factor <= 1.25 and -5 <= row.change.semitones <= 5


def test_versions_differ_and_one_of_three_lacks_words(test_rows: list[Row]) -> None:
    works = defaultdict(list)
    for row in test_rows:
        if row.kind == "sung":
            works[row.work_id].append(row)
    for rows in works.values():
        assert {row.voice.engine for row in rows if row.voice} == {"espeak", "flite", "festival"}
        assert len({(row.backing, row.band_seed, row.anthem) for row in rows}) == 3
        assert len({row.change.semitones for row in rows}) == 3
        assert sorted(row.lacks >= LACKING for row in rows) == [False, False, True]


def test_songs_last_as_long_as_songs_and_syllables_as_sung_ones(test_rows: list[Row]) -> None:
    for row in [row for row in test_rows if row.kind == "sung"][::10]:
        score = score_of(row)
        assert 60 <= score.duration_s <= 180
        assert median_syllable_s(score) >= 0.3


def test_the_splits_share_no_author_voice_anthem_or_text(
    test_rows: list[Row], train_rows: list[Row]
) -> None:
    def facts(rows: list[Row]) -> list[set[object]]:
        return [
            {row.author for row in rows} - {""},
            {row.voice for row in rows} - {None},
            {row.anthem for row in rows} - {None},
        ]

    for train, test in zip(facts(train_rows), facts(test_rows), strict=True):
        assert train and test and not train & test
    assert not set(TRAIN_VOICES) & set(TEST_VOICES)
    tested = {plain(line) for row in test_rows for s in row.form for line in s.lines} - {""}
    for row in (row for row in train_rows if row.kind == "sung"):
        lines = {plain(line) for s in row.form for line in s.lines}
        assert len(lines & tested) < 2


def test_no_two_works_share_a_line(test_rows: list[Row]) -> None:
    owner: dict[str, str] = {}
    for row in (row for row in test_rows if row.kind == "sung"):
        for line in {plain(line) for s in row.form for line in s.lines}:
            assert owner.setdefault(line, row.work_id) == row.work_id


def test_first_works_counts_what_is_asked(test_rows: list[Row]) -> None:
    kinds = [row.kind for row in first_works(test_rows, 200, 150)]
    assert [kinds.count(k) for k in ("sung", "instrumental", "distractor")] == [600, 75, 75]


def test_an_instrumental_is_unlike_all_versions_of_its_work(test_rows: list[Row]) -> None:
    first = first_works(test_rows, 40, 40)
    played = instrumental_rows(first)
    assert len(played) == 40 and played == instrumental_rows(first)
    for new in played:
        others = [row for row in first if row.work_id == new.work_id]
        assert new.voice is None and new.tune_seed == others[0].tune_seed
        for row in others:
            assert new.change.semitones != row.change.semitones
            assert new.change.tempo_factor != row.change.tempo_factor
            assert new.band_seed != row.band_seed and new.recording_id != row.recording_id
    assert {row.backing for row in played} == {"lead", "band"}


def test_a_softer_version_differs_by_its_balance_alone(test_rows: list[Row]) -> None:
    first = first_works(test_rows, 40, 40)
    softer = softer_rows(first, -10.0, 2)
    assert len(softer) == 80 and all(row.voice_to_backing_db == -10 for row in softer)
    before = {row.recording_id: row for row in first}
    for row in softer:
        old = before[row.recording_id]
        assert row == replace(old, voice_to_backing_db=-10.0) and row.kind == "sung"


def test_a_row_survives_json(test_rows: list[Row]) -> None:
    for row in (*test_rows[:8], *test_rows[-8:]):
        assert Row.from_json(row.to_json()) == row


@pytest.mark.parametrize("voice", SUNG_BY, ids=str)
def test_the_same_row_is_the_same_sound(voice: Voice) -> None:
    need_band()
    need_voices()
    row = short_row(voice)
    first = render(row)
    render_voice(replace(row, recording_id="another"), score_of(row))
    assert np.array_equal(first, render(row))
    assert np.abs(first).max() == pytest.approx(0.89, abs=1e-3)


@pytest.mark.parametrize("voice", (*SUNG_BY, Voice("espeak", "en-us+m3")), ids=str)
def test_a_voice_sings_its_melody(voice: Voice) -> None:
    need_voices()
    row = short_row(voice)
    score = score_of(row)
    audio, _ = render_voice(row, score)
    times, pitch = track_pitch(audio)
    wanted = np.zeros(len(times))
    lengths: list[float] = []
    for phrase, _ in sung_phrases(row, score):
        lengths += list(phrase.lengths() * score.slot_s)
        for onset, length, midi in zip(phrase.onsets, phrase.lengths(), phrase.midi, strict=True):
            within = (times >= onset * score.slot_s) & (times < (onset + length) * score.slot_s)
            wanted[within] = 440 * 2 ** ((midi - 69) / 12)
    voiced = (pitch > 0) & (wanted > 0)
    cents = 1200 * np.log2(pitch[voiced] / wanted[voiced])
    assert voiced.sum() > 0.5 * (wanted > 0).sum()
    assert (np.abs(cents) < 50).mean() >= 0.8
    assert np.median(lengths) >= 0.3


@pytest.mark.parametrize("asked_db", [-10.0, -5.0, 6.0])
def test_the_balance_is_what_was_asked(asked_db: float) -> None:
    need_band()
    need_voices()
    assert level_db(short_row(), asked_db) == pytest.approx(asked_db, abs=0.5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_instrumental_holds_no_voice(split: Split) -> None:
    need_band()
    row = replace(short_row(None), kind="instrumental", backing="lead", split=split)
    stems = render_stems(row)
    assert not stems.voice.any() and stems.backing.any() and len(stems.sung) == 0


def test_a_catalogue_is_written_once_with_tags_and_entries(tmp_path: Path) -> None:
    need_band()
    need_voices()
    from tinytag import TinyTag

    demo = list(demo_rows())
    rows = [replace(demo[i], form=demo[i].form[1:2]) for i in (0, 1, 2, 5)]
    entries = write_catalogue(tmp_path, rows)
    assert {entry.path.suffix for entry in entries} == {".ogg", ".mp3", ".opus", ".m4a"}
    assert read_entries(tmp_path / "entries.csv") == entries
    for entry, row in zip(entries, rows, strict=True):
        tag = TinyTag.get(entry.path)
        assert (tag.title, tag.artist) == (entry.title, entry.artist)
        assert tag.duration == pytest.approx(score_of(row).duration_s, abs=0.2)
    before = [entry.path.stat().st_mtime_ns for entry in entries]
    entries[0].path.unlink()
    write_catalogue(tmp_path, rows)
    after = [entry.path.stat().st_mtime_ns for entry in entries]
    assert after[1:] == before[1:] and after[0] != before[0]


def test_the_demo_catalogue_lies_in_the_repository() -> None:
    with (DEMO / "works.csv").open(newline="", encoding="utf-8") as file:
        listed = [(row["path"], row["work"]) for row in csv.DictReader(file)]
    assert listed == [(f"{r.recording_id}{r.codec.suffix}", r.work_id) for r in demo_rows()]
    assert len(listed) == 3 * len(ORIGINALS) >= 36
    sizes = [(DEMO / path).stat().st_size for path, _ in listed]
    assert sum(sizes) <= 12e6
