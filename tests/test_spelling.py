"""Typed words over what is read: letters that stand for the tones of made songs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import songs
from test_build import run
from test_cli import livi

from livi_index.alignment import read_scoring
from livi_index.errors import BadInput, BadModel
from livi_index.library import Library, WordsMatch, open_library
from livi_index.models import Bundle, open_bundle
from livi_index.spelling import FIRST_TOKEN, Spelling, read_spelling

LETTERS = "abcdefghijklmnopqrstuvwx"  # tone 1 is written a, tone 2 b …
TOKENS = (*LETTERS, "th", "ee")


def letters(**changes: Any) -> dict[str, Any]:
    """A letter is worth 2 nats beside its tone, and costs 1 beside another."""
    pairs = np.full((32, 32), -12)
    tones = np.arange(len(LETTERS))
    pairs[tones, tones + 1] = 24  # tone n has class n
    pairs[24, 20] = pairs[25, 5] = 24
    values = {"tokens": TOKENS, "pairs": pairs.tolist(), "gap": 12, "chance": [-2.0, 1.0]}
    return values | changes


def bundle_with(folder: Path, spelt: dict[str, Any] | None) -> Bundle:
    """The tiny bundle that reads, and knows how words are spelt."""
    shutil.copytree(songs.READER, folder)
    values = json.loads((folder / "alignment.json").read_text())
    content = json.dumps(values if spelt is None else values | {"letters": spelt}).encode()
    (folder / "alignment.json").write_bytes(content)
    card = json.loads((folder / "card.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    card["files"]["alignment.json"] = {"sha256": digest, "size": len(content)}
    (folder / "card.json").write_text(json.dumps(card))
    return open_bundle(folder)


def spelling_in(bundle: Bundle) -> Spelling | None:
    return read_spelling(bundle, "alignment.json", read_scoring(bundle, "alignment.json"))


def written(phones: np.ndarray) -> str:
    """Tones as words of five letters."""
    text = "".join(LETTERS[phone - 1] for phone in phones)
    return " ".join(text[i : i + 5] for i in range(0, len(text), 5))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five songs of 60 s, a tone each 0.4 s, in a library."""
    folder = tmp_path_factory.mktemp("spelt")
    for n in range(5):
        songs.sung(folder / "music" / f"song-{n}.wav", songs.melody(n, 150), 0.4)
    bundle = bundle_with(folder / "bundle", letters())
    report = run(folder / "music", folder / "library", model=str(bundle.path))
    assert report.indexed == 5
    return folder


@pytest.fixture(scope="module")
def library(place: Path) -> Iterator[Library]:
    with open_library(place / "library", threads=1) as opened:
        yield opened


def test_a_text_becomes_the_longest_tokens(tmp_path: Path) -> None:
    spelling = spelling_in(bundle_with(tmp_path / "bundle", letters()))
    assert spelling is not None

    def spelt(text: str) -> list[str]:
        return [TOKENS[n - FIRST_TOKEN] for n in spelling.spell(text)["phone"]]

    assert spelt("The bees") == ["th", "e", "b", "ee", "s"]
    assert spelt("Café, MATTE?") == ["c", "a", "f", "e", "m", "a", "t", "e"]
    assert spelt("zyz 42 …") == []


def test_a_model_may_know_no_letters(tmp_path: Path) -> None:
    assert spelling_in(bundle_with(tmp_path / "bundle", None)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": []},
        {"tokens": ["a"] * 33},
        {"tokens": ["a", ""]},
        {"pairs": [[0] * 32] * 31},
        {"pairs": [[400] * 32] * 32},
        {"gap": 0},
        {"gap": "much"},
        {"chance": [1.0]},
        {"chance": [float("nan"), 1.0]},
    ],
    ids=str,
)
def test_what_is_no_spelling_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    bundle = bundle_with(tmp_path / "bundle", letters(**changes))
    with pytest.raises(BadModel, match=r"alignment\.json does not say how words are spelt"):
        spelling_in(bundle)


@pytest.mark.parametrize("n", range(5))
def test_a_line_finds_its_song_and_its_place(library: Library, n: int) -> None:
    line = songs.melody(n, 150)[90:120]  # sung from 36 s to 48 s
    hits = library.query_lyrics(written(line), k=5).hits
    assert hits[0].path.endswith(f"song-{n}.wav") and len(hits) == 5
    assert hits[0].score > 30 > hits[1].score
    match = hits[0].matches[0]
    assert isinstance(match, WordsMatch)
    assert match.hit_start_s <= 36.1 and match.hit_end_s >= 47.9


def test_misspelt_and_with_gaps_it_is_still_found(library: Library) -> None:
    line = songs.melody(2, 150)[30:70].copy()
    rng = np.random.default_rng(0)
    line[::5] = rng.integers(1, 25, 8)
    kept = np.delete(line, [7, 23])
    hits = library.query_lyrics(written(kept).upper(), k=5).hits
    assert hits[0].path.endswith("song-2.wav") and hits[0].score > hits[1].score + 10


def test_a_whole_text_says_where_each_part_is_sung(library: Library) -> None:
    melody = songs.melody(4, 150)
    hit = library.query_lyrics(written(melody), k=1).hits[0]
    assert hit.path.endswith("song-4.wav")
    assert len({match.passage for match in hit.matches if isinstance(match, WordsMatch)}) > 1


def test_letters_that_no_token_knows_find_nothing_likely(library: Library) -> None:
    hits = library.query_lyrics("yzyz zyzy", k=5).hits
    assert max(hit.score for hit in hits) <= 2.0
    with pytest.raises(BadInput):
        library.query_lyrics("1234")


def test_the_command_line_answers(place: Path) -> None:
    words = written(songs.melody(1, 150)[40:80])
    done = livi("lyrics", words, "--library", place / "library", "--json", "-k", "2")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["hits"][0]["path"].endswith("song-1.wav")
    assert {"passage", "hit_start_s", "hit_end_s", "score"} == set(answer["hits"][0]["matches"][0])
