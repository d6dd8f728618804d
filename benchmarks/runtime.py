"""Where the seconds of a track go, ours and the published way: ``python -m benchmarks.runtime``

The paper's table of runtimes parts what comes before a network (decoding, finding the singing, the
mel spectrum) from the network. Here each of these ways takes the same songs of ``DATA/sung`` in
turn, on one thread:

- ``build``: the model of ``--model`` as ``livi-index build`` uses it;
- ``published``: LIVI as its code runs, every half minute of one track in a batch: the mel spectrum
  by transformers' WhisperFeatureExtractor, Whisper's encoder in PyTorch, attention with keys and
  values of all frames, float32;
- ``same windows``: the same weights and windows in our way: spectrum, encoder and folded attention
  in one ONNX graph, float32, window after window (a GPU takes those of many tracks together, but a
  processor takes four of them no faster);
- ``sung windows``: that graph for what our detector takes for singing, as a build would do it;
- ``transcription``: Whisper with its decoder, a word and a half a second, and no text encoder yet.

Weights are drawn at random, in the sizes of ``--whisper``: times do not depend on what they say.
Vectors of both ways must be equal to 1e-4. How many operations a window's encoder needs, and how
many the bare product of matrices does in a second, says what is possible at all. Medians over
``--repeats``; seconds are of the processor, which are those of the clock on a quiet machine. The
extra ``train`` is needed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.livi import Livi
from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from livi_index.audio import SAMPLE_RATE, load_audio
from livi_index.models import Session, open_session
from livi_index.vocals import SegmentOptions, VocalDetector, cut, segments

# Width and layers of encoder and decoder, mel bands.
SIZES = {
    "micro": (64, 1, 80),
    "tiny": (384, 4, 80),
    "base": (512, 6, 80),
    "small": (768, 12, 80),
    "large-v3-turbo": (1280, 32, 128),
}
TURBO_DECODER = 4  # its layers; others have as many as in the encoder
WINDOW_S = 30.0
WINDOW = round(WINDOW_S * SAMPLE_RATE)
BATCH = 1  # window, ours: a processor takes four of them no faster
TOKENS = 60  # of half a minute: a word and a half a second, a token and a third a word
TOLERANCE = 1e-4
BEFORE = ("decode", "vocals", "mel")

FloatArray = NDArray[np.float32]


@dataclass
class Way:
    """One way to go: ``run`` takes files, and clocks its stages."""

    name: str
    run: Callable[[Sequence[Path], Clock], None]
    seconds: list[dict[str, float]] = field(default_factory=list)  # by stage, one a repeat


class Clock:
    """Processor seconds by stage."""

    def __init__(self) -> None:
        self.stages: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.stages[stage] += time.process_time() - began


class Model:
    """Whisper of one size and the paper's head, drawn at random, both ways."""

    def __init__(self, size: str, folder: Path) -> None:
        import torch
        from transformers import (
            WhisperConfig,
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
        )

        from export.livi import OPSET
        from export.student import Head, HeadOptions, Student
        from export.to_onnx import export_graph
        from export.whisper import Ears

        width, layers, n_mels = SIZES[size]
        config = WhisperConfig(
            num_mel_bins=n_mels,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=min(layers, TURBO_DECODER) if n_mels == 128 else layers,
            encoder_attention_heads=width // 64,
            decoder_attention_heads=width // 64,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
        )
        torch.manual_seed(0)
        torch.set_num_threads(1)
        # Weights are kept as float16 in a graph, so all ways have such weights, and add in float32.
        self.whisper = WhisperForConditionalGeneration(config).eval().half().float()
        head = Head(HeadOptions(width=width)).eval()
        for name in ("gamma_1", "gamma_2"):  # at their first values attention would not count
            torch.nn.init.ones_(getattr(head.pooling.attn, name))
        self.head = head.half().float()
        self.mel = WhisperFeatureExtractor(feature_size=n_mels)
        student = Student(Ears(self.whisper.model.encoder), self.head).eval()
        n_parameters = (sum(p.numel() for p in part.parameters()) for part in (student.ears, head))
        self.n_encoder, self.n_head = n_parameters
        path = folder / "student.onnx"
        export_graph(student.fold(), torch.zeros(2, WINDOW), ("samples", "vectors"), path, OPSET)
        self.session: Session = open_session(path, threads=1, device="cpu")

    def published(self, windows: FloatArray, clock: Clock) -> FloatArray:
        import torch

        with clock("mel"):
            mel = self._mel(windows)
        with clock("network"), torch.inference_mode():
            frames = self.whisper.model.encoder(mel).last_hidden_state
            vectors: FloatArray = self.head(frames).numpy()
        return vectors

    def ours(self, windows: FloatArray, clock: Clock) -> FloatArray:
        with clock("network"):  # the mel spectrum is in the graph
            return self.session.run(windows, BATCH)

    def transcribe(self, windows: FloatArray, clock: Clock) -> None:
        import torch

        with clock("mel"):
            mel = self._mel(windows)
        with clock("network"), torch.inference_mode():
            heard = self.whisper.model.encoder(mel)
            start = self.whisper.config.decoder_start_token_id
            tokens, known = torch.full((len(windows), 1), start), None
            for _ in range(TOKENS):  # best path, and as many as are sung
                out = self.whisper(
                    decoder_input_ids=tokens, encoder_outputs=heard, past_key_values=known,
                    use_cache=True,
                )  # fmt: skip
                tokens, known = out.logits[:, -1:].argmax(dim=-1), out.past_key_values

    def _mel(self, windows: FloatArray) -> Any:
        extracted = self.mel([*windows], sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return extracted.input_features


def tiled(samples: FloatArray) -> FloatArray:
    """(T,) → (n, window), the last one filled with zeros."""
    return np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)


