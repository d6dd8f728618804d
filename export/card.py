"""A bundle's card, written anew: ``python -m export.card BUNDLE --card card.toml``

Words, segment options, probabilities and measured figures are those of ``card.toml``; sizes,
digests, spaces and parity stay as they are. ``--harmony HARMONY.onnx`` gives the bundle that space,
or another one.

Libraries take a bundle for the model that they were built with when its ``model_id`` is the same,
and then let it fill in the spaces that they lack. So a first harmony leaves the id as it is, while
one in place of another makes another model: vectors of two encoders must not meet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

from export.harmony import HOP_S, WINDOW_S

HARMONY = "harmony"
GRAPH = "harmony.onnx"


def with_harmony(bundle: Path, card: dict[str, Any], graph: Path, dim: int) -> dict[str, Any]:
    """The card with this graph, which is copied into the bundle."""
    content = graph.read_bytes()
    file = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    before = card["files"].get(GRAPH)
    if before not in (None, file):
        both = card["model_id"] + file["sha256"]
        card = card | {"model_id": hashlib.sha256(both.encode()).hexdigest()}
    if graph.resolve() != (bundle / GRAPH).resolve():
        shutil.copyfile(graph, bundle / GRAPH)
    space = {
        "name": HARMONY,
        "encoder": GRAPH,
        "window_s": WINDOW_S,
        "hop_s": HOP_S,
        "dim": dim,
        "pooling": "mean",
    }
    others = [one for one in card["spaces"] if one["name"] != HARMONY]
    return card | {"files": card["files"] | {GRAPH: file}, "spaces": [*others, space]}


def dim_of(graph: Path) -> int:
    """How many numbers the vectors of a graph have."""
    import onnx

    shape = onnx.load(graph).graph.output[0].type.tensor_type.shape
    return int(shape.dim[1].dim_value)


def rewritten(card: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """The card with other words; how far graphs are from torch is known only when they are made."""
    parity = card.get("measured", {}).get("parity", {})
    measured = written.get("measured", {}) | {"parity": parity}
    kept = {
        key: value
        for key, value in card.items()
        if key not in ("calibration", "familiar", "fusion")
    }
    return kept | written | {"measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a bundle's card anew.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--card", type=Path, required=True, help="the card's words, TOML")
    parser.add_argument("--harmony", type=Path, help="as export.harmony wrote it")
    arguments = parser.parse_args()
    path = arguments.bundle / "card.json"
    card = rewritten(json.loads(path.read_text()), tomllib.loads(arguments.card.read_text()))
    if arguments.harmony:
        graph = arguments.harmony
        card = with_harmony(arguments.bundle, card, graph, dim_of(graph))
    path.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
