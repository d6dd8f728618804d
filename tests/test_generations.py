"""Real generations on a real disk: published whole or not at all, checked before they answer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_store import (
    DIM,
    MODEL,
    analysis,
    batch,
    file_row,
    read_batch,
    recording,
    run_python,
    transcript,
    unit,
)

from livi_index.errors import LibraryDamaged, LibraryNotFound
from livi_index.generations import (
    FORMAT,
    Generation,
    current,
    generations,
    name_current,
    remember,
)
from livi_index.publishing import Publication, PublishedModel, PublishOptions, Space, publish
from livi_index.records import Batch, FileRow
from livi_index.shards import VectorTable
from livi_index.store import Store
from livi_index.transcripts import PHONE_DTYPE
from livi_index.vectors import Matches, VectorIndex

HERE = Path(__file__).parent
WORDS = PublishedModel(MODEL, "livi-test", "1", (Space("words", DIM),))
SMALL = PublishOptions(threads=1, shard_size=50)


def filled(library: Path, *numbers: int, n: int = 3) -> int:
    with Store(library) as store:
        if numbers:
            store.commit(batch(*numbers, n=n))
        return publish(store, library, WORDS, SMALL).generation


def answers(generation: Generation, k: int = 10) -> list[tuple[list[int], list[float]]]:
    queries = unit(5, seed=77)
    found: list[Matches] = [
        generation.search_recordings(queries, k, "words"),
        generation.search_segments(queries, k, "words"),
    ]
    return [(matches.keys.tolist(), matches.scores.tolist()) for matches in found]


def test_what_is_published_answers(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 41))
    with current(tmp_path) as generation:
        assert generation.id == 1 and generation.spaces == ("words",)
        assert generation.manifest.model_name == "livi-test"
        assert generation.counts["recordings"] == 40 == generation.counts["indexed"]
        assert generation.recording_ids("words").tolist() == list(range(1, 41))
        vector = analysis(7).vector
        assert vector is not None
        best = generation.search_recordings(vector[None], 3, "words").of(0)[0]
        assert best.key == 7 and best.score == pytest.approx(1, abs=1e-3)
        table = generation.segments_of(np.array([9, 7, 999]), "words")
        assert table["recording_id"].tolist() == [9] * 3 + [7] * 3
        vectors = generation.segment_vectors(table["segment_id"], "words")
        assert np.allclose(vectors[3:], unit(3, 7), atol=1e-3)
        found = generation.search_segments(vectors, 1, "words").keys[:, 0]
        assert found.tolist() == table["segment_id"].tolist()
        assert generation.recordings_of(found, "words").tolist() == [9] * 3 + [7] * 3
        with pytest.raises(KeyError, match="there are: words"):
            generation.search_segments(vectors, 1, "harmony")
        with pytest.raises(KeyError):
            generation.recordings_of(np.array([12345]), "words")


def test_metadata_prefers_a_place_with_a_title(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(b"/a/\xff.mp3"))
    with Store(tmp_path) as store:
        store.commit(batch(1, 2))
        store.commit(
            Batch(files=[file_row(1, odd), file_row(1, "/z.mp3", title="Song", year=1999)])
        )
        store.commit(Batch(recordings=[recording(3)], analyses=[analysis(3, 0)]))
        store.commit(Batch(files=[file_row(3, "/b/still.mp3", artist="Band")]))
        publish(store, tmp_path, WORDS, SMALL)
    with current(tmp_path) as generation:
        info = generation.metadata([1, 2, 3, 99])
        assert set(info) == {1, 2, 3}
        assert (info[1].path, info[1].title, info[1].year) == (Path("/z.mp3"), "Song", 1999)
        assert (info[2].path, info[2].title, info[2].duration_s) == (
            Path("/music/2.mp3"),
            None,
            180,
        )
        assert info[3].artist == "Band" and info[3].truncated is False
        assert generation.paths([1, 99]) == {1: [odd, Path("/music/1.mp3"), Path("/z.mp3")]}
        assert generation.recording_at(odd) == 1 and generation.recording_at("/none") is None
        assert generation.counts["instrumental"] == 1 and generation.counts["files"] == 5


def test_what_is_cut_short_is_said_by_the_published_model_alone(tmp_path: Path) -> None:
    other = PublishedModel("cd" * 32, "new", "2", WORDS.spaces)
    with Store(tmp_path) as store:
        store.commit(batch(1, 2))
        cut = [replace(analysis(2), truncated=True), analysis(1, model_id=other.model_id)]
        store.commit(Batch(analyses=cut))
        store.commit(Batch(analyses=[analysis(2, model_id=other.model_id)]))
        for model, expected in ((WORDS, [False, True]), (other, [False, False])):
            publish(store, tmp_path, model, SMALL)
            with current(tmp_path) as generation:
                info = generation.metadata([1, 2])
                assert [info[1].truncated, info[2].truncated] == expected


def test_the_arrays_hold_what_is_in_the_graphs(tmp_path: Path) -> None:
    for start in range(1, 60, 13):
        filled(tmp_path, *range(start, start + 13))
    with Store(tmp_path) as store:
        store.commit(Batch(missing=[Path("/music/5.mp3")]))
        publish(store, tmp_path, WORDS, SMALL)
    with current(tmp_path) as generation:
        paths = sorted(generation.folder.glob("*.usearch"))
        assert len(paths) >= 6 and generation.manifest.spaces[0].dead > 0
        for path in paths:
            graph = VectorIndex.open(path, dim=DIM)
            table = VectorTable.open(path.with_suffix(""), dim=DIM)
            assert np.array_equal(table.keys, graph.keys)
            assert np.array_equal(table.halves.astype(np.float32), graph.get(graph.keys))


def test_an_empty_library_answers_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound, match="livi-index build"):
        current(tmp_path)
    filled(tmp_path)
    with current(tmp_path) as generation:
        assert generation.search_segments(unit(2, 1), 5, "words").counts.tolist() == [0, 0]
        assert len(generation.segments_of(np.array([1]), "words")) == 0
        assert generation.metadata([1]) == {} and generation.counts["files"] == 0


def test_nothing_new_publishes_nothing(tmp_path: Path) -> None:
    assert filled(tmp_path, 1, 2) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with Store(tmp_path) as store:
        assert publish(store, tmp_path, WORDS, SMALL).fresh is False
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert filled(tmp_path, 3) == 2


def test_growing_step_by_step_answers_as_made_at_once(tmp_path: Path) -> None:
    for start in range(1, 60, 7):
        filled(tmp_path / "steps", *range(start, start + 7))
    with Store(tmp_path / "once") as store:
        for start in range(1, 60, 7):
            store.commit(batch(*range(start, start + 7)))
        publish(store, tmp_path / "once", WORDS, PublishOptions(threads=1))
    with current(tmp_path / "steps") as steps, current(tmp_path / "once") as once:
        assert answers(steps) == answers(once)
        assert np.array_equal(steps.segments("words"), once.segments("words"))
        graphs = [f.name for f in steps.manifest.files if f.name.endswith(".usearch")]
        assert sum(name.startswith("segments") for name in graphs) == 4
    assert generations(tmp_path / "steps") == [7, 8, 9]


def read_in(library: Path) -> dict[int, bytes]:
    """What a library says was read, by recording."""
    with current(library) as generation:
        ids = generation.recording_ids("words")
        transcripts = generation.transcripts_of(ids, "words")
        return {n: t.tobytes() for n, t in zip(ids.tolist(), transcripts, strict=True)}


def expected_of(*numbers: int, seed: int = 0) -> dict[int, bytes]:
    return {n: transcript(seed + n, 10 * n).tobytes() for n in numbers}


def publish_batch(library: Path, *batches: Batch) -> None:
    with Store(library) as store:
        for one in batches:
            store.commit(one)
        publish(store, library, WORDS, SMALL)


def test_what_was_read_is_found_by_recording(tmp_path: Path) -> None:
    publish_batch(tmp_path, read_batch(*range(20, 1, -3)), batch(7))
    assert read_in(tmp_path) == expected_of(2, 5, 8, 11, 14, 17, 20) | {7: b""}
    with current(tmp_path) as generation:
        found = generation.transcripts_of(np.array([17, 2, 7, 17]), "words")
        assert [len(each) for each in found] == [170, 20, 0, 170]
        assert found[1].tolist() == transcript(2, 20).tolist()
        assert generation.transcripts_of(np.zeros(0, np.int64), "words") == []
        for wrong in ([1], [2, 3], [999]):
            with pytest.raises(KeyError, match="not in this generation"):
                generation.transcripts_of(np.array(wrong), "words")


def test_a_library_whose_model_does_not_read_has_empty_transcripts(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2)
    assert read_in(tmp_path) == {1: b"", 2: b""}
    filled(tmp_path / "empty")
    assert read_in(tmp_path / "empty") == {}


def test_transcripts_grow_step_by_step(tmp_path: Path) -> None:
    for start in range(1, 30, 7):
        publish_batch(tmp_path, read_batch(*range(start, start + 7)))
        assert read_in(tmp_path) == expected_of(*range(1, start + 7))
    # What has gone takes its transcript along, and brings it back.
    publish_batch(tmp_path, Batch(missing=[Path("/music/4.mp3"), Path("/music/35.mp3")]))
    assert read_in(tmp_path) == expected_of(1, 2, 3, *range(5, 35))
    publish_batch(tmp_path, Batch(files=[file_row(4)]), read_batch(77))
    assert read_in(tmp_path) == expected_of(*range(1, 35), 77)


def test_a_new_analysis_answers_with_its_own_transcript(tmp_path: Path) -> None:
    publish_batch(tmp_path, read_batch(1, 2, 3))
    with current(tmp_path) as before:
        publish_batch(tmp_path, Batch(analyses=read_batch(2, seed=50).analyses))
        assert read_in(tmp_path) == expected_of(1, 3) | expected_of(2, seed=50)
        held = before.transcripts_of(np.array([2]), "words")[0]
        assert held.tobytes() == expected_of(2)[2]
    publish_batch(tmp_path, Batch(analyses=[analysis(3, 0), analysis(1)]))
    assert read_in(tmp_path) == {1: b""} | expected_of(2, seed=50)


def test_damaged_transcripts_are_found_before_they_are_searched(tmp_path: Path) -> None:
    publish_batch(tmp_path, read_batch(*range(1, 12)))
    path = tmp_path / "published" / "000001" / "transcripts.words.npy"
    status, content = path.stat(), bytearray(path.read_bytes())
    begin = len(content) - PHONE_DTYPE.itemsize * sum(10 * n for n in range(1, 12))
    assert begin > 100
    for at in (10, 100, begin, len(content) - 1):
        damaged = bytearray(content)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(LibraryDamaged, match=r"transcripts\.words\.npy is not what was publ"):
            current(tmp_path)
    path.unlink()
    with pytest.raises(LibraryDamaged, match=r"transcripts\.words\.npy is missing"):
        current(tmp_path)
    assert filled(tmp_path) == 2
    assert read_in(tmp_path) == expected_of(*range(1, 12))


def test_what_has_gone_is_not_found_and_comes_back(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 41))
    with current(tmp_path) as generation:
        whole = answers(generation)
    with Store(tmp_path) as store:
        store.commit(Batch(missing=[Path("/music/5.mp3"), Path("/music/6.mp3")]))
        publish(store, tmp_path, WORDS, SMALL)
        with current(tmp_path) as generation:
            assert generation.manifest.spaces[0].dead == 2 + 6
            found = generation.search_recordings(unit(3, 5), 40, "words")
            assert found.counts.tolist() == [38] * 3 and not {5, 6} & set(found.keys.ravel())
            segments = generation.search_segments(unit(3, 5), 200, "words")
            assert segments.counts.tolist() == [114] * 3
            assert not {5, 6} & set(generation.recordings_of(segments.keys[0], "words").tolist())
            assert generation.metadata([5]) == {}
        store.commit(Batch(files=[file_row(5), file_row(6)]))
        publish(store, tmp_path, WORDS, SMALL)
    with current(tmp_path) as generation:
        assert answers(generation) == whole and generation.manifest.spaces[0].dead == 0


def test_many_dead_are_left_out_of_a_new_index(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 41))
    with Store(tmp_path) as store:
        store.commit(Batch(missing=[Path(f"/music/{number}.mp3") for number in range(1, 9)]))
        publish(store, tmp_path, WORDS, SMALL)
    with current(tmp_path) as generation:
        assert generation.manifest.spaces[0].dead == 0
        assert len(generation.index_of_segments("words")) == 32 * 3


def test_a_new_analysis_answers_with_its_own_vectors(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 41))
    with Store(tmp_path) as store:
        store.commit(Batch(missing=[Path("/music/3.mp3")]))
        publish(store, tmp_path, WORDS, SMALL)
        store.commit(Batch(analyses=[analysis(3, 2, seed=500)]))
        publish(store, tmp_path, WORDS, SMALL)
        store.commit(Batch(files=[file_row(3)]))
        publish(store, tmp_path, WORDS, SMALL)
    vector = analysis(3, 2, seed=500).vector
    assert vector is not None
    with current(tmp_path) as generation:
        assert generation.search_recordings(vector[None], 1, "words").of(0)[0].score > 0.999
        assert len(generation.segments_of(np.array([3]), "words")) == 2


def test_a_restored_backup_is_not_mixed_with_what_came_after(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 21))
    shutil.copy(tmp_path / "library.duckdb", tmp_path / "backup")
    filled(tmp_path, *range(21, 31))
    shutil.copy(tmp_path / "backup", tmp_path / "library.duckdb")
    filled(tmp_path, *range(100, 110))
    with current(tmp_path) as generation:
        table = generation.segments_of(np.array([100]), "words")
        vectors = generation.segment_vectors(table["segment_id"], "words")
        assert np.allclose(vectors, unit(3, 100), atol=1e-3)
        assert generation.counts["recordings"] == 30


def test_another_model_takes_over_whole(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2, 3)
    other = PublishedModel("cd" * 32, "new", "2", (Space("words", DIM), Space("harmony", DIM)))
    with Store(tmp_path) as store:
        for space in ("words", "harmony"):
            new = [
                analysis(i, 2, seed=i + 50, model_id=other.model_id, space=space) for i in (1, 2)
            ]
            store.commit(Batch(analyses=new))
        publish(store, tmp_path, other, SMALL)
    with current(tmp_path) as generation:
        assert generation.manifest.model_id == other.model_id
        assert generation.spaces == ("words", "harmony")
        assert len(generation.segments("words")) == len(generation.segments("harmony")) == 4


def test_three_generations_are_kept_and_one_that_is_read(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    with current(tmp_path) as reader:
        expected = answers(reader)
        for number in range(2, 8):
            filled(tmp_path, number)
        assert generations(tmp_path) == [1, 5, 6, 7]
        assert answers(reader) == expected and set(reader.metadata([1, 2])) == {1}
    filled(tmp_path, 8)
    assert generations(tmp_path) == [6, 7, 8]
    assert not [path for path in (tmp_path / "published").iterdir() if path.name[0] == "."]


def test_files_are_compared_once(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    noted = (tmp_path / "verified.json").stat().st_mtime_ns
    current(tmp_path).close()
    assert (tmp_path / "verified.json").stat().st_mtime_ns == noted
    (tmp_path / "verified.json").write_text("{ nonsense")
    current(tmp_path).close()
    (tmp_path / "verified.json").unlink()
    (tmp_path / "verified.json").mkdir()  # cannot be written, as in a read-only library
    current(tmp_path).close()


def test_damage_is_found_even_where_the_times_are_put_back(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 9))
    path = next((tmp_path / "published").rglob("segments.words.00.usearch"))
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(LibraryDamaged, match=r"segments\.words\.00\.usearch is not what"):
        current(tmp_path)


def test_what_another_edition_published_is_told_apart_and_made_anew(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 9))
    with current(tmp_path) as generation:
        expected = answers(generation)
    manifest = tmp_path / "published" / "000001" / "manifest.json"
    for other in (FORMAT - 1, FORMAT + 1, "x"):
        values = json.loads(manifest.read_text()) | {"format": other}
        manifest.write_text(json.dumps(values))
        name_current(tmp_path, 1, hashlib.sha256(manifest.read_bytes()).hexdigest())
        with pytest.raises(LibraryDamaged, match=r"another version.*`livi-index build` publishes"):
            current(tmp_path)
    assert filled(tmp_path) == 2
    with current(tmp_path) as generation:
        assert answers(generation) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
@pytest.mark.parametrize("name", ["CURRENT", "published/000001/manifest.json"])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    filled(tmp_path, *range(1, 9))
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/proc/self/mem")  # whose first page cannot be read
    with pytest.raises(LibraryDamaged, match=r"cannot be read \(Input/output error\)"):
        current(tmp_path)
    (tmp_path / name).unlink()
    assert filled(tmp_path) == 2


def damage(path: Path, kind: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if kind == "delete":
        return path.unlink()
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[at:]
    elif kind == "zero":
        content[: len(content) // 2] = bytes(len(content) // 2)
    path.write_bytes(content)
    return None


@pytest.mark.parametrize("kind", ["flip", "truncate", "zero", "delete"])
def test_every_damage_is_found_named_and_repaired(tmp_path: Path, kind: str) -> None:
    library, rng = tmp_path / "library", random.Random(kind)
    filled(library, *range(1, 41))
    with current(library) as generation:
        expected = answers(generation)
    folder = library / "published" / "000001"
    names = [*(path.name for path in folder.iterdir()), "../../CURRENT"]
    assert len(names) >= 12
    saved = tmp_path / "saved"
    shutil.copytree(library, saved)
    for name in names * (6 if kind == "flip" else 2):
        shutil.rmtree(library)
        shutil.copytree(saved, library)
        damage(folder / name, kind, rng)
        with pytest.raises(LibraryDamaged, match="livi-index build") as told:
            current(library)
        # A flip in CURRENT can show as another manifest, or as a generation that is not there.
        assert Path(name).name in str(told.value) or name == "../../CURRENT"
    filled(library)
    with current(library) as generation:
        assert generation.id == 2 and answers(generation) == expected


def test_damage_that_leaves_no_trace_is_not_taken_over(tmp_path: Path) -> None:
    """A disk that forgets changes no time: who links or loads such a file would sign it anew."""
    for name in ("segments.words.00.vectors.npy", "segments.words.02.usearch"):
        library = tmp_path / name
        filled(library, *range(1, 41))
        with current(library) as generation:
            path = generation.folder / name
            content = bytearray(path.read_bytes())
            content[-9] ^= 1
            path.write_bytes(content)
            remember(library, generation.folder, generation.manifest)
        current(library).close()  # not seen: that is what was remembered
        assert filled(library, 41) == 2
        filled(tmp_path / "sound" / name, *range(1, 42))
        with current(library) as mended, current(tmp_path / "sound" / name) as sound:
            assert answers(mended) == answers(sound)
            rows = mended.segments("words")["segment_id"]
            vectors = (g.segment_vectors(rows, "words") for g in (mended, sound))
            assert np.array_equal(*vectors)


def test_all_is_read_again_once_a_week(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 41))
    with current(tmp_path) as generation, Store(tmp_path) as store:
        path = generation.folder / "segments.words.01.vectors.npy"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        remember(tmp_path, generation.folder, generation.manifest)
        assert publish(store, tmp_path, WORDS, SMALL) == Publication(1, fresh=False)
        week = time.time() - 8 * 86400
        os.utime(tmp_path / "verified.json", (week, week))
        found = publish(store, tmp_path, WORDS, SMALL)
        assert (found.generation, found.fresh) == (2, True) and path.name in found.damage
        os.utime(tmp_path / "verified.json", (week, week))
        assert publish(store, tmp_path, WORDS, SMALL) == Publication(2, fresh=False)
        assert (tmp_path / "verified.json").stat().st_mtime > week + 86400


KILLED = """
    import random
    from test_generations import SMALL, WORDS
    from test_store import batch
    from livi_index.generations import current
    from livi_index.publishing import publish
    from livi_index.store import Store
    with Store(sys.argv[1]) as store:
        number = max(store.recording_ids(), default=0)
        while True:
            store.commit(batch(*range(number + 1, number + 6)))
            number += 5
            publish(store, sys.argv[1], WORDS, SMALL)
            print(number, flush=True)