def encoder_gflop(size: str) -> float:
    """Multiplications and additions of one window, in 10⁹: convolutions, layers, attention."""
    width, layers, n_mels = SIZES[size]
    frames = WINDOW // 320
    conv = 2 * frames * 3 * width * (2 * n_mels + width)
    layer = 2 * frames * 12 * width**2 + 4 * frames**2 * width
    return (conv + layers * layer) / 1e9


def product_gflop_s(size: str) -> float:
    """How fast one thread multiplies matrices as large as a layer's, at its best."""
    width = SIZES[size][0]
    one, other = (np.ones(shape, np.float32) for shape in ((1500, width), (width, 4 * width)))
    seconds = []
    for _ in range(10):
        began = time.process_time()
        one @ other
        seconds.append(time.process_time() - began)
    return 2 * 1500 * width * 4 * width / min(seconds) / 1e9


def ways(model: Model, options: argparse.Namespace) -> list[Way]:
    """Each goes over all files; what is ours encodes when all are decoded."""
    bundle = bundle_of(options)
    detector = VocalDetector(bundle, threads=1)
    rule = SegmentOptions(min_vocalness=0.0)

    def each(take: Callable[[FloatArray, Clock], Any]) -> Callable[[Sequence[Path], Clock], None]:
        def run(files: Sequence[Path], clock: Clock) -> None:
            for file in files:
                with clock("decode"):
                    samples = load_audio(file, max_s=options.max_seconds)
                take(samples, clock)

        return run

    def build(files: Sequence[Path], clock: Clock) -> None:
        livi = Livi(bundle, threads=1)  # opened anew: it keeps what it read of clips

        def take(samples: FloatArray, clock: Clock) -> None:
            with clock("vocals"):
                features = livi.features(samples)
            with clock("network"):
                livi.vectors(features)

        each(take)(files, clock)

    def sung(samples: FloatArray, clock: Clock) -> FloatArray:
        with clock("vocals"):
            pieces = segments(detector.probabilities(samples), len(samples) / SAMPLE_RATE, rule)
        return cut(samples, pieces, WINDOW_S)

    def together(take: Callable[[FloatArray, Clock], FloatArray]) -> Callable[..., None]:
        def run(files: Sequence[Path], clock: Clock) -> None:
            windows = []
            for file in files:
                with clock("decode"):
                    samples = load_audio(file, max_s=options.max_seconds)
                windows.append(take(samples, clock))
            model.ours(np.concatenate(windows), clock)

        return run

    return [
        Way("build", build),
        Way("published", each(lambda samples, clock: model.published(tiled(samples), clock))),
        Way("same windows", together(lambda samples, clock: tiled(samples))),
        Way("sung windows", together(sung)),
        Way("transcription", each(lambda samples, clock: model.transcribe(tiled(samples), clock))),
    ]


