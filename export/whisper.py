"""Whisper's ears: its log-mel spectrum and its encoder, of any size.

Radford et al., "Robust speech recognition via large-scale weak supervision", 2022. The network is
that of transformers; sizes follow from the weights, of which only the encoder's are read:

    (B, 480000) samples ─▶ log-mel (B, mels, 3000) ─▶ encoder ─▶ (B, 1500, C) frames

Weights are a file or a folder as Hugging Face has them, or a name for which a revision and a digest
are pinned here. Files of weights are opened as tensors only, never as a pickle that runs.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from export.hub import find
from livi_index.audio import SAMPLE_RATE
from livi_index.errors import BadInput, BadModel

WINDOW = 30 * SAMPLE_RATE  # samples
N_FFT, HOP = 400, 160  # samples
N_FRAMES = WINDOW // HOP // 2  # the encoder's: 50 a second
HEAD_DIM = 64  # of attention, in all sizes
WEIGHTS = "model.safetensors"
_ENCODER = "encoder."


@dataclass(frozen=True)
class Pin:
    """Weights on the hub that can only be these."""

    revision: str
    sha256: str
    size: int  # bytes


PINS = {
    "openai/whisper-large-v3-turbo": Pin(
        revision="41f01f3fe87f28c78e2fbf8b568835947dd65ed9",
        sha256="542566a422ae4f3fd23f1ba11add198fca01bbf82e66e6a2857b3f608b1eb9d1",
        size=1_617_824_864,
    ),
}


class LogMel(nn.Module):
    """(B, 480000) samples → (B, mels, 3000); the floor is 80 dB below each window's own peak."""

    filters: Tensor
    band_filters: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        n_bins = N_FFT // 2 + 1
        turns = torch.arange(n_bins)[:, None] * torch.arange(N_FFT) % N_FFT
        angles = 2 * torch.pi / N_FFT * turns.double()
        window = torch.hann_window(N_FFT, dtype=torch.float64)
        waves = window * torch.cat([angles.cos(), -angles.sin()])
        bands = mel_filter_bank(
            n_bins, n_mels, 0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", waves[:, None].float(), persistent=False)
        self.register_buffer(
            "band_filters", torch.from_numpy(bands.T.copy()).float(), persistent=False
        )

    def forward(self, samples: Tensor) -> Tensor:
        padded = F.pad(samples[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.filters, stride=HOP)[..., :-1].chunk(2, dim=1)
        level = (self.band_filters @ (real**2 + imaginary**2)).clamp(min=1e-10).log10()
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 8)
        return (level + 4) / 4


class Ears(nn.Module):
    """(B, 480000) samples → (B, 1500, C) float32 frames of a frozen encoder.

    The encoder may compute in float16; the spectrum is float32 always.
    """

    n_frames = N_FRAMES

    def __init__(self, encoder: WhisperEncoder) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.mel = LogMel(encoder.config.num_mel_bins)
        self.width: int = encoder.config.d_model

    def forward(self, samples: Tensor) -> Tensor:
        mel = self.mel(samples).to(self.encoder.conv1.weight.dtype)
        frames: Tensor = self.encoder(mel).last_hidden_state
        return frames.float()


def encoder_of(state: Mapping[str, Tensor], heads: int | None = None) -> WhisperEncoder:
    """The encoder whose weights these are, computing in float32; a decoder's are passed over.

    ``heads`` of attention are not told by weights: None for those of Whisper's sizes. Raises
    BadModel where a weight is missing, left over, or of another shape.
    """
    found = {
        key.partition(_ENCODER)[2]: value.float()
        for key, value in state.items()
        if key.startswith((_ENCODER, "model." + _ENCODER))
    }
    try:
        encoder = WhisperEncoder(config_of(found, heads))
        encoder.load_state_dict(found)
    except (KeyError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise BadModel(f"these are not the weights of a Whisper encoder: {error}") from error
    return encoder.eval().requires_grad_(False)


def config_of(state: Mapping[str, Tensor], heads: int | None = None) -> WhisperConfig:
    """The sizes of an encoder, from its weights."""
    width, n_mels = state["conv1.weight"].shape[:2]
    return WhisperConfig(
        num_mel_bins=n_mels,
        d_model=width,
        encoder_layers=1 + max(int(k.split(".")[1]) for k in state if k.startswith("layers.")),
        encoder_attention_heads=heads or width // HEAD_DIM,
        encoder_ffn_dim=len(state["layers.0.fc1.weight"]),
        decoder_layers=1,
        dtype=torch.float32,
        attn_implementation="sdpa",
    )


def load_encoder(source: str) -> WhisperEncoder:
    """The encoder of a file or folder of weights, or of a name on the hub.

    Raises BadInput for what is not there or cannot be fetched, BadModel for other weights.
    """
    path = weights_file(source)
    return encoder_of(read_encoder(path), n_heads(path.parent))


def weights_file(source: str) -> Path:
    """Where the weights are. Those of a name in ``PINS`` can only be those that are pinned."""
    if Path(source).is_file():
        return Path(source)
    pin = PINS.get(source)
    folder = find(f"{source}@{pin.revision}" if pin else source, "--whisper").path
    path = folder / WEIGHTS
    if not path.is_file():
        raise BadInput(f"{folder} has no {WEIGHTS}; give --whisper a folder that has, or the file")
    if pin and digest_of(path) != pin.sha256:
        raise BadModel(f"{path} is not the {WEIGHTS} of {source} that is pinned; delete it")
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def n_heads(folder: Path) -> int | None:
    """Of attention, as a configuration beside the weights says; None where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_bytes()).get("encoder_attention_heads")
    return int(found) if found else None


def read_encoder(path: Path) -> dict[str, Tensor]:
    """Names and tensors of an encoder; of a safetensors file only those are read."""
    if path.suffix != ".safetensors":
        return {k: v for k, v in read_tensors(path).items() if _ENCODER in k}
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if _ENCODER in key}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadModel(f"{path} cannot be opened as weights: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint that holds nothing else. Raises BadModel."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error})") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadModel(f"{path} cannot be opened as weights and nothing else: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadModel(f"{path} holds other things than weights by name")
    return state