"""


def start(script: str, library: Path) -> subprocess.Popen[str]:
    prelude = f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(script), str(library)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killed_while_publishing_the_old_or_the_new_answers(tmp_path: Path) -> None:
    rng, published = random.Random(3), 0
    for _ in range(10):
        publisher = start(KILLED, tmp_path)
        assert publisher.stdout is not None
        first = publisher.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        publisher.kill()
        rest = publisher.communicate()[0]
        published = max(map(int, (first + rest).split()))
        with current(tmp_path, recheck=True) as generation:
            ids = generation.recording_ids("words").tolist()
            assert published <= len(ids) <= published + 5 and ids == list(range(1, len(ids) + 1))
            assert generation.counts["recordings"] == len(ids)
            vectors = generation.recording_vectors(np.array(ids), "words")
            assert (generation.search_recordings(vectors, 1, "words").keys[:, 0] == ids).all()
    filled(tmp_path, 10_000)
    names = {path.name for path in (tmp_path / "published").iterdir()}
    assert len(names) == 3 and all(name.isdigit() for name in names)
    assert not list(tmp_path.rglob("*.draft"))


def test_readers_see_one_generation_while_others_are_published(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 6))
    publisher = start(KILLED, tmp_path)
    problems: list[str] = []
    stop = threading.Event()
    n_read = 0

    def read() -> None:
        nonlocal n_read
        while not stop.is_set():
            with current(tmp_path) as generation:
                n = len(generation.recording_ids("words"))
                found = generation.search_recordings(unit(1, 9), 10_000, "words")
                if (
                    not n
                    == found.counts[0]
                    == generation.counts["recordings"]
                    == len(generation.metadata(found.keys[0].tolist()))
                ):
                    problems.append(f"generation {generation.id} mixes states")
            n_read += 1

    reader = threading.Thread(target=read)
    reader.start()
    assert publisher.stdout is not None
    for _ in range(20):
        publisher.stdout.readline()
    publisher.kill(), publisher.communicate()
    stop.set(), reader.join()
    assert not problems and n_read > 20
    with current(tmp_path) as generation:
        assert generation.id >= 20


def test_a_full_disk_leaves_the_old_generation(tmp_path: Path) -> None:
    filled(tmp_path, *range(1, 6))
    with Store(tmp_path) as store:
        store.commit(batch(*range(6, 400)))
    run_python(
        """
        import resource, signal
        from test_generations import SMALL, WORDS, PublishOptions
        from livi_index.errors import LibraryNotWritable
        from livi_index.publishing import publish
        from livi_index.store import Store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (0, 1000, 20_000, 40_000, 60_000, 100_000):
            with Store(sys.argv[1]) as store:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    publish(store, sys.argv[1], WORDS, PublishOptions(threads=1))
                except LibraryNotWritable as error:
                    assert sys.argv[1] in str(error), error
                else: sys.exit(f"published within {limit} bytes")
        """,
        str(tmp_path),
    )
    with current(tmp_path, recheck=True) as generation:
        assert generation.id == 1 and len(generation.recording_ids("words")) == 5
    assert [path.name for path in (tmp_path / "published").iterdir()] == ["000001"]
    assert filled(tmp_path) == 2
    with current(tmp_path) as generation:
        assert len(generation.recording_ids("words")) == 399


def test_unreadable_files_are_counted_and_do_not_answer(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.commit(batch(1))
        bad = Path("/music/bad.mp3")
        store.commit(Batch(files=[FileRow(bad, bad.parent, 1, 2, 3, 4, None)]))
        publish(store, tmp_path, WORDS, SMALL)
    with current(tmp_path) as generation:
        assert generation.counts["files"] == 1 and generation.recording_at(bad) is None
