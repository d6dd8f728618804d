"""Indexes side by side, on few vectors: those that are installed, and a run that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.indexes import NAMES, index_of

ROOT = Path(__file__).parent.parent
COUNT, DIM, K = 2000, 64, 10
INSTALLED = [
    name
    for name in NAMES
    if not name.startswith(("faiss", "hnswlib")) or find_spec(name.partition("-")[0])
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> scale.Data:
    return scale.data_in(tmp_path_factory.mktemp("scale"), COUNT, DIM, 40)


def test_vectors_have_the_cosines_they_were_asked_for(data: scale.Data) -> None:
    vectors = data.vectors.astype(np.float32)
    cosines = data.queries @ vectors.T
    same = data.query_works[:, None] == data.works
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    known = cosines[same][cosines[same] > 0.4]  # the others are versions that are lost
    assert known.mean() == pytest.approx(scale.WITHIN, abs=0.08) and len(known) > 30
    assert cosines[~same].mean() == pytest.approx(scale.BETWEEN, abs=0.05)


def test_true_neighbours_are_kept_while_vectors_come(data: scale.Data) -> None:
    nearest = scale.Nearest(data.queries)
    vectors = data.vectors.astype(np.float32)
    for first in range(0, COUNT, 300):
        nearest.add(first, vectors[first : first + 300])
    expected = np.argsort(-(data.queries @ vectors.T), axis=1, kind="stable")[:, :K]
    assert (nearest.numbers == expected).all()


@pytest.mark.parametrize("name", INSTALLED)
def test_every_index_finds_and_is_read_again(name: str, data: scale.Data, tmp_path: Path) -> None:
    vectors = data.vectors.astype(np.float32)
    index = index_of(name, data.vectors)
    for first in range(0, COUNT, 500):
        index.add(first, vectors[first : first + 500])
    truth = np.argsort(-(data.queries @ vectors.T), axis=1)[:, :K]
    effort = index.efforts[-1]
    found = index.search(data.queries, K, effort, 2)
    share = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)])
    assert found.shape == (40, K) and share > (0.8 if name == "usearch-b1" else 0.95)
    index.save(tmp_path / "index")
    again = index_of(name, data.vectors)
    again.load(tmp_path / "index")
    assert (again.search(data.queries[:1], K, effort, 1)[0] == found[0]).all()


def test_a_run_goes_on_and_tells_what_it_projects(tmp_path: Path) -> None:
    words = ["--count", str(COUNT), "--dim", str(DIM), "--queries", "20", "--keep", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.scale", *words, "--out", str(tmp_path)]
    command += ["--systems", "usearch-f16", "usearch-i8", "exact"]
    told = []
    for _ in range(2):
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        figures: dict[str, Any] = json.loads((tmp_path / f"scale-{COUNT}.json").read_text())
        told.append(figures["figures"])
    systems = [one["looks"][str(COUNT)]["systems"] for one in told]
    assert systems[0]["usearch-f16"]["build_cpu_s"] == systems[1]["usearch-f16"]["build_cpu_s"]
    ours = systems[1]["usearch-f16"]
    assert ours["at_recall"]["recall10"] >= scale.RECALL and ours["memory_bytes"] > 0
    assert told[1]["bars"]["recall10"] >= scale.RECALL
    assert "× 1e+08 =" in told[1]["projected"]["usearch-i8"]["arithmetic"]
    assert scale.looks_at(1_000_000, []) == [100_000, 250_000, 500_000, 1_000_000]
    assert scale.looks_at(100_000, [25_000]) == [25_000, 100_000]
