import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import audio_files
import numpy as np
import psutil
import pytest
import songs

from livi_index.analysis import Analyst
from livi_index.audio import decode
from livi_index.build import BuildOptions, build
from livi_index.database import write_lock
from livi_index.encoders import AudioEncoder, pool
from livi_index.errors import BadInput, LibraryLocked
from livi_index.generations import current
from livi_index.library import open_library
from livi_index.pipeline import Clock
from livi_index.planning import Job, Planner, Settled
from livi_index.reading import Track
from livi_index.scan import Skipped, walk
from livi_index.store import Store
from livi_index.vocals import Segment, cut

SEEN = ("indexed", "instrumental", "reused", "duplicates", "failed", "known_failed")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """Six songs, a silent track, a copy, two broken files and a text: do not change it."""
    folder = tmp_path_factory.mktemp("music")
    songs.catalogue(folder / "a", 5)
    songs.song(folder / "long.ogg", 77, 70.0)
    songs.silence(folder / "quiet.wav")
    shutil.copy(folder / "a" / "song-1.ogg", folder / "copy.ogg")
    (folder / "broken.mp3").write_bytes(b"ID3" + bytes(5000))
    (folder / "words.mp3").write_text("no song")
    (folder / "LICENSE").write_text("no song either")
    return folder


@pytest.fixture(scope="session")
def first(music, tmp_path_factory):
    """A library of it and the report: do not change it."""
    library = tmp_path_factory.mktemp("first") / "library"
    return library, run(music, library)


def run(folders, library, *, progress=None, **options):
    roots = folders if isinstance(folders, list) else [folders]
    settings = {"model": os.fspath(songs.TINY), "jobs": 1, "threads": 1, **options}
    report = build(roots, library, BuildOptions(**settings), progress=progress)
    assert report.seen == sum(getattr(report, name) for name in SEEN)
    return report


def outcomes(report):
    return {name: n for name in SEEN if (n := getattr(report, name))}


def contents(library):
    """Everything a library answers from, by recording: equal for equal libraries."""
    with current(library) as generation:
        ids = generation.recording_ids("lyrics")
        held = {}
        for number in ids.tolist():
            table = generation.segments_of(np.array([number]), "lyrics")
            times = [tuple(row)[2:] for row in table.tolist()]
            vectors = generation.segment_vectors(table["segment_id"], "lyrics")
            whole = generation.recording_vectors(np.array([number]), "lyrics")[0]
            held[number] = (times, vectors, whole)
        columns = "path, recording_id, size, mtime_ns, inode, title"
        files = generation.ask(f"SELECT {columns} FROM files ORDER BY path")
        failed = generation.ask("SELECT path, code FROM failures ORDER BY path")
        silent = generation.ask("SELECT recording_id FROM analyses WHERE NOT sung ORDER BY ALL")
        return held, files, failed, silent


def assert_same(one, other):
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    for number, (times, vectors, whole) in one[0].items():
        assert times == other[0][number][0]
        np.testing.assert_allclose(vectors, other[0][number][1], atol=2e-3)
        np.testing.assert_allclose(whole, other[0][number][2], atol=2e-3)


def children():
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_every_file_comes_to_one_outcome(first):
    _, report = first
    expected = {"indexed": 6, "instrumental": 1, "duplicates": 1, "failed": 2}
    assert outcomes(report) == expected
    assert report.seen == 10
    assert (report.skipped, report.truncated, report.missing) == (1, 0, 0)
    assert report.audio_seconds == pytest.approx(6 * 8 + 70, abs=0.2)
    assert {f.code for f in report.new_failures} == {"undecodable", "not_audio"}
    assert not report.complete
    assert set(report.stages) == {
        "walk", "identify", "decode", "vocals", "encode", "commit", "publish",
    }  # fmt: skip
    assert not children()


def test_the_library_answers(first, music):
    library, report = first
    with open_library(library, threads=1) as opened:
        answer = opened.query(music / "a" / "song-1.ogg", include_self=True, k=1)
    assert answer.hits[0].matches[0].score > 0.99
    assert len(answer.hits[0].paths) == 2
    assert report.generation == 1


def test_vectors_are_those_of_the_recording_alone(first, music):
    library, _ = first
    with open_library(library, threads=1) as opened:
        samples = decode(music / "long.ogg").samples
        number = opened.generation.recording_at(music / "long.ogg")
        stored = opened.stored(number)["lyrics"]
    assert stored.start_s.tolist() == [0.0, 15.0, 30.0, 45.0]
    pieces = [Segment(*span, 1.0, 1.0) for span in zip(stored.start_s, stored.end_s, strict=True)]
    windows = cut(samples, pieces, 30.0)
    alone = AudioEncoder(songs.tiny_bundle(), threads=1).encode(windows)
    np.testing.assert_allclose(stored.vectors, alone, atol=1e-3)


