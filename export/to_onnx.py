r"""Checkpoints → a model bundle that ``livi-index`` opens: ONNX files and their card.

    python -m export.to_onnx BUNDLE --reader reader.pt --space space.pt --detector detector.pt \
        --alignment alignment.json --shades alignment.shades.pt --card card.toml \
        --songs song.ogg [song.mp3 …]

The products of the reader's blocks are in 8 bits, at two thirds of its time: weights with a scale
for each output, and what they multiply with ranges seen on ``--songs`` (fixed ranges: with ranges
of the batch at hand, a window's vector would depend on its neighbours). All other weights are
stored as float16 and computed with as float32: ONNX Runtime folds the casts when it opens the file.
A bundle is not written unless each graph answers as its torch module does, alone and in a batch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from export.detector import WINDOW_SAMPLES, Detector, load_detector
from export.fit import load_space
from export.lexical import ALPHABET, LexicalSpace, collapse, letters_of, unit
from export.reader import CLIP_SAMPLES, DOUBT, SAMPLE_RATE, Reader
from export.shades import Shades, load_shades
from export.train import load_reader
from livi_index.audio import load_audio

WINDOW_S = 30.0
READER, VOCALS = "reader.onnx", "vocals.onnx"
ALIGNMENT, PROFILES = "alignment.json", "profiles.npy"
MAX_CHARACTERS = 2000
# 1 − cosine, or the share of other phones. Where two phones nearly tie, 8 bits may choose the other
# one; a batch changes no sum but where the last bit of one decides a tie.
TORCH_TOLERANCE, EIGHT_BIT_TOLERANCE, BATCH_TOLERANCE = 1e-3, 3e-2, 1e-3
_OPSET = 20
_STEM_PRODUCTS = 3  # 8 bits are too few for samples and what convolutions make of them
_HALVED_FROM = 256  # weights of fewer values stay float32: nothing to gain


class ReaderGraph(nn.Module):
    """(B, 160000) samples → (B, 416) guesses, each with its shade."""

    def __init__(self, reader: Reader, shades: Shades) -> None:
        super().__init__()
        self.reader = reader
        self.shades = shades

    def forward(self, samples: Tensor) -> Tensor:
        return self.shades(self.reader(samples))


class SoundGraph(nn.Module):
    """(B, L) guesses of a window → (B, dim) unit vectors of what is sung."""

    def __init__(self, space: LexicalSpace) -> None:
        super().__init__()
        self.space = space

    def forward(self, phones: Tensor) -> Tensor:
        return never_zero(self.space.sound(collapse(phones) % DOUBT))


class TextGraph(nn.Module):
    """(B, N) letter indices → (B, dim) unit vectors."""

    def __init__(self, space: LexicalSpace) -> None:
        super().__init__()
        self.space = space

    def forward(self, characters: Tensor) -> Tensor:
        leading = torch.ones_like(characters[:, :1])  # a space, so that words begin alike
        return never_zero(self.space.text(torch.cat([leading, characters], dim=1)))


class VocalsGraph(nn.Module):
    """(B, 48000) samples → (B, 2) probabilities of a voice, and of its speaking, if it is one."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, samples: Tensor) -> Tensor:
        return torch.sigmoid(self.detector(samples))


def never_zero(vectors: Tensor) -> Tensor:
    """Unit vectors also where nothing was read: those all point along the first axis."""
    first = torch.zeros_like(vectors)
    first[:, 0] = 1e-3
    return unit(vectors + first * (vectors.norm(dim=1, keepdim=True) < 0.5))


def export_graph(
    graph: nn.Module, example: Tensor, names: tuple[str, str], path: Path, opset: int = _OPSET
) -> None:
    """Write ``graph`` as one ONNX file with float16 weights; the first axis is free."""
    second = {1: torch.export.Dim("length", min=4)} if names[0] == "characters" else {}
    program = torch.onnx.export(
        graph.eval(),
        (example,),
        dynamo=True,
        opset_version=opset,
        external_data=False,
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)} | second,),
    )
    assert program is not None
    save_model(program.model, path)


def save_model(model: ir.Model, path: Path) -> None:
    """Write ``model`` with float16 weights and without notes of where it was made."""
    halve_weights(model)
    proto = ir.to_proto(model)
    del proto.metadata_props[:]
    used = {node.domain for node in proto.graph.node}
    imports = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    for node in proto.graph.node:  # the exporter notes source paths of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    onnx.save_model(proto, path)


