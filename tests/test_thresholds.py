"""No version found: what thresholds leave out, and that it is said, also by the exit code."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import songs
from test_cli import livi
from test_library import BUNDLE, made, near, sung, unit

from livi_index.answers import Hit
from livi_index.encoders import TextEncoder
from livi_index.errors import BadInput
from livi_index.keeping import keep_bundle
from livi_index.library import Library, open_library
from livi_index.models import Bundle, open_bundle

LINE = "salt along the rail"


def fitted(folder: Path, **questions: dict[str, Any]) -> Bundle:
    """The tiny bundle with other curves: a question's name, and the fields of its curve."""
    shutil.copytree(BUNDLE.path, folder)
    card = json.loads((folder / "card.json").read_text())
    card["calibration"] = {name: {"fitted_on": "", **curve} for name, curve in questions.items()}
    (folder / "card.json").write_text(json.dumps(card))
    return open_bundle(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 songs and a version of song 7, number 99; song 60 is sung to a line."""
    folder = tmp_path_factory.mktemp("thresholds") / "library"
    recordings = {n: sung(unit(6, n)) for n in range(1, 51)}
    recordings[99] = sung(near(recordings[7].vectors, 1000))
    line = TextEncoder(BUNDLE, threads=1).encode([LINE])
    recordings[60] = sung(np.concatenate([line, unit(3, 60)]))
    made(folder, recordings).close()
    keep_bundle(folder, BUNDLE)
    return folder


@pytest.fixture(scope="module")
def library(place: Path) -> Iterator[Library]:
    with open_library(place, threads=1) as opened:
        yield opened


def scores(hits: tuple[Hit, ...]) -> list[tuple[str, float, float | None]]:
    return [(hit.recording_id, hit.score, hit.probability) for hit in hits]


def test_what_is_shown_has_the_probability_that_was_asked_for(library: Library) -> None:
    song = library.stored(7)
    every = library.rank(song, k=100)
    assert len(every) == 52
    for n in (1, 2, 3, 20):
        least = every[n - 1].probability
        assert least is not None
        for probability, shown in ((least, every[:n]), (math.nextafter(least, 1), every[: n - 1])):
            hits = library.rank(song, k=100, min_probability=probability)
            assert scores(hits) == scores(shown)
    assert scores(library.rank(song, k=1, min_probability=1e-9)) == scores(every[:1])
    assert library.rank(song, min_probability=1 - 1e-9) == ()


def test_both_thresholds_hold(library: Library) -> None:
    song = library.stored(7)
    first, second, third, *_ = library.rank(song)
    assert second.probability and third.probability
    for score, probability, n in (
        (second.score, third.probability, 2),
        (third.score, second.probability, 2),
        (first.score, third.probability, 1),
        (first.score + 1e-6, third.probability, 0),
    ):
        assert len(library.rank(song, min_score=score, min_probability=probability)) == n


def test_the_size_of_the_library_counts(place: Path, tmp_path: Path) -> None:
    curve = {"slope": 10.0, "offset": -4.0}
    small = fitted(tmp_path / "small", lyrics={**curve, "recordings": 40})
    with open_library(place, model=small) as few, open_library(place) as library:
        song = few.stored(7)
        second = library.rank(song)[1].probability
        assert second is not None
        assert len(library.rank(song, min_probability=second)) == 2
        assert len(few.rank(song, min_probability=second)) == 1


def test_words_have_a_curve_of_their_own(place: Path, library: Library, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tiny gives no probabilities that words .* --min-score"):
        library.query_lyrics(LINE, min_probability=0.5)
    assert library.query_lyrics(LINE, min_score=0.9).hits[0].title == "Song 60"
    words = fitted(tmp_path / "words", words={"slope": 8.0, "offset": -5.0})
    with open_library(place, model=words) as fit:
        every = fit.query_lyrics(LINE, k=60)
        assert every.hits[0].title == "Song 60" and every.missed is None
        least = every.hits[2].probability
        assert least is not None
        assert fit.query_lyrics(LINE, k=60, min_probability=least).hits == every.hits[:3]
        none = fit.query_lyrics(LINE, min_probability=0.99)
        assert none.hits == () and none.missed is not None
        best = every.hits[0]
        assert (none.missed.score, none.missed.probability) == (best.score, best.probability)
        with pytest.raises(BadInput, match=r"no probabilities that a recording is a version"):
            fit.rank(fit.stored(7), min_probability=0.5)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.2, 90.0, math.nan])
def test_a_probability_lies_between_0_and_1(library: Library, probability: float) -> None:
    for ask in (
        lambda: library.rank(library.stored(7), min_probability=probability),
        lambda: library.query(np.zeros(16_000, np.float32), min_probability=probability),
    ):
        with pytest.raises(BadInput, match="between 0 and 1"):
            ask()


# the commands


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    songs.catalogue(folder, 3, 35.0, kinds=("ogg",))
    return folder


@pytest.fixture(scope="module")
def built(music: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "library"
    livi("build", music, "--model", songs.TINY, "--jobs", "1", library=folder)
    return folder


def test_no_version_found(built: Path, music: Path) -> None:
    files = sorted(music.iterdir())
    everyone = livi("query", *files, "--json", library=built).stdout
    answers = [json.loads(line) for line in everyone.splitlines()]
    best = [answer["hits"][0]["probability"] for answer in answers]
    for option, value in (("--min-probability", 1 - 1e-9), ("--min-score", 5)):
        done = livi("query", *files, option, str(value), "--json", library=built, ok=False)
        assert (done.returncode, done.stderr) == (7, "")
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert told == [answer | {"hits": []} for answer in answers]
    done = livi("query", *files, "--min-probability", ".999999", library=built, ok=False)
    assert done.returncode == 7
    said = r"  no version found among 3 recordings; the best one scores -?\d\.\d{3},"
    found = re.findall(said + r" probability (\d\.\d{3})\n", done.stdout)
    assert [float(p) for p in found] == pytest.approx(best, abs=6e-4)
    # A file that has a hit is enough, whatever becomes of the others.
    least = repr(max(best))
    assert livi("query", *files, "--min-probability", least, library=built).returncode == 0
    with open_library(built) as library:
        answer = library.query(files[0], min_probability=1 - 1e-9)
        assert answer.hits == () and answer.missed is not None
        assert answer.missed.probability == best[0]


def test_errors_go_before(built: Path, music: Path, tmp_path: Path) -> None:
    song, other = music / "song-0.ogg", music / "song-1.ogg"
    done = livi("query", song, tmp_path / "none.mp3", "--min-score", "5", library=built, ok=False)
    assert done.returncode == 1
    assert "no version found" in done.stdout and "no such file" in done.stderr
    plain = fitted(tmp_path / "plain").path
    for model, value, told in (
        (songs.TINY, "1", "between 0 and 1"),
        (songs.TINY, "nan", "between 0 and 1"),
        (plain, "0.5", "with --min-score"),
    ):
        arguments = (song, other, "--model", model, "--min-probability", value)
        done = livi("query", *arguments, library=built, ok=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr and len(done.stderr.splitlines()) == 1
    done = livi("query", song, "--model", plain, "--min-score", "5", library=built, ok=False)
    assert done.returncode == 7
    assert re.search(r"the best one scores -?\d\.\d{3}\n", done.stdout)


def test_without_a_threshold_an_answer_is_an_answer(music: Path, tmp_path: Path) -> None:
    song, library = music / "song-0.ogg", tmp_path / "library"
    livi("build", song, "--model", songs.TINY, "--jobs", "1", library=library)
    told = livi("query", song, library=library).stdout
    assert told.endswith("  no version found among 1 recordings\n")
    done = livi("query", song, "--min-score", "-5", library=library, ok=False)
    assert (done.returncode, done.stdout) == (7, told)


def test_no_song_found_with_these_words(place: Path, tmp_path: Path) -> None:
    words = fitted(tmp_path / "words", words={"slope": 8.0, "offset": -5.0}).path
    asked = ("lyrics", LINE, "--model", words)
    told = livi(*asked, "--min-probability", "0.9", library=place).stdout
    assert "Song 60" in told and len(re.findall(r"^ +\d+ +\d\.\d\d ", told, re.MULTILINE)) == 1
    done = livi(*asked, "--min-probability", "0.99", library=place, ok=False)
    assert done.returncode == 7
    said = r"salt along the rail\n  no song found with these words among 52 recordings;"
    assert re.match(said + r" the best one scores \d\.\d{3}, probability 0\.9\d\d\n", done.stdout)
    done = livi(*asked, "--min-score", "1.5", "--json", library=place, ok=False)
    assert (done.returncode, json.loads(done.stdout)["hits"]) == (7, [])
    done = livi("lyrics", LINE, "--min-probability", "0.9", library=place, ok=False)
    assert done.returncode == 1
    assert "that words are sung" in done.stderr and "--min-score" in done.stderr


def test_thresholds_can_be_kept_in_a_file(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "livi-index.toml"
    file.write_text("[query]\nmin-probability = 0.8\n[lyrics]\nmin_score = 1.5\n")
    kept = {"LIVI_CONFIG": str(file)}
    told = livi("config", "show", **kept).stdout
    for name, value in (("query.min-probability", "0.8"), ("lyrics.min-score", "1.5")):
        assert re.search(rf"^{name} +{value} +{file}$", told, re.MULTILINE)
    assert re.search(r"^lyrics.min-probability +– +default$", told, re.MULTILINE)
    assert livi("lyrics", LINE, library=place, ok=False, **kept).returncode == 7


def test_help_tells_of_it() -> None:
    for command in ("query", "lyrics"):
        told = " ".join(livi(command, "--help", COLUMNS="100").stdout.split())
        assert "--min-probability" in told and "the exit code is 7" in told
