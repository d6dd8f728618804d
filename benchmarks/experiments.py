"""The first questions that the paper leaves open: ``python -m benchmarks.experiments NAME …``

    alignment [FOLDER …]                how well sung segments lie with their words, in a bundle
    pooling --shards TRAIN --held HELD  a learned query against the mean of all frames
    alpha --shards TRAIN --held HELD    the weight of pairs against the cosines within a batch
    lambda FOLDER --library LIBRARY     what a threshold of vocalness costs and brings

``alignment`` cuts recordings into segments of 30 s that do not overlap, and compares each with the
lines that are sung in it, by the audio and the text side of a bundle: rendered folders (their
manifest says what is sung when; default ``catalogs/demo``) and the real songs of ``--data``.
A recording is the mean of its segments; its words are one text (global) or the mean of theirs.

``pooling`` and ``alpha`` teach heads by ``export.distil`` from shards, and measure them on others
that ``export.shards`` made of other works: cosines of segments and recordings with their words,
how often a segment's nearest words are its own, and versions by recordings' means.

``lambda`` takes recordings below a threshold for instrumental, as the paper does, in a library that
was built with a low one, and compares track vectors: among those kept, and with those lost as
misses. Each writes ``results/experiments-NAME.json``.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.results import (
    ROOT,
    arguments,
    bundle_of,
    model_facts,
    print_table,
    write_result,
)
from benchmarks.sung import entries_of
from benchmarks.words import songs_of
from catalogs.originals import demo_rows
from catalogs.sung import lrc_of
from catalogs.variants import read_rows
from livi_index.audio import SAMPLE_RATE, load_audio
from livi_index.encoders import AudioEncoder, TextEncoder
from livi_index.library import SPACE, open_library
from livi_index.metrics import rank_vectors, summarise
from livi_index.models import Bundle
from livi_index.vocals import SegmentOptions, VocalDetector, cut, segments

DEMO = ROOT / "catalogs" / "demo"
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
POOLINGS = ("attention", "mean")
LAMBDAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

# What needs torch is imported inside functions only, its classes too.
Shards: TypeAlias = Any
Lyrics: TypeAlias = Any
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Song:
    """A recording, its work, and what is sung in it when."""

    path: Path
    work: str
    lyrics: Lyrics


@dataclass(frozen=True, eq=False)
class Heard:
    """Of N segments of songs that hold words: unit vectors (N, dim) of their sound and of their
    words, recording and work of each; ``whole`` (M, dim) of all words of a recording."""

    sound: FloatArray
    text: FloatArray
    recordings: list[str]
    works: list[str]
    whole: FloatArray


def rendered_songs(folder: Path, n_works: int | None) -> list[Song]:
    """The sung recordings of a rendered folder, or of the demonstration."""
    from export.lyrics import read_lyrics

    made = (folder / "manifest.jsonl").exists()
    rows = {row.recording_id: row for row in (read_rows(folder) if made else demo_rows())}
    entries = sorted(
        (e for e in entries_of(folder) if e.kind == "sung" and e.path.is_file()),
        key=lambda entry: entry.recording_id,
    )
    works = sorted({entry.work_id for entry in entries})[:n_works]
    return [
        Song(e.path, e.work_id, read_lyrics(lrc_of(rows[e.recording_id]), "lrc", e.recording_id))
        for e in entries
        if e.work_id in works
    ]


def real_songs(folder: Path, *, english: bool) -> Iterator[Song]:
    """The real songs of the development data, in English or in other languages."""
    from export.lyrics import Line, Lyrics

    for path, song in songs_of(folder):
        if (song["language"] == "en") == english:
            lines = tuple(Line(**line) for line in song["lines"])
            yield Song(path, path.stem, Lyrics("lrc", path.name, lines, ""))


def hear(songs: Iterable[Song], bundle: Bundle) -> Heard:
    """Segments by the bundle's own rule, but side by side; those without a line are left out."""
    detector, audio = VocalDetector(bundle, threads=1), AudioEncoder(bundle, threads=1)
    words, rule = TextEncoder(bundle, threads=1), SegmentOptions.from_bundle(bundle)
    rule = replace(rule, hop_s=rule.length_s)
    sound, text, whole = [], [], []
    recordings: list[str] = []
    works: list[str] = []
    for song in songs:
        samples = load_audio(song.path)
        found = segments(detector.probabilities(samples), len(samples) / SAMPLE_RATE, rule)
        told = [(piece, song.lyrics.between(piece.start_s, piece.end_s)) for piece in found]
        told = [(piece, lines) for piece, lines in told if lines]
        if told:
            windows = cut(samples, [piece for piece, _ in told], rule.length_s)
            sound.append(audio.encode(windows))
            text.append(words.encode([lines for _, lines in told]))
            whole.append(words.encode([song.lyrics.whole]))
            recordings += [str(song.path)] * len(told)
            works += [song.work] * len(told)
    return Heard(*map(np.concatenate, (sound, text)), recordings, works, np.concatenate(whole))


