"""The experiments as commands: small ones from end to end, and cases worked by hand."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from planted import written

from benchmarks.experiments import DEMO, _threshold, hear, rendered_songs, taught, told
from catalogs import Entry
from livi_index.models import find_model

pytestmark = pytest.mark.train
ROOT = Path(__file__).parent.parent.parent
BUNDLE = ROOT / "tests" / "data" / "tiny-bundle"


def test_segments_of_the_demonstration_have_their_lines() -> None:
    songs = rendered_songs(DEMO, 1)
    assert len(songs) == 3 and len({song.work for song in songs}) == 1
    heard = hear(songs, find_model(BUNDLE))
    n_segments = len(heard.sound)
    assert heard.sound.shape == heard.text.shape and heard.whole.shape[0] == 3
    assert len(heard.works) == n_segments >= 6
    assert told(heard)["tracks_global"]["n"] == 3
    # one work only: nothing to compare with
    assert np.isnan(told(heard)["segments"]["other_mean"])


def test_heads_are_taught_alike(tmp_path: Path) -> None:
    shards = written(tmp_path / "shards")
    options = Namespace(shards=shards, held=shards, epochs=3)
    found = taught(options, "pooling", ("attention", "mean"))
    rows = found["rows"]
    assert rows["attention"]["steps"] == rows["mean"]["steps"] > 0
    assert found["held"]["works"] == 40 and rows["mean"]["tracks"]["n"] == 120


def test_what_a_threshold_loses_finds_nothing() -> None:
    kinds = [("a", "x", "sung"), ("b", "x", "sung"), ("c", "y", "sung"), ("d", "x", "instrumental")]
    entries = [Entry(i, work, Path(i), "", "", "test", kind) for i, work, kind in kinds]
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    scores = _threshold(entries, vectors, n_sung=4)
    assert scores == {"queries": 2, "hr1": 1.0, "map10": 1.0, "hr1_of_all": 0.5}


def test_the_command_says_what_is_missing() -> None:
    command = [sys.executable, "-m", "benchmarks.experiments", "alpha"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "give --shards and --held" in done.stderr
