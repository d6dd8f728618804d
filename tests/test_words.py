"""Asking for words: what is typed, however it is typed, finds the recording in which it is sung."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_library import BUNDLE, made, near, sung, unit

from livi_index.encoders import TextEncoder
from livi_index.errors import BadInput, BadModel, LibraryNotFound
from livi_index.keeping import keep_bundle
from livi_index.library import Library, WordsInfo, WordsMatch, open_library
from livi_index.models import open_bundle
from livi_index.words import MAX_WORDS, PASSAGE_WORDS, cut_passages

ROOT = Path(__file__).parent.parent
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
SONGS = {
    1: ("the ferry turns for home again", "salt along the rail", "gulls as white as foam"),
    2: ("seven bicycles down the hill", "seven bells that ring", "past the bakery and mill"),
    3: ("grandmother's radio hums", "a waltz from far away", "dusting off the kitchen drums"),
    4: ("café lights on the boulevard", "naïve and blue we danced", "till morning swept the yard"),
}


def encoded(*lines: str) -> np.ndarray:
    return TextEncoder(BUNDLE, threads=1).encode(lines)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The songs in two versions each (n and n + 10), among 200 others; the model is kept in it."""
    folder = tmp_path_factory.mktemp("words") / "library"
    songs = {n + 100: sung(unit(6, n)) for n in range(200)}
    for n, lines in SONGS.items():
        # Half a minute for each line, the first one again at the end.
        vectors = encoded(*lines, lines[0])
        songs[n] = sung(near(vectors, n, 0.1), hop_s=30.0)
        songs[n + 10] = sung(near(vectors, n + 10, 0.2), hop_s=30.0)
    made(folder, songs).close()
    keep_bundle(folder, BUNDLE)
    return folder


@pytest.fixture(scope="module")
def library(place: Path) -> Iterator[Library]:
    with open_library(place, threads=1) as opened:
        yield opened


def ids(library: Library, text: str, **options: object) -> list[int]:
    hits = library.query_lyrics(text, **options).hits  # type: ignore[arg-type]
    return [int(hit.recording_id, 16) for hit in hits]


def test_a_line_finds_its_song_and_its_places(library: Library) -> None:
    for n, lines in SONGS.items():
        for place, line in enumerate(lines):
            answer = library.query_lyrics(line, k=3)
            assert isinstance(answer.query, WordsInfo) and answer.query.text == line
            assert len(answer.query.passages) == 1
            assert [int(hit.recording_id, 16) for hit in answer.hits[:2]] == [n, n + 10]
            assert [hit.rank for hit in answer.hits] == [1, 2, 3]
            first = answer.hits[0]
            assert first.title == f"Song {n}" and first.score > 0.98
            best = first.matches[0]
            assert isinstance(best, WordsMatch) and best.score == first.score
            starts = [m.hit_start_s for m in first.matches if m.score > 0.95]
            assert sorted(starts) == ([0, 90] if place == 0 else [30 * place])
            assert all(m.hit_end_s - m.hit_start_s == 30 for m in first.matches)


@pytest.mark.parametrize(
    "text",
    [
        "SEVEN bicycles, down the hill!",
        "seven\nbicycles\r\n\r\ndown\tthe hill",
        "  seven — bicycles … down (the) «hill»  ",
        "sevén bicÿcles doẃn the hîll",
        "sevn bicycels down the hil",  # codespell:ignore
        "ѕ seven bicycles down the hill 🚲",
    ],
)
def test_typing_is_forgiving(library: Library, text: str) -> None:
    assert ids(library, text, k=2) == [2, 12]


def test_accents_may_be_left_out(library: Library) -> None:
    assert ids(library, "cafe lights on the boulevard", k=1) == [4]
    assert ids(library, "naive and blue we danced", k=1) == [4]
    plain, curly = (library.query_lyrics(f"grandmother{a}s radio hums") for a in "'’")
    assert plain.hits == curly.hits


