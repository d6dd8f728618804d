"""Questions to real libraries on a real disk: with made vectors, and with real audio end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import audio_files
import numpy as np
import pytest

from livi_index.audio import SAMPLE_RATE, decode
from livi_index.encoders import AudioEncoder, pool
from livi_index.errors import BadInput, BadModel, LibraryNotFound, NoSinging, UnreadableAudio
from livi_index.keeping import keep_bundle
from livi_index.library import Library, default_library, open_library
from livi_index.models import open_bundle
from livi_index.publishing import PublishedModel, Space, publish
from livi_index.ranking import Heard, RankOptions, best_pairs
from livi_index.records import Analysis, Batch, FileRow, Recording
from livi_index.scan import content_hash, format_id, recording_id
from livi_index.store import Store
from livi_index.vocals import SegmentOptions, VocalDetector, counted, cut, segments, vocalness

BUNDLE = open_bundle(Path(__file__).parent / "data" / "tiny-bundle")
DIM = BUNDLE.card.space("lyrics").dim
PUBLISHED = PublishedModel(BUNDLE.card.model_id, "tiny", "1", (Space("lyrics", DIM),))


def unit(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near(vectors: np.ndarray, seed: int, noise: float = 0.5) -> np.ndarray:
    """Versions of vectors: cosine about 1 / sqrt(1 + noise²)."""
    moved = vectors + noise * unit(len(vectors), seed)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def sung(vectors: np.ndarray, hop_s: float = 15.0) -> Heard:
    start_s = (hop_s * np.arange(len(vectors))).astype(np.float32)
    ones = np.ones(len(vectors), np.float32)
    return Heard(vectors.astype(np.float32), start_s, start_s + 30, ones)


def analysis(number: int, of: Heard, vocal: float = 0.8) -> Analysis:
    rows = len(of.vectors)
    return Analysis(
        number, BUNDLE.card.model_id, "lyrics", vocal, rows > 0, False, "made",
        pool(of.vectors, of.weights) if rows else None, of.start_s, of.end_s,
        np.full(rows, vocal), of.weights, of.vectors if rows else None,
    )  # fmt: skip


def file_row(number: int, path: Path | str, title: str | None = None) -> FileRow:
    return FileRow(Path(path), Path("/music"), 1, 1, number, 1, number, title=title)


def published(folder: Path, batch: Batch) -> Path:
    with Store(folder) as store:
        store.commit(batch)
        publish(store, folder, PUBLISHED)
    return folder


def made(folder: Path, recordings: dict[int, Heard], *more: FileRow) -> Library:
    """A library of recordings with given vectors."""
    files = [file_row(n, f"/music/{n}.mp3", f"Song {n}") for n in recordings]
    published(
        folder,
        Batch(
            files=[*files, *more],
            recordings=[Recording(n, n.to_bytes(32, "big"), 180.0) for n in recordings],
            analyses=[analysis(n, of) for n, of in recordings.items()],
        ),
    )
    return open_library(folder, model=BUNDLE, threads=1)


def built(folder: Path, *paths: Path) -> Path:
    """A library of real files, without the build around it."""
    options = SegmentOptions.from_bundle(BUNDLE)
    detector, encoder = VocalDetector(BUNDLE, threads=1), AudioEncoder(BUNDLE, threads=1)
    rows, recordings, analyses = [], [], []
    for path in paths:
        number, audio = recording_id(content_hash(path)), decode(path)
        rows.append(file_row(number, path, path.stem))
        if number in (known.recording_id for known in recordings):
            continue
        heard = detector.probabilities(audio.samples)
        pieces = segments(heard, audio.duration_s, options)
        of = Heard(
            encoder.encode(cut(audio.samples, pieces, encoder.window_s)),
            np.array([piece.start_s for piece in pieces], np.float32),
            np.array([piece.end_s for piece in pieces], np.float32),
            counted(pieces, None, options)[1],
        )
        recordings.append(Recording(number, content_hash(path), audio.duration_s))
        analyses.append(analysis(number, of, vocalness(heard)))
    return published(folder, Batch(files=rows, recordings=recordings, analyses=analyses))


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four songs of noise bands, 70 s each, the last one silent; loud is what this model hears."""
    folder = tmp_path_factory.mktemp("songs")
    t = np.arange(70 * SAMPLE_RATE) / SAMPLE_RATE
    paths = []
    for number, pitch in enumerate((220, 700, 2500)):
        sound = 0.5 * np.sin(2 * np.pi * pitch * t + 3 * np.sin(2 * np.pi * t))
        path = folder / f"song-{number}.wav"
        paths.append(audio_files.write(path, sound[:, None].astype(np.float32), SAMPLE_RATE))
    silence = 1e-4 * np.ones((40 * SAMPLE_RATE, 1), np.float32)
    return [*paths, audio_files.write(folder / "still.wav", silence, SAMPLE_RATE)]