class _Calibration(CalibrationDataReader):
    def __init__(self, windows: Tensor) -> None:
        self._rows = iter(windows.numpy())

    def get_next(self) -> dict[str, np.ndarray] | None:
        row = next(self._rows, None)
        return None if row is None else {"samples": row[None]}


def to_eight_bits(path: Path, windows: Tensor) -> None:
    """Make the products of the reader's blocks in ``path`` 8-bit, in place.

    The ranges of what they multiply with are those seen on ``windows``.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        options = onnxruntime.SessionOptions()
        basic = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.graph_optimization_level = basic  # folds the casts of float16 weights
        options.optimized_model_filepath = str(plain)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load_model(plain).graph
        quantize_static(
            plain,
            small,
            _Calibration(windows),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=[node.name for node in products(graph)[_STEM_PRODUCTS:]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
                "CalibPercentile": 99.99,
            },
        )
        save_model(ir.from_proto(onnx.load_model(small)), path)


def products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The reader's products with weights, in the order in which they are computed."""
    weights = {weight.name for weight in graph.initializer}
    found = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    return [n for n in found if not n.input[1].startswith("space.")]


def halve_weights(model: ir.Model) -> None:
    """Large float32 weights become float16 followed by a Cast, one after the other."""
    graph = model.graph
    for name, weight in list(graph.initializers.items()):
        assert weight.const_value is not None
        if weight.dtype != ir.DataType.FLOAT or weight.const_value.size < _HALVED_FROM:
            continue
        if _is_exact(name):
            continue
        values = ir.tensor(weight.const_value.numpy().astype(np.float16), name=name + ".f16")
        small = ir.Value(
            name=values.name,
            type=ir.TensorType(values.dtype),
            shape=values.shape,
            const_value=values,
        )
        cast = ir.node("Cast", [small], {"to": ir.DataType.FLOAT})
        weight.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[name]
        graph.initializers.add(small)
        cast.outputs[0].name = name
        graph.insert_before(graph[0], cast)


def _is_exact(name: str) -> bool:
    """Signal processing, folded attention and the scales of 8-bit weights keep float32."""
    return "filters" in name or "folded" in name or name.endswith("_scale")


@torch.no_grad()
def round_weights(graph: nn.Module) -> None:
    """Give ``graph`` the float16 values that its file will hold, to compare like with like."""
    for name, weight in graph.named_parameters():
        if weight.numel() >= _HALVED_FROM and not _is_exact(name):
            weight.copy_(weight.half().float())


def check_parity(graph: nn.Module, inputs: Tensor, path: Path) -> dict[str, float]:
    """Largest distances from torch, and between a row alone and in its batch: 1 − cosine of
    vectors, differences of probabilities, the share of phones that are others."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batch = session.run(None, {name: inputs.numpy()})[0]
    alone = np.concatenate(
        [session.run(None, {name: inputs[i : i + 1].numpy()})[0] for i in range(len(inputs))]
    )
    with torch.no_grad():
        expected = graph(inputs).numpy()
    distance = _largest if path.name == VOCALS else _distance
    return {"torch": distance(batch, expected), "batch": distance(batch, alone)}


def _largest(these: np.ndarray, those: np.ndarray) -> float:
    return float(np.abs(these - those).max())


def _distance(these: np.ndarray, those: np.ndarray) -> float:
    if these.dtype == np.int64:  # phones
        return float((these % DOUBT != those % DOUBT).mean())
    return float(max(0.0, (1 - np.sum(these * those, axis=1)).max()))


def on_par(parity: dict[str, dict[str, float]]) -> bool:
    """Whether every graph is within both tolerances."""
    return all(
        p["torch"] <= (EIGHT_BIT_TOLERANCE if file == READER else TORCH_TOLERANCE)
        and p["batch"] <= BATCH_TOLERANCE
        for file, p in parity.items()
    )


def export_checked(
    graph: nn.Module, example: Tensor, names: tuple[str, str], path: Path
) -> dict[str, float]:
    """Write ``graph``, a reader's in 8 bits, and say how far it is from torch."""
    round_weights(graph.eval())
    export_graph(graph, example[:2], names, path)
    if path.name == READER:
        to_eight_bits(path, example)
    parity = check_parity(graph, example, path)
    print(path.name, path.stat().st_size, parity, flush=True)
    return parity


