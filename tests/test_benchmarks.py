"""The measures themselves, on cases that are worked by hand, and on a real child process."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import audio_files
import numpy as np
import pytest
from test_library import BUNDLE

from benchmarks import large, lines, query, results, shorts, sung, table
from benchmarks.detector import auc, f1
from benchmarks.processes import pss_bytes, run_measured
from catalogs.lyrics import label_windows
from livi_index.audio import SAMPLE_RATE
from livi_index.build import build
from livi_index.check import check
from livi_index.library import open_library
from livi_index.ranking import RankOptions

HOLD = """
import subprocess, sys, time
block = b"x" * 60_000_000
child = [sys.executable, "-c", "b = b'x' * 60_000_000; import time; time.sleep(1)"]
subprocess.run(child, check=True)
print("done")
"""


def test_auc_counts_pairs_and_halves_of_ties() -> None:
    assert auc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert auc(np.array([0.5]), np.array([0.5, 0.5])) == 0.5
    assert auc(np.array([0.1, 0.7]), np.array([0.4, 0.7])) == pytest.approx(1.5 / 4)
    assert np.isnan(auc(np.array([]), np.array([0.5])))
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 50) / 9, rng.integers(0, 9, 70) / 9
    plain = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert auc(a, b) == pytest.approx(plain)


def test_f1_counts_what_is_called_sung() -> None:
    # Two of three are found, and one of two others is called sung too: 2/3 and 2/3.
    assert f1(np.array([0.9, 0.5, 0.4]), np.array([0.6, 0.1])) == pytest.approx(2 / 3)
    assert f1(np.array([0.1]), np.array([0.2])) == 0
    assert f1(np.array([]), np.array([0.2])) == 0


def test_windows_are_sung_by_half_and_clear_by_a_second() -> None:
    # Windows 0-3, 3-6, 6-9, 9-12, 12-13; lines overlap between 4 and 4.4 s.
    lines_s = np.array([[3.5, 4.4], [4.0, 5.0], [9.9, 10.1]])
    covered, clear = label_windows(lines_s, 5, 3.0, 13.0)
    assert covered.tolist() == [False, True, False, False, False]
    assert clear.tolist() == [False, False, False, False, True]
    covered, clear = label_windows(np.zeros((0, 2)), 2, 3.0, 6.0)
    assert not covered.any() and clear.all()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's PSS")
def test_memory_is_that_of_all_processes() -> None:
    ended = run_measured([sys.executable, "-c", HOLD])
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    assert 120e6 < ended.peak_pss_bytes < 200e6
    assert ended.seconds > 1 and ended.n_samples >= 5
    assert pss_bytes(2**22 + 1) == 0


def figures() -> dict[str, dict[str, object]]:
    build = {
        "audio_s_per_s": 250.4, "peak_pss_bytes": 9e8, "second_run_s": 1.26,
        "second_run_decodes": 0,
    }  # fmt: skip
    return {
        "speed": {
            "sung": build,
            "sung_and_instrumental": build | {"audio_s_per_s": 312.0},
            "window_s": 0.0921,
        },
        "query": {"answer": {"median_ms": 8.04, "p95_ms": 12.0}, "cold": {"median_s": 2.04}},
    }


def test_the_table_shows_what_was_measured(tmp_path: Path) -> None:
    for name, found in figures().items():
        results.write_result(name, found, tmp_path, ["--data", "/some/where/data", "-k", "3"])
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["command"] == "python -m benchmarks.speed --data data -k 3"
    assert written["machine"]["cores"] >= 1 and written["machine"]["versions"]["numpy"]
    text = table.table(tmp_path)
    assert "| ≥ 200 / 300 | 250 / 312 | `python -m benchmarks.speed --data data -k 3` |" in text
    assert "| ≤ 120 ms | 92 ms |" in text
    assert "| ≤ 1.5 GB | 0.90 GB |" in text and "| 0 decodes, 1.3 s |" in text
    assert "| < 20 ms | 8.0 ms (12.0 ms) |" in text
    assert "| ≥ 0.85 | not measured yet | `python -m benchmarks.detector` |" in text
    marks = f"{table.SYSTEMS}\n{table.SYSTEMS_END}"
    readme = f"# Title\n{table.BEGIN}\nwhat was\n{table.END}\n{marks}\nend\n"
    once = table.filled(readme, tmp_path)
    assert text in once and "what was\n" not in once and table.filled(once, tmp_path) == once
    with pytest.raises(ValueError, match="between"):
        table.filled("# Title\n", tmp_path)


def test_the_made_library_has_the_cosines_it_was_asked_for(tmp_path: Path) -> None:
    shape = query.Shape(recordings=90, within=0.7, between=0.2, between_std=0.15)
    made = query.make_library(tmp_path, BUNDLE, shape)
    one, other = made.version(3, 0).vectors, made.version(3, 2).vectors
    assert np.mean(np.sum(one * other, axis=1)) == pytest.approx(0.7, abs=0.08)
    far = one @ made.version(9, 1).vectors.T
    assert far.mean() == pytest.approx(0.2, abs=0.1)
    query.make_library(tmp_path, BUNDLE, shape)
    with open_library(tmp_path) as library:
        assert library.info.generation == 1
        answers = query.measure_answers(library, made, shape, 10)
    assert answers["hr1"] == 1 and 0 < answers["median_ms"] <= answers["p95_ms"]


def test_a_build_believes_the_files_of_a_large_library(tmp_path: Path) -> None:
    library, music = tmp_path / "library", tmp_path / "music"
    large.make_files(music, 30)
    large.fill(library, music, BUNDLE, query.Shape(recordings=20, segments=2))
    large.make_library(library, music, BUNDLE, query.Shape(recordings=30, segments=2))
    report = build([], library)
    assert (report.seen, report.reused, report.generation) == (30, 30, 1)
    assert check(library).problems == ()


def test_slopes_are_of_what_came_after_the_beginning() -> None:
    early = [shorts.Sample(0, 10 * n, 10**9, 99, 10**9, 99, 2) for n in range(10)]
    late = [shorts.Sample(0, n, 5000 + 7 * n, 20, 3000, 8 + n % 2, 2) for n in range(200, 1001)]
    names = ("seen", "indexed", "instrumental", "failed", "duplicates", "left", "audio_seconds")
    report = {**dict.fromkeys(names, 1000), "stages": {}}
    found = shorts.Watched(report, 60.0, 50.0, [*early, *late]).figures()
    assert found["bytes_for_1000_tracks"] == {"main_bytes": 7000, "worker_bytes": 0}
    assert found["least_and_most"]["main_files"] == [20, 20]
    assert found["least_and_most"]["worker_files"] == [8, 9]


def test_versions_are_counted_on_a_rendered_folder(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    t = np.arange(40 * SAMPLE_RATE) / SAMPLE_RATE
    rows, manifest = [], []
    for work, pitch in enumerate((200, 900, 3000)):
        for version in range(2):
            name = f"w{work}-{version}"
            sound = 0.5 * np.sin(2 * np.pi * (pitch + 5 * version) * t + 2 * np.sin(6 * t))
            audio_files.write(folder / f"{name}.flac", sound[:, None].astype("f4"), SAMPLE_RATE)
            rows.append((name, f"w{work}", f"{name}.flac", name, "", "test", "sung"))
            engine = {"engine": ("flite", "festival")[version]}
            manifest.append(json.dumps({"recording_id": name, "voice": engine}))
    quiet = 1e-4 * np.ones((40 * SAMPLE_RATE, 1), np.float32)
    # One sung version is too quiet for this model; one distractor is not.
    audio_files.write(folder / "w2-1.flac", quiet, SAMPLE_RATE)
    audio_files.write(folder / "x.flac", np.roll(sound[:, None], 9, 0).astype("f4"), SAMPLE_RATE)
    rows.append(("x", "w0", "x.flac", "x", "", "test", "instrumental"))
    with (folder / "entries.csv").open("w", newline="") as file:
        header = ("recording_id", "work_id", "path", "title", "artist", "split", "kind")
        csv.writer(file).writerows([header, *rows])
    (folder / "manifest.jsonl").write_text("\n".join(manifest) + "\n")
    entries = sung.read_entries(folder / "entries.csv")
    with sung.library_of(folder, BUNDLE, tmp_path / "library") as library:
        split = sung.split_of(library, entries, sung.engines_of(folder))
        assert split.ids == [row[0] for row in rows] and split.asks.sum() == 6
        assert (split.numbers == 0).tolist() == [False] * 5 + [True, False]
        for options in (*sung.rankings().values(), RankOptions(candidates=1)):
            found = sung.rank(library, split, options)
            # The quiet version is found last by its sister, and finds her last.
            assert found.first_rank.tolist() == [1, 1, 1, 1, 6, 6]
        figures = sung.figures_of(found, split)
        assert figures["by_engine"]["flite"]["hr1"] == pytest.approx(2 / 3)
        cosines = sung.cosines(library, split)
        assert cosines["track_within"]["mean"] > cosines["track_between"]["mean"]


def test_edits_and_precision_of_lines() -> None:
    assert lines.distance([1, 2, 3], [1, 2, 3]) == 0
    assert lines.distance([], [4, 5]) == lines.distance([4, 5], []) == 2
    assert lines.distance([1, 9, 2, 3, 3], [1, 2, 4, 3]) == 2
    assert lines.distance([2, 3, 4, 5], [1, 2, 3, 4, 5]) == 1
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([False, True, False, True, False])
    everywhere = np.ones(5, np.bool_)
    assert lines.precision(scores, right, everywhere) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert lines.precision(scores, right, everywhere & (scores < 0.85)) == pytest.approx(5 / 6)
