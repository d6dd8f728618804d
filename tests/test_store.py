"""A real DuckDB file: what is committed outlives any death, what is refused leaves no half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from livi_index.database import translated, write_lock
from livi_index.errors import BadInput, LibraryDamaged, LibraryLocked, LibraryNotWritable
from livi_index.records import (
    SEGMENT_DTYPE,
    Analysis,
    Batch,
    Failure,
    FileRow,
    KnownFile,
    Recording,
    Run,
    StoreState,
)
from livi_index.store import Store
from livi_index.transcripts import PHONE_DTYPE, Transcript

MODEL, DIM = "ab" * 32, 16
HERE = Path(__file__).parent


def unit(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def file_row(number: int, path: str | Path | None = None, **tags: str | int | None) -> FileRow:
    place = Path(path or f"/music/{number}.mp3")
    return FileRow(place, place.parent, 1000 + number, 10**18, number, 2049, number, **tags)


def recording(number: int) -> Recording:
    return Recording(number, number.to_bytes(32, "big"), 180.0)


def analysis(
    number: int, n: int = 3, *, seed: int | None = None, model_id: str = MODEL, space: str = "words"
) -> Analysis:
    if n == 0:
        return Analysis(number, model_id, space, 0.1, False, False, "test 1")
    vectors = unit(n, number if seed is None else seed)
    mean = vectors.mean(axis=0)
    times = np.arange(n) * 15.0
    return Analysis(
        recording_id=number,
        model_id=model_id,
        space=space,
        track_vocalness=0.8,
        sung=True,
        truncated=False,
        decoder="test 1",
        vector=mean / np.linalg.norm(mean),
        start_s=times,
        end_s=times + 30,
        vocalness=np.full(n, 0.9),
        weight=np.full(n, 2.0),
        vectors=vectors,
    )


def batch(*numbers: int, n: int = 3) -> Batch:
    return Batch(
        files=[file_row(number) for number in numbers],
        recordings=[recording(number) for number in numbers],
        analyses=[analysis(number, n) for number in numbers],
    )


def transcript(seed: int, n: int) -> Transcript:
    rng = np.random.default_rng([seed, n])
    found = np.zeros(n, PHONE_DTYPE)
    found["time_s"] = np.sort(rng.uniform(0, 180, n))
    found["phone"] = rng.integers(1, 256, n)
    return found


def read_batch(*numbers: int, n: int = 3, seed: int = 0) -> Batch:
    """As ``batch``, of a model that reads: ten phones in recording 1, twenty in 2, …"""
    plain = batch(*numbers, n=n)
    read = [replace(a, transcript=transcript(seed + a.recording_id, 10 * a.recording_id))
            for a in plain.analyses]  # fmt: skip
    return replace(plain, analyses=read)


def run_python(script: str, *arguments: str, check: bool = True) -> str:
    prelude = f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(script), *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def vectors_of(store: Store, ids: list[int], space: str = "words") -> dict[int, np.ndarray]:
    chunks = store.segment_vectors(MODEL, space, np.array(ids, np.int64), chunk=2)
    return {int(i): v for chunk in chunks for i, v in zip(chunk.ids, chunk.vectors, strict=True)}


def test_what_is_committed_is_read_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        state = store.commit(batch(1, 2))
    with Store(tmp_path) as store:
        assert store.state == state and state.version == 1 and store.remembers(state)
        assert store.known_files() == {
            "/music/1.mp3": KnownFile(1001, 10**18, 1, 2049, 1, False),
            "/music/2.mp3": KnownFile(1002, 10**18, 2, 2049, 2, False),
        }
        assert store.recording_ids() == {1, 2} == store.analysed(MODEL, "words")
        table = store.segments(MODEL, "words")
        assert table.dtype == SEGMENT_DTYPE and table["segment_id"].tolist() == [1, 2, 3, 4, 5, 6]
        assert table["recording_id"].tolist() == [1, 1, 1, 2, 2, 2]
        assert table["start_s"].tolist() == [0, 15, 30] * 2
        assert table["weight"].tolist() == [2] * 6
        found = vectors_of(store, [2, 6])
        assert np.array_equal(found[2], unit(3, 1)[1].astype(np.float16))
        assert np.array_equal(found[6], unit(3, 2)[2].astype(np.float16))
        (chunk,) = store.recording_vectors(MODEL, "words", np.array([2]))
        expected = analysis(2).vector
        assert expected is not None
        assert np.array_equal(chunk.vectors[0], expected.astype(np.float16))


def transcripts_of(
    store: Store, *ids: int, model_id: str = MODEL, space: str = "words"
) -> dict[int, bytes]:
    found = store.transcripts(model_id, space, np.array(ids, np.int64), chunk=2)
    return {number: of_one.tobytes() for number, of_one in found}


def test_what_was_read_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    empty = replace(analysis(4), transcript=transcript(4, 0))
    with Store(tmp_path) as store:
        store.commit(read_batch(1, 2, 300))
        store.commit(batch(3))  # nobody read it
        store.commit(Batch(recordings=[recording(4)], analyses=[empty]))
    expected = {n: transcript(n, 10 * n).tobytes() for n in (1, 2, 300)}
    with Store(tmp_path) as store:
        assert transcripts_of(store, 300, 1, 2, 3, 99) == expected
        assert transcripts_of(store, 4) == {4: b""}
        assert transcripts_of(store) == transcripts_of(store, 3) == {}
        (_, found), *_ = store.transcripts(MODEL, "words", np.array([2]))
        assert found.dtype == PHONE_DTYPE and np.array_equal(found, transcript(2, 20))


def test_transcripts_are_those_of_the_latest_analysis_by_the_model(tmp_path: Path) -> None:
    other = "cd" * 32
    with Store(tmp_path) as store:
        store.commit(read_batch(1, 2))
        for changed in ({"model_id": other}, {"space": "harmony"}):
            more = replace(analysis(1, 2, seed=5, **changed), transcript=transcript(5, 7))
            store.commit(Batch(analyses=[more]))
        assert transcripts_of(store, 1, 2, model_id=other) == {1: transcript(5, 7).tobytes()}
        assert transcripts_of(store, 1, space="harmony") == {1: transcript(5, 7).tobytes()}
        assert transcripts_of(store, 1) == {1: transcript(1, 10).tobytes()}
        store.commit(Batch(analyses=[replace(analysis(1), transcript=transcript(6, 33))]))
        assert transcripts_of(store, 1) == {1: transcript(6, 33).tobytes()}
        store.commit(Batch(analyses=[analysis(1), analysis(2, 0)]))
        assert transcripts_of(store, 1, 2) == {}


def test_a_database_from_before_transcripts_is_taken_over(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        state = store.commit(batch(1, 2))
    with duckdb.connect(str(tmp_path / "library.duckdb")) as connection:
        connection.execute("ALTER TABLE analyses DROP COLUMN speech")
        connection.execute("ALTER TABLE analyses DROP COLUMN transcript")
        connection.execute("ALTER TABLE changes DROP COLUMN model_id")
        connection.execute("DROP TABLE model_choice")
        connection.execute("DELETE FROM schema_versions WHERE version >= 3")
    with Store(tmp_path) as store:
        assert store.state == state and len(store.segments(MODEL, "words")) == 6
        assert transcripts_of(store, 1, 2) == {}
        store.commit(read_batch(2, 3))
    with Store(tmp_path) as store:
        assert transcripts_of(store, 1, 2, 3).keys() == {2, 3}
        assert store.analysed(MODEL, "words") == {1, 2, 3}


def test_models_and_spaces_never_meet(tmp_path: Path) -> None:
    other = "cd" * 32
    with Store(tmp_path) as store:
        store.commit(batch(1))
        store.commit(Batch(analyses=[analysis(1, 2, seed=7, space="harmony")]))
        store.commit(Batch(analyses=[analysis(1, 1, seed=8, model_id=other)]))
        assert len(store.segments(MODEL, "words")) == 3
        assert len(store.segments(MODEL, "harmony")) == 2
        assert len(store.segments(other, "words")) == 1
        assert vectors_of(store, [1, 4, 6]).keys() == {1}
        assert store.analysed(other, "harmony") == set()


def test_a_new_analysis_replaces_the_old_under_new_numbers(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        before = store.commit(batch(1, 2))
        store.commit(Batch(analyses=[analysis(2, 2, seed=9)]))
        assert store.segments(MODEL, "words")["segment_id"].tolist() == [1, 2, 3, 7, 8]
        assert store.reanalysed(MODEL, "words", before).tolist() == [2]
        store.commit(Batch(analyses=[analysis(2, 0)]))
        assert store.segments(MODEL, "words")["segment_id"].tolist() == [1, 2, 3]
        assert store.analysed(MODEL, "words") == {1, 2}
        store.commit(Batch(analyses=[analysis(2, 1)]))
        assert store.segments(MODEL, "words")["segment_id"].tolist() == [1, 2, 3, 9]


def test_files_move_vanish_and_come_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.commit(batch(1, 2))
        store.commit(Batch(files=[file_row(1, "/else/1.mp3")], forgotten=[Path("/music/1.mp3")]))
        assert set(store.known_files()) == {"/else/1.mp3", "/music/2.mp3"}
        assert len(store.segments(MODEL, "words")) == 6
        store.commit(Batch(missing=[Path("/else/1.mp3")]))
        assert store.known_files()["/else/1.mp3"].missing
        assert set(store.segments(MODEL, "words")["recording_id"]) == {2}
        store.commit(Batch(files=[file_row(1, "/else/1.mp3")]))
        assert not store.known_files()["/else/1.mp3"].missing
        assert len(store.segments(MODEL, "words")) == 6
        store.commit(Batch(forgotten=[Path("/else/1.mp3")]))
        assert store.recording_ids() == {1, 2} == store.analysed(MODEL, "words")


def test_failures_count_their_attempts_until_they_are_fine(tmp_path: Path) -> None:
    path = Path("/music/5.mp3")
    unread = FileRow(path, path.parent, 1, 2, 3, 4, None)
    with Store(tmp_path) as store:
        first = Failure(path, "timeout", "too slow", "av 18", first_at=10, last_at=10)
        store.commit(Batch(files=[unread], failures=[first]))
        store.commit(Batch(failures=[Failure(path, "not_audio", "x", "av 19", last_at=20)]))
        failure = store.failures()["/music/5.mp3"]
        assert (failure.attempts, failure.first_at, failure.last_at) == (2, 10, 20)
        assert (failure.code, failure.decoder, failure.path) == ("not_audio", "av 19", path)
        assert store.known_files()["/music/5.mp3"].recording_id is None
        store.commit(batch(5))
        assert store.failures() == {}
        store.commit(Batch(failures=[first]))
        store.commit(Batch(forgotten=[path]))
        assert store.failures() == {} and store.known_files() == {}


def test_names_and_tags_need_not_be_text(tmp_path: Path) -> None:
    name = Path(os.fsdecode(b"/music/\xff\xfe\n;'\"\x7f \xe2\x80\xae.mp3"))
    title = "NUL \x00, lone \ud800, quote ', e\u0301 \u202e"
    with Store(tmp_path) as store:
        store.commit(Batch(files=[file_row(1, name, title=title, artist=None, year=1999)]))
        assert Path(next(iter(store.known_files()))) == name
        (row,) = store._rows("SELECT display, title, artist, year FROM files")
    assert row[0].startswith("/music/\ufffd") and row[1] == title.replace("\ud800", "?")
    assert row[2:] == (None, 1999)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 2.0])
def test_a_bad_vector_stops_the_whole_batch(tmp_path: Path, value: float) -> None:
    bad = analysis(2)
    assert bad.vectors is not None
    bad.vectors[1] = value
    with Store(tmp_path) as store:
        before = store.commit(batch(7))
        with pytest.raises(ValueError, match="finite and of unit length"):
            store.commit(Batch(recordings=[recording(1), recording(2)], analyses=[bad]))
        assert store.recording_ids() == {7} and store.state == before


def test_an_empty_batch_touches_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        state = store.commit(batch(1))
    content, inode = (tmp_path / "library.duckdb").read_bytes(), os.stat(tmp_path).st_mtime_ns
    with Store(tmp_path) as store:
        assert store.commit(Batch()) == state
        store.known_files(), store.segments(MODEL, "words")
    assert (tmp_path / "library.duckdb").read_bytes() == content
    assert inode == os.stat(tmp_path).st_mtime_ns


def test_runs_are_noted_and_are_no_change(tmp_path: Path) -> None:
    run = Run(1.0, 2.5, MODEL, {"seen": 3, "seconds": 1.5, "generation": None})
    with Store(tmp_path) as store:
        state = store.state
        store.record_run(run)
        store.record_run(run)
        assert store.runs() == [run, run] and store.state == state


def test_histories_are_told_apart(tmp_path: Path) -> None:
    with Store(tmp_path / "a") as one, Store(tmp_path / "b") as two:
        assert one.state.version == two.state.version == 0
        assert not one.remembers(two.state) and not one.remembers(StoreState(0, 0))
        one.commit(batch(1)), two.commit(batch(1))
        assert not one.remembers(two.state) and one.remembers(one.state)


def test_nothing_outside_can_be_reached(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for query in (
            f"COPY files TO '{tmp_path}/x.csv'",
            f"ATTACH '{tmp_path}/x.duckdb'",
            "SELECT * FROM read_text('/etc/hostname')",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET memory_limit = '2GB'",
        ):
            with pytest.raises(duckdb.Error):
                store._rows(query)
    assert [path.name for path in tmp_path.iterdir()] == ["library.duckdb"]


def test_the_file_has_the_format_of_duckdb_1_5(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        (row,) = store._rows("SELECT tags FROM duckdb_databases() WHERE database_name = 'library'")
    assert row[0]["storage_version"].startswith("v1.5.0")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store._rows("INSERT INTO schema_versions VALUES (99, 0)")
    with pytest.raises(BadInput, match="newer livi-index"):
        Store(tmp_path)
    with duckdb.connect(str(tmp_path / "library.duckdb")) as connection:
        connection.execute("DELETE FROM schema_versions WHERE version = 99")
    Store(tmp_path).close()


def test_a_second_process_is_told_who_holds_the_file(tmp_path: Path) -> None:
    with Store(tmp_path):
        told = run_python(
            """
            from livi_index.errors import LibraryLocked
            from livi_index.store import Store
            try:
                Store(sys.argv[1])
            except LibraryLocked as error:
                print(error.holder, "|", error)
            """,
            str(tmp_path),
        )
    assert told.startswith(f"pid {os.getpid()} | ") and "library.duckdb" in told


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    script = """
        import time
        from livi_index.database import translated, write_lock
        with write_lock(sys.argv[1]):
            print("held", flush=True)
            time.sleep(60)
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys\n" + textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    began = time.monotonic()
    with (
        pytest.raises(LibraryLocked, match=f"pid {holder.pid} on ") as refused,
        write_lock(tmp_path),
    ):
        pass
    assert time.monotonic() - began < 2 and f"pid {holder.pid}" in refused.value.holder
    holder.kill(), holder.communicate()
    mine = pytest.raises(LibraryLocked, match=f"pid {os.getpid()}")
    with write_lock(tmp_path), mine, write_lock(tmp_path):
        pass
    with write_lock(tmp_path):
        pass