def figures_of(way: Way, n_tracks: int) -> dict[str, float]:
    """Medians over repeats, seconds a track."""
    stages = sorted({stage for seconds in way.seconds for stage in seconds})
    medians = {
        stage: float(np.median([seconds.get(stage, 0.0) for seconds in way.seconds])) / n_tracks
        for stage in stages
    }
    before = sum(medians.get(stage, 0.0) for stage in BEFORE)
    totals = [sum(seconds.values()) / n_tracks for seconds in way.seconds]
    return {
        **{f"{stage}_s": seconds for stage, seconds in medians.items()},
        "before_s": before,
        "total_s": float(np.median(totals)),
        "spread_s": float(np.std(totals)),
    }


def measure(files: Sequence[Path], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ways over all files, in turn, after one warm file each."""
    model = Model(options.whisper, folder)
    heard = [load_audio(file, max_s=options.max_seconds) for file in files]
    windows = tiled(heard[0])[:2]
    one, other = (way(windows, Clock()) for way in (model.published, model.ours))
    difference = float(np.abs(one - other).max())
    assert difference < TOLERANCE, f"the two ways differ by {difference}"
    every = ways(model, options)
    for way in every:
        way.run(files[:1], Clock())
    for _ in range(options.repeats):
        for way in every:
            clock = Clock()
            way.run(files, clock)
            way.seconds.append(dict(clock.stages))
    found = {way.name: figures_of(way, len(files)) for way in every}
    pairs = [(p, s) for p, s in zip(every[1].seconds, every[2].seconds, strict=True)]
    ratios = [sum(p.values()) / sum(s.values()) for p, s in pairs]
    return {
        "whisper": options.whisper,
        "encoder_parameters": model.n_encoder,
        "head_parameters": model.n_head,
        "model": model_facts(bundle_of(options)),
        "tracks": len(files),
        "seconds_of_a_track": float(np.mean([len(samples) / SAMPLE_RATE for samples in heard])),
        "repeats": options.repeats,
        "largest_difference": difference,
        "ways": found,
        "published_against_ours": float(np.median(ratios)),
        "encoder_gflop_a_window": encoder_gflop(options.whisper),
        "product_gflop_s": product_gflop_s(options.whisper),
        "mel_and_network_alone": (found["published"]["network_s"] + found["published"]["mel_s"])
        / found["same windows"]["network_s"],
        "transcription_against_published": found["transcription"]["total_s"]
        / found["published"]["total_s"],
        "vocals_share_of_build": found["build"]["vocals_s"] / found["build"]["total_s"],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--whisper", choices=SIZES, default="tiny")
    parser.add_argument("--tracks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of each track")
    options = parser.parse_args()
    sung = data_folder(options, "sung") / "sung"
    files = sorted(path for path in sung.iterdir() if path.suffix != ".json")[: options.tracks]
    with tempfile.TemporaryDirectory() as place:
        figures = measure(files, options, Path(place))
    write_result("runtime", figures, options.out)
    rows: list[tuple[str | float | None, ...]] = [
        ("seconds a track", "before", "network", "total", "±", "decode", "vocals", "mel")
    ]
    for name, way in figures["ways"].items():
        stages = [way.get(f"{stage}_s") for stage in BEFORE]
        rows.append(
            (name, way["before_s"], way["network_s"], way["total_s"], way["spread_s"], *stages)
        )
    print_table(rows)
    print(f"published against ours, same windows: {figures['published_against_ours']:.2f} ×")
    print(f"vocal detection: {figures['vocals_share_of_build']:.1%} of the build's time")


if __name__ == "__main__":
    main()
