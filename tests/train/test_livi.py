"""The paper's model as a bundle: weights of any size → graphs on par with torch → a library."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import golden
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402
from transformers import WhisperConfig, WhisperFeatureExtractor  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from export.gate import MAX_ERROR, NotOnPar, check, reference_of  # noqa: E402
from export.livi import FILES, LICENCE, OPSET, SONGS, main, model_id  # noqa: E402
from export.student import Head, HeadOptions, Student, load_head  # noqa: E402
from export.to_onnx import export_graph, window_of  # noqa: E402
from export.whisper import PINS, Ears, LogMel, encoder_of, load_encoder, read_encoder  # noqa: E402
from livi_index.encoders import AudioEncoder  # noqa: E402
from livi_index.errors import BadModel  # noqa: E402
from livi_index.models import open_bundle, open_session, verify  # noqa: E402
from livi_index.vocals import SegmentOptions  # noqa: E402

# What the exporter of torch says about itself.
ignored = ("ignore::FutureWarning", "ignore::DeprecationWarning")
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings(*ignored)]
ROOT = Path(__file__).parent.parent.parent
SIZES = HeadOptions(width=128, hidden=(96, 64), dim=48)


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights of closed formulas, under which different songs have different vectors."""
    names = set(shapes)
    return {k: torch.from_numpy(golden.filled("livi_head", k, s, names)) for k, s in shapes.items()}


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``livi.pth`` and ``model.safetensors`` of a Whisper of two layers."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(filled(shapes_of(Head(SIZES))) | {"logit_scale": torch.ones(1)}, folder / "livi.pth")
    config = WhisperConfig(
        num_mel_bins=128, d_model=128, encoder_layers=2, encoder_attention_heads=2,
        encoder_ffn_dim=256, decoder_layers=1,
    )  # fmt: skip
    state = filled(shapes_of(WhisperEncoder(config)))
    half = {f"model.encoder.{name}": weight.half() for name, weight in state.items()}
    save_file(
        half | {"model.decoder.embed_tokens.weight": torch.zeros(9, 9)},
        folder / "model.safetensors",
    )
    return folder


def student_of(weights: Path) -> Student:
    return Student(Ears(load_encoder(str(weights))), load_head(weights / "livi.pth")).eval()


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
    )


def refused(*arguments: object) -> str:
    """What ``export.livi`` says when it makes nothing."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    return str(left.value)


@pytest.fixture(scope="module")
def made(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle, and what was said when it was made."""
    out = tmp_path_factory.mktemp("bundles") / "paper"
    arguments = ("--checkpoint", weights / "livi.pth", "--whisper", weights, "--out", out)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([*map(str, arguments), "--songs", *map(str, SONGS[:3]), "--name", "paper"])
    return out, said.getvalue()


def test_a_bundle_is_the_student(made: tuple[Path, str], weights: Path) -> None:
    out, said = made
    bundle = open_bundle(out)
    verify(bundle)
    card, space = bundle.card, bundle.card.spaces[0]
    assert LICENCE in said and card.licence == LICENCE and "logit_scale" in said
    assert set(card.files) == {*FILES.values(), "vocals.onnx"}
    assert (space.encoder, space.cuda_encoder, space.dim) == (*FILES.values(), 48)
    assert SegmentOptions.from_bundle(bundle) == SegmentOptions.paper()
    windows = np.stack([window_of(song) for song in SONGS[1:]])
    with torch.no_grad():
        expected = student_of(weights)(torch.from_numpy(windows)).numpy()
    encoder = AudioEncoder(bundle)
    assert encoder.provider == "CPUExecutionProvider"
    found = encoder.encode(windows)
    assert np.linalg.norm(found - expected, axis=1).max() < 0.01
    assert np.linalg.norm(expected[0] - expected[1]) > 0.1