def ids_of(library: Library, query: Heard, **options: object) -> list[int]:
    return [int(hit.recording_id, 16) for hit in library.rank({"lyrics": query}, **options)]  # type: ignore


def test_a_version_is_first_and_says_where(tmp_path: Path) -> None:
    songs = {n: sung(unit(10, n)) for n in range(1, 40)}
    songs[99] = sung(near(songs[7].vectors, 1000))
    with made(tmp_path, songs) as library:
        hits = library.rank({"lyrics": songs[7]}, k=5)
        assert [int(hit.recording_id, 16) for hit in hits[:2]] == [7, 99]
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        found = hits[1]
        assert found.recording_id == "0000000000000063" and found.title == "Song 99"
        assert found.probability == pytest.approx(1 / (1 + np.exp(-(10 * found.score - 4))))
        assert 0 < len(found.matches) <= 5
        assert [m.query_start_s for m in found.matches] == [m.hit_start_s for m in found.matches]
        assert ids_of(library, songs[7], without=(7,), k=1) == [99]
        assert ids_of(library, songs[7], min_score=0.6) == [7, 99]
        assert ids_of(library, songs[7], min_score=2.0) == []


def test_pairs_do_not_overlap_in_either_recording(tmp_path: Path) -> None:
    songs = {n: sung(unit(12, n)) for n in range(1, 10)}
    songs[50] = sung(near(songs[3].vectors[::-1], 5))
    with made(tmp_path, songs) as library:
        matches = library.rank({"lyrics": songs[3]}, without=(3,), k=1)[0].matches
        assert [m.score for m in matches] == sorted((m.score for m in matches), reverse=True)
        for times in ([m.query_start_s for m in matches], [m.hit_start_s for m in matches]):
            assert np.diff(np.sort(times)).min() >= 30


def greedy(query: Heard, other: Heard, n: int) -> list[tuple[float, float, float]]:
    """The rule as it is said, one pair after the other."""
    cosines = query.vectors @ other.vectors.astype(np.float16).astype(np.float32).T
    pairs: list[tuple[float, float, float]] = []
    for flat in np.argsort(-cosines, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(other.vectors))
        mine, theirs = float(query.start_s[row]), float(other.start_s[column])
        if all(abs(mine - a) >= 30 and abs(theirs - b) >= 30 for a, b, _ in pairs):
            pairs.append((mine, theirs, float(cosines[row, column])))
    return pairs[:n]


def test_scores_are_those_of_the_plain_rule(tmp_path: Path) -> None:
    songs = {n: sung(unit(n, n)) for n in range(1, 16)}
    query = sung(unit(7, 100))
    options = RankOptions(pairs=3, track_weight=0.25, crowding=0.4, neighbours=4)
    tracks = np.stack([pool(song.vectors) for song in songs.values()])
    likeness = np.sort(tracks @ tracks.T, axis=1)[:, -5:-1].mean(axis=1)
    crowding = dict(zip(songs, likeness, strict=True))
    with made(tmp_path, songs) as library:
        found = library.score({"lyrics": query}, options)
        assert sorted(found.recording_ids.tolist()) == list(songs)
        scores = dict(zip(found.recording_ids.tolist(), found.scores.tolist(), strict=True))
        best = best_pairs(library.generation, "lyrics", query, np.array(list(songs)), 5)
        for row, number in enumerate(songs):
            pairs = greedy(query, songs[number], 5)
            assert np.isfinite(best.scores[row]).sum() == len(pairs)
            assert np.allclose(best.scores[row, : len(pairs)], [p[2] for p in pairs], atol=1e-3)
            starts_s = query.start_s[best.query_rows[row, : len(pairs)]]
            assert starts_s.tolist() == [p[0] for p in pairs]
            assert best.hit_start_s[row, : len(pairs)].tolist() == [p[1] for p in pairs]
            track = pool(query.vectors) @ pool(songs[number].vectors)
            expected = 0.25 * track + 0.75 * np.mean([p[2] for p in pairs[:3]])
            expected -= 0.4 * crowding[number]
            assert scores[number] == pytest.approx(expected, abs=2e-3)


