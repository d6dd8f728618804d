"""The rows of texts with a transcriber: words beside the audio, or what a Whisper model writes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import audio_files
import numpy as np
import pytest
from test_frontend import tune
from test_library import BUNDLE

pytest.importorskip("transformers")

from tiny_models import save_whisper

from benchmarks.baselines.texts import Words, open_row

pytestmark = pytest.mark.train


@pytest.mark.parametrize("local", [False, True])
def test_words_beside_the_audio_come_first(local: bool, tmp_path: Path) -> None:
    song = tmp_path / "song.flac"
    audio_files.write(song, 0.5 * tune(10, 0, 1.0, seconds=70)[:, None], 16_000)
    whisper = save_whisper(tmp_path / "whisper")
    options = Namespace(
        model=str(BUNDLE.path), whisper=str(whisper), text_encoder=None, device="cpu"
    )
    row = open_row(options, local=local)
    assert row.facts["words"].startswith("heard by whisper")
    heard = row.features(Words(song))
    assert row.vectors(heard).shape[1:] == (BUNDLE.card.spaces[0].dim,)
    song.with_suffix(".lrc").write_text(
        "[00:02.00]the evening ferry turns for home\n[00:40.00]with salt along the rail\n"
    )
    texts = row.features(Words(song))
    assert "salt along the rail" in texts[-1] and len(texts) == (2 if local else 1)
    assert np.allclose(np.linalg.norm(row.vectors(texts), axis=1), 1, atol=1e-4)
