"""The two checks that the paper leaves open, on real files: no singing, and another language."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import audio_files
import numpy as np
import pytest
from test_frontend import tune
from test_library import BUNDLE

from catalogs.datasets import COLUMNS

ROOT = Path(__file__).parent.parent
RATE = 16_000


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{program}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def figures(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())["figures"]
    return found


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tunes, each loud twice and once too soft for the detector of this bundle."""
    place = tmp_path_factory.mktemp("beyond")
    for work in range(3):
        for version, level in enumerate((0.5, 0.4, 1e-4)):
            sound = tune(10 + work, version, 1.0 + 0.05 * version, seconds=15)
            audio_files.write(place / f"w{work}-{version}.flac", level * sound[:, None], RATE)
    return place


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_what_is_not_sung_is_set_aside_or_lost(tunes: Path, tmp_path: Path) -> None:
    for name, versions, kind in (("sung", (0, 1), "sung"), ("played", (2,), "instrumental")):
        (tmp_path / name).mkdir()
        rows = [
            (f"{tunes}/w{work}-{version}.flac", f"w{work}", "", "", f"{work}-{version}", "", kind)
            for work in range(3)
            for version in versions
        ]
        table(tmp_path / name / "entries.csv", COLUMNS, rows)
    places = tmp_path / "sung", tmp_path / "played"
    ended = run("instrumental", *places, "--model", BUNDLE.path, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    ways = figures(tmp_path, "instrumental")["ways"]
    as_built, overruled, chroma = ways.values()
    assert as_built["sung"]["queries"] == 6 and as_built["sung"]["set_aside"] == 0
    assert as_built["instrumental"] == {"queries": 3, "set_aside": 3, "items": 6}
    assert overruled["instrumental"]["set_aside"] == 0
    assert overruled["instrumental"]["hr1_by_chance"] == pytest.approx(2 / 6)
    assert overruled["sung"]["hr1_by_chance"] == pytest.approx(1 / 5)
    assert chroma["instrumental"]["scores"]["answerable"]["hr1"] == 1
    ended = run("instrumental", places[0], tunes, "--out", tmp_path)
    assert ended.returncode == 1 and "works.csv" in ended.stderr


def test_every_pair_of_languages_is_told(tunes: Path, tmp_path: Path) -> None:
    rows = [
        (f"{tunes}/w{work}-{version}.flac", f"w{work}", ("en", "fr")[version])
        for work in range(3)
        for version in range(2)
    ]
    listed = tmp_path / "works.csv"
    table(listed, ("path", "work", "language"), rows)
    ended = run("languages", listed, "--model", BUNDLE.path, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = figures(tmp_path, "languages")
    assert list(found) == ["livi", "chroma-fourier"]
    # Nobody sings a work twice in one language here.
    assert list(found["chroma-fourier"]["pairs"]) == ["en → fr", "fr → en"]
    pair = found["chroma-fourier"]["pairs"]["en → fr"]
    assert (pair["items"], pair["scores"]["n_answerable"]) == (3, 3)
    assert pair["scores"]["answerable"]["hr1"] == 1
    assert np.isfinite(found["livi"]["pairs"]["fr → en"]["scores"]["answerable"]["mr1_mean"])
    table(listed, ("path", "work"), [row[:2] for row in rows])
    ended = run("languages", listed, "--out", tmp_path)
    assert ended.returncode == 1 and "no column language" in ended.stderr