def test_damage_is_told_and_nothing_is_deleted(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(1, 400, 40):
            store.commit(batch(*range(number, number + 40), n=8))
    path, rng = tmp_path / "library.duckdb", random.Random(5)
    whole = path.read_bytes()
    with Store(tmp_path) as store:
        expected = dump(store)
    detected = 0
    for attempt in range(24):
        damaged = bytearray(whole)
        at = rng.randrange(len(whole))
        match attempt % 4:
            case 0 | 1:
                damaged[at] ^= 1 << rng.randrange(8)
            case 2:
                damaged[at : at + 4096] = bytes(len(damaged[at : at + 4096]))
            case _:
                del damaged[at:]
        path.write_bytes(damaged)
        try:
            with Store(tmp_path) as store:
                # Damage where nothing lies is none.
                assert dump(store) == expected
        except LibraryDamaged as error:
            assert "library.duckdb" in str(error) and "still answers" in str(error)
            detected += 1
            assert path.read_bytes() == damaged
    assert detected >= 12
    path.write_text("not a database at all " * 1000)
    with pytest.raises(LibraryDamaged, match=r"library\.duckdb"):
        Store(tmp_path)


def dump(store: Store) -> tuple[object, ...]:
    table = store.segments(MODEL, "words")
    chunks = store.segment_vectors(MODEL, "words", table["segment_id"])
    halves = sorted(
        (int(i), v.tobytes())
        for chunk in chunks
        for i, v in zip(chunk.ids, chunk.vectors, strict=True)
    )
    return store.known_files(), table.tobytes(), halves, sorted(store.recording_ids())


WRITER = """
    from test_store import batch
    from livi_index.store import Store
    with Store(sys.argv[1]) as store:
        number = max(store.recording_ids(), default=0)
        while True:
            numbers = range(number + 1, number + 11)
            store.commit(batch(*numbers, n=4))
            number += 10
            print(number, flush=True)
"""


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    rng = random.Random(11)
    acknowledged = 0
    script = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + textwrap.dedent(WRITER)
    for _ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.25))
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0]
        acknowledged = max(map(int, (first + rest).split()), default=acknowledged)
        with Store(tmp_path) as store:
            numbers = sorted(store.recording_ids())
            assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) % 10 == 0
            assert acknowledged <= len(numbers) <= acknowledged + 10
            table = store.segments(MODEL, "words")
            assert table["segment_id"].tolist() == list(range(1, 4 * len(numbers) + 1))
            assert len(store.known_files()) == len(numbers) == store.state.version * 10
    assert acknowledged > 100


