"""Night after night: folders that are remembered, files that vanish, runs that end in time."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import songs
from test_build import contents, outcomes, run

from livi_index.audio import decoders
from livi_index.build import BuildOptions
from livi_index.decode import DecodeFailure
from livi_index.errors import BadInput
from livi_index.forecast import forecast
from livi_index.generations import current
from livi_index.planning import Planner, file_row
from livi_index.records import Analysis, Batch, Recording, Root
from livi_index.scan import walk
from livi_index.status import read_failures
from livi_index.store import Store

OPTIONS = BuildOptions(model=os.fspath(songs.TINY), jobs=1)


def crate(folder, n, first=0):
    return [songs.song(folder / f"{first + i:03}.wav", first + i, 1.0) for i in range(n)]


def n_answers(library):
    with current(library) as generation:
        return generation.counts["files"]


def reasons(report):
    return {os.path.basename(held.folder): held.reason for held in report.held}


def test_a_library_of_folders_that_lose_files(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    rock = crate(music / "rock", 24)
    crate(music / "pop", 2, 50)
    assert outcomes(run(music, library)) == {"indexed": 26}
    before = (library / "library.duckdb").read_bytes()
    assert outcomes(run([], library)) == {"reused": 26}
    assert (library / "library.duckdb").read_bytes() == before

    for path in rock[:2]:
        path.unlink()
    report = run([], library)
    assert (report.missing, report.held, report.complete) == (2, (), True)
    assert n_answers(library) == 24

    for path in rock[2:6]:
        path.rename(tmp_path / path.name)
    report = run([], library, prune=True)
    assert (report.missing, report.pruned) == (0, 0)
    assert reasons(report) == {"rock": "share", "music": "share"}
    assert "22 files known there are kept" in report.notices[1]
    assert n_answers(library) == 24

    shutil.rmtree(music / "rock")
    report = run([], library)
    assert reasons(report) == {"rock": "missing", "music": "share"}
    (music / "rock").mkdir()
    assert reasons(run([], library)) == {"rock": "empty", "music": "share"}
    assert n_answers(library) == 24

    report = run([], library, force_prune=True)
    # Also those that left before.
    assert (report.missing, report.pruned, report.held) == (22, 24, ())
    assert len(contents(library)[0]) == 2
    with Store(library) as store:
        assert len(store.known_files()) == len(store.recording_ids()) == 2


def test_a_folder_that_was_renamed_has_lost_nothing(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    crate(music / "rock", 21)
    run(music, library)
    held = contents(library)[0]
    (music / "rock").rename(music / "metal")
    report = run([], library)
    assert outcomes(report) == {"reused": 21}
    assert (report.missing, report.held) == (21, ())
    assert contents(library)[0].keys() == held.keys()
    assert run([], library, prune=True).pruned == 0
    with Store(library) as store:
        assert len(store.known_files()) == 21
    music.rename(tmp_path / "songs")
    # This run is about the new folder alone, so the old one's paths are believed.
    assert outcomes(run(tmp_path / "songs", library)) == {"reused": 21}
    assert n_answers(library) == 42
    assert reasons(run([], library)) == {"music": "missing"}
    assert run([], library, force_prune=True).missing == 21


def test_another_device_than_last_time(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    rock = crate(music / "rock", 21)
    run(music, library)
    with Store(library) as store:
        assert store.roots() == [Root(music)]
        devices = store.devices()
        assert set(devices) == {str(music), str(music / "rock")}
        store.remember_walk(store.roots(), {folder: 1 + n for folder, n in devices.items()})
    rock[0].unlink()
    report = run([], library)
    assert reasons(report) == {"rock": "device", "music": "device"}
    assert (report.missing, n_answers(library)) == (0, 21)
    # With everything in its place the new device is taken for granted.
    songs.song(rock[0], 0, 1.0)
    assert run([], library).held == ()
    rock[0].unlink()
    assert run([], library).missing == 1


def test_pruning(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    first, second, _ = crate(music, 3)
    (music / "broken.mp3").write_bytes(b"ID3" + bytes(5000))
    run(music, library)
    first.unlink()
    (music / "broken.mp3").unlink()
    report = run([], library, prune=True)
    assert (report.missing, report.pruned) == (2, 1)
    assert not contents(library)[2]
    songs.song(first, 0, 1.0)
    assert outcomes(run([], library)) == {"indexed": 1, "reused": 2}
    # What is gone from elsewhere is not this run's business.
    second.unlink()
    run([], library)
    crate(tmp_path / "other", 1, 9)
    assert run(tmp_path / "other", library, prune=True).pruned == 0
    assert run([], library, prune=True).pruned == 1


def test_a_folder_that_is_gone_for_good(tmp_path):
    one, two, library = tmp_path / "one", tmp_path / "two", tmp_path / "library"
    crate(one, 1)
    crate(two, 2, 5)
    run([one, two], library)
    shutil.rmtree(one)
    report = run([], library)
    assert (report.unseen, reasons(report)) == ((str(one),), {"one": "missing"})
    report = run([], library, force_prune=True)
    assert (report.missing, report.pruned, report.complete) == (1, 1, True)
    assert "is not there" in report.notices[0]
    assert run([], library).notices == ()


def test_folders_are_walked_as_they_were_named(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    crate(music, 1)
    crate(music / "demo", 1, 5)
    with pytest.raises(BadInput, match="knows no folders yet"):
        run([], library)
    run(music, library, exclude=("demo/",))
    assert outcomes(run([], library)) == {"reused": 1}
    run(music / "000.wav", library)
    with Store(library) as store:
        assert store.roots() == [Root(music, ("demo/",))]
    assert outcomes(run(music, library)) == {"reused": 1, "indexed": 1}
    assert outcomes(run([], library)) == {"reused": 2}


def test_runs_end_in_time(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    songs_there = crate(music, 3)
    report = run(music, library, max_hours=0.0)
    assert (report.left, report.seen, report.generation) == (3, 0, None)
    run(music, library)
    songs_there[0].rename(music / "moved.wav")
    report = run([], library, max_hours=0.0, prune=True)
    # It may be the one that was not opened.
    assert (report.left, report.missing, report.pruned) == (1, 0, 0)
    assert "nothing was pruned" in report.notices[0]
    assert outcomes(run([], library)) == {"reused": 3}


def test_what_a_run_would_do(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    paths = crate(music, 3)
    found = forecast([music], library, OPTIONS)
    assert (found.new, found.unchanged, found.seconds) == (3, 0, None)
    assert found.new_bytes == sum(path.stat().st_size for path in paths)
    assert found.disk_free > found.disk_bytes > 0
    assert not library.exists()
    run(music, library)
    paths[0].unlink()
    songs.song(music / "new.wav", 7, 2.0)
    before = (library / "library.duckdb").read_bytes()
    found = forecast([], library, OPTIONS)
    assert (found.new, found.unchanged, found.absent, found.held) == (1, 2, 1, ())
    assert found.audio_seconds == pytest.approx(2.0, rel=0.01)
    assert found.seconds > 0
    assert (library / "library.duckdb").read_bytes() == before
    assert outcomes(run([], library)) == {"indexed": 1, "reused": 2}
    with pytest.raises(BadInput, match="no such file or folder"):
        forecast([tmp_path / "nothing"], tmp_path / "other", OPTIONS)


def died(library, file, code):
    """A run in which decoding a file ends like this; what that comes to."""
    with Store(library) as store:
        planner = Planner(store, songs.tiny_bundle().card.model_id, ["lyrics"])
        plan = planner.plan([file], [file.root])
        if not plan.fresh:
            return dict(plan.counts)
        settled = planner.failed(file, DecodeFailure(code, "as told"), b"h" * 32)
        rows = [settled.row] if settled.row else []
        store.commit(Batch(files=rows, failures=[settled.failure] if settled.failure else []))
        return {settled.outcome: 1}


@pytest.mark.parametrize("code", ["worker_died", "timeout"])
def test_quarantine(tmp_path, code):
    music, library = tmp_path / "music", tmp_path / "library"
    crate(music, 1)
    (file,) = walk([music])
    assert died(library, file, code) == {"failed": 1}
    assert died(library, file, code) == {"known_failed": 1}
    with Store(library) as store:
        before = store.state
        (failure,) = store.failures().values()
    assert (failure.attempts, failure.decoder) == (2, decoders())
    assert died(library, file, code) == {"known_failed": 1}
    with Store(library) as store:
        assert store.state == before, "it was not tried"
        # As if it had been so with other decoders.
        store.commit(Batch(failures=[replace(failure, decoder="soundfile 0.1")]))
    assert outcomes(run([music], library)) == {"indexed": 1}


def test_trying_again(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    crate(music, 1)
    (music / "broken.mp3").write_bytes(b"ID3" + bytes(5000))
    (music / "words.mp3").write_text("no song")
    assert outcomes(run(music, library)) == {"indexed": 1, "failed": 2}
    assert {n.code: n.attempts for n in read_failures(library)} == {
        "undecodable": 1, "not_audio": 1,
    }  # fmt: skip
    report = run([], library, retry=("undecodable",))
    assert outcomes(report) == {"reused": 1, "known_failed": 2}
    assert report.complete
    (note,) = read_failures(library, ["undecodable"])
    assert (note.attempts, note.quarantined, note.path) == (2, False, str(music / "broken.mp3"))
    assert note.first_at < note.last_at
    run([], library, retry=("all",))
    assert {n.code: n.attempts for n in read_failures(library)} == {
        "undecodable": 3, "not_audio": 2,
    }  # fmt: skip
    with pytest.raises(BadInput, match="there are: not_found, permission"):
        run([], library, retry=("broken",))


def test_folders_are_known_although_the_first_run_was_stopped(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    crate(music, 2)

    def stop(now):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(music, library, progress=stop)
    assert outcomes(run([], library)) == {"indexed": 2}


def known_files(music, library, n):
    """A library that knows n files, without having decoded any."""
    rng = np.random.default_rng(0)
    card = songs.tiny_bundle().card
    music.mkdir()
    for i in range(n):
        (music / f"{i:05}.mp3").write_bytes(bytes(16))
    with Store(library) as store:
        files = [file_row(file, n + 1) for n, file in enumerate(walk([music]))]
        vectors = rng.standard_normal((n, card.spaces[0].dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        plain = Analysis(0, card.model_id, "lyrics", 1.0, True, False, "none")
        one = {"start_s": [0.0], "end_s": [30.0], "vocalness": [1.0], "weight": [1.0]}
        analyses = [
            replace(plain, recording_id=i + 1, vector=v, vectors=v[None], **one)
            for i, v in enumerate(vectors)
        ]
        recordings = [Recording(i + 1, i.to_bytes(32, "big"), 30.0) for i in range(n)]
        store.commit(Batch(files, recordings, analyses))
        store.remember_walk([Root(music)], {})


def test_an_unchanged_night(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    known_files(music, library, 2_000)
    run([], library)
    before = (library / "library.duckdb").read_bytes()
    report = run([], library)
    assert outcomes(report) == {"reused": 2_000}
    assert set(report.stages) == {"walk", "commit", "publish"}
    assert report.generation == 1
    assert report.seconds < 10
    assert (library / "library.duckdb").read_bytes() == before
