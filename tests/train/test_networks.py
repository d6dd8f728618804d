"""Networks of other systems against the outputs of the originals, and weights that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import audio_files
import golden
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import WhisperConfig  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from benchmarks.baselines import conformer, cqtnet, frontend, resnet, whisper  # noqa: E402
from benchmarks.baselines.layers import NetworkSystem  # noqa: E402
from benchmarks.baselines.weights import State  # noqa: E402

pytestmark = pytest.mark.train


@dataclass(frozen=True)
class Original:
    """One network whose outputs are known."""

    outputs: str
    table: str
    open: Callable[[State], NetworkSystem]
    n_parameters: int  # without what is for training only
    training_only: tuple[str, ...] = ()
    segments: frontend.Segments | None = None
    tolerance: float = 1e-4


ORIGINALS = (
    Original(
        "cqtnet_clewsrepo", "clewsrepo_dvi-cqtnet", cqtnet.cqtnet_clews, 5_080_428,
        ("fc1.",), cqtnet.SEGMENTS,
    ),
    Original(
        "dvinetp", "clewsrepo_dvi-dvinetp", cqtnet.dvinet, 11_474_528,
        segments=cqtnet.SEGMENTS,
    ),
    Original("discogs_vinet_mirex", "dvinet_mirex", cqtnet.discogs_vinet, 8_023_760),
    Original("cqtnet_original", "cqtnet_orig", cqtnet.cqtnet, 5_080_428, ("fc1.",)),
    Original(
        "bytecover2x", "clewsrepo_dvi-bytecover2x", resnet.bytecover2, 48_677_377,
        ("fc.",), resnet.BYTECOVER2_SEGMENTS, 2e-4,
    ),
    Original(
        "clews_dvi", "clewsrepo_dvi-clews", resnet.clews, 196_793_363,
        segments=resnet.CLEWS_SEGMENTS,
    ),
)  # fmt: skip


@pytest.fixture(scope="module", params=ORIGINALS, ids=lambda original: original.outputs)
def opened(request: pytest.FixtureRequest) -> tuple[Original, NetworkSystem]:
    """An original, and our network with its weights."""
    original = request.param
    return original, original.open(state_of(original))


def state_of(original: Original) -> dict[str, torch.Tensor]:
    """What a checkpoint of the original holds, but for what is only for training."""
    table = golden.key_table(original.table)
    made = dict(golden.weights(original.outputs, table, original.training_only))
    known = golden.outputs(original.outputs)
    for key in (name for name in known if name.startswith("w__")):
        values = made[key[3:]].ravel()
        sample = (
            np.append(values[:4], values[-1])[-known[key].size :] if values.size > 4 else values
        )
        assert near(sample, known[key], 1e-6), key
    return {key: torch.from_numpy(value) for key, value in made.items()}


def near(found: np.ndarray, known: np.ndarray, tolerance: float) -> bool:
    """The fair tolerance of the outputs' page: relative to the largest value of the array."""
    assert found.shape == known.shape
    return bool(np.abs(found - known).max() <= tolerance * np.abs(known).max())


def test_outputs_are_those_of_the_original(opened: tuple[Original, NetworkSystem]) -> None:
    original, system = opened
    known = golden.outputs(original.outputs)
    assert system.n_parameters == original.n_parameters
    shape = known["feature_shape" if "feature_shape" in known else "feature_scaled_shape"][-2:]
    features = np.stack([golden.feature(track, *shape) for track in (0, 1)])
    assert near(system.vectors(features), known["feature_embedding"], original.tolerance)


def test_audio_gives_what_it_gives_the_original(opened: tuple[Original, NetworkSystem]) -> None:
    original, system = opened
    known = golden.outputs(original.outputs)
    if original.segments is None:
        samples = golden.signal(0, 100 * frontend.LIBROSA_RATE, frontend.LIBROSA_RATE)
        half = original.outputs == "discogs_vinet_mirex"
        spectrum = frontend.recursive_cqt(samples)
        features = cqtnet.pooled_track(spectrum, at_least=0, half=half)
        assert near(system.vectors(features)[0], known["audio_embedding"], original.tolerance)
        return
    cut = partial(original.segments.cut, exact=True)
    for track, name in enumerate(("audio_long", "audio_short")):
        samples = golden.signal(track, int(known[f"{name}_seconds"]) * frontend.SAMPLE_RATE)
        found = system.vectors(cut(samples))
        assert near(found, known[f"{name}_embedding"], original.tolerance)
        if original.segments.cqt_hop == 320:  # which divides 5 s: segments begin at the same place
            shared = system.vectors(system.features(samples))
            assert cosines(shared, found).min() > 0.99


COVERHUNTER = Original(
    "coverhunter", "coverhunter", conformer.coverhunter, 2_230_720, conformer.NAMES.training_only
)


def test_coverhunter_is_the_original() -> None:
    original = COVERHUNTER
    known, system = golden.outputs("coverhunter"), original.open(state_of(original))
    assert system.n_parameters == original.n_parameters
    features = np.stack([2 * golden.feature(track, 96, 375).T - 1 for track in (0, 1)])
    assert near(system.vectors(features), known["feature_embedding"], 1e-4)
    for track, name in enumerate(("audio_embedding", "audio1_embedding")):
        samples = golden.signal(track, int(known["audio_seconds"]) * frontend.SAMPLE_RATE)
        heard = system.features(samples)
        assert heard.shape == (1, 1125, 96)
        if track == 0:
            there = heard[0, :250].ravel()[known["audio_pooled_first250_flat_index"]]
            assert np.abs(there - known["audio_pooled_first250_value"]).max() < 5e-4
        assert near(system.vectors(heard)[0], known[name], 1e-4)


