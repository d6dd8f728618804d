"""Real usearch files: what is written can be read, found and trusted, or is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from livi_index.errors import LibraryDamaged
from livi_index.vectors import (
    EXPANSION_ADD,
    EXPANSION_SEARCH,
    Match,
    VectorIndex,
    merge,
    products,
    saved_file,
)

DIM = 32


def unit(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def keys(first: int, n: int) -> np.ndarray:
    return np.arange(first, first + n, dtype=np.int64)


def exact_top(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    halves = vectors.astype(np.float16).astype(np.float32)
    return np.argsort(-(queries @ halves.T), axis=1, kind="stable")[:, :k]


def test_search_is_the_brute_force_answer() -> None:
    vectors, index = unit(500), VectorIndex(DIM)
    index.add(keys(1, 500), vectors)
    queries = unit(7, seed=1)
    found = index.search(queries, 10)
    assert np.array_equal(found.keys - 1, exact_top(vectors, queries, 10))
    expected = np.take_along_axis(queries @ vectors.T, found.keys - 1, axis=1)
    assert np.allclose(found.scores, expected, atol=2e-3)
    assert found.counts.tolist() == [10] * 7


def test_one_query_is_answered_as_in_a_batch() -> None:
    index = VectorIndex(DIM)
    index.add(keys(1, 300), unit(300))
    queries = unit(5, seed=2)
    together = index.search(queries, 4)
    for number, query in enumerate(queries):
        assert index.search(query[None], 4).of(0) == together.of(number)


def test_graph_search_finds_what_is_there() -> None:
    vectors, index = unit(3000), VectorIndex(DIM)
    index.add(keys(1, 3000), vectors)
    found = index.search(vectors[:200], 1, exact=False)
    assert (found.keys[:, 0] == keys(1, 200)).mean() > 0.98


def test_fewer_than_asked_are_counted_not_padded() -> None:
    index = VectorIndex(DIM)
    index.add(keys(7, 3), unit(3))
    for queries in (unit(1), unit(4)):
        found = index.search(queries, 10)
        assert found.counts.tolist() == [3] * len(queries)
        assert {match.key for match in found.of(0)} == {7, 8, 9}


@pytest.mark.parametrize(("n_left", "n_right"), [(0, 5), (1, 700), (3, 0), (11, 2200), (200, 200)])
@pytest.mark.parametrize("dim", [3, 512, 1 << 19])
def test_products_are_those_of_the_whole(n_left: int, n_right: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    if dim * (n_left + n_right) > 1 << 24:
        n_left, n_right = min(n_left, 3), min(n_right, 5)
    left, right = (rng.random((n, dim)).astype(np.float32) for n in (n_left, n_right))
    assert np.allclose(products(left, right), left @ right.T, rtol=1e-4)


def test_empty_index_and_no_queries() -> None:
    index = VectorIndex(DIM)
    assert index.search(unit(2), 5).counts.tolist() == [0, 0]
    assert index.search(unit(2), 5).of(1) == []
    assert index.keys.tolist() == [] and index.get(keys(1, 0)).shape == (0, DIM)
    index.add(keys(1, 2), unit(2))
    assert index.search(np.zeros((0, DIM), np.float32), 5).keys.shape[0] == 0


def test_equal_vectors_come_in_the_order_of_their_keys() -> None:
    index, vector = VectorIndex(DIM), unit(1)
    order = np.array([30, 10, 20], np.int64)
    index.add(order, np.repeat(vector, 3, axis=0))
    found = index.search(vector, 3).of(0)
    assert [match.key for match in found] == [10, 20, 30]
    assert found[0] == Match(10, pytest.approx(1, abs=1e-3))


@pytest.mark.parametrize(
    ("new_keys", "vectors"),
    [
        (keys(1, 2), unit(2) * 1.01),
        (keys(1, 2), np.zeros((2, DIM), np.float32)),
        (keys(1, 1), np.full((1, DIM), np.nan, np.float32)),
        (np.array([4, 4]), unit(2)),
        (np.array([0, 1]), unit(2)),
        (np.array([-1, 1]), unit(2)),
        (np.array([100, 101]), unit(2)),
        (keys(1, 3), unit(2)),
        (keys(1, 2), unit(2)[:, :-1]),
    ],
)
def test_a_bad_batch_is_refused_whole(new_keys: np.ndarray, vectors: np.ndarray) -> None:
    index = VectorIndex(DIM)
    index.add(keys(100, 1), unit(1, seed=9))
    with pytest.raises(ValueError, match=r"vectors|keys"):
        index.add(new_keys, vectors)
    assert index.keys.tolist() == [100]


def test_get_returns_what_was_put_in_half_precision() -> None:
    vectors, index = unit(50), VectorIndex(DIM)
    index.add(keys(1, 50), vectors)
    wanted = np.array([50, 1, 17], np.int64)
    expected = vectors[wanted - 1].astype(np.float16).astype(np.float32)
    assert np.array_equal(index.get(wanted), expected)
    with pytest.raises(KeyError, match="1 keys"):
        index.get(np.array([1, 51]))


@pytest.mark.parametrize("view", [True, False])
def test_saved_and_opened_is_the_same(tmp_path: Path, view: bool) -> None:
    index, queries = VectorIndex(DIM), unit(3, seed=5)
    index.add(keys(1, 200), unit(200))
    file = index.save(tmp_path / "a.usearch")
    assert file == saved_file(tmp_path / "a.usearch")
    assert [path.name for path in tmp_path.iterdir()] == ["a.usearch"]
    again = VectorIndex.open(tmp_path / "a.usearch", dim=DIM, view=view)
    assert again.expansion_search == EXPANSION_SEARCH
    assert again._index.expansion_add == EXPANSION_ADD
    assert np.array_equal(again.search(queries, 9).keys, index.search(queries, 9).keys)
    assert np.array_equal(again.keys, index.keys)


def test_one_thread_writes_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        index = VectorIndex(DIM)
        index.add(keys(1, 500), unit(500), threads=1)
        files.append(index.save(tmp_path / name))
    assert files[0].sha256 == files[1].sha256


def test_what_is_no_index_of_this_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.usearch"
    with pytest.raises(LibraryDamaged, match="is missing"):
        VectorIndex.open(path, dim=DIM)
    path.write_text("this is text, and quite a lot of it " * 40)
    with pytest.raises(LibraryDamaged, match=r"a\.usearch"):
        VectorIndex.open(path, dim=DIM)
    VectorIndex(DIM).save(path)
    assert len(VectorIndex.open(path, dim=DIM)) == 0
    with pytest.raises(LibraryDamaged, match="another kind"):
        VectorIndex.open(path, dim=DIM * 2)
    index = VectorIndex(DIM)
    index.add(keys(1, 100), unit(100))
    index.save(path)
    for size in (0, 10, 1000, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(LibraryDamaged, match=r"a\.usearch"):
            VectorIndex.open(path, dim=DIM)
        index.save(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on file sizes stands for a full disk; it hits anywhere, also the last flush."""
    path = tmp_path / "a.usearch"
    index = VectorIndex(DIM)
    index.add(keys(1, 20), unit(20))
    old = index.save(path)
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_vectors import DIM, keys, unit
        from livi_index.errors import LibraryNotWritable
        from livi_index.vectors import VectorIndex
        index = VectorIndex(DIM)
        index.add(keys(1, 2000), unit(2000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        whole = index._index.serialized_length
        for limit in (1, 100, 5000, whole // 2, whole - 4000, whole - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                index.save(Path({str(path)!r}))
            except LibraryNotWritable as error:
                assert "a.usearch" in str(error)
            else:
                sys.exit(f"saved within {{limit}} bytes")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert saved_file(path) == old
    assert [found.name for found in tmp_path.iterdir()] == ["a.usearch"]


def test_merged_answers_keep_order_and_counts() -> None:
    left, right = VectorIndex(DIM), VectorIndex(DIM)
    left.add(keys(1, 2), unit(2))
    right.add(keys(3, 1), unit(1, seed=8))
    found = merge([left.search(unit(2), 5), right.search(unit(2), 5)], 2)
    assert found.counts.tolist() == [2, 2] and found.keys[:, 0].tolist() == [1, 2]
