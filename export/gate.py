"""The gate of an exported student: a file that is not on par with the torch module does not pass.

An untrained network answers nearly the same to everything, so a cosine near one proves nothing.
Errors are therefore told in units of the median distance between the vectors of different windows
of real singing: 0.01 is a hundredth of what sets two songs apart.

What no figure shows is looked for in the graph: a LayerNormalization that was taken apart overflows
in float16 without a trace, attention in pieces is slow, and Whisper's clamps must stay where its
layers compute in float16.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto
from torch import nn

from export.student import Student
from livi_index.errors import LiviError
from livi_index.models import check_graph, open_session

FloatArray = npt.NDArray[np.float32]
Precision = Literal["fp32", "fp16"]

# Largest error, and largest change of a window's vector by its neighbours, in median distances.
MAX_ERROR: dict[Precision, float] = {"fp32": 0.01, "fp16": 0.03}
MAX_BATCH_CHANGE: dict[Precision, float] = {"fp32": 0.001, "fp16": 0.01}
LEAST_MEDIAN = 1e-3  # below, all windows are alike and nothing can be told
CLIPS = 2  # of the spectrum's floor and of the length of a vector
LARGEST_FILE = 2**31 - 1  # bytes of a protocol buffer


class NotOnPar(LiviError, ValueError):
    """An exported graph does not answer as its torch module does, or is not built as it must be."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the torch module answers: ``vectors`` (N, dim) of ``windows`` (N, samples)."""

    windows: FloatArray
    vectors: FloatArray
    median: float  # distance between vectors of different windows
    n_norms: int
    n_layers: int


@dataclass(frozen=True)
class Parity:
    """How far a file is from its torch module, and a window alone from itself in a batch."""

    error: float
    batch_change: float
    median_distance: float


@torch.no_grad()
def reference_of(student: Student, windows: FloatArray) -> Reference:
    """The student's own answers, one window at a time. Raises NotOnPar where all are alike."""
    rows = [student(torch.from_numpy(window[None])).numpy() for window in windows]
    vectors = np.concatenate(rows)
    i, j = np.triu_indices(len(vectors), 1)
    median = float(np.median(np.linalg.norm(vectors[i] - vectors[j], axis=1))) if len(i) else 0.0
    if median < LEAST_MEDIAN:
        raise NotOnPar(
            f"{len(vectors)} windows have vectors {median:.1e} apart: the student is not trained, "
            "or these are not windows of different songs; nothing could be compared"
        )
    n_norms = sum(isinstance(module, nn.LayerNorm) for module in student.modules())
    return Reference(windows, vectors, median, n_norms, len(student.ears.encoder.layers))


def check(path: Path, reference: Reference, precision: Precision) -> Parity:
    """How far ``path`` is from its torch module, on a processor. Raises NotOnPar."""
    if path.stat().st_size > LARGEST_FILE:
        raise NotOnPar(f"{path.name} is larger than one ONNX file can be (2 GiB)")
    check_graph(path)
    _check_build(onnx.load_model(path).graph, reference, precision, path.name)
    parity = _parity(path, reference)
    if not parity.error <= MAX_ERROR[precision]:
        raise NotOnPar(
            f"{path.name} is {parity.error:.2%} of the distance between songs away from torch, "
            f"more than {MAX_ERROR[precision]:.0%}"
        )
    if not parity.batch_change <= MAX_BATCH_CHANGE[precision]:
        raise NotOnPar(f"{path.name}: neighbours change a vector by {parity.batch_change:.2%}")
    return parity


def _parity(path: Path, reference: Reference) -> Parity:
    session = open_session(path, device="cpu")
    alone, together = (session.run(reference.windows, n) for n in (1, len(reference.windows)))
    error = np.linalg.norm(alone - reference.vectors, axis=1).max()
    change = np.linalg.norm(alone - together, axis=1).max()
    median = reference.median
    return Parity(float(error) / median, float(change) / median, median)


def _check_build(
    graph: onnx.GraphProto, reference: Reference, precision: Precision, name: str
) -> None:
    counts = Counter(node.op_type for node in graph.node)
    wanted = {"LayerNormalization": reference.n_norms, "Attention": reference.n_layers}
    if precision == "fp16":
        wanted["Clip"] = CLIPS + reference.n_layers  # Whisper's clamps
    for kind, n in wanted.items():
        if counts[kind] != n:
            raise NotOnPar(f"{name} has {counts[kind]} {kind} nodes where the student has {n}")
    exact = [weight for weight in graph.initializer if "filters" in weight.name]
    if not exact or any(weight.data_type != TensorProto.FLOAT for weight in exact):
        raise NotOnPar(f"{name} does not hear with a spectrum in float32")
