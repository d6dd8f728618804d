"""Every promise of a library is looked at, and what can be rebuilt is."""

import csv
import json
import os
import shutil

import audio_files
import duckdb
import numpy as np
import pytest
import songs
from test_build import contents, run
from test_cli import HOSTILE, livi

from livi_index.check import check
from livi_index.errors import BadInput, LibraryDamaged
from livi_index.generations import current, generations
from livi_index.publishing import roll_back
from livi_index.tables import export_tables
from livi_index.text import safe


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A library of five songs, a silence and a broken file: do not change it."""
    folder = tmp_path_factory.mktemp("check")
    songs.catalogue(folder / "music", 4, 40.0, kinds=("wav", "ogg"))
    songs.silence(folder / "music" / "quiet.wav")
    (folder / "music" / "broken.mp3").write_bytes(b"ID3" + bytes(5000))
    run(folder / "music", folder / "library")
    return folder


@pytest.fixture
def library(whole, tmp_path):
    return shutil.copytree(whole / "library", tmp_path / "library")


def parts(report):
    return {problem.part for problem in report.problems}


def write(library, *statements):
    with duckdb.connect(str(library / "library.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


def same_answers(one, other):
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    for number, (times, vectors, track) in one[0].items():
        assert times == other[0][number][0]
        np.testing.assert_array_equal(vectors, other[0][number][1])
        np.testing.assert_array_equal(track, other[0][number][2])


def test_a_whole_library(library):
    for percent in (0.0, 100.0):
        report = check(library, read_percent=percent)
        assert (report.problems, report.generation) == ((), 1)
        assert (report.files, report.recordings) == (5, 5)
    assert (report.vectors_compared, report.audio_hashed) == (4 + 8, 5)


SEEDED = {
    "paths are listed twice": "INSERT INTO files SELECT * FROM files LIMIT 1",
    "recordings are listed twice": "INSERT INTO recordings SELECT * FROM recordings LIMIT 1",
    "analyses are listed twice": "INSERT INTO analyses SELECT * FROM analyses LIMIT 1",
    "segments share a number": "UPDATE segments SET segment_id = 2 WHERE segment_id = 1",
    "segments have a number that was never given": "UPDATE segments SET segment_id = 99"
    " WHERE segment_id = 1",
    "files name recordings that are not known": "DELETE FROM recordings WHERE rowid = 0",
    "analyses are of recordings that are not known": "DELETE FROM recordings WHERE rowid = 0",
    "segments belong to no analysis": "DELETE FROM analyses WHERE sung",
    "analyses lack some of their segments": "DELETE FROM segments WHERE segment_id = 1",
    "recordings are sung but have no vector": "UPDATE analyses SET vector = NULL",
    "vectors are of another length than the others": "UPDATE segments SET vector = vector[:8]::BLOB"
    " WHERE segment_id = 1",
    "segments lie outside of their recordings": "UPDATE segments SET end_s = start_s - 1"
    " WHERE segment_id = 1",
    "changes are missing from the history": "DELETE FROM changes WHERE version = 0",
    "an id that their content does not give": "UPDATE recordings SET content_hash = 'x'::BLOB",
}


@pytest.mark.parametrize("what", SEEDED)
def test_seeded_faults_are_found(library, what):
    write(library, SEEDED[what].replace("vector[:8]::BLOB", "'\\x00\\x01'::BLOB"))
    report = check(library)
    assert "database" in parts(report)
    assert [p for p in report.problems if what in p.what], report.problems


def test_what_is_published_is_compared(library):
    write(library, "UPDATE segments SET start_s = start_s + 1 WHERE segment_id = 1")
    assert parts(check(library)) == {"published"}
    write(library, "UPDATE segments SET start_s = start_s - 1 WHERE segment_id = 1")
    write(
        library,
        "UPDATE segments SET vector = (SELECT vector FROM segments WHERE segment_id = 2)"
        " WHERE segment_id = 1",
    )
    assert check(library).problems == ()
    assert parts(check(library, read_percent=100)) == {"published"}


@pytest.mark.parametrize(
    "name", ["recordings.lyrics.00.usearch", "catalog.duckdb", "manifest.json"]
)
def test_damage_to_what_is_published_is_repaired(whole, library, name):
    path = library / "published" / "000001" / name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert parts(check(library)) == {"published"}
    report = check(library, repair=True)
    assert (report.problems, report.generation) == ((), 2)
    assert report.repaired == ("generation 2 was published from the database",)
    same_answers(contents(library), contents(whole / "library"))


def test_a_lost_current(whole, library):
    (library / "CURRENT").unlink()
    assert parts(check(library)) == {"published"}
    assert check(library, repair=True).problems == ()
    same_answers(contents(library), contents(whole / "library"))


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_database_is_restored(whole, library, how):
    path = library / "library.duckdb"
    damaged = bytearray(path.read_bytes())
    if how == "flipped":
        for at in range(4096, len(damaged), 4096):
            damaged[at + 100] ^= 1
    path.write_bytes(damaged[:9000] if how == "cut" else damaged)
    if how == "gone":
        path.unlink()
        with pytest.raises(LibraryDamaged, match="check --repair"):
            run(whole / "music", library)
    report = check(library)
    assert parts(report) == {"database"}
    report = check(library, repair=True)
    assert report.problems == (), report
    assert "restored from generation 1" in report.repaired[0]
    assert (library / "library.duckdb.damaged-1").exists() == (how != "gone")
    same_answers(contents(library), contents(whole / "library"))
    # And all of it serves the next build.
    report = run([], library)
    assert (report.reused, report.known_failed, report.generation) == (5, 1, 3)


def test_a_damaged_model_is_copied_again(library, tmp_path):
    (model,) = (library / "models").iterdir()
    with (model / "audio.onnx").open("ab") as file:
        file.write(b"x")
    assert parts(check(library)) == {"models"}
    assert parts(check(library, repair=True)) == {"models"}, "there is no other copy"
    models = {"LIVI_MODELS": str(tmp_path / "installed")}
    livi("models", "install", songs.TINY, **models)
    told = livi("check", "--repair", library=library, **models).stdout
    assert "model tiny was copied again" in told
    assert check(library).problems == ()


def test_audio_that_changed_in_silence(whole, tmp_path):
    music = shutil.copytree(whole / "music", tmp_path / "music")
    library = tmp_path / "library"
    run(music, library)
    song = music / "song-0.wav"
    before = song.stat()
    damaged = bytearray(song.read_bytes())
    damaged[-1000] ^= 1
    song.write_bytes(damaged)
    os.utime(song, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert check(library).problems == ()
    report = check(library, read_percent=100, repair=True)
    assert parts(report) == {"audio"}
    assert "song-0.wav holds something else" in report.problems[0].what


def test_rolling_back(library, whole, tmp_path):
    with pytest.raises(BadInput, match="no such older generation; on the disk: 1"):
        roll_back(library)
    songs.song(tmp_path / "more" / "new.wav", 9)
    run(tmp_path / "more", library)
    assert generations(library) == [1, 2]
    assert len(contents(library)[0]) == 5
    assert roll_back(library) == 1
    same_answers(contents(library), contents(whole / "library"))
    assert parts(check(library)) == {"published"}
    with pytest.raises(BadInput, match="on the disk: 1, 2"):
        roll_back(library, 3)
    assert roll_back(library, 2) == 2
    assert check(library, read_percent=100).problems == ()
    with (library / "published" / "000001" / "recordings.lyrics.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(LibraryDamaged):
        roll_back(library, 1)
    assert parts(check(library, read_percent=100)) == {"older"}
    assert len(contents(library)[0]) == 5


def test_parquet(library, tmp_path):
    tables = export_tables(tmp_path / "tables", library)
    rows = {os.path.basename(file.path): file.rows for file in tables.files}
    assert rows == {"recordings.parquet": 5, "files.parquet": 5,
                    "recording_vectors.lyrics.000.parquet": 4,
                    "segment_vectors.lyrics.000.parquet": 8}  # fmt: skip
    assert {path.name for path in (tmp_path / "tables").iterdir()} == set(rows)
    at = tmp_path / "tables"
    with duckdb.connect() as connection, current(library) as generation:
        ask = connection.execute
        found = ask(
            f"SELECT recording_id, vector FROM '{at}/recording_vectors.*.parquet' ORDER BY 1"
        ).fetchall()
        ids = np.array([int(row[0], 16) for row in found])
        np.testing.assert_array_equal(ids, generation.recording_ids("lyrics"))
        vectors = generation.recording_vectors(ids, "lyrics")
        np.testing.assert_array_equal(np.array([row[1] for row in found]), vectors)
        joined = ask(
            f"SELECT path, start_s FROM '{at}/segment_vectors.lyrics.*.parquet'"
            f" JOIN '{at}/recordings.parquet' USING (recording_id) ORDER BY ALL"
        ).fetchall()
        assert len(joined) == 8 and joined[0][0].endswith("song-0.wav")
    with pytest.raises(BadInput, match="not an empty folder"):
        export_tables(tmp_path / "tables", library)


def test_csv_for_spreadsheets(tmp_path):
    music = tmp_path / "music"
    plain = songs.song(tmp_path / "plain.ogg", 9, 35.0)
    music.mkdir()
    audio_files.retag(plain, music / "tagged.ogg", "ogg", title=HOSTILE, artist='=1+1,"')
    run(music, tmp_path / "library")
    tables = export_tables(tmp_path / "tables", tmp_path / "library", format="csv")
    texts = {path.name: path.read_text() for path in (tmp_path / "tables").iterdir()}
    assert set(texts) == {os.path.basename(file.path) for file in tables.files}
    assert not set("\x1b\x9b\u202e\u200b") & set("".join(texts.values()))
    (row,) = csv.DictReader(texts["files.csv"].splitlines())
    assert row["title"] == safe(HOSTILE)
    assert row["artist"] == "'=1+1,\""
    for name in ("recording_vectors.lyrics.000.csv", "segment_vectors.lyrics.000.csv"):
        for row in csv.DictReader(texts[name].splitlines()):
            vector = np.array([float(word) for word in row["vector"].split()])
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
            assert len(row["recording_id"]) == 16


def test_check_and_export_on_the_command_line(library, tmp_path):
    assert "everything is as it should be" in livi("check", library=library).stdout
    report = json.loads(livi("check", "--read-data", "100", "--json", library=library).stdout)
    assert (report["schema"], report["problems"], report["vectors_compared"]) == (1, [], 12)
    (library / "CURRENT").unlink()
    done = livi("check", library=library, ok=False)
    assert (done.returncode, "1 problems" in done.stdout) == (1, True)
    assert "published: " in done.stderr
    told = livi("check", "--repair", library=library).stdout
    assert "generation 2 was published from the database" in told
    told = livi("rollback", library=library).stdout
    assert "generation 1 answers now" in told
    assert json.loads(livi("rollback", "2", "--json", library=library).stdout)["generation"] == 2
    written = json.loads(
        livi("export", tmp_path / "t", "--no-vectors", "--json", library=library).stdout
    )
    assert [file["rows"] for file in written["files"]] == [5, 5]
