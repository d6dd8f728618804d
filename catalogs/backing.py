"""Accompaniments: bands rendered from the chords of a score, and excerpts of anthems.

``Band`` says who plays and how; ``play`` writes it as a MIDI file of one tempo and has
``fluidsynth`` render it off line with a small General MIDI sound font (Debian packages
``fluidsynth`` and ``timgm6mb-soundfont``). Reverberation and chorus of the synthesiser are off.
Programs, drum patterns and anthems are divided: what measures (split "test") is never heard in
training. Nobody sings here: the choir and voice programs of General MIDI (52-54, 85, 91) are in
no list. Programs are numbered from 0. All audio is (T,) float32 mono at 16 kHz.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalogs import Split
from catalogs.score import Change, Score, Section, Tune, choose, compose, lay_out, seeded

SAMPLE_RATE = 16_000
FloatArray = NDArray[np.float32]

SOUND_FONTS = (
    Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    Path("/usr/share/soundfonts/TimGM6mb.sf2"),
)
TICKS_PER_SLOT = 240  # an eighth; 480 ticks a quarter note
VOICE_PROGRAMS = frozenset({52, 53, 54, 85, 91})
FIRST_MEASURING_ANTHEM = "anthem-lbr"

BassPattern = Literal["roots", "eighths", "fifths", "walking", "octaves", "pumping"]
CompPattern = Literal["block", "strum", "arpeggio", "offbeat", "halves", "broken"]

BASSES: dict[Split, tuple[int, ...]] = {"train": (32, 33, 35, 38), "test": (34, 36, 39)}
COMPS: dict[Split, tuple[int, ...]] = {
    "train": (0, 4, 6, 16, 24, 25, 27, 46),
    "test": (1, 2, 5, 11, 18, 26, 28, 30),
}
PADS: dict[Split, tuple[int, ...]] = {"train": (48, 50, 61, 88, 89), "test": (49, 51, 62, 90, 95)}
LEADS: dict[Split, tuple[int, ...]] = {
    "train": (19, 40, 41, 56, 60, 68, 72, 73, 74, 78, 80),
    "test": (21, 22, 42, 57, 65, 66, 69, 71, 75, 79, 81),
}
KITS: dict[Split, tuple[int, ...]] = {"train": (0, 8, 32), "test": (16, 25, 40)}
BASS_PATTERNS: dict[Split, tuple[BassPattern, ...]] = {
    "train": ("roots", "eighths", "fifths"),
    "test": ("walking", "octaves", "pumping"),
}
COMP_PATTERNS: dict[Split, tuple[CompPattern, ...]] = {
    "train": ("block", "strum", "arpeggio"),
    "test": ("offbeat", "halves", "broken"),
}
# Sixteenths of a 4/4 bar: k kick, s snare, h closed hat, o open hat, r ride, m rim, t tom;
# capitals are accents. In 6-slot bars the first twelve sound.
DRUMS: dict[Split, tuple[tuple[str, ...], ...]] = {
    "train": (
        ("K.......K.......", "....S.......S...", "h.h.h.h.h.h.h.h."),
        ("K.....k.K.......", "....S.......S..s", "hhhhhhhhhhhhhhhh"),
        ("K.........k.....", "........M.......", "r...r.r.r...r.r."),
        ("K...K...K...K...", "....S.......S...", "..o...o...o...o."),
        ("K.......k.k.....", "......m.....M...", "h...h...h...h..."),
        ("K..k....K..k....", "....S..s....S...", "H.h.h.h.H.h.h.h."),
    ),
    "test": (
        ("K..k..K...k.....", "....S.......S...", "h.hhh.hhh.hhh.hh"),
        ("K.k.....K.k.....", "....S..s.s..S...", "r...r...r...r..."),
        ("K.....K...K.....", "....m.....m.M...", "h.h.h.h.h.h.h.o."),
        ("K...............", "........S.....tt", "h...h...h...h..."),
    ),
}
DRUM_KEYS = {"k": 36, "s": 38, "h": 42, "o": 46, "r": 51, "m": 37, "t": 45}


@dataclass(frozen=True)
class Band:
    """Who plays; a part that is None is silent. Programs are General MIDI numbers from 0."""

    drums: tuple[str, ...] | None
    kit: int
    bass: int | None
    bass_pattern: BassPattern
    comp: int | None
    comp_pattern: CompPattern
    pad: int | None
    lead: int | None  # plays the melody: for versions in which nobody sings
    seed: int  # of the players' small irregularities


@dataclass(frozen=True)
class Strike:
    """A note of one channel; times in slots, ``key`` a MIDI number, ``force`` 1..127."""

    channel: int
    start: float
    length: float
    key: int
    force: int


class MissingSynthesiser(RuntimeError):
    """fluidsynth or its sound font is not installed; the message names the packages."""


def pick_band(seed: int, split: Split, *, lead: bool = False) -> Band:
    """A band of ``split`` in which at least a bass or an accompanying instrument plays."""
    rng = seeded("band", split, seed)

    band = Band(
        drums=choose(rng, DRUMS[split]),
        kit=choose(rng, KITS[split]),
        bass=choose(rng, BASSES[split]),
        bass_pattern=choose(rng, BASS_PATTERNS[split]),
        comp=choose(rng, COMPS[split]),
        comp_pattern=choose(rng, COMP_PATTERNS[split]),
        pad=choose(rng, PADS[split]),
        lead=choose(rng, LEADS[split]),
        seed=seed,
    )
    absent = rng.random(4)
    return replace(
        band,
        drums=None if absent[0] < 0.3 else band.drums,
        bass=None if absent[1] < 0.12 else band.bass,
        comp=None if absent[2] < 0.12 and absent[1] >= 0.12 else band.comp,
        pad=None if absent[3] < 0.45 else band.pad,
        lead=band.lead if lead else None,
    )


def solo(seed: int, split: Split) -> Band:
    """A melody instrument alone, or over one sustained accompanying part."""
    band = pick_band(seed, split, lead=True)
    alone = seeded("solo", split, seed).random() < 0.5
    return replace(band, drums=None, bass=None, comp=None, pad=None if alone else band.pad)


def play(score: Score, band: Band) -> FloatArray:
    """``band`` playing ``score``: (T,) float32 with T = score.duration_s in samples, peak <= 1."""
    audio = render_midi(midi_file(score, band))
    wanted = round(score.duration_s * SAMPLE_RATE)
    return np.pad(audio[:wanted], (0, max(0, wanted - len(audio))))


def midi_file(score: Score, band: Band) -> bytes:
    """The bytes of a format 0 MIDI file."""
    programs = (band.bass, band.comp, band.pad, band.lead)
    opening = [
        bytes([0xC0 | channel, program])
        for channel, program in (*enumerate(programs), (9, band.kit))
        if program is not None
    ]
    rng = seeded("players", band.seed)
    events: list[tuple[int, int, bytes]] = []
    for strike in strikes(score, band):
        start = max(0, round((strike.start + rng.normal(0, 0.02)) * TICKS_PER_SLOT))
        end = start + max(20, round(strike.length * TICKS_PER_SLOT) - 10)
        force = int(np.clip(strike.force + rng.normal(0, 6), 20, 127))
        events.append((start, 1, bytes([0x90 | strike.channel, strike.key, force])))
        events.append((end, 0, bytes([0x80 | strike.channel, strike.key, 0])))
    track = b"\x00\xff\x51\x03" + round(score.slot_s * 2e6).to_bytes(3, "big")
    track += b"".join(b"\x00" + message for message in opening)
    now = 0
    for tick, _, message in sorted(events):
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    division = (2 * TICKS_PER_SLOT).to_bytes(2, "big")
    header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01" + division
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def sound_font() -> Path:
    """Where the sound font lies; raises MissingSynthesiser."""
    found = [path for path in SOUND_FONTS if path.is_file()]
    if not found or shutil.which("fluidsynth") is None:
        raise MissingSynthesiser(
            "backings need fluidsynth and its sound font: "
            "apt-get install fluidsynth timgm6mb-soundfont"
        )
    return found[0]


def render_midi(midi: bytes) -> FloatArray:
    """Render a MIDI file with fluidsynth; raises MissingSynthesiser."""
    font = sound_font()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.mid"), Path(folder, "out.raw")
        source.write_bytes(midi)
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.5"]
        command += ["-r", str(SAMPLE_RATE), "-T", "raw", "-O", "float"]
        command += ["-F", str(target), str(font), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        stereo = np.fromfile(target, dtype=np.float32).reshape(-1, 2)
    mono = stereo.mean(axis=1)
    return np.asarray(mono / np.float32(max(1.0, float(np.abs(mono).max(initial=0.0)))))


def anthems(data: Path, split: Split) -> list[Path]:
    """The anthem files of the development data that ``split`` may use, in order."""
    files = sorted((data / "instrumental").glob("anthem-*.opus"))
    return [path for path in files if (path.stem >= FIRST_MEASURING_ANTHEM) == (split == "test")]


def excerpt(audio: FloatArray, n_samples: int, seed: int) -> FloatArray:
    """``n_samples`` of ``audio`` from a random place, going on from its start with a crossfade."""
    start = int(seeded("excerpt", seed).integers(len(audio)))
    fade = min(SAMPLE_RATE // 2, len(audio) // 4)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    loop = audio[:-fade].copy()
    loop[:fade] = audio[:fade] * ramp + audio[-fade:] * ramp[::-1]
    return np.take(loop, np.arange(start, start + n_samples), mode="wrap")


def training_backings(
    seed: int, n: int, length_s: float = 60.0
) -> Iterator[tuple[str, FloatArray]]:
    """``n`` named backings without singing for training, about ``length_s`` long each.

    Of twenty, eleven are bands, five bands with a melody instrument, four melody instruments
    almost alone (flutes, strings, organs: what a detector takes for voices).
    """
    for i in range(n):
        number = seed * 1_000_003 + i
        score = _wordless_score(compose(number), length_s)
        style = ("band",) * 11 + ("lead",) * 5 + ("solo",) * 4
        kind = style[int(seeded("style", number).integers(20))]
        band = (
            solo(number, "train")
            if kind == "solo"
            else pick_band(number, "train", lead=kind == "lead")
        )
        audio = play(score, band)[: round(length_s * SAMPLE_RATE)]
        yield f"{kind}-{i:04d}", audio


def _wordless_score(tune: Tune, length_s: float) -> Score:
    rng = seeded("wordless", tune.seed)
    form: list[Section] = []
    change = Change(tempo_factor=float(rng.uniform(0.8, 1.25)), intro_bars=1, gap_bars=0)
    while True:
        lines = tuple("la " * int(n) for n in rng.integers(5, 13, 4))
        form.append(Section("chorus" if len(form) % 2 else "verse", lines))
        score = lay_out(tune, form, change)
        if score.duration_s >= length_s:
            return score


def strikes(score: Score, band: Band) -> Iterator[Strike]:
    for chord in score.chords:
        start, n_slots, pitches = chord.start_slot, chord.n_slots, chord.pitches
        if band.bass is not None:
            yield from _bass_bar(band.bass_pattern, start, n_slots, pitches)
        if band.comp is not None:
            yield from _comp_bar(band.comp_pattern, start, n_slots, pitches)
        if band.pad is not None:
            yield from (Strike(2, start, n_slots, 60 + p, 58) for p in _close(pitches))
        if band.drums is not None:
            yield from _drum_bar(band.drums, start, n_slots)
    if band.lead is not None:
        yield from _lead(score)


def _bass_bar(
    pattern: BassPattern, start: int, n_slots: int, pitches: tuple[int, ...]
) -> Iterator[Strike]:
    root = 36 + pitches[0] if pitches[0] < 8 else 24 + pitches[0]
    third, fifth = ((p - pitches[0]) % 12 for p in pitches[1:3])
    steps: dict[BassPattern, tuple[tuple[int, int], ...]] = {  # slots, semitones above the root
        "roots": ((n_slots, 0),),
        "eighths": ((1, 0),) * n_slots,
        "fifths": ((3, 0), (1, 0), (2, fifth), (2, 0)),
        "walking": ((2, 0), (2, third), (2, fifth), (2, third)),
        "octaves": ((1, 0), (1, 12)) * (n_slots // 2),
        "pumping": ((3, 0), (3, 0), (2, fifth)),
    }
    at = 0
    for length, above in steps[pattern]:
        if at < n_slots:
            yield Strike(0, start + at, min(length, n_slots - at), root + above, 92)
        at += length


def _comp_bar(
    pattern: CompPattern, start: int, n_slots: int, pitches: tuple[int, ...]
) -> Iterator[Strike]:
    keys = [60 + p if p < 7 else 48 + p for p in pitches]
    if pattern in ("arpeggio", "broken"):
        order = (0, 1, 2, 1) if pattern == "arpeggio" else (0, 2, 1, 2)
        climb = [*sorted(keys), min(keys) + 12]
        for i in range(n_slots):
            yield Strike(1, start + i, 2, climb[order[i % 4]], 78 if i % 2 else 88)
        return
    hits: dict[str, tuple[tuple[int, int, int], ...]] = {  # slot, length, force
        "block": tuple((i, 2, 80) for i in range(0, n_slots, 2)),
        "strum": ((0, 2, 92), (2, 1, 76), (3, 2, 66), (5, 1, 80), (6, 1, 72), (7, 1, 66)),
        "offbeat": tuple((i, 1, 84) for i in range(1, n_slots, 2)),
        "halves": tuple((i, 4, 84) for i in range(0, n_slots, 4)),
    }
    for slot, length, force in hits[pattern]:
        if slot < n_slots:
            for i, key in enumerate(sorted(keys)):
                late = 0.05 * i if pattern == "strum" else 0.0
                yield Strike(1, start + slot + late, length, key, force)


def _drum_bar(rows: tuple[str, ...], start: int, n_slots: int) -> Iterator[Strike]:
    for row in rows:
        for i, mark in enumerate(row[: 2 * n_slots]):
            if mark != ".":
                force = 104 if mark.isupper() else 76
                yield Strike(9, start + i / 2, 0.5, DRUM_KEYS[mark.lower()], force)


def _lead(score: Score) -> Iterator[Strike]:
    """The melody in the octave that fits most instruments, around A above middle C."""
    for phrase in score.phrases:
        shift = 12 * round((69 - float(phrase.midi.mean())) / 12)
        for onset, length, midi in zip(phrase.onsets, phrase.lengths(), phrase.midi, strict=True):
            yield Strike(3, float(onset), float(length), int(midi) + shift, 104)


def _close(pitches: tuple[int, ...]) -> list[int]:
    """The chord between G and F sharp, so that pads move little."""
    return [p - 12 if p > 6 else p for p in pitches]


def _variable_length(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))