def told(heard: Heard) -> dict[str, Any]:
    """Segments against their words, recordings against the means and the whole of theirs."""
    from export.agreement import agreement, cosines, means

    found = asdict(agreement(heard.sound, heard.text, heard.recordings, heard.works))
    first, place = np.unique(heard.recordings, return_index=True, return_inverse=True)[1:]
    order = np.argsort(first)  # ``whole`` is in the order in which recordings were heard
    tracks = means(heard.sound, place)[order]
    works = np.asarray(heard.works)[first[order]]
    return found | {"tracks_global": asdict(cosines(tracks, heard.whole, works))}


def alignment(options: Namespace, bundle: Bundle) -> dict[str, Any]:
    """Cosines of the bundle's two sides, of rendered and of real songs."""
    sets = {folder.name: rendered_songs(folder, options.works) for folder in options.folders}
    if options.data is not None:
        for kind in (True, False):
            name = "real, English" if kind else "real, other languages"
            sets[name] = list(real_songs(options.data / "sung", english=kind))
    rows = {name: told(hear(songs, bundle)) for name, songs in sets.items()}
    return {"model": model_facts(bundle), "rows": rows}


def taught(options: Namespace, name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A head for each value of one choice of ``Training``, taught alike, and what it can do."""
    import torch

    from export.agreement import agreement
    from export.distil import PRESETS, learn, new_head, optimiser_of, vectors_of
    from export.shards import Shards
    from export.student import HeadOptions

    torch.set_num_threads(1)
    shards, held = Shards(options.shards), Shards(options.held)
    preset, rows = PRESETS["mini"], {}
    features, text = shards.__getitems__([0])
    sizes = HeadOptions(features.shape[-1], preset.hidden, text.shape[1])
    for value in values:
        training = replace(preset.training, epochs=options.epochs, **{name: value})
        head = new_head(sizes, training)
        every = np.arange(len(shards))
        steps = learn(head, optimiser_of(head, training), shards, every, training)
        losses = [loss for _, loss in steps]
        known = agreement(*vectors_of(head, shards, every[:1000]), *_labels(shards, 1000))
        found = agreement(*vectors_of(head, held, np.arange(len(held))), *_labels(held))
        rows[str(value)] = {
            "loss": float(np.mean(losses[-20:])),
            "steps": len(losses),
            "trained": asdict(known),
            **asdict(found),
        }
        print(name, value, json.dumps(rows[str(value)]), flush=True)
    return {
        "shards": shards.made_by | {"rows": len(shards)},
        "held": held.made_by | {"rows": len(held), "works": len(set(held.works))},
        "epochs": options.epochs,
        "rows": rows,
    }


def _labels(shards: Shards, n: int | None = None) -> tuple[Any, Any]:
    return shards.recordings[:n], shards.works[:n]


def thresholds(options: Namespace, bundle: Bundle) -> dict[str, Any]:
    """Retention and track vectors' ranks for each λ."""
    entries = entries_of(options.folders[0])
    with open_library(options.library, model=bundle) as library:
        known = dict(library.generation.ask("SELECT recording_id, vocalness FROM analyses"))
        numbers = [library.generation.recording_at(e.path.absolute()) or 0 for e in entries]
        findable = set(library.generation.recording_ids(SPACE).tolist())
        kept = [i for i, number in enumerate(numbers) if number in findable]
        ids = np.array([numbers[i] for i in kept])
        vectors = library.generation.recording_vectors(ids, SPACE)
    sung = np.array([entry.kind == "sung" for entry in entries])
    vocal = np.array([known.get(number, 0.0) for number in numbers])
    rows = {}
    ours = SegmentOptions.from_bundle(bundle).min_vocalness
    for least in sorted({ours, *LAMBDAS}):
        loud = [place for place, i in enumerate(kept) if vocal[i] >= least]
        rows[str(least)] = _threshold(
            [entries[kept[place]] for place in loud], vectors[loud], int(sung.sum())
        ) | {
            "sung_kept": float(np.mean(vocal[sung] >= least)),
            "others_set_aside": float(np.mean(vocal[~sung] < least)),
        }
    return {"model": model_facts(bundle), "recordings": len(entries), "ours": ours, "rows": rows}


def _threshold(entries: Sequence[Any], vectors: FloatArray, n_sung: int) -> dict[str, float]:
    """Scores among those kept, and over all sung recordings: the lost ones find nothing."""
    works = [e.work_id if e.kind == "sung" else f"none-{e.recording_id}" for e in entries]
    ids = [entry.recording_id for entry in entries]
    asks = np.array([entry.kind == "sung" for entry in entries])
    asked = [np.array(values)[asks] for values in (works, ids)]
    found = rank_vectors(vectors[asks], *asked, vectors, works, ids)
    scores = summarise(found, n_items=len(vectors)).answerable
    return {
        "queries": int(found.answerable.sum()),
        "hr1": scores.hr1,
        "map10": scores.map10,
        "hr1_of_all": float(found.hit(1).sum() / n_sung),
    }


def plain(value: Any) -> Any:
    """Figures without nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("name", choices=("alignment", "pooling", "alpha", "lambda"))
    parser.add_argument("folders", type=Path, nargs="*", default=[DEMO], help="rendered ones")
    parser.add_argument("--works", type=int, help="how many works of a folder; default all")
    parser.add_argument("--shards", type=Path, help="to learn from")
    parser.add_argument("--held", type=Path, help="shards of other works, to measure on")
    parser.add_argument("--epochs", type=float, default=20.0, help="over the shards")
    parser.add_argument("--library", type=Path, help="built from the folder")
    options = parser.parse_args()
    if options.name in ("pooling", "alpha"):
        if not (options.shards and options.held):
            parser.error("give --shards and --held")
        values = POOLINGS if options.name == "pooling" else ALPHAS
        figures = taught(options, options.name, values)
    elif options.name == "lambda":
        if not options.library:
            parser.error("give --library")
        figures = thresholds(options, bundle_of(options))
    else:
        figures = alignment(options, bundle_of(options))
    result = f"experiments-{options.name}"
    write_result(result, plain(figures), options.out, program="experiments")
    _print(figures["rows"])


def _print(rows: dict[str, Any]) -> None:
    if "segments" in next(iter(rows.values())):
        header = ("", "segments", "others", "d'", "tracks", "words HR@1", "versions HR@1")
        print_table([header, *((name, *_line(row)) for name, row in rows.items())])
    else:
        header = tuple(next(iter(rows.values())))
        print_table([("", *header), *((name, *row.values()) for name, row in rows.items())])


def _line(row: dict[str, Any]) -> tuple[str | float, ...]:
    parts, tracks = row["segments"], row["tracks"]
    return (
        f"{parts['mean']:.3f} ± {parts['std']:.3f}",
        f"{parts['other_mean']:.3f} ± {parts['other_std']:.3f}",
        parts["d_prime"],
        f"{tracks['mean']:.3f} ± {tracks['std']:.3f}",
        row["words_hr1"],
        row["versions_hr1"],
    )


if __name__ == "__main__":
    main()
