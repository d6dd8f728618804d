"""Does the detector hear singing? ``python -m benchmarks.detector --data DATA``

Inside real songs: windows of 3 s that sung lines cover by half or more, against windows of the
same song with no line within 1 s; AUC per song, and their mean. Singing against bands: all sung
windows against all windows of the anthems that only measure (from ``lbr`` on); pooled AUC. Then
whole recordings: songs kept and anthems set aside by a build, for which λ and what the bundle reads
of a recording are two witnesses; what λ alone would do, at its value and others, stands beside.
F1 is that of windows called sung from 0.5 on, with the sung ones of songs against all others that
are told; cost is the time of one processor for a minute of audio.

Where what is read is a witness for windows as well, they are judged so, and by the detector alone
beside that: reading costs nothing more, as it is done anyway.

Then what is easily taken for a voice: noise whose power falls with the power 0, 1 and 2 of the
frequency, and ends of the anthems, cut off after a part of a window and filled with zeros, as the
last window of a file is. And speech: the recordings of readers whom nobody trained on, and how much
of the voice in songs is taken for it.

``--beside BUNDLE`` measures another detector in the same run, of another bundle; there λ alone
decides about recordings.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from catalogs.lyrics import label_windows
from catalogs.readings import readings
from livi_index.answers import SPOKEN
from livi_index.audio import SAMPLE_RATE, Audio, decode, load_audio
from livi_index.build import BuildOptions, build
from livi_index.hearing import Ear
from livi_index.library import SPACE, open_library
from livi_index.models import Bundle, find_model
from livi_index.vocals import SegmentOptions, VocalDetector, confirmed, vocalness

FIRST_MEASURING = "anthem-lbr"
CALLED_SUNG = 0.5  # probability, for F1
TIMED_S = 120.0  # of the longest song, for the cost
NOISE_S = 60.0  # of each colour
COLOURS = {"white": 0, "pink": 1, "brown": 2}
LEFT_S = (0.3, 1.0, 2.0)  # of a window at the end of a file

FloatArray = NDArray[np.floating]
Listener = Callable[[Audio], FloatArray]


@dataclass(frozen=True, eq=False)
class Heard:
    """A recording's windows: probabilities (n,), and which are sung or clear of singing (n,)."""

    name: str
    probabilities: FloatArray
    sung: NDArray[np.bool_]
    clear: NDArray[np.bool_]


def auc(positive: FloatArray, negative: FloatArray) -> float:
    """How often a positive scores above a negative, equal ones counting half; nan without any."""
    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / 2 / len(ordered))


def f1(positive: FloatArray, negative: FloatArray) -> float:
    """Of windows called sung: the harmonic mean of how many are, and how many of all are found."""
    right = int((positive >= CALLED_SUNG).sum())
    wrong = int((negative >= CALLED_SUNG).sum())
    return 2 * right / max(1, right + wrong + len(positive))


def cost_s(bundle: Bundle, songs: Sequence[Path]) -> float:
    """Seconds of one processor for a minute of audio, the quickest of three times."""
    detector = VocalDetector(bundle, threads=1)
    longest = max(map(load_audio, songs), key=len)[: round(TIMED_S * SAMPLE_RATE)]
    times = []
    for _ in range(3):
        begin = time.process_time()
        detector.probabilities(longest)
        times.append(time.process_time() - begin)
    return min(times) * 60 * SAMPLE_RATE / len(longest)


def listener(bundle: Bundle, *, reads: bool) -> Listener:
    """What tells how likely singing is in each window: a bundle's detector, with what is read as
    its witness where the bundle knows of one."""
    witness, window_s = bundle.card.witness, bundle.card.vocals.window_s
    if reads and witness:
        ear = Ear(bundle)
        return lambda audio: confirmed(*ear.listen(audio), witness, window_s).singing
    detector = VocalDetector(bundle)
    return lambda audio: detector.probabilities(audio.samples)