def build_bundle(
    out: Path,
    reader: Reader,
    space: LexicalSpace,
    detector: Detector,
    windows: Tensor,
    shades: Shades,
    alignment: dict[str, Any],
    card: dict[str, Any],
) -> dict[str, Any]:
    """Export all graphs, check them on ``windows`` (N, 480000) of real singing, write the card."""
    out.mkdir(parents=True, exist_ok=True)
    write_alignment(out, alignment, shades)
    clips = windows.reshape(-1, CLIP_SAMPLES)
    with torch.no_grad():
        phones = shades(reader(windows))
    texts = letters_of(["the same words again", "other words altogether and more of them"])[:, 1:]
    vocals = windows.reshape(-1, WINDOW_SAMPLES)[:8]
    parity = {}
    for file, graph, example, names in (
        (READER, ReaderGraph(reader, shades), clips, ("samples", "phones")),
        ("sound.onnx", SoundGraph(space), phones, ("phones", "embedding")),
        ("text.onnx", TextGraph(space), texts, ("characters", "embedding")),
        (VOCALS, VocalsGraph(detector), vocals, ("samples", "vocalness")),
    ):
        parity[file] = export_checked(graph, example, names, out / file)
    if not on_par(parity):
        raise RuntimeError(f"not on par with torch, no card written: {parity}")
    full = card_of(out, space, card | {"measured": card.get("measured", {}) | {"parity": parity}})
    (out / "card.json").write_text(json.dumps(full, indent=1, sort_keys=True) + "\n")
    return full


def write_alignment(out: Path, alignment: dict[str, Any], shades: Shades) -> None:
    """How what is read is compared, and what may have been sung where it was read."""
    (out / ALIGNMENT).write_text(json.dumps(alignment) + "\n")
    np.save(out / PROFILES, shades.steps())


def card_of(out: Path, space: LexicalSpace, written: dict[str, Any]) -> dict[str, Any]:
    """The card: what is ``written`` by hand and what follows from the files."""
    files = (READER, "sound.onnx", "text.onnx", VOCALS, ALIGNMENT, PROFILES)
    digests = {f: hashlib.sha256((out / f).read_bytes()).hexdigest() for f in files}
    identity = hashlib.sha256("".join(digests[f] for f in files[:4]).encode()).hexdigest()
    lyrics = {
        "name": "lyrics",
        "encoder": "sound.onnx",
        "window_s": WINDOW_S,
        "dim": space.options.dim,
        "pooling": "mean",
        "clips": {
            "file": READER,
            "clip_s": CLIP_SAMPLES / SAMPLE_RATE,
            "alignment": ALIGNMENT,
            "profiles": PROFILES,
        },
        "text": {"file": "text.onnx", "alphabet": ALPHABET, "max_characters": MAX_CHARACTERS},
    }
    return {
        "schema": 1,
        "model_id": identity,
        "sample_rate": SAMPLE_RATE,
        "files": {f: {"sha256": digests[f], "size": (out / f).stat().st_size} for f in files},
        "vocals": {
            "file": VOCALS,
            "window_s": WINDOW_SAMPLES / SAMPLE_RATE,
            "tells_speech": True,
        },
        "spaces": [lyrics],
    } | written


def window_of(song: Path) -> np.ndarray:
    """(480000,) float32: the middle half minute of a song, filled up with zeros."""
    n = int(WINDOW_S * SAMPLE_RATE)
    samples = load_audio(song)
    middle = samples[max(0, (len(samples) - n) // 2) :][:n]
    return np.pad(middle, (0, n - len(middle)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model bundle from checkpoints.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--alignment", type=Path, required=True, help="as export.align writes it")
    parser.add_argument("--shades", type=Path, required=True, help="beside it")
    parser.add_argument(
        "--songs", type=Path, nargs="+", required=True, help="to compare with torch on"
    )
    parser.add_argument("--card", type=Path, required=True, help="the card's words, TOML")
    arguments = parser.parse_args()
    windows = torch.from_numpy(np.stack([window_of(song) for song in arguments.songs]))
    build_bundle(
        arguments.out,
        load_reader(arguments.reader),
        load_space(arguments.space),
        load_detector(arguments.detector),
        windows,
        load_shades(arguments.shades),
        json.loads(arguments.alignment.read_text()),
        tomllib.loads(arguments.card.read_text()),
    )


if __name__ == "__main__":
    main()
