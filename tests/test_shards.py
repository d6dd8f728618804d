"""Vector files in a row: they answer as one, hand out what was put in, and are whole or refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from test_vectors import DIM, keys, unit

from livi_index.errors import LibraryDamaged
from livi_index.shards import ShardedIndex, room, widened
from livi_index.vectors import SavedFile, VectorIndex, saved_file


def graphs(folder: Path, files: list[SavedFile]) -> list[Path]:
    return [folder / file.name for file in files if file.name.endswith(".usearch")]


@pytest.mark.parametrize("n", [0, 1, 24, 25, 26, 101])
def test_shards_answer_as_one_index(tmp_path: Path, n: int) -> None:
    whole, parts = VectorIndex(DIM), ShardedIndex(DIM, shard_size=25)
    vectors, queries = unit(n), unit(6, seed=3)
    whole.add(keys(1, n), vectors)
    for start in range(0, n, 40):
        parts.add(keys(1, n)[start : start + 40], vectors[start : start + 40])
    files = parts.save(tmp_path, "segments")
    assert [file.name for file in files[:3]] == [
        "segments.00.usearch", "segments.00.keys.npy", "segments.00.vectors.npy"
    ]  # fmt: skip
    assert files == [saved_file(tmp_path / file.name) for file in files]
    paths = graphs(tmp_path, files)
    assert len(paths) == max(1, -(-n // 25))
    for index in (parts, ShardedIndex.open(paths, dim=DIM, shard_size=25)):
        assert len(index) == n and np.array_equal(index.keys, whole.keys)
        found, expected = index.search(queries, 12), whole.search(queries, 12)
        assert [found.of(i) for i in range(6)] == [expected.of(i) for i in range(6)]
        assert np.array_equal(index.get(keys(1, n)[::-1]), whole.get(keys(1, n)[::-1]))
        assert index.get(keys(1, 0)).shape == (0, DIM)
        with pytest.raises(KeyError):
            index.get(np.array([n + 1]))


def test_keys_in_any_order_keep_their_vectors(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(keys(1, 60) << 40)
    index = ShardedIndex(DIM, shard_size=25)
    index.add(numbers[:40], unit(60)[:40], threads=2)
    paths = graphs(tmp_path, index.save(tmp_path, "a"))
    grown = ShardedIndex.open(paths, dim=DIM, shard_size=25)
    grown.add(numbers[40:], unit(60)[40:], threads=2)
    paths = graphs(tmp_path, grown.save(tmp_path, "b"))
    expected = unit(60).astype(np.float16).astype(np.float32)
    for stored in (grown, ShardedIndex.open(paths, dim=DIM)):
        assert np.array_equal(stored.get(numbers), expected)
        assert np.array_equal(stored.get(numbers[[7, 7, 50]]), expected[[7, 7, 50]])


def test_only_the_last_shard_is_written_again(tmp_path: Path) -> None:
    before, after = tmp_path / "1", tmp_path / "2"
    before.mkdir(), after.mkdir()
    index = ShardedIndex(DIM, shard_size=10)
    index.add(keys(1, 25), unit(25))
    old = index.save(before, "s")
    index = ShardedIndex.open(graphs(before, old), dim=DIM, shard_size=10)
    with pytest.raises(ValueError, match="new to the index"):
        index.add(np.array([3]), unit(1))
    index.add(keys(26, 10), unit(10, seed=4))
    new = index.save(after, "s")
    assert [file.sha256 for file in new[:6]] == [file.sha256 for file in old[:6]]
    assert all((before / file.name).samefile(after / file.name) for file in old[:6])
    assert len(new) == 12 and [saved_file(before / file.name) for file in old[6:]] == old[6:]
    assert np.array_equal(index.keys, keys(1, 35))


def test_files_grow_with_the_whole() -> None:
    """Few files however many vectors there are, and little in the one that is written again."""
    total, sizes = 0, []
    while total < 100_000_000:
        sizes.append(room(total))
        assert sizes[-1] <= max(250_000, total / 8)
        total += sizes[-1]
    assert sizes[:8] == [250_000] * 8 and max(sizes) == 5_000_000 and len(sizes) < 50
    assert room(total, 25) == 25


def test_what_is_known_of_a_file_is_not_read_again(tmp_path: Path) -> None:
    before, after = tmp_path / "1", tmp_path / "2"
    before.mkdir(), after.mkdir()
    index = ShardedIndex(DIM)
    index.add(keys(1, 25), unit(25))
    old = index.save(before, "s")
    told = [SavedFile(file.name, "as was told", 7) for file in old]
    again = ShardedIndex.open(graphs(before, old), dim=DIM, known=told).save(after, "t")
    assert [file.name for file in again] == [f.name.replace("s.", "t.", 1) for f in old]
    assert {(file.sha256, file.size) for file in again} == {("as was told", 7)}


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    index = ShardedIndex(DIM)
    index.add(keys(1, 50), unit(50))
    (path,) = graphs(tmp_path, index.save(tmp_path, "a"))
    for name in ("a.00.keys.npy", "a.00.vectors.npy"):
        content = (tmp_path / name).read_bytes()
        for bad in (b"", b"text " * 500, content[:-1]):
            (tmp_path / name).write_bytes(bad)
            with pytest.raises(LibraryDamaged, match=name):
                ShardedIndex.open([path], dim=DIM)
        np.save(tmp_path / name, np.zeros(50))
        with pytest.raises(LibraryDamaged, match="another kind"):
            ShardedIndex.open([path], dim=DIM)
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "a.00.keys.npy", keys(1, 49))
    with pytest.raises(LibraryDamaged, match="49 keys"):
        ShardedIndex.open([path], dim=DIM)
    (tmp_path / "a.00.keys.npy").unlink()
    with pytest.raises(LibraryDamaged, match="cannot be read"):
        ShardedIndex.open([path], dim=DIM)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The limit on file sizes stands for a full disk, for each of the files in turn."""
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_vectors import DIM, keys, unit
        from livi_index.errors import LibraryNotWritable
        from livi_index.shards import write_table
        from livi_index.vectors import VectorIndex
        index = VectorIndex(DIM)
        index.add(keys(1, 2000), unit(2000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (1, 5000, 16_000, 17_000, 60_000, 2000 * DIM * 2 + 127):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                write_table(index, Path({str(tmp_path)!r}) / "a.00")
            except LibraryNotWritable as error:
                assert "a.00" in str(error)
            else:
                sys.exit(f"saved within {{limit}} bytes")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_widened_is_exact_for_every_finite_number() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 2)
    wide = widened(halves)
    assert np.array_equal(wide, halves.astype(np.float32))
    assert np.array_equal(np.signbit(wide), np.signbit(halves))
    assert widened(halves[:0]).shape == (0, 2)
