"""Evaluation of libraries and of files of vectors, against metrics computed by hand."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_cli import livi
from test_library import BUNDLE, analysis, file_row, made, near, published, sung, unit

from benchmarks.metrics import made as made_vectors
from benchmarks.metrics import published_way
from livi_index.errors import BadInput, LibraryNotFound
from livi_index.evaluation import Evaluation, evaluate_at, read_vectors
from livi_index.keeping import keep_bundle
from livi_index.library import open_library
from livi_index.metrics import Scores, evaluate, rank_vectors, summarise
from livi_index.records import Batch, Failure, Recording
from livi_index.scan import format_id

WORKS = list("aaabbccd")


def write_list(path: Path, *rows: tuple[object, ...], head: str = "path,work") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


def vectors_of_works(works: list[str], dim: int = 12, noise: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = {work: rng.normal(size=dim) for work in sorted(set(works))}
    rows = [centres[work] + noise * rng.normal(size=dim) for work in works]
    return np.array(rows, np.float32)


def same(found: Scores, expected: Scores) -> None:
    for part in ("answerable", "published", "low", "high"):
        for name, value in vars(getattr(expected, part)).items():
            assert getattr(getattr(found, part), name) == pytest.approx(value, rel=1e-12)


def missing(
    unknown: int = 0, unreadable: int = 0, no_singing: int = 0, two_works: int = 0
) -> dict[str, int]:
    return {
        "unknown": unknown, "unreadable": unreadable, "no_singing": no_singing,
        "two_works": two_works,
    }  # fmt: skip


# files of vectors


def test_vectors_by_id_whatever_their_length_and_order(tmp_path: Path) -> None:
    vectors = vectors_of_works(WORKS)
    ids = [f"song {n}" for n in range(8)]
    unit_vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = evaluate(unit_vectors, WORKS, ids=ids)
    order = np.random.default_rng(0).permutation(8)
    lengths = np.linspace(0.1, 40, 8)[:, None]
    file = tmp_path / "vectors.npz"
    np.savez(file, ids=np.array(ids)[order], vectors=(vectors * lengths)[order])
    works = write_list(tmp_path / "w.csv", *zip(ids, WORKS, strict=True), head="id,work")
    found = evaluate_at(file, works)
    same(found.scores, expected)
    assert (found.listed, found.works, found.unlisted, found.model) == (8, 4, 0, None)
    assert found.scores.n_answerable == 7 and found.scores.coverage == 1


def test_what_is_not_listed_or_not_there_is_counted(tmp_path: Path) -> None:
    vectors = vectors_of_works(WORKS)
    np.savez(tmp_path / "v.npz", ids=np.arange(8), vectors=vectors)
    rows = [(n, WORKS[n]) for n in (0, 1, 3, 4, 5, 5)]
    rows += [("6", "c"), (6, "another"), (77, "a"), (78, "e"), (78, "e")]
    works = write_list(tmp_path / "w.csv", *rows, head="id,work")
    found = evaluate_at(tmp_path / "v.npz", works)
    # Two that are not there, one that belongs to two works; 2 and 7 are not in the list.
    assert found.missing == missing(unknown=2, two_works=1)
    assert (found.listed, found.unlisted, found.works) == (8, 2, 3)
    assert (found.scores.n_items, found.scores.n_missing, found.scores.n_answerable) == (5, 3, 4)
    assert found.scores.coverage == 5 / 8
    kept = vectors[[0, 1, 3, 4, 5]]
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    same(found.scores, evaluate(kept, list("aabbc"), ids=[*"01345"], n_missing=3))
    told = json.loads(json.dumps(found.to_json()))
    assert told["schema"] == 1 and told["scores"]["coverage"] == 5 / 8
    assert told["scores"]["published"]["hr1"] == found.scores.published.hr1


def test_vectors_may_be_named_by_paths_as_written(tmp_path: Path) -> None:
    names = ["a/1.mp3", "a/2.mp3", "b.mp3"]
    np.savez(tmp_path / "v.npz", ids=names, vectors=np.eye(3))
    works = write_list(tmp_path / "w.csv", *zip(names, "xxy", strict=True))
    assert evaluate_at(tmp_path / "v.npz", works).scores.n_answerable == 2


def test_an_archive_of_one_array_a_recording(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {"one": rng.normal(size=4), "two": rng.normal(size=(3, 4))}
    np.savez(tmp_path / "v.npz", **arrays)
    names, vectors = read_vectors(tmp_path / "v.npz")
    assert names == ["one", "two"] and vectors.dtype == np.float32
    segments = arrays["two"] / np.linalg.norm(arrays["two"], axis=1, keepdims=True)
    mean = segments.mean(axis=0)
    np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": [1, 2], "vectors": [[1.0, 0], [0, 0]]}, "vector of 2 is zero or not finite"),
        ({"ids": [1, 2], "vectors": [[1.0, 0], [np.nan, 1]]}, "vector of 2 is zero or not finite"),
        ({"ids": ["a", "a"], "vectors": [[1.0, 0], [0, 1]]}, "a stands for 2 vectors"),
        ({"ids": [1], "vectors": [[1.0, 0], [0, 1]]}, "1 ids do not go with .* (2, 2)"),
        ({"ids": [1, 2], "vectors": [[1, 0], [0, 1]]}, "type int64"),
        ({"a": [1.0, 2], "b": [1.0, 2, 3]}, "all of one dim"),
        ({"a": [[[1.0]]]}, "no file of vectors"),
        ({}, "no file of vectors"),
    ],
)
def test_archives_that_do_not_fit(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "v.npz", **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(BadInput, match=re.escape(message).replace(r"\.\*", ".*")):
        read_vectors(tmp_path / "v.npz")


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    (tmp_path / "v.npz").write_bytes(b"PK no archive at all")
    np.save(tmp_path / "one.npy", np.ones((2, 2)))
    np.savez(tmp_path / "objects.npz", ids=np.array([{}, {}], object), vectors=np.ones((2, 2)))
    for name in ("v.npz", "one.npy", "objects.npz"):
        with pytest.raises(BadInput, match=r"cannot be read as a NumPy archive"):
            read_vectors(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,group\na,b\n", "must name the columns work and path (or id), it names group, path"),
        ("work\nb\n", "must name the columns work and path"),
        ("", "it names nothing"),
        ("id,work\n1,a\n2,\n", "row 2 below the first line has no work"),
        ("id,work\n1\n", "row 1 below the first line has no work"),
        ("id,work\n1,a\n2,b\n", "names no work with two recordings"),
        ("id,work\n1,a\n9,a\n", "of no work in .* are two recordings here: 1 of 2"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    np.savez(tmp_path / "v.npz", ids=[1, 2], vectors=np.eye(2))
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(BadInput, match=re.escape(message).replace(r"\.\*", ".*")):
        evaluate_at(tmp_path / "v.npz", tmp_path / "w.csv")


def test_what_is_not_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=[1, 2], vectors=np.eye(2))
    works = write_list(tmp_path / "w.csv", (1, "a"), (2, "a"), head="id,work")
    with pytest.raises(BadInput, match=r"none.csv cannot be read as a list"):
        evaluate_at(tmp_path / "v.npz", tmp_path / "none.csv")
    with pytest.raises(LibraryNotFound, match="no library at"):
        evaluate_at(tmp_path / "none", works)
    with pytest.raises(BadInput, match="holds vectors only"):
        evaluate_at(tmp_path / "v.npz", works, "query")


def test_the_published_evaluator_counts_the_same() -> None:
    vectors, works = made_vectors(300, 24)
    works[[5, 17]] = [9001, 9002]  # two without a version
    names = [f"recording-{n:03}" for n in range(300)]
    theirs = published_way(vectors, [str(work) for work in works], names)
    ours = evaluate(vectors, works, ids=names)
    assert 0 < ours.published.hr1 < 1 and ours.n_answerable < 300
    for name, value in theirs.items():
        assert getattr(ours.published, name) == pytest.approx(value, abs=1e-12)


# libraries


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Works a (1, 2, 3), b (4, 5) and others (6 to 30); 41 is instrumental, x.mp3 unreadable."""
    folder = tmp_path_factory.mktemp("evaluated")
    a, b = unit(6, 1), unit(6, 2)
    songs = {n: sung(near(a, n, 0.7)) for n in (1, 2, 3)}
    songs |= {n: sung(near(b, n, 0.7)) for n in (4, 5)}
    songs |= {n: sung(unit(6, n)) for n in range(6, 31)}
    with made(folder, songs, file_row(1, "/else/where/1.mp3")):
        pass
    batch = Batch(
        files=[file_row(41, "/music/41.mp3")],
        recordings=[Recording(41, (41).to_bytes(32, "big"), 60.0)],
        analyses=[analysis(41, sung(np.zeros((0, unit(1, 0).shape[1]), np.float32)), 0.1)],
        failures=[Failure(Path("/music/x.mp3"), "undecodable", "no sound in it")],
    )
    published(folder, batch)
    keep_bundle(folder, BUNDLE)
    return folder


