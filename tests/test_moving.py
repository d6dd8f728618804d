"""From one model to another: over several runs, killed, given up, and back again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import songs
from test_build import ROOT, contents, outcomes, run
from test_cli import HAS_MODEL, livi
from test_nightly import known_files

from livi_index.build import BuildOptions
from livi_index.check import check
from livi_index.errors import BadModel
from livi_index.forecast import forecast
from livi_index.generations import current
from livi_index.library import open_library
from livi_index.models import open_bundle
from livi_index.moving import Models, Transfer
from livi_index.publishing import roll_back
from livi_index.records import Batch, Failure
from livi_index.status import read_failures, read_status
from livi_index.store import Store

OLD = songs.tiny_bundle().card.model_id
NEW = "bc1505de" + OLD[8:]
N = 5


def other_model(folder, name="tiny-2", version="1", model_id=NEW):
    shutil.copytree(songs.TINY, folder)
    card = json.loads((folder / "card.json").read_text())
    card |= {"name": name, "version": version, "model_id": model_id}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def place(tmp_path):
    """Five songs, and a library of them."""
    songs.catalogue(tmp_path / "music", N, 2.0, kinds=("wav",))
    run(tmp_path / "music", tmp_path / "library")
    return tmp_path


def move(place, *, until=None, folders=(), **options):
    """A run of the move, interrupted when so many are heard; what is noted of it then."""

    def stop(now):
        if now.stage == "move" and now.done == until:
            raise KeyboardInterrupt

    settings = {"model": None, "commit_tracks": 1, **options}
    if until is None:
        return run(list(folders), place / "library", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(list(folders), place / "library", progress=stop, **settings)
    return None


def begin(place, until=2):
    folder = other_model(place / "other")
    move(place, until=until, model=os.fspath(folder))
    shutil.rmtree(folder)


def answering(library):
    with current(library) as generation:
        return generation.manifest.model_id, generation.counts["indexed"]


def heard(library, model_id):
    with Store(library) as store:
        return len(store.analysed(model_id, "lyrics"))


def counts(move):
    assert move.total == move.done + move.failed + move.left
    return move.done, move.failed, move.left, move.absent


def test_a_move_on_the_command_line(place):
    music, library = place / "music", place / "library"
    new = other_model(place / "other")
    told = livi("build", "--model", new, "--max-hours", "0", library=library).stdout
    sentence = (
        "This library is being moved to model tiny-2 1: 0 of 5 recordings are done (0.0 %), and"
        " tiny 1 answers until all are."
    )
    assert sentence in told and "model     tiny, generation 1" in told
    shutil.rmtree(new)
    assert sentence in livi("status", library=library).stdout
    status = json.loads(livi("status", "--json", library=library).stdout)
    assert status["model"] == "tiny"
    assert status["move"]["model_id"] == NEW
    assert (status["move"]["share"], status["move"]["left"]) == (0, N)
    livi("query", music / "song-0.wav", library=library)
    done = livi("query", music / "song-0.wav", "--model", "livi-mini", library=library, ok=False)
    assert "cannot be asked with" in done.stderr or "no model is called" in done.stderr

    found = json.loads(livi("build", "--dry-run", "--json", library=library).stdout)
    assert (found["unchanged"], found["to_move"], found["move"]["left"]) == (N, N, N)
    assert sentence in livi("build", "--dry-run", library=library).stdout

    report = json.loads(livi("build", "--json", "--jobs", "1", library=library).stdout)
    assert (report["reused"], report["seen"], report["moved"]) == (N, N, N)
    assert (report["model"], report["generation"]) == ("tiny-2", 2)
    assert report["move"]["complete"] and report["move"]["share"] == 1
    status = json.loads(livi("status", "--json", library=library).stdout)
    assert (status["model"], status["move"]) == ("tiny-2", None)
    livi("query", music / "song-0.wav", library=library)

    livi("rollback", library=library)
    assert json.loads(livi("status", "--json", library=library).stdout)["model"] == "tiny"
    livi("query", music / "song-0.wav", library=library)
    livi("check", "--read-data", "100", library=library)
    told = livi("build", library=library).stdout
    assert "model     tiny-2, generation 3" in told and "moved" not in told


def test_a_move_over_several_runs(place):
    library = place / "library"
    whole = contents(library)
    begin(place)
    # Committed one by one, and nothing of the old model's answers has changed.
    assert counts(read_status(library).move) == (2, 0, 3, 0)
    assert heard(library, NEW) == 2
    assert answering(library) == (OLD, N)
    report = move(place, max_hours=0.0)
    assert counts(report.move) == (2, 0, 3, 0)
    assert (report.generation, report.moved, report.move.share) == (1, 0, pytest.approx(0.4))
    assert check(library, read_percent=100).problems == ()
    before = (library / "library.duckdb").read_bytes()
    assert move(place, max_hours=0.0).generation == 1
    assert (library / "library.duckdb").read_bytes() == before

    report = move(place)
    assert (outcomes(report), report.moved, report.generation) == ({"reused": N}, 3, 2)
    assert counts(report.move) == (N, 0, 0, 0) and report.move.complete
    assert report.audio_seconds == pytest.approx(6.0, rel=0.01)
    assert answering(library) == (NEW, N)
    # The networks are the same, so the answers are.
    assert contents(library)[1:] == whole[1:] and contents(library)[0].keys() == whole[0].keys()
    assert check(library, read_percent=100).problems == ()
    before = (library / "library.duckdb").read_bytes()
    report = move(place)
    assert (report.move, report.generation, outcomes(report)) == (None, 2, {"reused": N})
    assert (library / "library.duckdb").read_bytes() == before
    assert read_status(library).move is None


KILLED = """
    import os, signal, sys
    from livi_index.build import BuildOptions, build
    def die(now):
        if now.stage == sys.argv[3] and now.done == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
    if __name__ == "__main__":
        options = BuildOptions(model=sys.argv[2], jobs=1, threads=1, commit_tracks=1)
        build([], sys.argv[1], options, progress=die)