def test_a_system_is_measured_with_its_weights(tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights", tmp_path / "tunes"
    (weights / "coverhunter").mkdir(parents=True)
    torch.save({"generator": state_of(COVERHUNTER)}, weights / "coverhunter" / "g.pt")
    folder.mkdir()
    rows = ["path,work"]
    for track in range(3):
        for version in range(2):
            sound = golden.signal(track, 20 * frontend.SAMPLE_RATE) * (1 - 0.5 * version)
            audio_files.write(folder / f"{track}{version}.flac", sound[:, None], 16_000)
            rows.append(f"{track}{version}.flac,w{track}")
    (folder / "works.csv").write_text("\n".join(rows))
    names = ["coverhunter", "whisper"]
    command = [sys.executable, "-m", "benchmarks.run", "--systems", *names, "--weights", weights]
    command += ["--catalog", folder, "--out", tmp_path]
    root = Path(__file__).parent.parent.parent
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=root)
    found, other = (
        json.loads((tmp_path / f"run-tunes-{name}.json").read_text())["figures"] for name in names
    )
    assert set(found["scores"]) == {"mean cosine", "min cosine"}
    for scores in found["scores"].values():
        assert scores["answerable"]["hr1"] == 1 and scores["coverage"] == 1
    assert found["n_parameters"] == 2_230_720 and len(found["weights"]["sha256"]) == 64
    assert other["status"] == "weights not available"


def test_the_release_of_ismir_2024_has_other_names() -> None:
    torch.manual_seed(0)
    network = cqtnet.CQTNet(8, 16, bias=False, pool_padding=1, unit=True).eval()
    places = (0, 3, 7, 10, 14, 17, 21, 24, 28, 31)
    state = {"proj.0.weight": network.proj.weight}
    for i, place in enumerate(places):
        state[f"features.{place}.weight"] = network.convs[i].weight
        for key, value in network.norms[i].state_dict().items():
            state[f"features.{place + 1}.{key}"] = value
    features = np.stack([golden.feature(track, 84, 180) for track in (0, 1)])
    with torch.no_grad():
        same = network(torch.from_numpy(features)).numpy()
    assert np.array_equal(cqtnet.discogs_vinet(state).vectors(features), same)


def test_whole_tracks_lose_nothing_by_coming_from_16_khz() -> None:
    hz = 440 * 2 ** (np.arange(-45, 39, 7) / 12)
    swell = 0.1 + np.linspace(0, 1, len(hz))
    tracks = []
    for rate in (frontend.SAMPLE_RATE, frontend.LIBROSA_RATE):
        t = np.arange(30 * rate)[:, None] / rate
        chord = np.sin(2 * np.pi * hz * t) * np.sin(np.pi * swell * t) ** 2
        tracks.append(chord.sum(axis=1).astype(np.float32))
    heard = cqtnet.whole_track(tracks[0], at_least=4000)
    straight = cqtnet.pooled_track(frontend.recursive_cqt(tracks[1]), at_least=4000, half=False)
    assert heard.shape == straight.shape == (1, 84, 200)
    assert np.abs(heard - straight).max() < 2e-3 * straight.max()
    assert not heard[0, :, 66:].any()


def test_large_v3_turbo_has_the_published_size() -> None:
    config = WhisperConfig(
        num_mel_bins=128, d_model=1280, encoder_layers=32, encoder_attention_heads=20,
        encoder_ffn_dim=5120,
    )  # fmt: skip
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 636_968_960
    assert len(encoder.state_dict()) == 487


# Outputs of transformers 5.23 for the weights below; windows of 30 s of ``golden.signal(0, 40 s)``.
WHISPER_MEL = {(0, 10, 700): 1.00185, (0, 70, 1500): 0.051009, (1, 10, 900): 0.162977}
WHISPER_VECTORS = [
    [0.5190416, 0.7324704, 0.1195739, 1.2006277, -2.2378013, 0.3959246],
    [1.2089424, 0.7857344, -0.3525798, 1.0520977, -1.1106688, -1.7412987],
]
WHISPER_NORMS = [11.175000, 10.983204]


def whisper_state(prefix: str = "model.encoder.") -> dict[str, torch.Tensor]:
    """Two layers of 128 dimensions, by a closed formula of the names."""
    config = WhisperConfig(
        num_mel_bins=128, d_model=128, encoder_layers=2, encoder_attention_heads=2,
        encoder_ffn_dim=256,
    )  # fmt: skip
    empty = WhisperEncoder(config)
    state = {}
    for name, tensor in empty.state_dict().items():
        key, shape = f"model.encoder.{name}", tuple(tensor.shape)
        value = golden.uniform(key, np.arange(tensor.numel())).reshape(shape)
        if len(shape) > 1:
            value *= np.sqrt(3 / np.prod(shape[1:]))
        else:
            value = 0.1 * value + ("layer_norm.weight" in name)
        state[prefix + name] = torch.from_numpy(value.astype(np.float32))
    return state


def test_whisper_is_the_encoder_of_transformers() -> None:
    unused = {"model.decoder.embed_tokens.weight": torch.zeros(3, 2)}
    system = whisper.whisper(whisper_state() | unused)
    heard = system.features(golden.signal(0, 40 * frontend.SAMPLE_RATE))
    assert heard.shape == (2, 128, 3000)
    for place, value in WHISPER_MEL.items():
        assert heard[place] == pytest.approx(value, abs=2e-6)
    found = system.vectors(heard)
    assert np.abs(found[:, :6] - WHISPER_VECTORS).max() < 1e-4
    assert np.linalg.norm(found, axis=1) == pytest.approx(WHISPER_NORMS, rel=1e-5)
    plain = whisper.whisper(whisper_state("encoder.")).vectors(heard)
    assert np.array_equal(plain, found)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / norms