def music(*numbers: int) -> list[tuple[str, str]]:
    return [
        (f"/music/{n}.mp3", {1: "a", 2: "a", 3: "a", 4: "b", 5: "b"}.get(n, f"w{n}"))
        for n in numbers
    ]


def test_a_library_by_path(library: Path, tmp_path: Path) -> None:
    rows = [*music(*range(1, 21)), ("/else/where/1.mp3", "a"), ("/music/none.mp3", "a")]
    rows += [("/music/41.mp3", "b"), ("/music/x.mp3", "b"), ("/music/21.mp3", "c")]
    rows += [("/music/21.mp3", "d")]
    found = evaluate_at(library, write_list(tmp_path / "w.csv", *rows))
    assert found.missing == missing(1, 1, 1, 1)
    assert (found.listed, found.scores.n_items, found.unlisted) == (24, 20, 9)
    assert (found.model, found.generation, found.ranking) == ("tiny", 2, "tracks")
    assert found.scores.n_answerable == 5 and found.scores.coverage == 20 / 24
    with open_library(library) as opened:
        ids = np.arange(1, 21)
        vectors = opened.generation.recording_vectors(ids, "lyrics")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    works = [work for _, work in music(*range(1, 21))]
    results = rank_vectors(vectors, works, ids, vectors, works, ids)
    same(found.scores, summarise(results, n_items=20, n_missing=4))


