"""The packaged speech encoder, as the body of a reader: it answers as the original does."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from export.reader import GUESSES, Reader  # noqa: E402
from export.speech import as_onnx, begin, packaged_encoder  # noqa: E402
from livi_index.audio import load_audio  # noqa: E402

pytestmark = pytest.mark.train
SONG = Path("catalogs/demo")


@pytest.fixture(scope="module")
def packed() -> Path:
    if importlib.util.find_spec("moonshine_voice") is None and os.environ.get("CI") != "true":
        pytest.skip("moonshine-voice is not installed (extra train)")
    return packaged_encoder()


def test_the_body_answers_as_the_packaged_encoder(packed: Path, tmp_path: Path) -> None:
    reader = begin(as_onnx(packed, tmp_path))
    # with pairs of frames behind the last block, all blocks are those of the original
    whole = Reader(dataclasses.replace(reader.options, fine_blocks=6, moments_after=6)).eval()
    whole.load_state_dict(reader.state_dict())
    heard: list[torch.Tensor] = []
    whole.blocks[-1].register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    song = min(SONG.rglob("*.opus"))
    clip = load_audio(song)[160_000:320_000]
    with torch.no_grad():
        assert whole(torch.from_numpy(clip[None])).shape == (1, GUESSES, 40)
    session = onnxruntime.InferenceSession(packed, providers=["CPUExecutionProvider"])
    edged = np.pad(clip, (256, 255))[None]
    inputs = {"input_values": edged, "attention_mask": np.ones(edged.shape, np.int64)}
    expected = session.run(None, inputs)[0]
    ours = whole.norm(heard[0]).detach().numpy()
    assert ours.shape == expected.shape == (1, GUESSES, 288)
    # the original multiplies in bytes with ranges of the input at hand, ours in float32
    assert np.corrcoef(ours.ravel(), expected.ravel())[0, 1] > 0.998


def test_another_encoder_is_refused(packed: Path, tmp_path: Path) -> None:
    other = tmp_path / "moonshine_voice" / "assets" / "tiny-en"
    other.mkdir(parents=True)
    (other / "encoder_model.ort").write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match=r"0\.0\.48"):
        packaged_encoder([str(tmp_path / "moonshine_voice")])