"""


@pytest.mark.parametrize(("stage", "done", "n_heard"), [("move", 3, 2), ("publish", 0, 5)])
def test_killed_in_the_middle_of_a_move(place, stage, done, n_heard):
    library, script = place / "library", place / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    if stage == "publish":
        begin(place, until=N)  # so that only the change is left
    else:
        other_model(place / "other")
    model = NEW[:12] if stage == "publish" else place / "other"
    ended = subprocess.run(
        [sys.executable, script, library, model, stage, str(done)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    assert heard(library, NEW) == n_heard
    assert answering(library) == (OLD, N)
    with Store(library) as store:
        assert store.choice()[:2] == (OLD, NEW)
    report = move(place)
    assert (report.moved, report.generation, answering(library)) == (N - n_heard, 2, (NEW, N))


def test_files_come_and_go_during_a_move(place):
    music, library = place / "music", place / "library"
    begin(place)
    songs.song(music / "new.wav", 77, 2.0)
    (music / "song-0.wav").unlink()
    (music / "song-4.wav").rename(music / "moved.wav")
    found = forecast([], library, BuildOptions())
    assert (found.new, found.to_move, found.move.absent) == (2, 2, 1)
    # The new song is found while the move goes on.
    move(place, until=1)
    assert answering(library) == (OLD, N)
    with open_library(library, threads=1) as opened:
        best = opened.query(songs.chord(77, 2.0)[:, 0], k=1).hits[0]
    assert best.path.endswith("new.wav")
    assert counts(read_status(library).move) == (2, 0, 3, 0)
    # What is in the middle of a move comes back with what was published.
    (library / "library.duckdb").unlink()
    assert check(library, repair=True).problems == ()
    report = move(place)
    assert (report.missing, report.moved, answering(library)) == (0, N, (NEW, N))
    assert counts(report.move) == (N, 0, 0, 0)
    assert check(library, read_percent=100).problems == ()


def spoil(path):
    """Other bytes in a file that looks as it did; gives back what was there."""
    status, before = path.stat(), path.read_bytes()
    path.write_bytes(b"no wave " * (status.st_size // 8) + b"." * (status.st_size % 8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return before


def test_what_cannot_be_decoded_any_more(place):
    music, library = place / "music", place / "library"
    paths = [music / f"song-{i}.wav" for i in range(N)]
    whole = [spoil(path) for path in paths[3:]]
    begin(place, until=4)
    report = move(place)
    assert report.complete and report.move.complete
    assert counts(report.move) == (3, 2, 0, 0)
    assert answering(library) == (NEW, 3)
    assert len(read_failures(library)) == 2
    # Back, since the old one has heard it, and there again when it is whole.
    report = move(place, model=OLD[:12])
    assert counts(report.move) == (5, 0, 0, 0) and answering(library) == (OLD, N)
    looks = paths[3].stat()
    paths[3].write_bytes(whole[0])
    os.utime(paths[3], ns=(looks.st_atime_ns, looks.st_mtime_ns))
    report = move(place, model=NEW[:12], retry=("all",))
    assert (report.moved, report.move_failed) == (1, 0)
    assert counts(report.move) == (4, 1, 0, 0)
    assert [os.path.basename(note.path) for note in read_failures(library)] == ["song-4.wav"]


def test_new_failures_of_a_move_are_told(place):
    spoil(place / "music" / "song-2.wav")
    other_model(place / "other")
    done = livi("build", "--model", place / "other", library=place / "library", ok=False)
    assert done.returncode == 3
    assert "song-2.wav" in done.stderr
    assert "which answers now; 1 recordings it could not hear." in done.stdout


def test_a_disk_that_is_away_is_waited_for(place):
    music, library = place / "music", place / "library"
    songs.song(place / "zoo" / "far.wav", 50, 2.0)
    run(place / "zoo", library)
    begin(place)
    (place / "zoo").rename(place / "elsewhere")
    report = move(place)
    assert counts(report.move) == (N, 0, 1, 1) and not report.move.complete
    assert answering(library) == (OLD, N + 1)
    told = livi("build", music, library=library).stdout
    assert "1 of them are not as they were" in told
    (place / "elsewhere").rename(place / "zoo")
    report = move(place)
    assert counts(report.move) == (N + 1, 0, 0, 0) and report.move.complete
    (place / "zoo").rename(place / "elsewhere")
    other_model(place / "third", "tiny-3", model_id="cc1505de" + OLD[8:])
    report = move(place, model=os.fspath(place / "third"), force_prune=True)
    assert counts(report.move) == (N, 0, 0, 0) and report.move.complete


def test_a_disk_that_refuses_too_much_is_waited_for(tmp_path):
    music, library = tmp_path / "music", tmp_path / "library"
    known_files(music, library, 20)
    target = open_bundle(other_model(tmp_path / "other"))
    models = Models(songs.tiny_bundle(), target, None)
    with Store(library) as store:
        for n, expected in ((2, (0, 2, 18, 0)), (3, (0, 0, 20, 0))):
            failed = [Failure(path, "io_error", "as told") for path in sorted(music.iterdir())[:n]]
            store.commit(Batch(failures=failed))
            assert counts(Transfer(store, models).standing()) == expected


def test_given_up_and_taken_up_again(place):
    library = place / "library"
    begin(place)
    report = move(place, model=OLD[:12])
    assert report.move is None and "move to model tiny-2 1 is given up" in report.notices[0]
    assert (report.generation, heard(library, NEW)) == (1, 2)
    report = move(place)
    assert (report.move, report.notices, read_status(library).move) == (None, (), None)
    # Its folder is gone, and the library knows it by name.
    report = move(place, model="tiny-2")
    assert (report.moved, answering(library)) == (3, (NEW, N))


def test_what_is_no_longer_needed_leaves_with_prune(place):
    music, library = place / "music", place / "library"
    begin(place)
    assert move(place, prune=True).notices == ()
    assert answering(library) == (NEW, N)
    songs.song(music / "more.wav", 60, 2.0)
    assert move(place, prune=True).notices == ()
    assert heard(library, OLD) == N
    roll_back(library, 1)
    with open_library(library, threads=1) as opened:
        best = opened.query(music / "song-0.wav", include_self=True).hits[0]
    assert best.path.endswith("song-0.wav")
    report = move(place, prune=True)
    assert report.notices == ("model tiny 1 is deleted from the library, with its vectors of 5"
                              " recordings",)  # fmt: skip
    assert (heard(library, OLD), heard(library, NEW)) == (0, N + 1)
    assert [folder.name for folder in (library / "models").iterdir()] == [NEW]
    assert check(library, read_percent=100).problems == ()


def test_a_damaged_model_begins_nothing(place):
    library = place / "library"
    new = other_model(place / "other")
    with (new / "audio.onnx").open("ab") as file:
        file.write(b"x")
    before = (library / "library.duckdb").read_bytes()
    for go in (lambda: move(place, model=os.fspath(new)),
               lambda: forecast([], library, BuildOptions(model=os.fspath(new)))):  # fmt: skip
        with pytest.raises(BadModel, match="damaged"):
            go()
    assert (library / "library.duckdb").read_bytes() == before
    assert [folder.name for folder in (library / "models").iterdir()] == [OLD]
    assert move(place).move is None


def test_a_first_build_may_change_its_mind(tmp_path):
    songs.catalogue(tmp_path / "music", 3, 2.0, kinds=("wav",))

    def stop(now):
        if now.stage == "tracks" and now.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "music", tmp_path / "library", commit_tracks=1, progress=stop)
    other_model(tmp_path / "other")
    report = move(tmp_path, model=os.fspath(tmp_path / "other"), max_hours=0.0)
    assert report.move is None
    report = move(tmp_path)
    assert (report.indexed, answering(tmp_path / "library")) == (3, (NEW, 3))


def test_from_a_model_that_does_not_read_to_one_that_does(tmp_path):
    library = tmp_path / "library"
    for i in range(3):
        songs.sung(tmp_path / "music" / f"{i}.wav", songs.melody(i, 60))
    run(tmp_path / "music", library)
    report = move(tmp_path, model=os.fspath(songs.READER))
    assert (report.moved, report.model) == (3, "tiny-reader")
    with current(library) as generation:
        assert generation.phones("lyrics") > 0
    assert check(library, read_percent=100).problems == ()


@pytest.mark.skipif(not HAS_MODEL, reason="the bundled model is not in this checkout yet")
def test_a_newer_edition_of_the_bundled_model_is_pointed_out(tmp_path):
    library = tmp_path / "library"
    songs.catalogue(tmp_path / "music", 1, 2.0, kinds=("wav",))
    mine = other_model(tmp_path / "mine", "livi-mini", "1")
    told = livi("build", tmp_path / "music", "--model", mine, library=library).stdout
    assert "has come with this program" not in told
    told = livi("build", library=library).stdout
    assert "of livi-mini has come with this program: livi-index build --model livi-mini" in told
    assert "has come" not in livi("build", "--quiet", library=library).stdout
    report = json.loads(livi("build", "--json", library=library).stdout)
    assert int(report["newer_model"]) > 1 and report["generation"] == 1
