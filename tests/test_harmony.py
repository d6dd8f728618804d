"""A space beside that of words: recordings nobody sings in, asked for and found; and filled in."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import songs
from test_build import contents, run
from test_cli import livi

from livi_index.audio import decode
from livi_index.check import check
from livi_index.errors import BadInput, NoSinging
from livi_index.evaluation import evaluate_at
from livi_index.groups import find_groups
from livi_index.library import open_library
from livi_index.models import open_bundle
from livi_index.status import read_status
from livi_index.store import Store

HARMONY = songs.READER.with_name("tiny-harmony")
READ = "tiny-reader"


def stem(hit):
    return re.sub(r".*/|\.\w+$", "", hit.path)


def melody(seed):
    return songs.melody(seed, 150)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four songs, three pieces nobody sings in, silence, and other takes to ask with."""
    folder = tmp_path_factory.mktemp("harmony")
    for n in range(4):
        songs.sung(folder / "music" / f"song-{n}.wav", melody(n))
        songs.sung(folder / "asked" / f"song-{n}.wav", np.roll(melody(n), 40), 0.42)
    for n in range(5, 8):
        songs.song(folder / "music" / f"piece-{n}.wav", n, 40.0)
        songs.song(folder / "asked" / f"piece-{n}.wav", n, 57.0)
    songs.silence(folder / "music" / "still.wav", 30.0)
    songs.silence(folder / "asked" / "still.wav", 30.0)
    rows = [f"music/{path.name},{path.stem}" for path in sorted((folder / "music").iterdir())]
    rows += [f"asked/{path.name},{path.stem}" for path in sorted((folder / "asked").iterdir())]
    (folder / "works.csv").write_text("\n".join(["path,work", *rows]) + "\n")
    report = run(folder / "music", folder / "library", model=str(HARMONY))
    assert (report.indexed, report.instrumental) == (4, 4)
    return folder


@pytest.fixture(scope="module")
def library(place):
    with open_library(place / "library", threads=1) as opened:
        yield opened


def test_every_recording_that_sounds_has_harmony(library):
    generation = library.generation
    assert generation.spaces == ("lyrics", "harmony")
    assert len(generation.recording_ids("lyrics")) == 4
    assert len(generation.recording_ids("harmony")) == 7 == library.info.recordings
    table = generation.segments_of(generation.recording_ids("harmony")[:1], "harmony")
    np.testing.assert_allclose(np.diff(table["start_s"]), 5.0)
    np.testing.assert_allclose(table["end_s"] - table["start_s"], 10.0)


def test_a_piece_nobody_sings_in_is_found_by_its_harmony(place, library):
    for n in range(5, 8):
        asked = place / "asked" / f"piece-{n}.wav"
        answer = library.query(asked)
        first, second = answer.hits[:2]
        assert stem(first) == f"piece-{n}" and first.probability > 0.9 > second.probability
        assert set(first.spaces) == {"harmony"} == {match.space for match in first.matches}
        assert answer.query.vocalness > 0.5
        alone = library.query(asked, space="harmony")
        assert [stem(hit) for hit in alone.hits] == [stem(hit) for hit in answer.hits]
        assert alone.query.vocalness is None
        with pytest.raises(NoSinging, match="no words can be heard"):
            library.query(asked, space="lyrics")


def test_a_song_is_scored_in_both_spaces(place, library):
    card = library.bundle.card
    for n in range(4):
        asked = place / "asked" / f"song-{n}.wav"
        both = library.query(asked, k=7)
        assert stem(both.hits[0]) == f"song-{n}" and both.hits[0].probability > 0.9
        lyrics = {stem(hit): hit.score for hit in library.query(asked, space="lyrics").hits}
        harmony = {stem(hit): hit.score for hit in library.query(asked, space="harmony").hits}
        for hit in both.hits:
            spaces = {"lyrics": lyrics.get(stem(hit)), "harmony": harmony[stem(hit)]}
            assert hit.spaces == pytest.approx(spaces)
            if hit.spaces["lyrics"] is None:
                curve, score = card.calibration["harmony"], hit.spaces["harmony"]
                nats = curve.slope * score + curve.offset + math.log(10)
            else:
                nats = 0.2 * hit.spaces["lyrics"] + 10 * hit.spaces["harmony"] - 12 + math.log(10)
            assert hit.score == pytest.approx(nats)
            odds = math.exp(nats) / library.info.recordings
            assert hit.probability == pytest.approx(odds / (1 + odds))


def test_a_medley_matches_each_of_its_parts(library):
    medley = np.concatenate([songs.chord(5, 30.0), songs.chord(7, 30.0)])[:, 0]
    hits = {stem(hit): hit for hit in library.query(medley, space="harmony", k=2).hits}
    assert set(hits) == {"piece-5", "piece-7"}
    assert hits["piece-5"].matches[0].query_start_s <= 20
    assert hits["piece-7"].matches[0].query_start_s >= 30


def test_silence_is_like_nothing(place, library):
    for space in ("both", "harmony", "lyrics"):
        with pytest.raises(NoSinging, match=r"still\.wav"):
            library.query(place / "asked" / "still.wav", space=space)
    assert "still" not in {
        stem(hit) for hit in library.query(place / "asked" / "piece-5.wav", k=100).hits
    }


def test_a_moment_is_too_little_to_compare(library):
    tone = songs.chord(5, 8.0)[:, 0]
    assert library.query(tone, space="harmony").query.duration_s == pytest.approx(8.0)
    with pytest.raises(NoSinging, match="less than 5 s"):
        library.query(tone[: 4 * 16_000], space="harmony")


