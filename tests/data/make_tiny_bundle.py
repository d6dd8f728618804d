"""Make tiny-bundle, tiny-reader and tiny-harmony: real ONNX graphs of a few kB, for tests.

    python tests/data/make_tiny_bundle.py

``vocals.onnx`` calls loud windows sung, ``audio.onnx`` tells sounds apart by their spectrum,
``text.onnx`` tells words apart by their letters. The second bundle reads: ``reader.onnx`` takes
tones for phones, ``sound.onnx`` counts them, ``alignment.json`` says what pairs of them are worth.
The third is the second with one more space, over whole recordings.
Needs the onnx package (extra ``train``).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parent
ALPHABET = "_ abcdefghijklmnopqrstuvwxyz'"
SAMPLE_RATE = 16_000
DIM = 32
N_BANDS = 24
KERNEL = 256
PITCHES = np.geomspace(200, 6000, N_BANDS)  # phone n is a tone of PITCHES[n - 1]
CLASSES = 32
STEPS_PER_NAT = 12.0


def model(nodes, weights, source, target) -> bytes:
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", [source], [target], constants)
    opset = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="livi-index")
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def audio_graph(rng: np.random.Generator, n_samples: int = 480_000) -> bytes:
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
    source = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["B", n_samples])
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


def reader_graph() -> bytes:
    """At the begin of each 0.1 s the number of the loudest tone, 0 where none has 0.016."""
    weights = {
        "channel": np.array([1], np.int64),
        "phases": (2 * np.pi * PITCHES[:, None] / SAMPLE_RATE).astype(np.float32),
        "times": np.arange(KERNEL, dtype=np.float32)[None],
        "window": np.hanning(KERNEL)[None].astype(np.float32),
        "least": np.array(1.0, np.float32),
        "one": np.array(1, np.int64),
        "none": np.array(0, np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "channel"], ["sound"]),
        helper.make_node("Mul", ["phases", "times"], ["angles"]),
    ]
    for wave in ("Cos", "Sin"):  # made here, as 24 pairs of them take more room than all else
        nodes += [
            helper.make_node(wave, ["angles"], [f"plain{wave}"]),
            helper.make_node("Mul", [f"plain{wave}", "window"], [f"short{wave}"]),
            helper.make_node("Unsqueeze", [f"short{wave}", "channel"], [f"wave{wave}"]),
            helper.make_node("Conv", ["sound", f"wave{wave}"], [f"part{wave}"], strides=[1600]),
            helper.make_node("Mul", [f"part{wave}", f"part{wave}"], [f"power{wave}"]),
        ]
    nodes += [
        helper.make_node("Add", ["powerCos", "powerSin"], ["powers"]),
        helper.make_node("ArgMax", ["powers"], ["loudest"], axis=1, keepdims=0),
        helper.make_node("Add", ["loudest", "one"], ["phones"]),
        helper.make_node("ReduceMax", ["powers"], ["power"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["power", "least"], ["heard"]),
        helper.make_node("Where", ["heard", "phones", "none"], ["guesses"]),
    ]
    source = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["B", 160_000])
    target = helper.make_tensor_value_info("guesses", TensorProto.INT64, ["B", 100])
    return model(nodes, weights, source, target)


def sound_graph(rng: np.random.Generator) -> bytes:
    """The sum of a row for each guess; that of silence is short, so that all of it has one too."""
    table = rng.normal(size=(N_BANDS + 1, DIM)).astype(np.float32)
    table[0] *= 1e-3
    nodes = [
        helper.make_node("Gather", ["table", "guesses"], ["rows"], axis=0),
        helper.make_node("ReduceSum", ["rows", "place"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["embedding"], axis=1, p=2),
    ]
    weights = {"table": table, "place": np.array([1], np.int64)}
    source = helper.make_tensor_value_info("guesses", TensorProto.INT64, ["B", 300])
    target = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", DIM])
    return model(nodes, weights, source, target)


def alignment() -> bytes:
    """A tone is worth 2.5 nats beside itself, less than nothing beside others, least far away."""
    apart = np.abs(np.subtract.outer(np.arange(CLASSES), np.arange(CLASSES)))
    nats = np.select([apart == 0, apart == 1], [2.5, -0.5], -2.0)
    values = {
        "schema": 1,
        "classes": list(range(N_BANDS + 1)),
        "pairs": np.round(nats * STEPS_PER_NAT).astype(int).tolist(),
        "gap": round(1.2 * STEPS_PER_NAT),
        "steps_per_nat": STEPS_PER_NAT,
        "chance": [-2.3, 1.1],  # measured with random strings of 24 tones
    }
    return (json.dumps(values) + "\n").encode()


def card(name: str, files: dict[str, bytes], space: dict[str, Any], **more: Any) -> dict[str, Any]:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {
        "schema": 1,
        "name": name,
        "version": "1",
        "model_id": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
        "sample_rate": SAMPLE_RATE,
        "files": {k: {"sha256": digests[k], "size": len(data)} for k, data in files.items()},
        "vocals": {"file": "vocals.onnx", "window_s": 3.0},
        "spaces": [
            {
                "name": "lyrics",
                **space,
                "window_s": 30.0,
                "dim": DIM,
                "pooling": "mean",
                "text": {"file": "text.onnx", "alphabet": ALPHABET, "max_characters": 2000},
            }
        ],
        **more,
        "trained_on": "nothing: fixed random weights for tests",
        "licence": "MIT",
    }


def write(folder: Path, files: dict[str, bytes], values: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "card.json").write_text(json.dumps(values, indent=2) + "\n")


def calibration(slope: float, offset: float) -> dict[str, Any]:
    return {"lyrics": {"slope": slope, "offset": offset, "fitted_on": "nothing"}}


def main() -> None:
    rng = np.random.default_rng(1)
    files = {
        "audio.onnx": audio_graph(rng),
        "vocals.onnx": vocals_graph(),
        "text.onnx": text_graph(rng),
    }
    values = card(
        "tiny",
        files,
        {"encoder": "audio.onnx"},
        segments={"hop_s": 15.0, "min_tail_sung_s": 5.0, "weighting": "sung"},
        calibration=calibration(10.0, -4.0),
    )
    write(FOLDER / "tiny-bundle", files, values)
    files = {
        "reader.onnx": reader_graph(),
        "sound.onnx": sound_graph(rng),
        "vocals.onnx": vocals_graph(),
        "text.onnx": text_graph(rng),
        "alignment.json": alignment(),
    }
    clips = {"file": "reader.onnx", "clip_s": 10.0, "alignment": "alignment.json"}
    values = card(
        "tiny-reader",
        files,
        {"encoder": "sound.onnx", "clips": clips},
        segments={
            "hop_s": 10.0,
            "min_tail_sung_s": 5.0,
            "min_phones_per_s": 0.3,
            "weighting": "read",
        },
        calibration=calibration(0.2, -4.0),
    )
    write(FOLDER / "tiny-reader", files, values)
    write(FOLDER / "tiny-harmony", *with_harmony(files, values, rng))


def with_harmony(
    files: dict[str, bytes], values: dict[str, Any], rng: np.random.Generator
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The same model with a space more: its id stays."""
    data = audio_graph(rng, 10 * SAMPLE_RATE)
    named = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    space = {"name": "harmony", "encoder": "harmony.onnx", "window_s": 10.0, "hop_s": 5.0}
    curve = {"slope": 50.0, "offset": -46.0, "fitted_on": "nothing", "recordings": 10}
    weights = {"lyrics": 0.2, "harmony": 10.0}
    return files | {"harmony.onnx": data}, values | {
        "version": "2",
        "files": values["files"] | {"harmony.onnx": named},
        "spaces": [*values["spaces"], space | {"dim": DIM, "pooling": "mean"}],
        "calibration": values["calibration"] | {"harmony": curve},
        "fusion": {"weights": weights, "offset": -12.0, "fitted_on": "nothing", "recordings": 10},
    }


if __name__ == "__main__":
    main()