def hear_song(listen: Listener, path: Path, window_s: float) -> Heard:
    """A song of ``sung/`` with the times of its lines beside it."""
    audio = decode(path)
    probabilities = listen(audio)
    lines = json.loads(path.with_suffix(".json").read_bytes())["lines"]
    lines_s = np.array([(line["start_s"], line["end_s"]) for line in lines])
    labels = label_windows(lines_s, len(probabilities), window_s, audio.duration_s)
    return Heard(path.stem, probabilities, *labels)


def hear_anthem(listen: Listener, path: Path) -> Heard:
    """A recording without singing."""
    probabilities = listen(decode(path))
    nothing = np.zeros(len(probabilities), np.bool_)
    return Heard(path.stem, probabilities, nothing, ~nothing)


def noise(colour: str) -> FloatArray:
    """(T,) float32 of noise whose power falls with this power of the frequency."""
    n = round(NOISE_S * SAMPLE_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(n))
    spectrum *= np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 20.0) ** (-COLOURS[colour] / 2)
    sound = np.fft.irfft(spectrum, n)
    return (0.1 * sound / sound.std()).astype(np.float32)


def last_windows(detector: VocalDetector, path: Path) -> FloatArray:
    """(n, len(LEFT_S)) probabilities of windows of which this much is left, then zeros."""
    samples = load_audio(path)
    window = round(detector.window_s * SAMPLE_RATE)
    starts = range(0, len(samples) - window, 10 * window)
    lengths = [round(left_s * SAMPLE_RATE) for left_s in LEFT_S]
    return np.array(
        [[detector.probabilities(samples[i : i + n])[0] for n in lengths] for i in starts]
    )


def easily_taken(detector: VocalDetector, songs: Sequence[Path], data: Path) -> dict[str, Any]:
    """Shares of noise and of cut ends that are called sung, and what is told of speech."""
    played = [path for path in _audio(data / "instrumental") if path.stem >= FIRST_MEASURING]
    ends = np.concatenate([last_windows(detector, path) for path in played])
    spoken = {
        kind: [detector.voices(load_audio(path)).spoken for path in paths]
        for kind, paths in (("readings", readings(data, "test")), ("songs", songs))
    }
    return {
        "noise_called_sung": {
            colour: float((detector.probabilities(noise(colour)) >= CALLED_SUNG).mean())
            for colour in COLOURS
        },
        "ends_called_sung": float((ends >= CALLED_SUNG).mean()),
        "ends": ends.size,
        "spoken": {
            kind: {
                "recordings": len(shares),
                "told_as_speech": sum((share or 0.0) >= SPOKEN for share in shares),
                "shares": shares,
            }
            for kind, shares in spoken.items()
            if any(share is not None for share in shares)
        },
    }


def indexed(bundle: Bundle, paths: Sequence[Path]) -> set[str]:
    """The names of the files in which a build finds singing."""
    with tempfile.TemporaryDirectory() as place:
        build(paths, place, BuildOptions(model=str(bundle.path)))
        with open_library(place, model=bundle) as library:
            known = set(library.generation.recording_ids(SPACE).tolist())
            numbers = {path: library.generation.recording_at(path.absolute()) for path in paths}
    return {path.stem for path, number in numbers.items() if number in known}


