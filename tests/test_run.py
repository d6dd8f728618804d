"""Systems on a catalogue: rankings, coverage, what is missing and where it is to be had."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import audio_files
import numpy as np
import pytest
from test_frontend import tune
from test_library import BUNDLE

from benchmarks import layout
from benchmarks.baselines.systems import ROWS, row_of
from livi_index.errors import BadInput

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tunes in two keys and tempos, one damaged file, one that is not there."""
    place = tmp_path_factory.mktemp("tunes")
    rows = []
    for work in range(3):
        for version, how in enumerate(((0, 1.0), (3, 1.1))):
            name = f"w{work}-{version}.flac"
            sound = tune(10 + work, *how, seconds=20)
            audio_files.write(place / name, 0.5 * sound[:, None], 16_000)
            rows.append((name, f"w{work}"))
    (place / "broken.flac").write_bytes(b"fLaC but no more")
    rows += [("broken.flac", "w0"), ("absent.flac", "w1")]
    with (place / "works.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "work"), *rows])
    return place


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def figures(out: Path, folder: Path, system: str) -> dict[str, Any]:
    written = json.loads((out / f"run-{folder.name}-{system}.json").read_text())
    assert written["command"].startswith("python -m benchmarks.run --systems")
    assert written["machine"]["versions"]["numpy"]
    found: dict[str, Any] = written["figures"]
    return found


def test_systems_are_measured_on_a_catalogue(folder: Path, tmp_path: Path) -> None:
    names = ("chroma-fourier", "livi", "livi-paper", "clews")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "livi").symlink_to(BUNDLE.path)
    places = ("--model", BUNDLE.path, "--weights", tmp_path / "weights", "--out", tmp_path)
    ended = run("--systems", *names, "--catalog", folder, *places)
    assert ended.returncode == 0, ended.stderr
    chroma = figures(tmp_path, folder, "chroma-fourier")
    assert (chroma["status"], chroma["n_parameters"], chroma["dim"]) == ("measured", 0, 456)
    assert chroma["without"] == {"not_found": 1, "undecodable": 1}
    assert chroma["audio_s"] == pytest.approx(120, rel=0.05)
    assert set(chroma["seconds"]) == {"decode", "front_end", "network", "compare"}
    scores = chroma["scores"]["mean cosine"]
    assert scores["coverage"] == 6 / 8 and scores["n_answerable"] == 6
    assert scores["answerable"]["hr1"] == 1
    livi = figures(tmp_path, folder, "livi")
    assert livi["model"]["name"] == BUNDLE.card.name and list(livi["scores"]) == ["mean cosine"]
    assert figures(tmp_path, folder, "livi-paper")["scores"] == livi["scores"]
    clews = figures(tmp_path, folder, "clews")
    assert clews["status"] == "weights not available" and "scores" not in clews
    assert "zenodo.org" in clews["get"] and "zenodo.org" in ended.stdout


def test_sound_that_gives_no_vector_lowers_the_coverage(folder: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    audio_files.write(quiet / "a.flac", np.full((160_000, 1), 1e-4, np.float32), 16_000)
    (quiet / "works.csv").write_text("path,work\na.flac,w\n")
    ended = run("--systems", "livi", "--catalog", quiet, "--model", BUNDLE.path, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = figures(tmp_path, quiet, "livi")
    assert (found["without"], found["scores"]) == ({"no_vector": 1}, {})


def test_a_run_that_was_killed_goes_on(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    words = ["--systems", "chroma-mfcc", "--catalog", str(folder), "--keep", str(kept)]
    command = [sys.executable, "-m", "benchmarks.run", *words, "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT) as program:
        while program.poll() is None and not list(kept.rglob("*.npz")):
            time.sleep(0.01)
        program.kill()
    n_kept = len(list(kept.rglob("*.npz")))
    assert n_kept >= 1 and not (tmp_path / f"run-{folder.name}-chroma-mfcc.json").exists()
    assert run(*words, "--out", tmp_path).returncode == 0
    resumed = figures(tmp_path, folder, "chroma-mfcc")
    assert n_kept <= resumed["heard_by_an_earlier_run"] <= n_kept + 1
    assert run(*words, "--out", tmp_path).returncode == 0
    again = figures(tmp_path, folder, "chroma-mfcc")
    assert again["heard_by_an_earlier_run"] == 6 and again["scores"] == resumed["scores"]
    assert again["audio_s"] == resumed["audio_s"] > 100
    assert again["seconds"]["front_end"] == pytest.approx(resumed["seconds"]["front_end"])


def test_given_words_and_the_product_are_rows(tmp_path: Path) -> None:
    """The demonstration tells its words; the product takes its own files."""
    demo = ROOT / "catalogs" / "demo"
    listed = (demo / "works.csv").read_text().splitlines()[:7]
    rows = [f"{demo / line}" for line in listed[1:]]
    (tmp_path / "works.csv").write_text("\n".join([listed[0], *rows]) + "\n")
    names = ("t_global", "t_local")
    ended = run("--systems", *names, "--catalog", demo, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    for name in names:
        found = figures(tmp_path, demo, name)
        assert found["words"] == "given" and found["text_encoder"]["name"] == "livi-mini"
        assert found["scores"]["mean cosine"]["answerable"]["hr1"] == 1
    ended = run("--systems", "t_local", "livi-index", "--catalog", tmp_path, "--model", BUNDLE.path,
                "--out", tmp_path)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "t_local: weights not available: the words" in ended.stdout
    assert "openai/whisper-large-v3-turbo" in figures(tmp_path, tmp_path, "t_local")["get"]
    product = figures(tmp_path, tmp_path, "livi-index")
    assert list(product["scores"]) == ["query"] and product["scores"]["query"]["n_items"] == 6
    assert {"decode", "encode", "compare"} <= set(product["seconds"])
    table = layout.systems(tmp_path)
    assert "| this product: a bundle and its own ranking (" in table and "true words" in table
    paper = layout.paper(tmp_path)
    assert "| LIVI, the authors' weights | 31.89 / 668.9 | 1.51 / 0.949 / 0.966 |" in paper


def test_mistakes_are_told(folder: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--systems", "cluws", "--catalog", folder), "there is no system 'cluws'; there are: "),
        (("--systems", "clews", "--catalog", "covers79", folder), "no data set 'covers79'"),
        (("--systems", "clews", "--catalog", tmp_path), "works.csv"),
    ):
        ended = run(*arguments, "--out", tmp_path)
        assert ended.returncode == 1 and words in ended.stderr
        assert "Traceback" not in ended.stderr


def test_no_system_is_opened_without_its_weights(tmp_path: Path) -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) and set(layout.PUBLISHED) <= set(names)
    without = {"livi", "livi-index", "t_global", "t_local", "chroma-fourier", "chroma-mfcc"}
    assert {row.name for row in ROWS if row.weights is None} == without
    for row in ROWS:
        assert row_of(row.name) is row
        if row.weights is None:
            assert row.missing(None) is None
            continue
        assert row.place and row.place in str(row.missing(tmp_path))
        with pytest.raises(BadInput, match="weights not available"):
            row.open(tmp_path)
