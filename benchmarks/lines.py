"""What is heard of real singing, line by line? ``python -m benchmarks.lines``

On the songs in ``DATA/sung``, heard as the product hears them:

    place     each line is typed and laid over every window of all songs (the segments that the
              product keeps): the mean of 1 / rank of the first window in which it is sung. A window
              counts where it holds the middle of the line, or of the same words sung elsewhere.
    phones    edits between what was read while a line is sung and its phones, as espeak pronounces
              them, by the number of these; English songs. The reader knows phones, no characters.
    repeats   three lines in a row whose words return later in the song ask for that other place
              among all windows of three lines: mean average precision by what was read, by vectors,
              by mean chroma and MFCC, and by what was read and these together (the sum of scores in
              standard deviations). Windows that overlap the one that asks are left out, and copies:
              those with a cosine above 0.98 in chroma and MFCC, which are counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.chroma import ChromaMeans
from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from benchmarks.words import RUN, songs_of
from livi_index.alignment import Aligner, read_scoring
from livi_index.audio import SAMPLE_RATE, load_audio
from livi_index.build import BuildOptions, build
from livi_index.encoders import AudioEncoder, normalise_text
from livi_index.library import SPACE, Library, open_library
from livi_index.models import Bundle, ClipsSpec
from livi_index.profiles import read_profiles
from livi_index.spelling import read_spelling
from livi_index.transcripts import Transcript, between
from livi_index.vocals import Segment, cut

COPY = 0.98
VOICE = "en-us+f1"  # of espeak, that says how a line is pronounced

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Song:
    """A real song: its lines (text, start_s, end_s), and what the product keeps of it."""

    path: Path
    language: str
    lines: list[tuple[str, float, float]]
    read: Transcript
    windows: list[tuple[float, float]]


@dataclass(frozen=True)
class Window:
    """Three lines of a song in a row."""

    song: int
    text: str
    start_s: float
    end_s: float

    def overlaps(self, other: Window) -> bool:
        return self.song == other.song and self.start_s < other.end_s and other.start_s < self.end_s


def songs_in(library: Library, folder: Path) -> Iterator[Song]:
    for path, known in songs_of(folder):
        number = library.generation.recording_at(path.absolute())
        assert number is not None, f"{path} was not heard"
        heard = library.stored(number)[SPACE]
        assert heard.transcript is not None
        lines = [
            (normalise_text(line["text"]), line["start_s"], line["end_s"])
            for line in known["lines"]
        ]
        windows = list(zip(heard.start_s.tolist(), heard.end_s.tolist(), strict=True))
        yield Song(path, known["language"], lines, heard.transcript, windows)


def places(songs: Sequence[Song], bundle: Bundle, clips: ClipsSpec) -> dict[str, Any]:
    """Mean reciprocal ranks of lines among all windows."""
    scoring = read_scoring(bundle, clips.alignment)
    spelling = read_spelling(bundle, clips.alignment, scoring, read_profiles(bundle, clips))
    assert spelling is not None, "the model does not read letters"
    aligner = Aligner(spelling.scoring, spelling.profiles)
    every = [(song, window) for song in songs for window in song.windows]
    read = [between(song.read, *window) for song, window in every]
    found: dict[str, list[float]] = {"english": [], "others": []}
    for song in songs:
        for text, _, _ in song.lines:
            if not text:
                continue
            scores = aligner.scores([spelling.spell(text)], read)[0]
            middles = [(start + end) / 2 for words, start, end in song.lines if words == text]
            right = np.array(
                [
                    of is song and any(first <= middle < last for middle in middles)
                    for of, (first, last) in every
                ]
            )
            if right.any():
                # Of windows with the same score, the ones that are wrong come first.
                rank = 1 + int((scores[~right] >= scores[right].max()).sum())
                found["english" if song.language == "en" else "others"].append(1 / rank)
    means = {kind: round(float(np.mean(ranks)), 3) for kind, ranks in found.items()}
    return {"windows": len(every), "lines": {k: len(v) for k, v in found.items()}, "mrr": means}


def phone_errors(songs: Sequence[Song]) -> dict[str, Any]:
    """Edits by phones, over all lines of English songs together."""
    from catalogs.engines import Voice, pronounce
    from export.phones import phone_number

    edits = phones = 0
    for song in songs:
        if song.language == "en":
            lines = [line for line in song.lines if line[0]]
            said = pronounce(Voice("espeak", VOICE), [text for text, _, _ in lines])
            for (_, start_s, end_s), sung in zip(lines, said, strict=True):
                true = [n for phone in sung if (n := phone_number(phone.name)) > 0]
                read = between(song.read, start_s, end_s)["phone"].tolist()
                edits += distance(read, true)
                phones += len(true)
    return {"phones": phones, "error_rate": round(edits / phones, 3)}


def distance(these: Sequence[int], those: Sequence[int]) -> int:
    """How many insertions, deletions and substitutions lie between two strings."""
    row = np.arange(len(those) + 1)
    for i, one in enumerate(these, 1):
        changed = row[:-1] + (np.asarray(those) != one) if those else row[:0]
        best = np.concatenate([[i], np.minimum(changed, row[1:] + 1)])
        # Insertions run along the row: the least of what came before and its distance.
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))
    return int(row[-1])


def windows_of(songs: Sequence[Song]) -> list[Window]:
    return [
        Window(n, " ".join(text for text, _, _ in part), part[0][1], part[-1][2])
        for n, song in enumerate(songs)
        for i in range(len(song.lines) - RUN + 1)
        if (part := song.lines[i : i + RUN])
    ]


def repeats(songs: Sequence[Song], bundle: Bundle, clips: ClipsSpec) -> dict[str, Any]:
    """Mean average precisions by each way of comparing windows."""
    every = windows_of(songs)
    read = [between(songs[w.song].read, w.start_s, w.end_s) for w in every]
    aligner = Aligner(read_scoring(bundle, clips.alignment), read_profiles(bundle, clips))
    words = aligner.scores(read, read)
    vectors, means = embedded(songs, every, bundle)
    sound = means @ means.T
    kinds = {
        "read": words,
        "vectors": vectors @ vectors.T,
        "chroma and MFCC": sound,
        "read, chroma and MFCC": _standard(words) + _standard(sound),
    }
    apart = np.array([[not one.overlaps(other) for other in every] for one in every])
    copies = apart & (sound > COPY)
    same = np.array([[one.song == other.song and one.text == other.text for other in every]
                     for one in every])  # fmt: skip
    allowed, right = apart & ~copies, same & apart & ~copies
    asking = np.flatnonzero(right.any(axis=1))
    return {
        "windows": len(every),
        "asking": len(asking),
        "copies_left_out": int(copies.sum()) // 2,
        "of_them_right": int((copies & same).sum()) // 2,
        "map": {
            name: round(
                float(np.mean([precision(scores[i], right[i], allowed[i]) for i in asking])), 3
            )
            for name, scores in kinds.items()
        },
    }


def precision(scores: FloatArray, right: NDArray[np.bool_], allowed: NDArray[np.bool_]) -> float:
    """Average precision of the right ones (n,) among those that are allowed, ties by number."""
    order = np.argsort(-scores[allowed], kind="stable")
    hits = right[allowed][order]
    return float((np.cumsum(hits)[hits] / (1 + np.flatnonzero(hits))).mean())


def _standard(scores: FloatArray) -> FloatArray:
    return np.asarray((scores - scores.mean()) / scores.std())


def embedded(
    songs: Sequence[Song], every: Sequence[Window], bundle: Bundle
) -> tuple[FloatArray, FloatArray]:
    """The product's vectors (n, D) of windows, and unit means of chroma and MFCC (n, 32)."""
    encoder, chroma = AudioEncoder(bundle), ChromaMeans()
    vectors, means = [], []
    for number, song in enumerate(songs):
        samples = load_audio(song.path)
        for window in (w for w in every if w.song == number):
            piece = Segment(
                window.start_s, min(window.end_s, window.start_s + encoder.window_s), 0, 0
            )
            vectors.append(encoder.encode(cut(samples, [piece], encoder.window_s))[0])
            first, last = (round(t * SAMPLE_RATE) for t in (window.start_s, window.end_s))
            means.append(chroma.embed(samples[first:last]))
    return np.array(vectors), np.array(means)


def main() -> None:
    options = arguments(__doc__).parse_args()
    folder, bundle = data_folder(options, "sung") / "sung", bundle_of(options)
    clips = bundle.card.space(SPACE).clips
    if clips is None or not clips.alignment:
        raise SystemExit(f"{bundle.card.name} does not read")
    with tempfile.TemporaryDirectory() as place:
        build([path for path, _ in songs_of(folder)], place, BuildOptions(model=str(bundle.path)))
        with open_library(place, model=bundle) as library:
            songs = list(songs_in(library, folder))
    figures = {
        "model": model_facts(bundle),
        "songs": len(songs),
        "places": places(songs, bundle, clips),
        "phones": phone_errors(songs),
        "repeats": repeats(songs, bundle, clips),
    }
    write_result("lines", figures, options.out)
    print_table([("line → place", "MRR"), *figures["places"]["mrr"].items()])
    print_table([("English lines", "phone errors"), ("", figures["phones"]["error_rate"])])
    print_table([("repeats", "MAP"), *figures["repeats"]["map"].items()])


if __name__ == "__main__":
    main()