def test_a_library_is_built_with_it(made: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = made
    place, song = ("--library", tmp_path / "library"), SONGS[0]
    built = run("livi_index", "build", *SONGS[:2], *place, "--model", out, "--jobs", 1)
    assert built.returncode == 0, built.stderr
    asked = run("livi_index", "query", song, *place, "-k", 2, "--include-self", "--json")
    hits = json.loads(asked.stdout)["hits"]
    assert Path(hits[0]["path"]).name == song.name and hits[0]["score"] > hits[1]["score"]
    told = json.loads(run("livi_index", "status", *place, "--json").stdout)
    assert json.loads((out / "card.json").read_text())["model_id"] in json.dumps(told)


@torch.no_grad()
def test_the_gate_tells_a_layer_that_is_zero(
    made: tuple[Path, str], weights: Path, tmp_path: Path
) -> None:
    windows = np.stack([window_of(song) for song in SONGS[:2]])
    student = student_of(weights)
    reference = reference_of(student, windows)
    assert 0 < check(made[0] / "audio.onnx", reference, "fp32").error < MAX_ERROR["fp32"]
    with pytest.raises(NotOnPar, match="LayerNormalization"):
        check(made[0] / "audio.onnx", replace(reference, n_norms=99), "fp32")
    with pytest.raises(NotOnPar, match="Clip"):
        check(made[0] / "audio.onnx", reference, "fp16")
    for weight in student.ears.encoder.layers[1].parameters():
        weight.zero_()
    path = tmp_path / "zero.onnx"
    export_graph(student.fold(), torch.from_numpy(windows), ("samples", "vectors"), path, OPSET)
    with pytest.raises(NotOnPar, match="away from torch"):
        check(path, reference, "fp32")
    with pytest.raises(NotOnPar, match="nothing could be compared"):
        reference_of(student, windows[[0, 0]])


def test_the_spectrum_of_a_graph_is_that_of_transformers(tmp_path: Path) -> None:
    t = np.arange(480_000) / 16_000
    loud = 0.5 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 554.4 * t)
    windows = np.stack([golden.signal(0, 480_000), loud, 1e-3 * golden.signal(1, 480_000)])
    windows = windows.astype(np.float32)
    path = tmp_path / "mel.onnx"
    export_graph(LogMel(128), torch.from_numpy(windows[:2]), ("samples", "mel"), path, OPSET)
    extractor = WhisperFeatureExtractor(feature_size=128)
    theirs = [extractor(w, sampling_rate=16_000)["input_features"][0] for w in windows]
    error = np.abs(open_session(path).run(windows, 4) - np.stack(theirs))
    assert error.max() < 5e-4 and error.mean() < 5e-6


def test_a_model_is_its_weights_and_its_text_space(weights: Path, made: tuple[Path, str]) -> None:
    student = student_of(weights)
    card = open_bundle(made[0]).card
    assert model_id(student, "Alibaba-NLP/gte-multilingual-base") == card.model_id
    assert model_id(student, "another") != card.model_id
    student.head.audio_proj.net[-1].bias.data[0] += 1e-3
    assert model_id(student, "Alibaba-NLP/gte-multilingual-base") != card.model_id


def test_weights_that_do_not_belong_are_refused(weights: Path) -> None:
    state = read_encoder(weights / "model.safetensors")
    assert not any("decoder" in name for name in state)
    some = "model.encoder.layers.1.fc1.bias"
    for wrong in (
        {k: v for k, v in state.items() if k != some},
        state | {"model.encoder.more": torch.zeros(1)},
        state | {some: torch.zeros(3)},
        {},
    ):
        with pytest.raises(BadModel, match="Whisper encoder"):
            encoder_of(wrong)
    with pytest.raises(BadModel, match="do not belong together"):
        Student(Ears(encoder_of(state)), Head(HeadOptions(64, (8,), 4)))


def test_what_cannot_be_done_is_one_sentence(
    weights: Path, made: tuple[Path, str], tmp_path: Path
) -> None:
    options = ("--checkpoint", weights / "livi.pth", "--whisper")
    assert "there is no folder" in refused(*options, "nowhere", "--out", tmp_path / "a")
    assert "model.safetensors" in refused(*options, tmp_path, "--out", tmp_path / "a")
    assert "exists already" in refused(*options, weights, "--out", made[0])
    precise = refused(*options, weights, "--out", tmp_path / "a", "--precisions", "fp16")
    assert "needs fp32" in precise
    assert list(tmp_path.iterdir()) == []


def test_weights_of_a_name_are_those_that_are_pinned(weights: Path, tmp_path: Path) -> None:
    arguments = ("export.livi", "--checkpoint", weights / "livi.pth", "--out", tmp_path / "bundle")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    done = run(*arguments, **offline)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "give --whisper FOLDER" in line
    ((name, pin),) = PINS.items()
    kept = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / pin.revision
    kept.mkdir(parents=True)
    shutil.copy(weights / "model.safetensors", kept)
    done = run(*arguments, **offline)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and f"of {name} that is pinned" in line
    assert not (tmp_path / "bundle").exists()


def test_a_missing_gpu_is_said(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = run("benchmarks.gpu", "--out", tmp_path)
    assert done.returncode == 1 and "no CUDA device is here" in done.stderr
    assert list(tmp_path.iterdir()) == []