def test_a_full_disk_refuses_the_batch_and_keeps_the_rest(tmp_path: Path) -> None:
    told = run_python(
        """
        import os, resource, signal
        from test_store import batch
        from livi_index.errors import LibraryNotWritable
        from livi_index.store import Store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        number = 0
        store = Store(sys.argv[1])
        try:
            while number < 100_000:
                store.commit(batch(*range(number + 1, number + 101), n=10))
                number += 100
        except LibraryNotWritable as error:
            assert "library.duckdb" in str(error), error
            print(number, flush=True)
            os._exit(0)
        """,
        str(tmp_path),
    )
    kept = int(told)
    assert kept > 0
    with Store(tmp_path) as store:
        assert store.recording_ids() == set(range(1, kept + 1))
        assert len(store.segments(MODEL, "words")) == kept * 10
        store.commit(batch(kept + 1))


# What DuckDB said when the system refused one of its calls (benchmarks/endurance/io_errors.py).
REFUSED = {
    'Cannot open file "/l/library.duckdb": Input/output error': "cannot be read",
    'Could not read from file "/l/library.duckdb": Input/output error': "cannot be read",
    'Failed to commit: Could not write file "/l/x.wal": Input/output error': "could not be written",
    "FATAL Error: fsync failed!": "could not be written",
    "Checkpoint failed. The database has been invalidated. Original error: Could not write file "
    '"/l/x": Input/output error': "could not be written",
    'Corrupt database file: computed checksum 1 does not match stored checksum 2 in block 3: "/l"'
    " could not be written": "is damaged",
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("opening", [False, True])
def test_what_the_system_refuses_is_no_damage(text: str, opening: bool) -> None:
    with (
        pytest.raises((LibraryDamaged, LibraryNotWritable), match=REFUSED[text]),
        translated(Path("/l/library.duckdb"), opening=opening),
    ):
        raise duckdb.IOException(text)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryNotWritable, match="file"):
        Store(tmp_path / "file" / "library")
    with pytest.raises(LibraryNotWritable, match="file"), write_lock(tmp_path / "file"):
        pass
    with pytest.raises(BadInput, match="must be UTF-8"):
        Store(tmp_path / os.fsdecode(b"\xff"))