def test_what_is_stored_is_what_would_be_heard(place, library):
    for name in ("song-1", "piece-6"):
        path = place / "music" / f"{name}.wav"
        stored = library.query(path, include_self=True)
        heard = library.query(decode(path).samples)
        assert heard.query.segments == stored.query.segments
        assert [stem(hit) for hit in heard.hits] == [stem(hit) for hit in stored.hits]
        assert [hit.score for hit in heard.hits] == pytest.approx(
            [hit.score for hit in stored.hits], abs=0.1
        )


def test_groups_and_evaluation_know_both(place, tmp_path):
    run([place / "music", place / "asked"], tmp_path, model=str(HARMONY))
    with open_library(tmp_path, threads=1) as library:
        groups = {
            tuple(sorted(re.sub(r".*/|\.\w+$", "", m.path) for m in group.members))
            for group in find_groups(library)
        }
        assert {(f"piece-{n}",) * 2 for n in range(5, 8)} <= groups
        assert {(f"song-{n}",) * 2 for n in range(4)} <= groups
    works = place / "works.csv"
    assert evaluate_at(tmp_path, works, "query").scores.answerable.hr1 == 1.0
    assert evaluate_at(tmp_path, works, "query", "lyrics").missing["no_singing"] == 8
    assert evaluate_at(tmp_path, works, "tracks", "harmony").missing["no_singing"] == 2


def test_on_the_command_line(place):
    library, asked = place / "library", place / "asked" / "piece-5.wav"
    done = livi("query", asked, "--json", "--space", "harmony", library=library)
    answer = json.loads(done.stdout)
    assert answer["query"]["vocalness"] is None
    assert answer["hits"][0]["path"].endswith("piece-5.wav")
    assert set(answer["hits"][0]["spaces"]) == {"harmony"}
    told = livi("query", place / "asked" / "song-0.wav", library=library).stdout
    assert "by lyrics, matches" in told
    done = livi("query", asked, "--space", "colour", library=library, ok=False)
    assert done.returncode == 1 and "there are: lyrics, harmony, both" in done.stderr


# a library from before


@pytest.fixture
def old(place, tmp_path, monkeypatch):
    """A library of the same model without harmony; an edition that has it comes later."""
    monkeypatch.setenv("LIVI_MODELS", str(tmp_path / "models"))
    report = run(place / "music", tmp_path / "library", model=str(songs.READER))
    assert report.indexed == 4
    return tmp_path / "library"


def arrive(old):
    models = old.parent / "models"
    models.mkdir()
    (models / READ).symlink_to(HARMONY, target_is_directory=True)


def test_a_library_without_harmony_answers_and_says_so(place, old):
    with open_library(old) as library:
        assert stem(library.query(place / "asked" / "song-1.wav").hits[0]) == "song-1"
        with pytest.raises(BadInput, match="there is no space 'harmony'"):
            library.query(place / "asked" / "song-1.wav", space="harmony")
    arrive(old)
    with open_library(old) as library, pytest.raises(BadInput, match="no space 'harmony'"):
        library.query(place / "asked" / "piece-5.wav", space="harmony")
    status = read_status(old)
    assert (status.spaces, status.lacking) == ({"lyrics": 4}, ("harmony",))
    told = livi("status", library=old, LIVI_MODELS=str(old.parent / "models")).stdout
    assert "by harmony  none yet: livi-index build" in told


def test_a_build_fills_in_what_the_model_has_come_with(place, old):
    before = contents(old)
    with Store(old) as store:
        segments = store.segments(open_bundle(HARMONY).card.model_id, "lyrics")
    arrive(old)
    report = run([], old, model=None)
    assert (report.indexed, report.reused, report.seen) == (8, 0, 8)
    with Store(old) as store:
        model_id = open_bundle(HARMONY).card.model_id
        assert np.array_equal(store.segments(model_id, "lyrics"), segments)
        assert len(store.analysed(model_id, "harmony")) == 8
    assert check(old, read_percent=100).problems == ()
    status = read_status(old)
    assert (status.spaces, status.lacking) == ({"lyrics": 4, "harmony": 7}, ())
    with open_library(old) as library:
        assert stem(library.query(place / "asked" / "piece-5.wav").hits[0]) == "piece-5"
    assert len(before) == len(contents(old))
    assert run([], old, model=None).reused == 8


def test_an_older_edition_takes_nothing_away(place, tmp_path):
    run(place / "music", tmp_path / "library", model=str(HARMONY))
    report = run(place / "music", tmp_path / "library", model=str(songs.READER))
    assert report.reused == 8
    with open_library(tmp_path / "library") as library:
        assert library.generation.spaces == ("lyrics", "harmony")
        assert set(library.bundle.card.space_names) == {"lyrics", "harmony"}


def test_a_damaged_edition_is_refused_though_the_library_has_a_whole_one(place, tmp_path):
    run(place / "music", tmp_path / "library", model=str(HARMONY))
    damaged = shutil.copytree(HARMONY, tmp_path / "damaged")
    (damaged / "harmony.onnx").write_bytes(b"no graph")
    done = livi("build", "--model", damaged, library=tmp_path / "library", ok=False)
    assert done.returncode == 1 and "harmony.onnx is damaged" in done.stderr


def test_a_lost_database_comes_back_with_all_spaces(place, tmp_path):
    run(place / "music", tmp_path / "library", model=str(HARMONY))
    (tmp_path / "library" / "library.duckdb").unlink()
    report = check(tmp_path / "library", repair=True)
    assert report.problems == () and report.repaired
    assert read_status(tmp_path / "library").spaces == {"lyrics": 4, "harmony": 7}