def test_a_medley_is_found_by_each_of_its_songs(tmp_path: Path) -> None:
    songs = {n: sung(unit(10, n)) for n in range(1, 200)}
    parts = [near(songs[n].vectors[2:6], n, 0.2) for n in (11, 22, 33)]
    songs[500] = sung(np.concatenate(parts))
    with made(tmp_path, songs) as library:
        for n in (11, 22, 33):
            assert ids_of(library, songs[n], without=(n,), k=1) == [500]
        assert set(ids_of(library, songs[500], without=(500,), k=3)) == {11, 22, 33}
        matches = library.rank({"lyrics": songs[500]}, without=(500,), k=1)[0].matches
        assert all(0 <= m.hit_start_s - 30 <= 45 for m in matches[:2])


def test_the_ablation_is_a_matter_of_options(tmp_path: Path) -> None:
    songs = {n: sung(unit(8, n)) for n in range(1, 30)}
    with made(tmp_path, songs) as library:
        query = sung(unit(8, 77))
        tracks = library.score({"lyrics": query}, RankOptions(track_weight=1.0, crowding=0.0))
        pairs = library.score({"lyrics": query}, RankOptions(track_weight=0.0, crowding=0.0))
        vectors = np.stack([pool(songs[n].vectors) for n in tracks.recording_ids.tolist()])
        assert np.allclose(tracks.scores, vectors @ pool(query.vectors), atol=2e-3)
        ids = pairs.recording_ids
        best = best_pairs(library.generation, "lyrics", query, np.sort(ids), 3).scores
        means = np.mean(best, axis=1, where=np.isfinite(best))
        assert np.allclose(pairs.scores, means[np.searchsorted(np.sort(ids), ids)], atol=1e-6)
    with pytest.raises(ValueError, match="no ranking"):
        RankOptions(track_weight=1.5)


def test_long_recordings_are_compared_in_blocks(tmp_path: Path) -> None:
    songs = {n: sung(unit(6, n)) for n in range(1, 20)}
    songs[77] = sung(np.concatenate([unit(3000, 77), near(songs[5].vectors, 9)]))
    query = sung(np.concatenate([unit(900, 78), songs[5].vectors]))
    with made(tmp_path, songs) as library:
        found = library.rank({"lyrics": query}, k=2, options=RankOptions(pairs=2, track_weight=0.0))
        assert [int(hit.recording_id, 16) for hit in found] == [5, 77]
        assert found[1].matches[0].hit_start_s >= 3000 * 15 and found[1].matches[0].score > 0.8


def test_a_file_is_found_under_other_names_and_not_offered_to_itself(
    tmp_path: Path, songs: list[Path]
) -> None:
    copy = Path(shutil.copy(songs[0], tmp_path / "copy.wav"))
    library_dir = built(tmp_path / "library", *songs, copy)
    with open_library(library_dir, model=BUNDLE, threads=1) as library:
        assert library.info.recordings == 3
        answer = library.query(copy, k=2, include_self=True)
        first = answer.hits[0]
        assert first.matches[0].score == pytest.approx(1, abs=1e-3) and first.path in first.paths
        assert first.paths == tuple(sorted(map(str, (songs[0], copy))))
        assert first.recording_id == format_id(recording_id(content_hash(songs[0])))
        others = library.query(copy, k=10)
        assert first.recording_id not in {hit.recording_id for hit in others.hits}
        assert len(others.hits) == 2 and others.query == answer.query


