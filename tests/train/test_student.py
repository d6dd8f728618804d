"""The paper's student: the originals' outputs, attention the long way and folded, loading."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import WhisperFeatureExtractor  # noqa: E402

from export.student import Head, HeadOptions, head_of, load_head  # noqa: E402
from export.whisper import LogMel  # noqa: E402
from livi_index.errors import BadInput, BadModel  # noqa: E402

pytestmark = pytest.mark.train
SMALL = HeadOptions(width=16, hidden=(24,), dim=12)


def rotated(keys: torch.Tensor) -> torch.Tensor:
    """Keys (T, C) turned by their positions: channel i with channel i + C/2."""
    half = keys.shape[1] // 2
    pairs = torch.complex(keys[:, :half], keys[:, half:]).to(torch.complex128)
    speed = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    turns = torch.exp(1j * torch.arange(len(keys), dtype=torch.float64)[:, None] * speed)
    return torch.cat([(pairs * turns).real, (pairs * turns).imag], dim=1).float()


def livi_state() -> dict[str, torch.Tensor]:
    """The authors' head with weights of a closed formula."""
    table = golden.key_table("livi")
    return {k: torch.from_numpy(v) for k, v in golden.weights("livi_head", table)}


def livi_frames() -> torch.Tensor:
    t, c = np.arange(1500)[:, None], np.arange(1280)
    frames = [
        golden.uniform(f"livi:{b}", t * 1280 + c)
        + 2 * golden.uniform(f"livislow:{b}", t // 50 * 1280 + c)
        for b in range(2)
    ]
    return torch.from_numpy(np.stack(frames).astype(np.float32))


@torch.no_grad()
def test_attention_is_as_written() -> None:
    torch.manual_seed(0)
    attention = Head(SMALL).pooling.attn.attn
    for weight in attention.parameters():
        torch.nn.init.normal_(weight)
    frames = torch.randn(40, 16)
    scores = rotated(attention.kl(frames)) @ attention.ql(frames[0]) / 4
    expected = attention.proj(scores.softmax(dim=0) @ attention.vl(frames))
    assert torch.allclose(attention(frames[None])[0], expected, atol=1e-4)


@torch.no_grad()
def test_the_head_answers_as_the_original_plain_and_folded() -> None:
    outputs, frames = golden.outputs("livi_head"), livi_frames()
    state = livi_state()
    head = head_of(state)
    assert {k: tuple(v.shape) for k, v in head.state_dict().items()} == golden.key_table("livi")
    assert sum(weight.numel() for weight in head.parameters()) == 31_894_016
    plain, folded = head(frames).numpy(), head.fold(1500)(frames).numpy()
    tolerance = 1e-4 * outputs["embedding"].max()
    assert np.abs(plain - outputs["embedding"]).max() < tolerance
    assert np.abs(folded - outputs["embedding"]).max() < tolerance
    assert np.abs(plain - folded).max() < 1e-5


def test_folded_teaches_what_plain_teaches() -> None:
    torch.manual_seed(1)
    head, frames, direction = Head(SMALL), torch.randn(3, 30, 16), torch.randn(12)
    torch.nn.init.ones_(head.pooling.attn.gamma_1)
    gradients = []
    for way in (head, head.fold(30)):
        head.zero_grad()
        (way(frames) @ direction).sum().backward()
        gradients.append([weight.grad.clone() for weight in head.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_a_checkpoint_is_loaded_to_the_last_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, head = tmp_path / "livi.pth", Head(SMALL)
    torch.save(head.state_dict() | {"logit_scale": torch.tensor(2.6)}, path)
    loaded = load_head(path)
    assert loaded.options == SMALL and "logit_scale" in capsys.readouterr().out
    assert all(map(torch.equal, loaded.state_dict().values(), head.state_dict().values()))
    state = head.state_dict()
    norm = "pooling.norm_layer.bias"
    for wrong in (
        state | {"more": torch.zeros(1)},
        {k: v for k, v in state.items() if k != norm},
        state | {norm: torch.zeros(17)},
        {},
    ):
        with pytest.raises(BadModel, match="LIVI head"):
            head_of(wrong)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2), "then": Path("x")}, tmp_path / "livi.pth")
    with pytest.raises(BadModel, match="nothing else"):
        load_head(tmp_path / "livi.pth")
    with pytest.raises(BadInput, match=r"absent\.pth"):
        load_head(tmp_path / "absent.pth")


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_is_that_of_transformers(n_mels: int) -> None:
    rng = np.random.default_rng(5)
    t = np.arange(480_000) / 16_000
    chord = sum(0.2 * np.sin(2 * np.pi * hz * t) for hz in (220.0, 277.2, 329.6, 440.0))
    windows = np.stack(
        [
            *(golden.signal(0, 480_000), chord, 0 * t, 3e-5 * rng.standard_normal(480_000)),
            np.where(t < 15, 0.3 * rng.standard_normal(480_000), 0),
            np.where(np.arange(480_000) % 8000 == 0, 1.0, 0.0),
        ]
    ).astype(np.float32)
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    # Each window alone: the floor is below its own peak, not below that of its neighbours.
    theirs = [extractor(w, sampling_rate=16_000, return_tensors="np") for w in windows]
    expected = np.concatenate([part["input_features"] for part in theirs])
    error = np.abs(LogMel(n_mels)(torch.from_numpy(windows)).numpy() - expected)
    assert error.max() < 5e-4 and error.mean() < 5e-6
