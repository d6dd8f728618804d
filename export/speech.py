"""The encoder of a speech recogniser, as a reader to begin with.

    python -m export.speech READER/checkpoint.pt

Moonshine tiny, English (Jeffries et al. 2024; MIT): version 0.0.48 of the package moonshine-voice,
part of the extra ``train``, carries it, so nothing but a package registry is needed. Its products
are kept as bytes with one scale each; here they become numbers again. The two output layers are new
and start small.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor

from export.reader import Reader, ReaderOptions
from export.train import TrainOptions, optimiser_of, save_checkpoint

SHA256 = "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221"


def package_folders() -> list[str]:
    """Where moonshine-voice is installed, found without importing it (it would ask for a sound
    card); FileNotFoundError if it is not."""
    spec = importlib.util.find_spec("moonshine_voice")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("moonshine-voice is not installed: pip install 'livi-index[train]'")
    return list(spec.submodule_search_locations)


def packaged_encoder(folders: Sequence[str] | None = None) -> Path:
    """The encoder in the installed package; FileNotFoundError if it is not there or another one."""
    folders = package_folders() if folders is None else folders
    path = Path(folders[0]) / "assets" / "tiny-en" / "encoder_model.ort"
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise FileNotFoundError(f"{path} is not the one of moonshine-voice 0.0.48; install that")
    return path


def as_onnx(packed: Path, folder: Path) -> Path:
    """``packed``, in ONNX Runtime's own format, as an ONNX file in ``folder``."""
    plain = folder / "encoder.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(plain)
    options.add_session_config_entry("session.save_model_format", "ONNX")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    onnxruntime.InferenceSession(packed, options, providers=["CPUExecutionProvider"])
    return plain


def begin(encoder: Path) -> Reader:
    """A reader whose body has the weights of ``encoder``, an ONNX file."""
    graph = onnx.load(encoder).graph
    values = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
    nodes = {node.name: list(node.input) for node in graph.node}
    reader = Reader()
    state = reader.state_dict()
    state |= _stem(values, nodes)
    for i in range(reader.options.blocks):
        state |= _block(i, values, nodes)
    state["norm.weight"] = values["layer_norm.weight"]
    for name in ("said", "moments"):
        state[f"{name}.weight"] = 0.1 * state[f"{name}.weight"]
    reader.load_state_dict(state, strict=True)
    return reader


def _stem(values: dict[str, Tensor], nodes: dict[str, list[str]]) -> dict[str, Tensor]:
    state = {
        "stem.scale": values[nodes["/groupnorm/Mul"][1]].flatten(),
        "stem.shift": values[nodes["/groupnorm/Add"][1]].flatten(),
    }
    for name, node in (("first", "conv1"), ("second", "conv2"), ("third", "conv3")):
        inputs = nodes[f"/{node}/Conv"]
        kernel = values[inputs[1]]  # (out, in, kernel); a frame holds the channels of each moment
        state[f"stem.{name}.product.weight"] = kernel.permute(0, 2, 1).flatten(1)
        if len(inputs) > 2:
            state[f"stem.{name}.product.bias"] = values[inputs[2]]
    return state


def _block(i: int, values: dict[str, Tensor], nodes: dict[str, list[str]]) -> dict[str, Tensor]:
    def product(name: str) -> Tensor:
        inputs = nodes[f"/layers.{i}/{name}/MatMul_quant"]
        scale, zero = (3, 5) if "_scale" in inputs[2] and "_scale" in inputs[3] else (2, 3)
        whole = values[inputs[1]].float() - values[inputs[zero]].float()
        return (whole * values[inputs[scale]]).T.contiguous()

    attention = [product(f"self_attn/{part}_proj") for part in "qkv"]
    attention[:2] = [_halves(part) for part in attention[:2]]
    block = {
        "norms.0.weight": values[f"layers.{i}.input_layernorm.weight"],
        "norms.1.weight": values[f"layers.{i}.post_attention_layernorm.weight"],
        "attention.into.weight": torch.cat(attention),
        "attention.out.weight": product("self_attn/o_proj"),
    }
    for ours, theirs in ((0, "fc1"), (2, "fc2")):
        block[f"feed_forward.{ours}.weight"] = product(f"mlp/{theirs}")
        block[f"feed_forward.{ours}.bias"] = values[f"layers.{i}.mlp.{theirs}.bias"]
    return {f"blocks.{i}.{name}": value for name, value in block.items()}


def _halves(rows: Tensor) -> Tensor:
    """The rotated channels of each head: even ones first, then odd ones, as our reader has them."""
    options = ReaderOptions()
    heads = rows.reshape(options.heads, -1, rows.shape[1])
    rotated = heads[:, : options.rotated]
    return torch.cat(
        [rotated[:, 0::2], rotated[:, 1::2], heads[:, options.rotated :]], dim=1
    ).flatten(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Begin a reader with a speech encoder.")
    parser.add_argument("out", type=Path, help="the checkpoint that export.train goes on from")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reader = begin(as_onnx(packaged_encoder(), Path(folder)))
    options = TrainOptions()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(arguments.out, reader, optimiser_of(reader, options), 0, 0.0, options)


if __name__ == "__main__":
    main()
