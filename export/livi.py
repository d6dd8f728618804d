r"""The paper's model as a bundle, from a head's checkpoint and Whisper's weights.

    python -m export.livi --checkpoint livi.pth --out BUNDLE [--whisper PATH-OR-HUB-NAME] \
        [--precisions fp32 fp16] [--vocals MODEL] [--songs SONG …]

``audio.onnx`` (fp32) is for processors: its weights are stored as float16 and computed with as
float32. ``audio.fp16.onnx`` (fp16) is for CUDA: the encoder computes in float16, what comes before
and after it in float32. Both hold all of Whisper's sizes in one file: the largest encoder and the
paper's head are 669 M weights, 1.34 GB as float16, and one file may have 2 GiB.

Exported by hand, 20 lines in ``to_onnx``: optimum's exporter wants a transformers before 5.

A bundle is written only when every file passed the gate (``export.gate``) on real singing. Its
``model_id`` is of the weights and of the text space that they were taught, not of the files, so a
library that was built on a GPU answers on a processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.gate import Parity, Precision, Reference, check, reference_of
from export.hub import quiet
from export.student import Student, load_head
from export.to_onnx import WINDOW_S, export_graph, window_of
from export.whisper import PINS, Ears, digest_of, load_encoder, weights_file
from livi_index.audio import SAMPLE_RATE
from livi_index.errors import BadInput, LiviError
from livi_index.models import CARD, CARD_SCHEMA, DEFAULT_MODEL, Bundle, find_model, verify_file
from livi_index.vocals import SegmentOptions

DEMO = Path(__file__).parent.parent / "catalogs" / "demo"
SONGS = tuple(DEMO / f"{name}.ogg" for name in (
    "kitchen-table-1", "harbour-lights-1", "first-of-april-3", "painted-kite-2",
))  # fmt: skip
FILES: dict[Precision, str] = {"fp32": "audio.onnx", "fp16": "audio.fp16.onnx"}
# From this one on, attention is one node of a graph.
OPSET = 23
TEXT_SPACE = "Alibaba-NLP/gte-multilingual-base"
LICENCE = (
    "The head's weights come with the authors' code, which is CC BY-NC-SA 4.0: this model is NOT "
    "for commercial use, and what is made of it is shared alike. Whisper's weights: MIT."
)


@dataclass(frozen=True)
class Words:
    """What a card says that does not follow from weights."""

    name: str = "livi"
    version: str = "1"
    text_space: str = TEXT_SPACE
    licence: str = LICENCE
    sources: str = ""  # the files of weights


def build_bundle(
    out: Path,
    student: Student,
    windows: np.ndarray,
    vocals: Bundle,
    precisions: Sequence[Precision] = ("fp32", "fp16"),
    words: Words | None = None,
) -> dict[str, Any]:
    """Write the bundle of ``student``, checked on ``windows`` (N, 480000) of real singing.

    The student's encoder is used up: it is left in float16. Raises NotOnPar, and then writes
    nothing; BadInput where ``out`` is taken.
    """
    _check_free(out)
    words = words or Words()
    folded, identity = student.fold(), model_id(student, words.text_space)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=out.parent) as staging:
        folder = Path(staging) / out.name
        folder.mkdir()
        parity = _write_graphs(folder, folded, reference_of(student, windows), precisions)
        spec = vocals.card.vocals
        verify_file(vocals, spec.file)
        shutil.copyfile(vocals.path / spec.file, folder / spec.file)
        card = _card(folder, identity, student, parity, words) | {"vocals": asdict(spec)}
        (folder / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
        folder.rename(out)
    return card


def _check_free(out: Path) -> None:
    if out.exists():
        raise BadInput(f"{out} exists already; give --out another name, or remove it first")


def _write_graphs(
    folder: Path, folded: Student, reference: Reference, precisions: Sequence[Precision]
) -> dict[Precision, Parity]:
    parity = {}
    for precision, file in FILES.items():
        if precision not in precisions:
            continue
        if precision == "fp16":
            folded.ears.encoder.half()
        example = torch.from_numpy(reference.windows[:2])
        export_graph(folded, example, ("samples", "vectors"), folder / file, OPSET)
        parity[precision] = check(folder / file, reference, precision)
        size = (folder / file).stat().st_size / 1e6
        print(f"{file}: {size:.1f} MB, {parity[precision]}", flush=True)
    return parity


def model_id(student: Student, text_space: str) -> str:
    """SHA-256 of all weights as float32, by name, and of the text space's name."""
    digest = hashlib.sha256()
    for name, weight in sorted(student.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        digest.update(_bytes(weight))
    digest.update(text_space.encode())
    return digest.hexdigest()


def _bytes(weight: Tensor) -> memoryview:
    return memoryview(weight.detach().float().contiguous().numpy()).cast("B")


def _card(
    folder: Path,
    identity: str,
    student: Student,
    parity: dict[Precision, Parity],
    words: Words,
) -> dict[str, Any]:
    files = {path.name: _entry(path) for path in sorted(folder.iterdir())}
    space = {
        "name": "lyrics",
        "encoder": FILES["fp32"],
        "window_s": WINDOW_S,
        "dim": student.head.options.dim,
        "pooling": "mean",
    }
    if "fp16" in parity:
        space["cuda_encoder"] = FILES["fp16"]
    return {
        "schema": CARD_SCHEMA,
        "name": words.name,
        "version": words.version,
        "model_id": identity,
        "sample_rate": SAMPLE_RATE,
        "files": files,
        "spaces": [space],
        "segments": asdict(SegmentOptions.paper()),
        "trained_on": f"the text vectors of {words.text_space}; weights: {words.sources}",
        "measured": {"parity": {FILES[p]: asdict(found) for p, found in parity.items()}},
        "licence": words.licence,
    }


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": digest_of(path), "size": path.stat().st_size}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the paper's model from weights.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the head's, livi.pth")
    parser.add_argument(
        "--whisper", default=next(iter(PINS)), help="file or folder of weights, or a hub's name"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle, not there")
    parser.add_argument("--precisions", nargs="+", choices=list(FILES), default=list(FILES))
    parser.add_argument("--vocals", default=DEFAULT_MODEL, help="model whose detector is taken")
    parser.add_argument(
        "--songs", type=Path, nargs="+", default=SONGS, help="real singing to compare with torch on"
    )
    parser.add_argument("--name", default=Words.name, help="of the bundle")
    parser.add_argument("--text-space", default=Words.text_space, help="what the head was taught")
    parser.add_argument("--licence", default=Words.licence, help="of the weights")
    quiet()
    try:
        _make(parser.parse_args(argv))
    except LiviError as error:
        sys.exit(f"export.livi: {error}")


def _make(options: argparse.Namespace) -> None:
    if "fp32" not in options.precisions:
        raise BadInput("--precisions needs fp32: a bundle must answer where there is no GPU")
    _check_free(options.out)
    print(options.licence, flush=True)
    vocals, head = find_model(options.vocals), load_head(options.checkpoint)
    student = Student(Ears(load_encoder(options.whisper)), head).eval()
    files = options.checkpoint, weights_file(options.whisper)
    sources = ", ".join(f"{path.name} (sha256 {digest_of(path)})" for path in files)
    windows = np.stack([window_of(song) for song in options.songs])
    words = Words(options.name, "1", options.text_space, options.licence, sources)
    card = build_bundle(options.out, student, windows, vocals, options.precisions, words)
    print(f"{options.out}: model {card['name']} {card['model_id'][:12]}", flush=True)


if __name__ == "__main__":
    main()
