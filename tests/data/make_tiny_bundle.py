"""Make tests/data/tiny-bundle: real ONNX graphs of a few kB, for tests that need no training.

    python tests/data/make_tiny_bundle.py

``vocals.onnx`` calls loud windows sung, ``audio.onnx`` tells sounds apart by their spectrum,
``text.onnx`` tells words apart by their letters. Needs the onnx package (extra ``train``).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parent / "tiny-bundle"
ALPHABET = "_ abcdefghijklmnopqrstuvwxyz'"
SAMPLE_RATE = 16_000
DIM = 32
N_BANDS = 24
KERNEL = 256


def model(nodes, weights, source, target) -> bytes:
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [source], [target], constants)
    opset = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="livi-index")
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def audio_graph(rng: np.random.Generator) -> bytes:
    """Log energies of bands from 100 Hz to 6 kHz, mixed to DIM numbers, made unit."""
    times = np.arange(KERNEL) / SAMPLE_RATE
    phases = 2 * np.pi * np.geomspace(100, 6000, N_BANDS)[:, None] * times
    waves = np.concatenate([np.cos(phases), np.sin(phases)]) * np.hanning(KERNEL)
    weights = {
        "waves": waves[:, None].astype(np.float32),
        "channel": np.array([1], np.int64),
        "floor": np.array([1e-3], np.float32),
        "mix": rng.normal(size=(2 * N_BANDS, DIM)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "channel"], ["sound"]),
        helper.make_node("Conv", ["sound", "waves"], ["bands"], strides=[1600]),
        helper.make_node("Mul", ["bands", "bands"], ["powers"]),
        helper.make_node("ReduceMean", ["powers"], ["energy"], axes=[2], keepdims=0),
        helper.make_node("Add", ["energy", "floor"], ["above"]),
        helper.make_node("Log", ["above"], ["levels"]),
        helper.make_node("MatMul", ["levels", "mix"], ["mixed"]),
        helper.make_node("LpNormalization", ["mixed"], ["embedding"], axis=1, p=2),
    ]
    source = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["B", 480_000])
    target = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", DIM])
    return model(nodes, weights, source, target)


def vocals_graph() -> bytes:
    """Logistic curve over the mean power in dB: 0.5 at -40 dB, 0.99 at -30 dB."""
    weights = {
        "floor": np.array(1e-9, np.float32),
        "slope": np.array(10 / np.log(10) * 0.46, np.float32),
        "offset": np.array(40 * 0.46, np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["samples", "samples"], ["powers"]),
        helper.make_node("ReduceMean", ["powers"], ["power"], axes=[1], keepdims=0),
        helper.make_node("Add", ["power", "floor"], ["above"]),
        helper.make_node("Log", ["above"], ["level"]),
        helper.make_node("Mul", ["level", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["vocalness"]),
    ]
    source = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["B", 48_000])
    target = helper.make_tensor_value_info("vocalness", TensorProto.FLOAT, ["B"])
    return model(nodes, weights, source, target)


def text_graph(rng: np.random.Generator) -> bytes:
    """The sum of a row for each letter; padding's row is zero."""
    table = rng.normal(size=(len(ALPHABET), DIM)).astype(np.float32)
    table[0] = 0
    nodes = [
        helper.make_node("Gather", ["table", "characters"], ["rows"], axis=0),
        helper.make_node("ReduceSum", ["rows", "place"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=1, p=2),
    ]
    weights = {"table": table, "place": np.array([1], np.int64)}
    source = helper.make_tensor_value_info("characters", TensorProto.INT64, ["B", "N"])
    target = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", DIM])
    return model(nodes, weights, source, target)


def card(files: dict[str, bytes]) -> dict[str, object]:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {
        "schema": 1,
        "name": "tiny",
        "version": "1",
        "model_id": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
        "sample_rate": SAMPLE_RATE,
        "files": {k: {"sha256": digests[k], "size": len(data)} for k, data in files.items()},
        "vocals": {"file": "vocals.onnx", "window_s": 3.0},
        "spaces": [
            {
                "name": "lyrics",
                "encoder": "audio.onnx",
                "window_s": 30.0,
                "dim": DIM,
                "pooling": "mean",
                "text": {"file": "text.onnx", "alphabet": ALPHABET, "max_characters": 2000},
            }
        ],
        "segments": {"hop_s": 15.0, "min_tail_sung_s": 5.0, "weighting": "sung"},
        "calibration": {"lyrics": {"slope": 10.0, "offset": -4.0, "fitted_on": "nothing"}},
        "trained_on": "nothing: fixed random weights for tests",
        "licence": "MIT",
    }


def main() -> None:
    rng = np.random.default_rng(1)
    files = {
        "audio.onnx": audio_graph(rng),
        "vocals.onnx": vocals_graph(),
        "text.onnx": text_graph(rng),
    }
    FOLDER.mkdir(exist_ok=True)
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    (FOLDER / "card.json").write_text(json.dumps(card(files), indent=2) + "\n")


if __name__ == "__main__":
    main()
