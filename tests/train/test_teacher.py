"""What is sung, and where it is from: cleaning, given words, Whisper's part, resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import audio_files
import numpy as np
import pytest

pytest.importorskip("transformers")

from tiny_models import save_whisper

from catalogs.originals import demo_rows
from catalogs.sung import lrc_of, score_of
from export.cleaning import clean, loop
from export.hub import Found, find, quiet
from export.lyrics import Line, find_lyrics, read_lyrics
from export.teacher import Teacher, read_told, texts_of, write_told
from export.teacher import audio_files as files_in
from export.transcriber import WINDOW, DecodingOptions, Transcriber
from livi_index.errors import BadInput, BadModel
from livi_index.models import find_model
from livi_index.vocals import SegmentOptions, VocalDetector

pytestmark = pytest.mark.train
ROOT = Path(__file__).parent.parent.parent
BUNDLE = ROOT / "tests" / "data" / "tiny-bundle"
RATE = 16_000


@pytest.mark.parametrize(
    ("heard", "kept"),
    [
        ("We walked along the river", "We walked along the river"),
        ("Thank you. We walked along the river", "We walked along the river"),
        ("THANK YOU! We walked along the river. Thank you.", "We walked along the river."),
        ("[Music] We walked along the river", "We walked along the river"),
        ("We walked along ♪ music ♪", None),
        ("We walked along the river (music)", "We walked along the river"),
        ("the music plays along the river", "the music plays along the river"),
        ("I want to thank you. For the river", "I want to thank you. For the river"),
        ("no, no, no, NO we will not go", "no we will not go"),
        ("no no we will not go", "no no we will not go"),
        ("don't don't don't you forget me", "don't you forget me"),
        ("so some something so soon", "so some something so soon"),
        ("l'été l'été l'été revient chez nous", "l'été revient chez nous"),
        ("la la la la la", None),
        ("Thank you.", None),
        ("", None),
    ],
)
def test_cleaning_does_what_its_rules_mean(heard: str, kept: str | None) -> None:
    cleaned = clean(heard)
    assert cleaned.text == (kept or "")
    assert (cleaned.rejected is None) == (kept is not None)


def test_loops_are_told_from_refrains() -> None:
    assert loop("I'm going to the park " * 7) is not None
    assert loop("when the night comes down upon the silver sea we sing " * 9) is not None
    assert loop("we will, we will rock you " * 4) is None
    assert clean("and so we go " * 30).rejected.startswith("a loop")


def test_times_of_lines() -> None:
    lyrics = read_lyrics(
        "[ar:Somebody]\n[offset:+500]\n[00:01.50]<00:01.50>The <00:02.0>river runs\n"
        "[00:03.5][01:00.00]beneath the bridge\n[00:05.50]\n[00:10:00]and sings",
        "lrc",
        "a.lrc",
    )
    assert lyrics is not None
    assert lyrics.lines == (
        Line(1.0, 3.0, "The river runs"),
        Line(3.0, 5.0, "beneath the bridge"),
        Line(9.5, 17.5, "and sings"),
        Line(59.5, 67.5, "beneath the bridge"),
    )
    assert lyrics.between(0, 9) == "The river runs\nbeneath the bridge"


def test_rendered_songs_say_when_their_lines_are_sung() -> None:
    row = next(demo_rows())
    lyrics = read_lyrics(lrc_of(row), "lrc", "")
    assert lyrics is not None
    sung = [line for section in row.form for line in section.lines]
    assert [line.text for line in lyrics.lines] == sung
    phrases = score_of(row).phrases
    slot_s = score_of(row).slot_s
    for line, phrase in zip(lyrics.lines, phrases, strict=True):
        assert line.start_s == pytest.approx(phrase.onsets[0] * slot_s, abs=0.01)
        assert line.end_s <= phrase.end * slot_s + 0.01


def test_where_words_are_looked_for(tmp_path: Path) -> None:
    plain = audio_files.write(tmp_path / "plain.flac", audio_files.tones(1.0))
    song = audio_files.retag(plain, tmp_path / "song.flac", "flac", lyrics="the words of the tag")
    found = find_lyrics(song)
    assert found is not None and (found.kind, found.text) == ("tag", "the words of the tag")
    other = tmp_path / "words"
    other.mkdir()
    (other / "song.txt").write_bytes("les mots d'été\r\n".encode("cp1252"))
    found = find_lyrics(song, [other])
    assert found is not None and (found.kind, found.text) == ("txt", "les mots d'été")
    (tmp_path / "song.lrc").write_text("[00:00.00]the words with times", encoding="utf-16")
    found = find_lyrics(song, [other])
    assert found is not None and (found.kind, found.source) == ("lrc", "song.lrc")
    assert find_lyrics(plain) is None


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Found:
    quiet()
    return find(str(save_whisper(tmp_path_factory.mktemp("whisper"))), "--whisper")


def test_transcripts_do_not_depend_on_what_was_read_before(whisper: Found) -> None:
    rng = np.random.default_rng(0)
    windows = 0.1 * rng.standard_normal((2, WINDOW)).astype(np.float32)
    one = Transcriber(whisper).transcribe(windows)
    reader = Transcriber(whisper, DecodingOptions(batch=2))
    reader.transcribe(windows[:1])
    assert reader.transcribe(windows) == one
    assert len(one) == 2 and not any("<|" in text for text in one)


def test_a_language_is_taken_as_it_is_told(whisper: Found) -> None:
    window = np.zeros((1, WINDOW), np.float32)
    assert len(Transcriber(whisper, DecodingOptions(language="fr")).transcribe(window)) == 1


def test_weights_that_are_missing_are_said(whisper: Found, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in whisper.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.encoder.conv1.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadModel, match="lacks weights"):
        Transcriber(Found(tmp_path, "half"))


def test_a_folder_or_a_name(tmp_path: Path) -> None:
    assert find(str(tmp_path), "--text") == Found(tmp_path, tmp_path.name)
    for nothing in ("./nothing", "/nothing/there", "one", "a b/c"):
        with pytest.raises(BadInput, match="no folder"):
            find(nothing, "--text")


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "export.teacher", f"--out={tmp_path / 'texts'}"]
    done = subprocess.run(
        [*command, "--whisper=openai/whisper-tiny", f"--model={BUNDLE}"],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | away,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr and "--whisper FOLDER" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Songs as the tiny detector knows them: what is loud is sung."""
    noise = 0.3 * np.random.default_rng(1).standard_normal((40 * RATE, 1)).astype(np.float32)
    for name in ("timed", "plain", "wordless"):
        audio_files.write(tmp_path / f"{name}.wav", noise, RATE)
    audio_files.write(tmp_path / "quiet.wav", 0 * noise, RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF, and then nothing")
    (tmp_path / "timed.lrc").write_text("[00:02.00]the river runs\n[00:33.00]and sings\n")
    (tmp_path / "plain.txt").write_text("all the words of the song\nas they were written")
    return tmp_path


def test_each_text_says_where_it_is_from(songs: Path, whisper: Found) -> None:
    detector = VocalDetector(find_model(BUNDLE), threads=1)
    options = SegmentOptions(padding_s=0.0)
    teacher = Teacher(detector, options, Transcriber(whisper))
    told = {path.stem: teacher.tell(path) for path in files_in([songs])}
    timed, plain = told["timed"], told["plain"]
    assert [(t.kind, t.text, t.start_s) for t in timed] == [
        ("lrc", "the river runs", 0.0),
        ("lrc", "and sings", 30.0),
    ]
    assert [(t.kind, t.whole) for t in plain] == [
        ("txt", True), ("transcript", False), ("transcript", False),
    ]  # fmt: skip
    assert texts_of(plain)[0] == ["all the words of the song\nas they were written"]
    assert {t.kind for t in told["wordless"]} == {"transcript"}
    assert all(t.source == whisper.name and t.heard is not None for t in told["wordless"])
    assert all((t.rejected is None) == bool(t.text) for rows in told.values() for t in rows)
    (quiet_one,), (broken,) = told["quiet"], told["broken"]
    assert quiet_one.rejected == "instrumental: vocalness 0.00 below 0.5"
    assert broken.rejected is not None and broken.rejected.startswith("unreadable")
    silent = Teacher(detector, options).tell(songs / "wordless.wav")
    assert [t.kind for t in silent] == ["none"] * 2 and "--whisper" in str(silent[0].rejected)


def test_a_run_goes_on_where_it_was(songs: Path) -> None:
    out = songs / "texts.jsonl"
    teacher = Teacher(VocalDetector(find_model(BUNDLE), threads=1), SegmentOptions(padding_s=0.0))
    files = files_in([songs])
    assert len([*write_told(out, teacher, files)]) == 5
    whole = out.read_text()
    out.write_text(whole[: len(whole) // 2])
    before = len(read_told(out))
    assert before < 5
    assert len([*write_told(out, teacher, files)]) == 5 - before
    assert sorted(out.read_text().splitlines()) == sorted(whole.splitlines())
    assert not [*write_told(out, teacher, files)]
    out.write_text(json.dumps({"other": 1}) + "\n")
    with pytest.raises(BadInput, match="not written by"):
        read_told(out)
