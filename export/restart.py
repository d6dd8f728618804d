"""A reader's weights back out of a bundle, so that the next edition can start from the last.

    python -m export.restart CHECKPOINT.pt --bundle livi_index/assets/livi-mini

The bundle's ``reader.onnx`` holds every weight that reading needs: products, most in 8 bits, in
the order in which they are computed, all else by name at float16. The head that only training has
(``moments``) starts anew, and so does the optimiser.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from export.reader import Reader, ReaderOptions
from export.train import TrainOptions, optimiser_of, save_checkpoint

_PREFIX, _HALF = "reader.", ".f16"


def reader_of_bundle(bundle: Path, options: ReaderOptions | None = None) -> Reader:
    """The reader inside a bundle; KeyError names what is not found in its graph."""
    graph = onnx.load_model(bundle / "reader.onnx").graph
    held = {w.name.removesuffix(_HALF): numpy_helper.to_array(w) for w in graph.initializer}
    reader = Reader(options)
    state = reader.state_dict()
    found = {name: held[_PREFIX + name] for name in state if _PREFIX + name in held}
    layers = [
        f"{name}.weight"
        for name, layer in reader.named_modules()
        if isinstance(layer, nn.Linear) and name != "moments"
    ]
    found |= dict(zip(layers, _matrices(graph, held), strict=True))
    for name in state:
        if name not in found and not name.startswith("moments."):
            raise KeyError(f"{bundle}: no weight {name} in reader.onnx")
    for name, values in found.items():
        state[name] = torch.from_numpy(values.astype(np.float32).copy())
    reader.load_state_dict(state)
    return reader


def _matrices(graph: onnx.GraphProto, held: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Matrices of the reader's linear layers, (out, in), in the order of the graph."""
    widened = {n.output[0]: n.input for n in graph.node if n.op_type == "DequantizeLinear"}
    matrices = []
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        if node.input[1] in held:
            matrices.append(held[node.input[1]].T)
        elif (weight := widened.get(node.input[1])) and weight[0] in held:
            matrices.append((held[weight[0]].astype(np.float32) * held[weight[1]]).T)
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