def test_a_whole_text_is_asked_in_passages(library: Library) -> None:
    lines = [line for n in (3, 1) for line in SONGS[n]]
    text = "\n".join(line for line in lines for _ in range(10))
    answer = library.query_lyrics(text, k=4)
    assert isinstance(answer.query, WordsInfo)
    n_words = len(text.split())
    assert len(answer.query.passages) == -(-n_words // PASSAGE_WORDS)
    assert {int(hit.recording_id, 16) for hit in answer.hits} == {1, 3, 11, 13}
    vectors = encoded(*answer.query.passages)
    for hit in answer.hits:
        cosines = vectors @ library.stored(int(hit.recording_id, 16))["lyrics"].vectors.T
        assert hit.score == pytest.approx(cosines.max(axis=1).mean(), abs=1e-5)
        best = hit.matches[0]
        assert isinstance(best, WordsMatch)
        assert (best.score, best.passage) == (
            pytest.approx(cosines.max(), abs=1e-5),
            cosines.max(axis=1).argmax(),
        )


def test_scores_are_those_of_the_nearest_segment(library: Library) -> None:
    text = "what is sung in none of them"
    vector = encoded(text)[0]
    answer = library.query_lyrics(text, k=300)
    assert len(answer.hits) == 208 == library.info.recordings
    for hit in answer.hits[::20]:
        cosines = library.stored(int(hit.recording_id, 16))["lyrics"].vectors @ vector
        assert hit.score == pytest.approx(cosines.max(), abs=1e-5)
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    above = library.query_lyrics(text, k=300, min_score=scores[4]).hits
    assert above == answer.hits[:5]
    assert library.query_lyrics(text, min_score=1.5).hits == ()


def test_places_do_not_overlap(tmp_path: Path) -> None:
    of = sung(near(np.repeat(encoded("over and over"), 9, axis=0), 3, 0.05))
    with made(tmp_path, {1: of, 2: sung(unit(4, 5))}) as library:
        hit = library.query_lyrics("over and over", k=1).hits[0]
        assert len(hit.matches) >= 4
        starts = np.sort([match.hit_start_s for match in hit.matches])
        assert np.diff(starts).min() >= 30


def test_a_probability_is_only_given_where_it_was_fitted_to_words(
    place: Path, tmp_path: Path
) -> None:
    with open_library(place) as library:
        assert "lyrics" in library.bundle.card.calibration
        assert library.query_lyrics("salt along the rail").hits[0].probability is None
    folder = Path(shutil.copytree(BUNDLE.path, tmp_path / "fitted"))
    card = json.loads((folder / "card.json").read_text())
    card["calibration"]["words"] = {"slope": 4.0, "offset": -2.0, "fitted_on": "nothing"}
    (folder / "card.json").write_text(json.dumps(card))
    with open_library(place, model=open_bundle(folder)) as library:
        hit = library.query_lyrics("salt along the rail").hits[0]
        assert hit.probability == pytest.approx(1 / (1 + np.exp(2 - 4 * hit.score)))


def test_what_cannot_be_asked_is_told(library: Library, tmp_path: Path) -> None:
    for empty in ("", " \n\t "):
        with pytest.raises(BadInput, match="no words were given"):
            library.query_lyrics(empty)
    for strange in ("1999 !?", "Каховка", "'", "\ud800", "愛"):
        with pytest.raises(BadInput, match=r"no letter that .* can read; it reads abc"):
            library.query_lyrics(strange)
    with pytest.raises(BadInput, match=r"3,001 words.*at most 3,000"):
        library.query_lyrics("la " * (MAX_WORDS + 1))
    with pytest.raises(BadInput, match="at least one"):
        library.query_lyrics("la", k=0)
    with (
        made(tmp_path / "empty", {}) as empty_library,
        pytest.raises(LibraryNotFound, match="no recording with singing"),
    ):
        empty_library.query_lyrics("la")


def test_a_model_that_reads_no_text_is_told(place: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLE.path, tmp_path / "deaf"))
    card = json.loads((folder / "card.json").read_text())
    del card["spaces"][0]["text"], card["files"]["text.onnx"]
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "text.onnx").unlink()
    with (
        open_library(place, model=open_bundle(folder)) as library,
        pytest.raises(BadModel, match=r"model tiny.*cannot be asked for words.*livi-index query"),
    ):
        library.query_lyrics("salt along the rail")


