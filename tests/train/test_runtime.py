"""The published way and ours at identical weights: equal vectors, all stages clocked."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import audio_files
import pytest
from test_frontend import tune
from test_library import BUNDLE

pytest.importorskip("transformers")

from benchmarks import runtime

# What the exporter of torch says about itself.
ignored = ("ignore::FutureWarning", "ignore::DeprecationWarning")
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings(*ignored)]


def test_all_ways_are_timed_at_equal_vectors(tmp_path: Path) -> None:
    song = tmp_path / "song.flac"
    audio_files.write(song, 0.5 * tune(10, 0, 1.0, seconds=40)[:, None], 16_000)
    options = Namespace(model=str(BUNDLE.path), whisper="micro", repeats=1, max_seconds=40.0)
    told = runtime.measure([song], options, tmp_path)
    assert told["largest_difference"] < runtime.TOLERANCE and told["tracks"] == 1
    ways = told["ways"]
    assert list(ways) == ["build", "published", "same windows", "sung windows", "transcription"]
    assert {"decode_s", "mel_s", "network_s"} <= set(ways["published"])
    assert {"decode_s", "vocals_s", "network_s"} <= set(ways["sung windows"])
    for way in ways.values():
        assert way["total_s"] == pytest.approx(way["before_s"] + way["network_s"])
    assert 0 < told["vocals_share_of_build"] < 1 and told["published_against_ours"] > 0
