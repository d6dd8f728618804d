"""A reader's weights back out of a bundle, so that the next edition can start from the last.

    python -m export.restart CHECKPOINT.pt --bundle livi_index/assets/livi-mini

The bundle's ``audio.onnx`` holds every weight that reading needs, at float16. Most keep their
names; the matrix of a linear layer has lost its name to a transposition and is found before the
addition of its bias. The head that only training has (``moments``) starts anew, and so does the
optimiser.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from export.reader import Reader, ReaderOptions
from export.train import TrainOptions, optimiser_of, save_checkpoint

_PREFIX, _HALF = "reader.", ".f16"


def reader_of_bundle(bundle: Path, options: ReaderOptions | None = None) -> Reader:
    """The reader inside a bundle; KeyError names what is not found in its graph."""
    graph = onnx.load_model(bundle / "audio.onnx").graph
    held = {w.name.removesuffix(_HALF): numpy_helper.to_array(w) for w in graph.initializer}
    reader = Reader(options)
    state = reader.state_dict()
    found = {name: held[_PREFIX + name] for name in state if _PREFIX + name in held}
    found |= {name: matrix.T for name, matrix in _matrices(graph, held).items() if name in state}
    for name in state:
        if name not in found and not name.startswith("moments."):
            raise KeyError(f"{bundle}: no weight {name} in audio.onnx")
    for name, values in found.items():
        state[name] = torch.from_numpy(values.astype(np.float32).copy())
    reader.load_state_dict(state)
    return reader


def _matrices(graph: onnx.GraphProto, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices of linear layers by the name that their weight had."""
    products = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMul"}
    matrices = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        bias = next((i for i in node.input if i.startswith(_PREFIX)), "").removesuffix(_HALF)
        matrix = next((products[i] for i in node.input if i in products), "")
        if bias.endswith(".bias") and matrix in held:
            matrices[bias.removeprefix(_PREFIX).removesuffix("bias") + "weight"] = held[matrix]
    return matrices


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a checkpoint to train on from, of a bundle.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", type=Path, required=True)
    arguments = parser.parse_args()
    reader, options = reader_of_bundle(arguments.bundle), TrainOptions()
    save_checkpoint(arguments.out, reader, optimiser_of(reader, options), 0, 0.0, options)
    print(f"{arguments.out}: {dataclasses.asdict(reader.options)}")


if __name__ == "__main__":
    main()
