"""Accompaniments: deterministic, in tune with their chords, divided between the splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthesisers import need_band

from catalogs import backing
from catalogs.backing import (
    VOICE_PROGRAMS,
    Band,
    anthems,
    excerpt,
    midi_file,
    pick_band,
    play,
    solo,
)
from catalogs.score import Section, compose, lay_out

pytestmark = pytest.mark.train

SCORE = lay_out(compose(2), (Section("verse", ("la la la la la la", "la la la la la")),))


def programs(band: Band) -> set[int]:
    return {p for p in (band.bass, band.comp, band.pad, band.lead) if p is not None}


def test_the_splits_share_no_player_and_no_pattern() -> None:
    for divided in (
        backing.BASSES,
        backing.COMPS,
        backing.PADS,
        backing.LEADS,
        backing.KITS,
        backing.BASS_PATTERNS,
        backing.COMP_PATTERNS,
        backing.DRUMS,
    ):
        assert not set(divided["train"]) & set(divided["test"])


def test_nobody_sings_in_any_band() -> None:
    for split in ("train", "test"):
        for seed in range(200):
            for band in (pick_band(seed, split, lead=True), solo(seed, split)):
                assert not programs(band) & VOICE_PROGRAMS


def test_every_band_plays_something() -> None:
    for seed in range(300):
        band = pick_band(seed, "train")
        assert band.lead is None
        assert band.bass is not None or band.comp is not None


def test_anthems_are_divided_by_their_codes(tmp_path: Path) -> None:
    folder = tmp_path / "instrumental"
    folder.mkdir()
    for code in ("afg", "lao", "lbr", "zwe"):
        (folder / f"anthem-{code}.opus").touch()
    assert [p.stem[-3:] for p in anthems(tmp_path, "train")] == ["afg", "lao"]
    assert [p.stem[-3:] for p in anthems(tmp_path, "test")] == ["lbr", "zwe"]


def test_the_midi_file_is_well_formed() -> None:
    data = midi_file(SCORE, pick_band(1, "train", lead=True))
    assert data[:4] == b"MThd" and data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    assert data.endswith(b"\xff\x2f\x00")


def test_an_excerpt_goes_round_without_a_break() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(32_000) / 16_000).astype(np.float32)
    long = excerpt(tone, 100_000, seed=3)
    assert len(long) == 100_000
    assert np.array_equal(long, excerpt(tone, 100_000, seed=3))
    assert np.abs(np.diff(long)).max() < 0.1


def test_a_band_plays_the_same_again_and_for_as_long_as_the_score() -> None:
    need_band()
    band = pick_band(7, "test", lead=True)
    one, two = play(SCORE, band), play(SCORE, band)
    assert np.array_equal(one, two)
    assert len(one) == round(SCORE.duration_s * 16_000)
    assert 0.01 < np.abs(one).max() <= 1.0


def test_what_sounds_belongs_to_the_chord() -> None:
    need_band()
    pad = Band(None, 0, None, "roots", None, "block", 48, None, seed=1)
    audio = play(SCORE, pad)
    for chord in SCORE.chords[1:4]:
        start = int((chord.start_slot + 1) * SCORE.slot_s * 16_000)
        part = audio[start : start + 16_000]
        power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
        hz = np.fft.rfftfreq(len(part), 1 / 16_000)
        of_chord = np.zeros(len(hz), dtype=bool)
        low = (hz > 180) & (hz < 420)  # fundamentals of the pad
        of_chord[low] = [
            min(abs((69 + 12 * np.log2(f / 440) - p + 6) % 12 - 6) for p in chord.pitches) < 0.5
            for f in hz[low]
        ]
        assert power[low & of_chord].sum() > 0.8 * power[low].sum()