def test_a_second_run_computes_nothing(first, music):
    library, _ = first
    before = hashlib.sha256((library / "library.duckdb").read_bytes()).digest()
    report = run(music, library)
    assert outcomes(report) == {"reused": 7, "duplicates": 1, "known_failed": 2}
    assert (report.skipped, report.seen, report.generation) == (1, 10, 1)
    assert not {"identify", "decode", "vocals", "encode"} & set(report.stages)
    assert report.seconds < 2
    assert report.complete
    assert hashlib.sha256((library / "library.duckdb").read_bytes()).digest() == before


def test_stages_in_a_row_give_the_same(first, music, tmp_path):
    run(music, tmp_path / "library", in_a_row=True)
    assert_same(contents(tmp_path / "library"), contents(first[0]))


def test_moved_retagged_copied_vanished(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    a, b, c, d = songs.catalogue(music, 4, kinds=("ogg",))
    run(music, library)
    held = contents(library)[0]

    a.rename(music / "moved.ogg")
    (music / "more").mkdir()
    shutil.copy(b, music / "more" / "copy.ogg")
    audio_files.retag(c, tmp_path / "c.ogg", "ogg", title="A new title", artist="Somebody")
    (tmp_path / "c.ogg").replace(c)
    d.unlink()
    report = run(music, library)
    assert outcomes(report) == {"reused": 3, "duplicates": 1}
    assert report.missing == 2  # one of them is known at another path now
    assert not {"decode", "vocals", "encode"} & {k for k, v in report.stages.items() if v > 0.01}
    now, files, failed, _ = contents(library)
    assert len(now) == 3 and now.keys() < held.keys() and not failed
    assert {Path(os.fsdecode(row[0])).name for row in files} == {
        "moved.ogg", "song-1.ogg", "copy.ogg", "song-2.ogg",
    }  # fmt: skip
    assert [row[5] for row in files if row[0].endswith(b"song-2.ogg")] == ["A new title"]

    songs.song(d, 3)
    report = run(music, library)
    assert outcomes(report) == {"reused": 4, "duplicates": 1}
    assert contents(library)[0].keys() == held.keys()


def test_only_named_roots_that_are_there_lose_files(tmp_path):
    library, one, two = tmp_path / "library", tmp_path / "one", tmp_path / "two"
    songs.catalogue(one, 2)
    songs.song(two / "other.wav", 9)
    run([one, two], library)

    one.rename(tmp_path / "away")
    report = run([one, two], library)
    assert (report.missing, report.unseen) == (0, (os.fspath(one),))
    assert not report.complete
    assert "2 files known there are kept" in report.notices[0]
    one.mkdir()
    report = run([one, two], library)
    assert (report.missing, report.unseen) == (0, (os.fspath(one),))
    assert len(contents(library)[0]) == 3
    (two / "other.wav").unlink()
    songs.song(two / "new.wav", 10)
    songs.song(one / "new.wav", 11)
    report = run(two, library)
    assert (report.missing, report.indexed) == (1, 1)
    assert len(contents(library)[0]) == 3


def test_roots_inside_each_other(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.song(music / "a.wav", 1)
    gone = songs.song(music / "sub" / "b.wav", 2)
    songs.song(music / "sub" / "c.wav", 3)
    assert outcomes(run([music, music / "sub"], library)) == {"indexed": 3}
    gone.unlink()
    report = run([music, music / "sub"], library)
    assert (report.reused, report.missing, report.unseen) == (2, 1, ())


def test_what_cannot_be_looked_into_is_kept(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.song(music / "a.wav", 1)
    songs.song(music / "sub" / "b.wav", 2)
    run(music, library)
    # As the walk tells it to anybody but root.
    found = [item for item in walk([music]) if item.path.name == "a.wav"]
    found.append(Skipped(music / "sub", "unreadable", "Permission denied"))
    with Store(library) as store:
        plan = Planner(store, songs.tiny_bundle().card.model_id, ["lyrics"]).plan(found, [music])
    assert (plan.census.absent, plan.counts["reused"]) == ([], 1)
    assert "sub cannot be read" in plan.notices[0]


def test_what_failed_is_tried_again_when_it_changes(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    good = songs.song(music / "good.flac", 1)
    bad = music / "bad.flac"
    bad.write_bytes(good.read_bytes()[:2000])
    shutil.copy(bad, music / "bad-copy.flac")
    assert outcomes(run(music, library)) == {"indexed": 1, "failed": 2}
    assert outcomes(run(music, library)) == {"reused": 1, "known_failed": 2}
    bad.rename(music / "moved.flac")
    report = run(music, library)
    assert outcomes(report) == {"reused": 1, "known_failed": 2}
    assert report.complete
    songs.song(music / "moved.flac", 2)
    assert outcomes(run(music, library)) == {"reused": 1, "indexed": 1, "known_failed": 1}
    _, files, failed, _ = contents(library)
    assert len(files) == 2
    assert [Path(os.fsdecode(path)).name for path, _ in failed] == ["bad-copy.flac"]


def test_a_file_that_changes_while_it_is_read(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    path = songs.song(music / "growing.mp3", 1)
    songs.song(music / "other.mp3", 2)

    def grow(now):
        if now.stage == "walk":
            with path.open("ab") as file:
                file.write(b"\xff")

    report = run(music, library, progress=grow)
    assert outcomes(report) == {"indexed": 1, "failed": 1}
    assert report.new_failures[0].code == "changed"
    assert outcomes(run(music, library)) == {"indexed": 1, "reused": 1}
    assert not contents(library)[2]


def test_a_list_of_files(tmp_path):
    library = tmp_path / "library"
    songs.catalogue(tmp_path / "music", 2, kinds=("wav",))
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "id,path,title,work,artist\n"
        "1,music/song-0.wav,Morning,w1,Ann\n"
        f"2,{tmp_path}/music/song-1.wav,,w1,\n3,music/gone.wav,Gone,w2,\n"
    )
    report = run([], library, files=rows)
    assert outcomes(report) == {"indexed": 2}
    assert report.unseen == (os.fspath(tmp_path / "music" / "gone.wav"),)

    def words():
        with current(library) as generation:
            return generation.ask("SELECT title, artist, work FROM files ORDER BY path")

    assert words() == [("Morning", "Ann", "w1"), (None, None, "w1")]
    rows.write_text("path,title,work\nmusic/song-0.wav,Evening,w1\nmusic/song-1.wav,,w1\n")
    assert outcomes(run([], library, files=rows)) == {"reused": 2}
    assert words() == [("Evening", None, "w1"), (None, None, "w1")]
    rows.write_text("file\nx.wav\n")
    with pytest.raises(BadInput, match="no column called path"):
        run([], library, files=rows)


def test_long_files_are_cut_and_say_so(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.song(music / "long.ogg", 5, 90.0)
    report = run(music, library, max_minutes=1.0)
    assert (report.indexed, report.truncated) == (1, 1)
    assert report.audio_seconds == 60.0
    with open_library(library, threads=1) as opened:
        assert opened.query(songs.chord(5, 40.0)[:, 0]).hits[0].truncated


def test_options_of_the_walk(tmp_path):
    music = tmp_path / "music"
    songs.song(music / "in.wav", 1)
    songs.song(music / "demo" / "out.wav", 2)
    (music / "link.wav").symlink_to(songs.song(tmp_path / "linked.wav", 3))
    report = run(music, tmp_path / "library", exclude=("demo/",))
    assert (report.seen, report.skipped) == (1, 2)
    report = run(music, tmp_path / "library", follow_symlinks=True)
    assert outcomes(report) == {"reused": 1, "indexed": 2}
    # Left out now, so no longer an answer, though all is known of it.
    assert run(music, tmp_path / "library", exclude=("demo/",)).missing == 2
    assert outcomes(run(music, tmp_path / "library")) == {"reused": 2}


def test_a_library_among_the_songs(tmp_path):
    songs.song(tmp_path / "song.wav", 1)
    run(tmp_path, tmp_path / "library")
    report = run(tmp_path, tmp_path / "library")
    assert outcomes(report) == {"reused": 1}
    assert (report.skipped, report.generation) == (0, 1)


def test_long_builds_publish_meanwhile(tmp_path):
    songs.catalogue(tmp_path / "music", 4, kinds=("wav",))
    seen = []

    def look(now):
        if now.stage == "publish":
            with contextlib.suppress(FileNotFoundError):
                seen.append(len(contents(tmp_path / "library")[0]))

    report = run(
        tmp_path / "music", tmp_path / "library", commit_tracks=1, publish_s=0.0, progress=look
    )
    assert seen == [1, 2, 3, 4]
    assert report.generation == 4


def test_an_empty_folder(tmp_path):
    (tmp_path / "music").mkdir()
    report = run(tmp_path / "music", tmp_path / "library")
    assert (report.seen, report.generation, report.complete) == (0, None, True)
    with pytest.raises(BadInput, match="no such file or folder"):
        run(tmp_path / "musik", tmp_path / "library")
    with pytest.raises(BadInput, match="no such file or folder"):
        run(tmp_path / "musik", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_library_stays_with_its_model(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.song(music / "song.wav", 1)
    mine = shutil.copytree(songs.TINY, tmp_path / "mine")
    run(music, library, model=os.fspath(mine))
    shutil.rmtree(mine)
    songs.song(music / "more.wav", 2)
    assert outcomes(run(music, library, model=None)) == {"reused": 1, "indexed": 1}


def test_a_damaged_index_is_made_anew(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.catalogue(music, 3, kinds=("wav",))
    run(music, library)
    before = contents(library)
    for index in library.glob("published/*/recordings.*.usearch"):
        damaged = bytearray(index.read_bytes())
        damaged[-5] ^= 1
        index.write_bytes(damaged)
    report = run(music, library, model=None)
    assert outcomes(report) == {"reused": 3}
    assert report.generation == 2
    assert_same(contents(library), before)


def test_one_build_at_a_time(tmp_path):
    songs.song(tmp_path / "music" / "song.wav", 1)
    with write_lock(tmp_path / "library"), pytest.raises(LibraryLocked) as caught:
        run(tmp_path / "music", tmp_path / "library")
    assert str(os.getpid()) in str(caught.value)


@pytest.mark.parametrize("in_a_row", [False, True])
def test_what_is_done_is_kept_whatever_ends_the_run(tmp_path, in_a_row):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.catalogue(music, 6, kinds=("wav",))

    def stop(now):
        if now.stage == "tracks" and now.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(music, library, progress=stop, in_a_row=in_a_row)
    assert not children()
    with Store(library) as store:
        assert len(store.known_files()) == 3
    assert outcomes(run(music, library)) == {"reused": 3, "indexed": 3}


def test_batches_reach_across_tracks(music):
    bundle = songs.tiny_bundle()
    files = [file for file in walk([music / "a"])] * 3
    jobs = [Job(file, n, None, None, ("lyrics",)) for n, file in enumerate(files, 1)]
    tracks = [Track(job, decode(job.file.path)) for job in jobs]
    done = list(Analyst(bundle, 1, Clock()).analyse(iter([*tracks, Settled("reused")])))
    assert [type(item).__name__ for item in done[-4:]] == ["Settled", *["Analysed"] * 3]
    encoder = AudioEncoder(bundle, threads=1)
    for item in done:
        if isinstance(item, Settled):
            continue
        (analysis,) = item.analyses
        samples = tracks[analysis.recording_id - 1].audio.samples
        window = np.zeros((1, encoder.window), np.float32)
        window[0, : len(samples)] = samples
        alone = encoder.encode(window)
        np.testing.assert_allclose(analysis.vectors, alone, atol=1e-4)
        np.testing.assert_allclose(analysis.vector, pool(alone), atol=1e-4)


def start(*arguments):
    command = [sys.executable, "-m", "livi_index", "build", "--jobs", "1", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_at_any_moment_and_run_again(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs.catalogue(music, 12, 20.0, kinds=("wav", "ogg"))
    (music / "broken.mp3").write_bytes(b"ID3" + bytes(5000))
    began = time.monotonic()
    run(music, tmp_path / "whole")
    whole_s = time.monotonic() - began
    rng = np.random.default_rng(4)
    n_killed = 0
    for _ in range(4):
        with start(music, "--library", library, "--model", songs.TINY) as process:
            family = psutil.Process(process.pid)
            time.sleep(whole_s * rng.uniform(0.3, 0.9))
            workers = family.children(recursive=True) if family.is_running() else []
            process.kill()
            n_killed += process.wait() == -signal.SIGKILL
            process.stderr.read()
        _, alive = psutil.wait_procs(workers, timeout=5)
        assert not alive or sys.platform != "linux"
    assert n_killed
    run(music, library)
    assert_same(contents(library), contents(tmp_path / "whole"))
    assert {p.name for p in (library / "published").iterdir()} <= {f"{n:06}" for n in range(9)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_by_a_signal(tmp_path, number):
    music, library = tmp_path / "music", tmp_path / "library"
    for n in range(8):
        songs.song(music / f"{n}.wav", n, 240.0)
    with start(music, "--library", library, "--model", songs.TINY) as process:
        family = psutil.Process(process.pid)
        deadline = time.monotonic() + 30
        while not (workers := family.children(recursive=True)) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.7)
        process.send_signal(number)
        sent = time.monotonic()
        process.wait(timeout=20)
        took_s = time.monotonic() - sent
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert took_s < 8
    assert "Traceback" not in said
    assert "what was done is kept" in said
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    report = run(music, library)
    assert report.indexed + report.reused == 8