def measure(
    songs: list[Heard], anthems: list[Heard], found: set[str], threshold: float
) -> dict[str, Any]:
    """The figures of the README's table, and what they are made of; ``found`` are indexed."""
    inside = {s.name: auc(s.probabilities[s.sung], s.probabilities[s.clear]) for s in songs}
    known = [value for value in inside.values() if value == value]
    sung = np.concatenate([song.probabilities[song.sung] for song in songs])
    played = np.concatenate([anthem.probabilities for anthem in anthems])
    clear = np.concatenate([song.probabilities[song.clear] for song in songs])
    song_vocalness = {song.name: vocalness(song.probabilities) for song in songs}
    anthem_vocalness = {anthem.name: vocalness(anthem.probabilities) for anthem in anthems}
    kept = [name for name in song_vocalness if name in found]
    sung_anthems = [name for name in anthem_vocalness if name in found]
    return {
        "auc_inside_songs_mean": float(np.mean(known)),
        "auc_inside_songs": {name: None if v != v else v for name, v in inside.items()},
        "songs_with_both_kinds": len(known),
        "auc_sung_against_anthems": auc(sung, played),
        "f1": f1(sung, np.concatenate([clear, played])),
        "min_vocalness": threshold,
        "songs": len(songs),
        "songs_kept": len(kept),
        "anthems": len(anthems),
        "anthems_set_aside": len(anthems) - len(sung_anthems),
        "anthems_not_set_aside": sung_anthems,
        "by_vocalness_alone": {
            f"{least:g}": {
                "songs_kept": sum(value >= least for value in song_vocalness.values()),
                "anthems_set_aside": sum(value < least for value in anthem_vocalness.values()),
            }
            for least in (threshold, 0.25, 0.5)
        },
        "song_vocalness": song_vocalness,
        "anthem_vocalness_max": max(anthem_vocalness.values()),
    }


def judge(bundle: Bundle, data: Path, *, by_build: bool) -> dict[str, Any]:
    """All figures of one bundle; ``by_build`` its build decides about recordings, else λ alone."""
    detector = VocalDetector(bundle)
    sung = _audio(data / "sung")
    played = [path for path in _audio(data / "instrumental") if path.stem >= FIRST_MEASURING]
    listen, alone = listener(bundle, reads=by_build), listener(bundle, reads=False)
    songs = [hear_song(listen, path, detector.window_s) for path in sung]
    anthems = [hear_anthem(listen, path) for path in played]
    least = SegmentOptions.from_bundle(bundle).min_vocalness
    if by_build:
        found = indexed(bundle, [*sung, *played])
    else:
        found = {h.name for h in (*songs, *anthems) if vocalness(h.probabilities) >= least}
    cost = {"cost_s_per_minute": cost_s(bundle, sung)}
    taken = easily_taken(detector, sung, data)
    figures = {**measure(songs, anthems, found, least), **taken, **cost}
    if by_build and bundle.card.witness:
        songs = [hear_song(alone, path, detector.window_s) for path in sung]
        anthems = [hear_anthem(alone, path) for path in played]
        figures["alone"] = measure(songs, anthems, found, least)
    return {"model": model_facts(bundle), **figures}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--beside", help="name or folder of a bundle with another detector")
    options = parser.parse_args()
    data = data_folder(options, "sung", "instrumental", "readings")
    figures = judge(bundle_of(options), data, by_build=True)
    columns = [figures]
    if options.beside:
        figures["beside"] = judge(find_model(options.beside), data, by_build=False)
        columns.append(figures["beside"])
    write_result("detector", figures, options.out)
    rows = {
        "AUC inside songs, mean": "auc_inside_songs_mean",
        "AUC sung windows against anthems": "auc_sung_against_anthems",
        "F1 of windows at 0.5": "f1",
        "songs kept": "songs_kept",
        "anthems set aside": "anthems_set_aside",
        "seconds for a minute of audio": "cost_s_per_minute",
    }
    print_table([("", *(column["model"]["name"] for column in columns))])
    print_table([(what, *(column[key] for column in columns)) for what, key in rows.items()])
    print_table(
        [(colour, *(c["noise_called_sung"][colour] for c in columns)) for colour in COLOURS]
    )
    print_table([("ends called sung", *(column["ends_called_sung"] for column in columns))])
    for kind, found in figures["spoken"].items():
        print(f"{kind} told as speech: {found['told_as_speech']} of {found['recordings']}")
    print_table(list(figures["auc_inside_songs"].items()))


def _audio(folder: Path) -> list[Path]:
    kinds = {".mp3", ".ogg", ".opus", ".flac", ".m4a", ".wav"}
    return sorted(path for path in folder.iterdir() if path.suffix in kinds)


if __name__ == "__main__":
    main()
