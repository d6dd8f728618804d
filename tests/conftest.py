"""Fixtures that make small real audio files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import audio_files
import pytest


@pytest.fixture(scope="session")
def audio_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`audio_file("mp3", seconds=6.0)`: a stereo file of that format, made once a session."""
    folder = tmp_path_factory.mktemp("audio")

    def make(kind: str, seconds: float = 6.0) -> Path:
        path = folder / f"tones-{seconds:g}s.{kind}"
        if not path.exists():
            audio_files.write(path, audio_files.tones(seconds))
        return path

    return make