def test_heard_anew_it_is_what_was_stored(tmp_path: Path, songs: list[Path]) -> None:
    library_dir = built(tmp_path / "library", *songs)
    longer = tmp_path / "again.flac"
    audio_files.write(longer, decode(songs[1]).samples[:, None], SAMPLE_RATE)
    with open_library(library_dir, model=BUNDLE, threads=1) as library:
        known, fresh = library.query(songs[1], include_self=True), library.query(longer)
        assert fresh.hits[0].path == str(songs[1]) and fresh.hits[0].matches[0].score > 0.99
        assert fresh.query.segments == known.query.segments
        assert fresh.query.vocalness == pytest.approx(known.query.vocalness, abs=1e-3)
        samples = library.query(decode(longer).samples)
        assert samples.query.path is None
        assert [hit.score for hit in samples.hits] == [hit.score for hit in fresh.hits]


def test_the_answer_as_json_has_the_published_shape(tmp_path: Path, songs: list[Path]) -> None:
    library_dir = built(tmp_path / "library", *songs)
    with open_library(library_dir, model=BUNDLE, threads=1) as library:
        values = json.loads(json.dumps(library.query(songs[0]).to_json()))
    assert list(values) == ["schema", "query", "model", "library", "hits"]
    assert values["schema"] == 1 and values["model"] == "tiny"
    assert list(values["query"]) == [
        *("path", "duration_s", "vocalness", "segments", "distance", "far", "doubted", "speech")
    ]
    assert values["query"]["segments"][0] == {"start_s": 0.0, "end_s": 30.0}
    assert values["library"] == {"path": str(library_dir), "generation": 1, "recordings": 3}
    assert list(values["hits"][0]) == [
        "rank", "score", "probability", "recording_id", "path", "title", "artist", "duration_s",
        "matches", "spaces",
    ]  # fmt: skip
    assert list(values["hits"][0]["matches"][0]) == [
        "query_start_s",
        "hit_start_s",
        "score",
        "space",
    ]


def test_what_cannot_be_asked_is_told(tmp_path: Path, songs: list[Path]) -> None:
    library_dir = built(tmp_path / "library", *songs)
    with open_library(library_dir, model=BUNDLE, threads=1) as library:
        with pytest.raises(NoSinging, match=r"still.wav.*vocalness 0\.\d\d.*0\.50"):
            library.query(songs[3])
        with pytest.raises(UnreadableAudio):
            library.query(tmp_path / "absent.mp3")
        with pytest.raises(BadInput, match="at least one"):
            library.query(songs[0], k=0)
        with pytest.raises(BadInput, match="one row of floats"):
            library.query(np.zeros((2, 16_000), np.float32))


def test_missing_and_empty_libraries_are_told(
    tmp_path: Path, songs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVI_LIBRARY", str(tmp_path / "none"))
    assert default_library() == tmp_path / "none"
    with pytest.raises(LibraryNotFound, match=r"no library at .*none.*livi-index build"):
        open_library()
    (tmp_path / "none").mkdir()
    with pytest.raises(LibraryNotFound, match="nothing to ask yet"):
        open_library()
    with (
        made(tmp_path / "empty", {}) as library,
        pytest.raises(LibraryNotFound, match="no recording with singing"),
    ):
        library.query(songs[0])


def test_the_model_of_a_library_is_found_kept_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVI_MODELS", str(tmp_path / "installed"))
    library_dir = tmp_path / "library"
    made(library_dir, {1: sung(unit(3, 1))}).close()
    with pytest.raises(BadModel, match=r"model tiny 1, which is not at hand"):
        open_library(library_dir)
    keep_bundle(library_dir, BUNDLE)
    keep_bundle(library_dir, BUNDLE)
    with open_library(library_dir) as library:
        assert library.bundle.path.is_relative_to(library_dir)
    other = shutil.copytree(BUNDLE.path, tmp_path / "other")
    card = json.loads((other / "card.json").read_text()) | {"model_id": "0" * 64}
    (other / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="cannot be asked with tiny 1"):
        open_library(library_dir, model=open_bundle(other))


def test_answers_stay_those_of_one_generation(tmp_path: Path) -> None:
    songs = {n: sung(unit(4, n)) for n in range(1, 20)}
    asked: Callable[[Library], list[int]] = lambda library: ids_of(library, songs[3], k=3)  # noqa: E731
    with made(tmp_path, songs) as library:
        before = asked(library)
        with made(tmp_path, {300: sung(near(songs[3].vectors, 8))}) as newer:
            assert asked(newer)[:2] == [3, 300] and newer.info.generation == 2
        assert asked(library) == before and library.info.generation == 1
