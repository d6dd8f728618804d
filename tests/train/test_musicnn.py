"""MusiCNN's detector: a checkpoint is read as it was written, and a window is heard so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from export.checkpoint import read_checkpoint
from export.musicnn import _PARTS, N_FEATURES, LogMel, MusiCNN, Vocals, renamed, teach, write_bundle
from livi_index.audio import SAMPLE_RATE
from livi_index.models import find_model, verify

pytestmark = pytest.mark.train


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A block of a table, with a trailer: every key says how much of the last it shares."""
    out, last = b"", b""
    for key, value in entries:
        shared = next(n for n in range(len(last), -1, -1) if key.startswith(last[:n]))
        out += (
            varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        )
        last = key
    return out + (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0sums"


def written(arrays: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    """The two files of a checkpoint."""
    entries, data = [(b"", b"\x08\x01")], b""
    for name, values in sorted(arrays.items()):
        sizes = b"".join(
            b"\x12" + varint(len(s)) + s for s in (b"\x08" + varint(n) for n in values.shape)
        )
        raw = values.astype("<f4").tobytes()
        entry = b"\x08\x01\x12" + varint(len(sizes)) + sizes + b"\x20" + varint(len(data))
        entries.append((name.encode(), entry + b"\x28" + varint(len(raw)) + b"\x35crc!"))
        data += raw
    half = len(entries) // 2
    index, places = b"", []
    for part in (entries[:half], entries[half:]):
        places.append((part[-1][0], varint(len(index)) + varint(len(block(part)) - 5)))
        index += block(part)
    footer = varint(0) + varint(0) + varint(len(index)) + varint(len(block(places)) - 5)
    index += block(places)
    magic = 0xDB4775248B80FB57.to_bytes(8, "little")
    return index + footer.ljust(40, b"\0") + magic, data


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "conv/kernel": rng.normal(size=(7, 3, 1, 20)).astype(np.float32),
        "conv/kernel/Adam": rng.normal(size=300).astype(np.float32),
        "dense/bias": rng.normal(size=(5,)).astype(np.float32),
        "power": np.array(0.9, np.float32),
    }
    index, data = written(arrays)
    found = read_checkpoint(index, data)
    assert sorted(found) == sorted(arrays)
    for name, values in arrays.items():
        assert np.array_equal(found[name], values)
    with pytest.raises(ValueError, match="no index"):
        read_checkpoint(index[:-1] + b"?", data)


def test_a_network_gets_the_weights_of_its_own_names() -> None:
    torch.manual_seed(0)
    network, other = MusiCNN(), MusiCNN()
    counts = {"conv2d": 8, "batch_normalization": 11, "dense": 2}
    state = network.state_dict()
    arrays: dict[str, np.ndarray] = {}
    convolutions = [n.removesuffix(".weight") for n in state if n.endswith("conv.weight")]
    norms = [n.removesuffix(".running_mean") for n in state if n.endswith("running_mean")]
    norms.sort(key=lambda n: (n.startswith(("dense", "pooled")), n.startswith("dense"), "." in n))
    for kind, names in (
        ("conv2d", convolutions), ("batch_normalization", norms), ("dense", ["dense", "tag"]),
    ):  # fmt: skip
        assert len(names) == counts[kind]
        for number, name in enumerate(names):
            for part, (wanted, axes) in _PARTS[kind].items():
                back = np.argsort(axes)
                source = f"{kind}_{number}" if number else kind
                arrays[f"{source}/{part}"] = state[f"{name}.{wanted}"].numpy().transpose(back)
    other.load_state_dict(renamed(other, arrays), strict=True)
    for name, values in state.items():
        assert torch.equal(other.state_dict()[name], values), name


def test_a_tone_is_in_its_band() -> None:
    t = torch.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    picture = LogMel()(torch.sin(2 * torch.pi * 1000 * t)[None])
    assert picture.shape == (1, 1, 187, 96)
    # 1000 Hz is 15 of Slaney's mels, 8000 Hz 45.2, and there are 97 steps to that.
    assert int(picture[0, 0, 90].argmax()) == pytest.approx(15 / 45.245 * 97 - 1, abs=1)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_linear_layer_learns_and_the_bundle_answers_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vocals = Vocals(MusiCNN().eval()).eval()
    features = torch.randn(256, N_FEATURES)
    targets = (features[:, 3] > 0).float()
    assert teach(vocals, features, targets) < 0.4
    windows = 0.1 * torch.randn(3, 3 * SAMPLE_RATE)
    write_bundle(tmp_path / "bundle", find_model("livi-mini").path, vocals, windows)
    bundle = find_model(str(tmp_path / "bundle"))
    verify(bundle)
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "vocals.onnx")
    told = session.run(None, {"samples": windows.numpy()})[0]
    with torch.no_grad():
        assert told == pytest.approx(vocals(windows).numpy(), abs=1e-3)
