"""Copies of recordings, measured from outside: pitch, length, loudness of a band."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import audio_files
import numpy as np
import pytest
from test_catalogs import catalogs

from catalogs import copies
from catalogs.copies import KINDS, Alteration, alter, draw_alteration
from catalogs.plain import read
from livi_index.audio import SAMPLE_RATE, FloatArray, load_audio

TONES_HZ = (220.0, 1500.0)


def recording(path: Path, seconds: float) -> None:
    path.parent.mkdir()
    audio_files.write(path, tones(seconds)[:, None], SAMPLE_RATE)


def tones(seconds: float) -> FloatArray:
    """Two sines, the same all the time."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(0.2 * np.sin(2 * np.pi * hz * t) for hz in TONES_HZ).astype(np.float32)


def spectrum(audio: FloatArray) -> tuple[list[float], list[float]]:
    """Hz and level of the strongest below and above 800 Hz."""
    size = 1 << 15
    levels = np.abs(np.fft.rfft(audio[:size] * np.hanning(size)))
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    places = [np.where(low, levels, 0).argmax() for low in (hz < 800, hz >= 800)]
    return [float(hz[place]) for place in places], [float(levels[place]) for place in places]


def test_pitch_and_tempo_are_apart() -> None:
    audio = tones(20)
    higher = alter(audio, Alteration(semitones=3))
    slower = alter(audio, Alteration(tempo=0.85))
    both = alter(audio, Alteration(semitones=-2, tempo=1.2))
    for copy, semitones, tempo in ((higher, 3, 1.0), (slower, 0, 0.85), (both, -2, 1.2)):
        assert len(copy) == pytest.approx(len(audio) / tempo, rel=0.005)
        wanted = [hz * 2 ** (semitones / 12) for hz in TONES_HZ]
        assert spectrum(copy)[0] == pytest.approx(wanted, rel=0.01)


def test_an_equaliser_lifts_what_it_is_told_to() -> None:
    audio = tones(5)
    lifted = alter(audio, Alteration(peaks=((220.0, 6.0), (1500.0, -6.0))))
    (_, before), (_, after) = spectrum(audio), spectrum(lifted)
    changes = 20 * np.log10(np.array(after) / np.array(before))
    assert changes == pytest.approx([6, -6], abs=0.3)


def test_a_cut_leaves_half_at_least() -> None:
    change = Alteration(cut_s=30.0)
    assert len(alter(tones(70), change)) == 40 * SAMPLE_RATE
    assert len(alter(tones(50), replace(change, cut_s=10.0))) == 40 * SAMPLE_RATE
    assert len(alter(tones(8), change)) == 4 * SAMPLE_RATE


def test_every_kind_changes_what_it_is_called_after() -> None:
    drawn = {kind: draw_alteration(kind, "song", 1) for kind in KINDS}
    assert drawn == {kind: draw_alteration(kind, "song", 1) for kind in KINDS}
    assert drawn["tempo"] != draw_alteration("tempo", "song", 2)
    assert drawn["codec"] == Alteration()
    for name in map(str, range(50)):
        everything = draw_alteration("all", name, 1)
        assert 1 <= abs(everything.semitones) <= 3 and 0.85 <= everything.tempo <= 1.2
        assert len(everything.peaks) == 3 and everything.cut_s == 30


def test_copies_are_files_with_a_list(tmp_path: Path) -> None:
    for name in ("one", "two"):
        recording(tmp_path / name / f"{name}.flac", 6)
    sources = tmp_path / "one", tmp_path / "two"
    catalogs("altered", *sources, tmp_path / "out", "--kinds", "tempo", "codec")
    listed = read(tmp_path / "out")
    assert [(e.recording_id, e.work_id) for e in listed] == [
        ("one-tempo", "one"), ("one-codec", "one"), ("two-tempo", "two"), ("two-codec", "two"),
    ]  # fmt: skip
    tempos = [6 * SAMPLE_RATE / len(load_audio(e.path)) for e in listed if "tempo" in e.path.stem]
    wanted = [draw_alteration("tempo", name, 1).tempo for name in ("one", "two")]
    assert tempos == pytest.approx(wanted, rel=0.02)
    written = [e.path.stat().st_mtime_ns for e in listed]
    copies.altered(sources, tmp_path / "out", kinds=("tempo", "codec"))
    assert [e.path.stat().st_mtime_ns for e in listed] == written


def test_halves_are_halves(tmp_path: Path) -> None:
    recording(tmp_path / "in" / "song.flac", 7)
    catalogs("halves", tmp_path / "in", tmp_path / "out")
    listed = read(tmp_path / "out")
    assert [(e.recording_id, e.work_id) for e in listed] == [
        ("song-first", "song"), ("song-second", "song"),
    ]  # fmt: skip
    for entry in listed:
        assert len(load_audio(entry.path)) == pytest.approx(3.5 * SAMPLE_RATE, abs=400)


def test_two_files_of_one_name_have_no_copies(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        recording(tmp_path / folder / "song.flac", 1)
    done = catalogs("halves", tmp_path / "a", tmp_path / "b", tmp_path / "out", ok=False)
    assert "several are called song" in done.stderr
    done = catalogs("instrumentals", tmp_path / "a", tmp_path / "out", ok=False)
    assert "no manifest of a rendered folder" in done.stderr