def test_passages_are_of_nearly_equal_length() -> None:
    for n in (1, PASSAGE_WORDS, PASSAGE_WORDS + 1, 5 * PASSAGE_WORDS - 1, MAX_WORDS):
        words = [f"w{chr(97 + i % 26)}" for i in range(n)]
        passages = cut_passages(" ".join(words), LETTERS)
        lengths = [len(passage.split()) for passage in passages]
        assert " ".join(passages).split() == words
        assert max(lengths) <= PASSAGE_WORDS and max(lengths) - min(lengths) <= 1


# the command


def livi(
    *arguments: str | Path, typed: bytes = b"", ok: bool = True
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "livi_index", "lyrics", *map(os.fspath, arguments)],
        cwd=ROOT,
        input=typed,
        capture_output=True,
        timeout=120,
        check=False,
        env=os.environ | {"LIVI_MODELS": str(ROOT / "none")},
    )
    assert b"Traceback" not in done.stderr
    assert (done.returncode == 0) == ok, done.stderr
    return done


def test_the_command_for_people(place: Path) -> None:
    told = livi("Salt", "along", "the RAIL!", "-k", "2", "--library", place).stdout.decode()
    question, head, first, *_ = told.splitlines()
    assert question == "salt along the rail" and head.split()[:3] == ["#", "prob.", "score"]
    assert first.split()[:2] == ["1", "–"] and "Song 1 3:00" in first
    assert "sung at 0:30–1:00" in told
    done = livi("salt along the rail", "--min-score", "1.5", "--library", place, ok=False)
    assert done.returncode == 7
    told = "no song found with these words among 208 recordings; the best one scores 0."
    assert told in done.stdout.decode()


def test_the_command_as_json(place: Path) -> None:
    done = livi("salt along the rail", "--json", "-k", "2", "--all", "--library", place)
    answer = json.loads(done.stdout)
    assert set(answer) == {"schema", "query", "model", "library", "hits"}
    assert answer["query"] == {"text": "salt along the rail", "passages": ["salt along the rail"]}
    assert (answer["schema"], answer["model"]) == (1, "tiny")
    assert answer["library"] == {"path": str(place), "generation": 1, "recordings": 208}
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    for hit in answer["hits"]:
        assert set(hit) == {
            "rank", "score", "probability", "recording_id", "path", "title", "artist",
            "duration_s", "matches", "paths", "spaces",
        }  # fmt: skip
        assert hit["probability"] is None
        assert set(hit["matches"][0]) == {"passage", "hit_start_s", "hit_end_s", "score"}
    assert answer["hits"][0]["path"] == "/music/1.mp3"


def test_words_from_a_pipe(place: Path) -> None:
    text = SONGS[4][0].replace(" ", "\n").encode() + b"\n\xff\xfe"
    answer = json.loads(livi("-", "--json", "--library", place, typed=text).stdout)
    assert answer["hits"][0]["title"] == "Song 4"
    assert "no words were given" in livi("-", "--library", place, ok=False).stderr.decode()


def test_the_command_fails_in_one_sentence(place: Path, tmp_path: Path) -> None:
    for arguments in ((" ", "--library", place), ("la", "--library", tmp_path / "none")):
        done = livi(*arguments, ok=False)
        assert (done.returncode, done.stdout) == (1, b"")
        assert len(done.stderr.splitlines()) == 1
    assert livi(ok=False).returncode == 2
    told = livi("--help").stdout.decode()
    assert all(option in told for option in ("-k", "--min-score", "--json", "--all", "--library"))
    script = (
        "import sys; sys.argv = ['x', 'lyrics', *sys.argv[1:]]; from livi_index.cli import app\n"
    )
    script += "app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", script, "la la", "--library", place]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
