"""Copies of recordings that one has: altered in sound, or only a half.

An altered copy is what the same recording sounds like elsewhere: higher or lower, faster or slower,
through an equaliser, without its beginning, or all of that together; every copy is an mp3 of
64 kbit/s, and one is nothing but that. What is done to a file depends on a seed, its name and the
kind of copy alone. Pitch and tempo are changed by FFmpeg's ``asetrate`` and ``atempo``, which cut
and overlap the sound as players do; what is heard of that is part of the copy.

Halves are the first and the second half of a recording, which share no sample. The work of a copy
is the name of the file that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np

from catalogs import Entry
from catalogs.mixing import PEAK, SAMPLE_RATE, Codec, FloatArray, write_audio
from catalogs.score import choose, seeded
from livi_index.audio import load_audio
from livi_index.errors import BadInput
from livi_index.scan import AudioFile, walk

KINDS = ("pitch", "tempo", "equaliser", "cut", "codec", "all")
SEMITONES = (-3, -2, -1, 1, 2, 3)
TEMPOS = (0.85, 1.2)
BANDS_HZ = ((80, 400), (400, 2000), (2000, 6000))  # one peak or dip in each
GAIN_DB = 9.0  # at most, up or down
CUT_S = 30.0  # from the beginning, and half of a recording at most
CODEC = Codec(".mp3", 64, 44_100)
FINE = Codec(".opus", 64, 48_000)  # of halves
BLOCK = 1 << 16  # samples


@dataclass(frozen=True)
class Alteration:
    """What is done to a copy; the default does nothing. ``peaks`` are (Hz, dB), an octave wide."""

    semitones: int = 0
    tempo: float = 1.0
    peaks: tuple[tuple[float, float], ...] = ()
    cut_s: float = 0.0


def draw_alteration(kind: str, name: str, seed: int) -> Alteration:
    """What the copy of this kind (of ``KINDS``) is, of the recording of this name."""
    rng = seeded("copy", seed, name, kind)
    semitones, tempo = choose(rng, SEMITONES), float(np.exp(rng.uniform(*np.log(TEMPOS))))
    places = [float(np.exp(rng.uniform(*np.log(band)))) for band in BANDS_HZ]
    gains = rng.uniform(-GAIN_DB, GAIN_DB, len(places)).tolist()
    wanted = set(KINDS) if kind == "all" else {kind}
    return Alteration(
        semitones if "pitch" in wanted else 0,
        tempo if "tempo" in wanted else 1.0,
        tuple(zip(places, gains, strict=True)) if "equaliser" in wanted else (),
        CUT_S if "cut" in wanted else 0.0,
    )


def alter(audio: FloatArray, change: Alteration) -> FloatArray:
    """``audio`` (T,) at 16 kHz, changed; its peak is at most ``mixing.PEAK``."""
    audio = audio[min(round(change.cut_s * SAMPLE_RATE), len(audio) // 2) :]
    filters = [("equalizer", f"f={place:.1f}:t=o:w=1:g={gain:.2f}") for place, gain in change.peaks]
    higher = 2 ** (change.semitones / 12)
    if change.semitones:
        filters += [("asetrate", f"{SAMPLE_RATE * higher:.0f}"), ("aresample", str(SAMPLE_RATE))]
    if change.tempo != higher:
        filters.append(("atempo", f"{change.tempo / higher:.6f}"))
    changed = _filtered(audio, filters)
    loudest = float(np.abs(changed).max(initial=0.0))
    return changed * np.float32(min(1.0, PEAK / max(loudest, 1e-9)))


def altered(
    sources: Sequence[Path], out: Path, *, seed: int = 1, kinds: Sequence[str] = KINDS
) -> list[Entry]:
    """Write a copy of each kind of every recording below ``sources``; those there are are kept."""
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for path in recordings(sources):
        names = {kind: out / f"{path.stem}-{kind}{CODEC.suffix}" for kind in kinds}
        lacking = [kind for kind, target in names.items() if not target.exists()]
        audio = load_audio(path) if lacking else np.zeros(0, np.float32)
        for kind in lacking:
            sound = alter(audio, draw_alteration(kind, path.stem, seed))
            write_audio(names[kind], sound, CODEC, {"title": f"{path.stem} ({kind})"})
        entries += [_entry(path, target) for target in names.values()]
    return entries


def halves(sources: Sequence[Path], out: Path) -> list[Entry]:
    """Write both halves of every recording below ``sources``; those there are are kept."""
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for path in recordings(sources):
        names = [out / f"{path.stem}-{half}{FINE.suffix}" for half in ("first", "second")]
        if not all(target.exists() for target in names):
            audio = load_audio(path)
            middle = len(audio) // 2
            for target, part in zip(names, (audio[:middle], audio[middle:]), strict=True):
                write_audio(target, part, FINE, {"title": target.stem})
        entries += [_entry(path, target) for target in names]
    return entries


def recordings(sources: Sequence[Path]) -> list[Path]:
    """The audio files below ``sources``, by name. Raises BadInput where two have the same."""
    found = sorted(
        (file.path for file in walk(sources) if isinstance(file, AudioFile)),
        key=lambda path: path.name,
    )
    names = [path.stem for path in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"copies are named after files, and several are called {min(twice)}")
    if not found:
        raise BadInput(f"there is no audio below {', '.join(map(str, sources))}")
    return found


def _entry(path: Path, copy: Path) -> Entry:
    # Nobody says whether these may be trained on; "test" is the careful word.
    return Entry(copy.stem, path.stem, copy, copy.stem, "", "test")


def _filtered(audio: FloatArray, filters: Sequence[tuple[str, str]]) -> FloatArray:
    """``audio`` (T,) at 16 kHz through a chain of FFmpeg's filters, each a name and its options."""
    if not filters:
        return audio
    graph = av.filter.Graph()
    chain = [
        graph.add_abuffer(
            sample_rate=SAMPLE_RATE, format="flt", layout="mono", time_base=Fraction(1, SAMPLE_RATE)
        ),
        *(graph.add(name, options) for name, options in filters),
        graph.add("aformat", f"sample_fmts=flt:sample_rates={SAMPLE_RATE}:channel_layouts=mono"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*chain).configure()
    parts: list[FloatArray] = []
    for start in range(0, len(audio), BLOCK):
        block = np.ascontiguousarray(audio[None, start : start + BLOCK], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        graph.push(frame)
        parts += _pulled(graph)
    graph.push(None)
    return np.concatenate([*parts, *_pulled(graph)])


def _pulled(graph: av.filter.Graph) -> Iterator[FloatArray]:
    """What comes out of ``graph`` until it wants more, or ends."""
    while True:
        try:
            yield graph.pull().to_ndarray()[0]
        except (av.BlockingIOError, av.EOFError):
            return