def test_relative_paths_count_from_the_list(library: Path) -> None:
    place = library / "lists"
    place.mkdir()
    up = "../" * (len(place.resolve().parts) - 1)
    rows = [(up + path[1:], work) for path, work in music(1, 2, 4)]
    found = evaluate_at(library, write_list(place / "w.csv", *rows))
    assert (found.scores.n_items, found.scores.n_answerable) == (3, 2)


def test_a_library_by_id(library: Path, tmp_path: Path) -> None:
    rows = [(format_id(n), work) for n, (_, work) in enumerate(music(*range(1, 21)), 1)]
    rows += [(format_id(41), "b"), (format_id(999), "b")]
    found = evaluate_at(library, write_list(tmp_path / "w.csv", *rows, head="id,work"))
    assert found.missing == missing(unknown=1, no_singing=1)
    by_path = evaluate_at(library, write_list(tmp_path / "p.csv", *music(*range(1, 21))))
    same(found.scores, by_path.scores)
    works = write_list(tmp_path / "bad.csv", ("song one", "a"), head="id,work")
    with pytest.raises(BadInput, match=r"'song one' is not a recording id.*by their path"):
        evaluate_at(library, works)


def test_the_ranking_of_queries(library: Path, tmp_path: Path) -> None:
    numbers = range(1, 21)
    works = write_list(tmp_path / "w.csv", *music(*numbers))
    found: Evaluation = evaluate_at(library, works, "query")
    assert found.ranking == "query"
    first = []
    with open_library(library) as opened:
        for number in range(1, 6):
            hits = opened.rank(opened.stored(number), k=100, without=(number, *range(21, 31)))
            ids = [int(hit.recording_id, 16) for hit in hits]
            versions = {1, 2, 3} if number < 4 else {4, 5}
            first.append(1 + next(n for n, other in enumerate(ids) if other in versions))
    assert found.scores.answerable.mr1_mean == np.mean(first)
    assert found.scores.answerable.hr1 == np.mean(np.array(first) == 1)


# the command


def test_eval_for_people(library: Path, tmp_path: Path) -> None:
    rows = [*music(*range(1, 21)), ("/music/41.mp3", "b"), ("/music/none.mp3", "a")]
    works = write_list(tmp_path / "w.csv", *rows)
    told = livi("eval", library, "--works", works).stdout
    assert re.search(r"tiny, generation 2; ranked by cosine of whole tracks", told)
    assert re.search(r"w.csv: 22 recordings\n +20  took part, of 17 works \(coverage 0.909\)", told)
    assert re.search(r" 1  without singing", told) and re.search(r" 1  not here", told)
    assert re.search(r"10  more here that the list does not name", told)
    assert re.search(r" 5  can be answered", told)
    rows = dict(re.findall(r"^(MR1 mean|HR@1|NAR) +([\d.]+)", told, flags=re.MULTILINE))
    told = livi("eval", library, "--works", works, "--json").stdout
    scores = json.loads(told)["scores"]
    assert float(rows["HR@1"]) == pytest.approx(scores["answerable"]["hr1"], abs=1e-3)
    assert float(rows["NAR"]) == pytest.approx(scores["answerable"]["nar"], abs=1e-2)
    told = livi("eval", "--works", works, "--ranking", "query", LIVI_LIBRARY=str(library)).stdout
    assert "as `livi-index query` ranks" in told


def test_eval_of_vectors_and_what_goes_wrong(library: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.arange(8), vectors=vectors_of_works(WORKS))
    works = write_list(tmp_path / "w.csv", *enumerate(WORKS), head="id,work")
    told = json.loads(livi("eval", tmp_path / "v.npz", "--works", works, "--json").stdout)
    assert (told["model"], told["scores"]["n_answerable"]) == (None, 7)
    for source, wrong in ((tmp_path / "none", works), (library, works), (library, "none.csv")):
        done = livi("eval", source, "--works", wrong, ok=False)
        assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert livi("eval", library, ok=False).returncode == 2
