"""A bundle's card, written anew: ``python -m export.card BUNDLE --card card.toml``

Words, segment options, probabilities and measured figures are those of ``card.toml``; sizes,
digests, spaces and parity stay as they are. ``--harmony HARMONY.onnx`` gives the bundle that space,
or another one; ``--detector DETECTOR.pt`` another detector; ``--reader READER.pt``, with its
``--alignment`` and ``--shades``, another reader for the same space of words. Both are compared with
torch on ``--songs``. ``--alignment`` alone gives the reader that is there other rules of what is
alike: what libraries hold stays as it is, and so does the ``model_id``.

Libraries take a bundle for the model that they were built with when its ``model_id`` is the same,
and then let it fill in the spaces that they lack. So a first harmony leaves the id as it is, while
one in place of another makes another model: vectors of two encoders must not meet. So does another
detector, which cuts other segments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.detector import WINDOW_SAMPLES, load_detector
from export.harmony import HOP_S, WINDOW_S
from export.reader import CLIP_SAMPLES, SAMPLE_RATE
from export.shades import load_shades
from export.to_onnx import (
    ALIGNMENT,
    PROFILES,
    READER,
    VOCALS,
    ReaderGraph,
    VocalsGraph,
    export_checked,
    on_par,
    window_of,
    write_alignment,
)
from export.train import load_reader

HARMONY = "harmony"
GRAPH = "harmony.onnx"


def with_harmony(bundle: Path, card: dict[str, Any], graph: Path, dim: int) -> dict[str, Any]:
    """The card with this graph, which is copied into the bundle."""
    if graph.resolve() != (bundle / GRAPH).resolve():
        shutil.copyfile(graph, bundle / GRAPH)
    card = _with_file(bundle, card, GRAPH)
    space = {
        "name": HARMONY,
        "encoder": GRAPH,
        "window_s": WINDOW_S,
        "hop_s": HOP_S,
        "dim": dim,
        "pooling": "mean",
    }
    others = [one for one in card["spaces"] if one["name"] != HARMONY]
    return card | {"spaces": [*others, space]}


def with_vocals(
    bundle: Path, card: dict[str, Any], graph: nn.Module, windows: Tensor, *, tells_speech: bool
) -> dict[str, Any]:
    """The card with this detector, which is written into the bundle and answers as torch does on
    ``windows`` (N, 48000); RuntimeError where it does not."""
    parity = export_checked(graph, windows, ("samples", "vocalness"), bundle / VOCALS)
    if not on_par({VOCALS: parity}):
        raise RuntimeError(f"not on par with torch: {parity}")
    card = _with_file(bundle, card, VOCALS)
    measured = card.get("measured", {})
    told = {VOCALS: parity}
    return card | {
        "vocals": {
            "file": VOCALS,
            "window_s": WINDOW_SAMPLES / SAMPLE_RATE,
            "tells_speech": tells_speech,
        },
        "measured": measured | {"parity": measured.get("parity", {}) | told},
    }


def with_reader(
    bundle: Path,
    card: dict[str, Any],
    graph: ReaderGraph,
    alignment: dict[str, Any],
    clips: Tensor,
) -> dict[str, Any]:
    """The card with this reader, which is written into the bundle with how its readings are
    compared, and answers as torch does on ``clips`` (N, 160000); RuntimeError where it does not."""
    parity = export_checked(graph, clips, ("samples", "phones"), bundle / READER)
    if not on_par({READER: parity}):
        raise RuntimeError(f"not on par with torch: {parity}")
    write_alignment(bundle, alignment, graph.shades)
    card = _with_file(bundle, card, READER)
    files = card["files"] | {name: _digest(bundle / name) for name in (ALIGNMENT, PROFILES)}
    lyrics, *others = card["spaces"]
    reads = {"alignment": ALIGNMENT, "profiles": PROFILES}
    spaces = [lyrics | {"clips": lyrics["clips"] | reads}, *others]
    measured = card.get("measured", {})
    told = {"parity": measured.get("parity", {}) | {READER: parity}}
    return card | {"files": files, "spaces": spaces, "measured": measured | told}


def with_alignment(bundle: Path, card: dict[str, Any], alignment: Path) -> dict[str, Any]:
    """The card with other rules of what is alike, by the shades that the bundle has."""
    (bundle / ALIGNMENT).write_bytes(alignment.read_bytes())
    return card | {"files": card["files"] | {ALIGNMENT: _digest(bundle / ALIGNMENT)}}


def _digest(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _with_file(bundle: Path, card: dict[str, Any], name: str) -> dict[str, Any]:
    """The card with a file as it lies in the bundle; in place of another, it is another model."""
    file = _digest(bundle / name)
    if card["files"].get(name) not in (None, file):
        both = card["model_id"] + file["sha256"]
        card = card | {"model_id": hashlib.sha256(both.encode()).hexdigest()}
    return card | {"files": card["files"] | {name: file}}


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
        if key not in ("calibration", "chance", "familiar", "fusion", "witness")
    }
    return kept | written | {"measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a bundle's card anew.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--card", type=Path, required=True, help="the card's words, TOML")
    parser.add_argument("--harmony", type=Path, help="as export.harmony wrote it")
    parser.add_argument("--detector", type=Path, help="a checkpoint of export.detector")
    parser.add_argument("--reader", type=Path, help="a checkpoint of export.train")
    parser.add_argument("--alignment", type=Path, help="as export.align wrote it for its reader")
    parser.add_argument("--shades", type=Path, help="beside that alignment")
    parser.add_argument("--songs", type=Path, nargs="+", default=[], help="to compare torch on")
    arguments = parser.parse_args()
    if (arguments.detector or arguments.reader) and not arguments.songs:
        parser.error("--detector and --reader need --songs to compare with torch on")
    if arguments.reader and not (arguments.alignment and arguments.shades):
        parser.error("--reader needs the --alignment and --shades that were learned for it")
    path = arguments.bundle / "card.json"
    given = vars(arguments) | {"bundle": path}
    for files in given.values():
        for file in files if isinstance(files, list) else [files]:
            if file and not file.is_file():
                parser.error(f"{file} is not there")
    card = json.loads(path.read_text())
    if arguments.songs:
        songs = torch.from_numpy(np.stack([window_of(song) for song in arguments.songs]))
    if arguments.detector:
        graph = VocalsGraph(load_detector(arguments.detector))
        windows = songs.reshape(-1, WINDOW_SAMPLES)
        card = with_vocals(arguments.bundle, card, graph, windows, tells_speech=True)
    if arguments.reader:
        reads = ReaderGraph(load_reader(arguments.reader), load_shades(arguments.shades))
        alignment = json.loads(arguments.alignment.read_text())
        clips = songs.reshape(-1, CLIP_SAMPLES)
        card = with_reader(arguments.bundle, card, reads, alignment, clips)
    elif arguments.alignment:
        card = with_alignment(arguments.bundle, card, arguments.alignment)
    card = rewritten(card, tomllib.loads(arguments.card.read_text()))
    if arguments.harmony:
        graph = arguments.harmony
        card = with_harmony(arguments.bundle, card, graph, dim_of(graph))
    path.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
