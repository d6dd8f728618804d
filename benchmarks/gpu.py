"""The paper's encoder at full size, timed: ``python -m benchmarks.gpu [--songs FOLDER]``

Random weights of the sizes of whisper-large-v3-turbo and of the authors' head: speed does not ask
what weights say. In one run, on one GPU:

- the ceiling: the product of two float16 matrices;
- the published way: transformers' log-mel on the processor, one recording of eight windows a batch,
  the encoder in torch under float16 autocast, the head in float32 as it is written;
- ours: the graph of a bundle by ONNX Runtime, windows of many recordings in a batch. Where this
  onnxruntime has no CUDA, the same network in torch, float16 and folded, and the result says so;
- with ``--songs``, a whole ``livi-index build`` of that folder.

What a processor needs for the same is in ``benchmarks.runtime``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.results import arguments, print_table, write_result
from benchmarks.runtime import SIZES, encoder_gflop
from livi_index.audio import SAMPLE_RATE
from livi_index.models import DEFAULT_MODEL, find_model, may_run_on_cuda, open_session

WINDOWS_A_TRACK = 8  # of a song of four minutes
BATCH = 32
MATRIX = 8192

# What needs torch is imported inside functions only, its classes too.
Student: TypeAlias = Any
Tensor: TypeAlias = Any


def random_student(size: str) -> Student:
    """Of the sizes of Whisper's and of the authors', with weights under which windows differ."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from export.student import Head, HeadOptions, Student
    from export.whisper import HEAD_DIM, Ears

    width, layers, n_mels = SIZES[size]
    torch.manual_seed(0)
    config = WhisperConfig(
        num_mel_bins=n_mels, d_model=width, encoder_layers=layers, encoder_ffn_dim=4 * width,
        encoder_attention_heads=width // HEAD_DIM, decoder_layers=1, dtype=torch.float32,
    )  # fmt: skip
    student = Student(Ears(WhisperEncoder(config)), Head(HeadOptions(width=width))).eval()
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "gamma" in name:
                weight.fill_(1.0)
            elif weight.ndim > 1 and "embed" not in name and "cls" not in name:
                # Rows without a mean: else what is positive everywhere outweighs the rest.
                rows = torch.randn_like(weight).flatten(1)
                rows = (rows - rows.mean(dim=1, keepdim=True)) / rows.shape[1] ** 0.5
                weight.copy_(rows.view_as(weight))
    return student


def rate(run: Callable[[], None], n: int, seconds: float) -> float:
    """How many of ``n`` a call are done in a second, after one call that does not count."""
    run()
    started, calls = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or calls == 0:
        run()
        calls += 1
    return calls * n / passed if passed else 0.0


def ceiling_tflops(seconds: float) -> float:
    """Of float16 products on this GPU."""
    import torch

    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.float16) for _ in range(2))

    def products() -> None:
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()

    return rate(products, 10, seconds) * 2 * MATRIX**3 / 1e12


def published_way(student: Student, windows: Tensor, seconds: float) -> float:
    """Windows a second, one recording a batch."""
    import torch
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=student.ears.encoder.config.num_mel_bins)
    encoder, head = student.ears.encoder.cuda(), student.head.cuda()
    track = [window.numpy() for window in windows[:WINDOWS_A_TRACK]]

    @torch.no_grad()
    def run() -> None:
        mels = extractor(track, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.autocast("cuda", torch.float16):
            frames = encoder(mels["input_features"].cuda()).last_hidden_state
        head(frames.float()).cpu()

    return rate(run, len(track), seconds)


def ours_in_torch(student: Student, windows: Tensor, seconds: float) -> float:
    """Windows a second of the network that a bundle holds, without ONNX Runtime."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # as in our graph
    folded = student.cuda().fold()
    folded.ears.encoder.half()

    @torch.no_grad()
    def run() -> None:
        folded(windows.cuda()).cpu()

    return rate(run, len(windows), seconds)


def ours_in_a_graph(student: Student, windows: Tensor, seconds: float) -> float:
    """Windows a second of the float16 graph."""
    from export.livi import OPSET
    from export.to_onnx import export_graph

    folded = student.cpu().fold()
    folded.ears.encoder.half()
    rows = windows.numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audio.fp16.onnx"
        export_graph(folded, windows[:2], ("samples", "vectors"), path, OPSET)
        session = open_session(path, device="cuda")
        return rate(lambda: session.run(rows, BATCH), len(rows), seconds)


def whole_build(student: Student, songs: Path) -> dict[str, Any]:
    """Seconds of a build of a folder with a bundle of this student, and its report."""
    from export.livi import SONGS, build_bundle
    from export.to_onnx import window_of

    windows = np.stack([window_of(song) for song in SONGS[:2]])
    with tempfile.TemporaryDirectory() as folder:
        bundle, library = Path(folder) / "random", Path(folder) / "library"
        build_bundle(bundle, student.cpu().float(), windows, find_model(DEFAULT_MODEL))
        command = [sys.executable, "-m", "livi_index", "build", songs, "--model", bundle]
        command += ["--library", library, "--json"]
        started = time.perf_counter()
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        return {"seconds": time.perf_counter() - started, "report": json.loads(done.stdout)}


def on_gpu(options: Namespace) -> dict[str, Any]:
    """All figures of a GPU; leaves the program where there is none."""
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device is here, so nothing was measured")
    windows = 0.1 * torch.randn(BATCH, 30 * SAMPLE_RATE)
    student = random_student(options.whisper)
    figures: dict[str, Any] = {
        "whisper": options.whisper,
        "gpu": torch.cuda.get_device_name(),
        "gflop_a_window": encoder_gflop(options.whisper),
        "ceiling_tflops": ceiling_tflops(options.seconds),
        "published_windows_per_s": published_way(student, windows, options.seconds),
        "ours_in": "ONNX Runtime" if may_run_on_cuda("auto") else "torch: no CUDA in onnxruntime",
    }
    ours = ours_in_a_graph if may_run_on_cuda("auto") else ours_in_torch
    figures["ours_windows_per_s"] = ours(student, windows, options.seconds)
    if options.songs and may_run_on_cuda("auto"):
        figures["build"] = whole_build(random_student(options.whisper), options.songs)
    return figures | judged(figures)


def judged(figures: dict[str, Any]) -> dict[str, float]:
    """What the figures say together: share of the ceiling, and how much faster than published."""
    tflops = figures["ours_windows_per_s"] * figures["gflop_a_window"] / 1e3
    return {
        "ours_tflops": tflops,
        "share_of_ceiling": tflops / figures["ceiling_tflops"],
        "times_published": figures["ours_windows_per_s"] / figures["published_windows_per_s"],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--whisper", choices=SIZES, default="large-v3-turbo", help="its sizes")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each figure of a GPU")
    parser.add_argument("--songs", type=Path, help="a folder to build a library of")
    options = parser.parse_args()
    figures = on_gpu(options)
    print_table(
        [key, value if isinstance(value, float) else str(value)] for key, value in figures.items()
    )
    write_result("gpu", figures, options.out)


if __name__ == "__main__":
    main()
