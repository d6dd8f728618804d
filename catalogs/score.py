"""A song form from a seed: key, metre, tempo, chords, and a melody with one note a syllable.

A ``Tune`` belongs to a work: everything of it follows from its seed. ``lay_out`` writes the tune
under the words of a form, in one version (``Change``: another key, tempo, harmony, ornaments),
and gives a ``Score``. The same words in the same kind of section always get the same notes, so
a chorus returns; verses share their contours and differ as their syllables do.

Time inside a score is counted in slots of one eighth note (float where ornaments move a note);
``Score.slot_s`` makes seconds of them. Pitches are MIDI numbers (69 = 440 Hz). The number of
syllables is estimated from the spelling; ``fit`` adapts a phrase to what a voice really sings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Mode = Literal["major", "minor"]
SectionKind = Literal["verse", "chorus", "bridge"]

SCALES: dict[Mode, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
}
# One chord a bar, as degrees of the scale counted from 0.
PROGRESSIONS: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "major": (
        (0, 4, 5, 3),
        (0, 5, 3, 4),
        (0, 3, 4, 0),
        (0, 3, 0, 4),
        (0, 2, 3, 4),
        (5, 3, 0, 4),
        (3, 4, 0, 5),
        (0, 5, 1, 4),
        (0, 4, 3, 4),
        (1, 4, 0, 0),
    ),
    "minor": (
        (0, 5, 2, 6),
        (0, 3, 4, 0),
        (0, 6, 5, 6),
        (0, 3, 6, 2),
        (0, 5, 3, 4),
        (5, 6, 0, 0),
        (0, 2, 6, 3),
        (3, 0, 4, 0),
    ),
}
# A chord may stand for another that shares two of its three notes.
SUBSTITUTES: dict[int, tuple[int, ...]] = {
    0: (5, 2),
    1: (3,),
    2: (0, 4),
    3: (1, 5),
    4: (2,),
    5: (0, 3),
    6: (4,),
}
SLOTS_PER_BEAT = 2
SHORTEST_MEDIAN_S = 0.31  # of a song's syllables; what cannot keep it is played slower


@dataclass(frozen=True)
class Progressions:
    """The degrees of each kind of section, one a bar."""

    verse: tuple[int, ...]
    chorus: tuple[int, ...]
    bridge: tuple[int, ...]

    def __getitem__(self, kind: SectionKind) -> tuple[int, ...]:
        return {"verse": self.verse, "chorus": self.chorus, "bridge": self.bridge}[kind]


@dataclass(frozen=True)
class Tune:
    """What all versions of a work have in common, the words apart; made by ``compose``."""

    seed: int
    tonic: int  # MIDI number, 48..59
    mode: Mode
    tempo_bpm: float  # quarter notes a minute
    slots_per_bar: int  # 8 for 4/4, 6 for 3/4 and 6/8
    progressions: Progressions


@dataclass(frozen=True)
class Section:
    """Lines of words that share one tune."""

    kind: SectionKind
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What one version makes of a tune; the default changes nothing."""

    semitones: int = 0
    tempo_factor: float = 1.0
    reharmonise: float = 0.0  # share of the chords replaced
    ornament: float = 0.0  # share of the notes moved in time or pitch
    intro_bars: int = 2
    gap_bars: int = 1  # between sections
    seed: int = 0


@dataclass(frozen=True)
class Chord:
    """One bar of harmony; ``pitches`` are semitones above C, root first."""

    start_slot: int
    n_slots: int
    pitches: tuple[int, ...]


@dataclass(frozen=True)
class Phrase:
    """One line: note i starts at ``onsets[i]`` and lasts until the next; the last until ``end``."""

    text: str
    onsets: NDArray[np.float64]  # (n,) slots
    end: float  # slots
    midi: NDArray[np.float64]  # (n,)

    def lengths(self) -> NDArray[np.float64]:
        """Length of every note, (n,) slots."""
        return np.diff(np.append(self.onsets, self.end))


@dataclass(frozen=True)
class Score:
    """A version written out."""

    slot_s: float
    slots_per_bar: int
    tonic: int
    chords: tuple[Chord, ...]
    phrases: tuple[Phrase, ...]
    n_slots: int

    @property
    def duration_s(self) -> float:
        return self.n_slots * self.slot_s


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on ``parts`` alone, not on the process or the order of calls."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of ``options``, each as likely."""
    return options[int(rng.integers(len(options)))]


@lru_cache(maxsize=4096)
def count_syllables(text: str) -> int:
    """Syllables of English ``text`` guessed from its spelling, at least 1."""
    return max(1, sum(_word_syllables(word) for word in re.findall(r"[a-z']+", text.lower())))


def _word_syllables(word: str) -> int:
    word = word.replace("'", "")
    n = len(re.findall(r"[aeiouy]+", word))
    if n > 1 and re.search(r"[^aeiouyl]e$|[^aeiouytd]ed$|[^aeiouyscgxz]es$", word):
        n -= 1
    return max(1, n) if word else 0


def compose(seed: int) -> Tune:
    """The tune of a work."""
    rng = seeded("tune", seed)
    mode: Mode = "major" if rng.random() < 0.6 else "minor"
    choices = PROGRESSIONS[mode]
    verse, chorus, bridge = rng.permutation(len(choices))[:3]
    return Tune(
        seed=seed,
        tonic=int(rng.integers(48, 60)),
        mode=mode,
        tempo_bpm=float(rng.uniform(80, 108)),
        slots_per_bar=8 if rng.random() < 0.75 else 6,
        progressions=Progressions(choices[verse], choices[chorus], choices[bridge]),
    )


def lay_out(tune: Tune, form: Sequence[Section], change: Change | None = None) -> Score:
    """Write ``tune`` under the words of ``form``."""
    change = change or Change()
    rng = seeded("change", tune.seed, change.seed)
    tonic = tune.tonic + change.semitones
    bar = tune.slots_per_bar
    chords = list(_bars(tune, "verse", 0, change.intro_bars))
    phrases: list[Phrase] = []
    for section in form:
        start = bar * len(chords)
        written = list(_section_phrases(tune, section, start))
        n_bars = (int(written[-1].end) - start) // bar + 1 + change.gap_bars if written else 0
        chords += _bars(tune, section.kind, start, n_bars)
        phrases += [_ornament(phrase, tune, change, rng) for phrase in written]
    chords += _bars(tune, "chorus", bar * len(chords), 1)
    chords.append(_chord(tune, 0, bar * len(chords)))
    chords = [_reharmonise(chord, tune, change, rng) for chord in chords]
    return Score(
        slot_s=30.0 / (tune.tempo_bpm * change.tempo_factor),
        slots_per_bar=bar,
        tonic=tonic,
        chords=tuple(_transposed(chord, tonic) for chord in chords),
        phrases=tuple(replace(phrase, midi=phrase.midi + tonic) for phrase in phrases),
        n_slots=bar * len(chords),
    )


def fit(phrase: Phrase, n_syllables: int) -> Phrase:
    """``phrase`` with exactly ``n_syllables`` notes: long notes are split, short ones joined."""
    onsets, midi = list(phrase.onsets), list(phrase.midi)
    while len(onsets) < n_syllables:
        lengths = np.diff([*onsets, phrase.end])
        longest = int(np.argmax(lengths))
        onsets.insert(longest + 1, onsets[longest] + lengths[longest] / 2)
        midi.insert(longest + 1, midi[longest])
    while len(onsets) > n_syllables:
        shortest = int(np.argmin(np.diff([*onsets, phrase.end])))
        joined = max(shortest, 1)  # the first note keeps its place
        del onsets[joined], midi[joined]
    return replace(phrase, onsets=np.array(onsets), midi=np.array(midi))


def median_syllable_s(score: Score) -> float:
    """Median length of the notes of ``score`` in seconds."""
    return float(np.median(np.concatenate([p.lengths() for p in score.phrases])) * score.slot_s)


def tempo_limits(
    tune: Tune,
    form: Sequence[Section],
    change: Change | None = None,
    *,
    shortest_s: float = 60.0,
    longest_s: float = 180.0,
) -> tuple[float, float]:
    """Smallest and largest tempo factor at which a version lasts as asked and stays singable."""
    plain = lay_out(tune, form, replace(change or Change(), tempo_factor=1.0))
    fastest = min(plain.duration_s / shortest_s, median_syllable_s(plain) / SHORTEST_MEDIAN_S)
    return plain.duration_s / longest_s, fastest


def _bars(tune: Tune, kind: SectionKind, start: int, n_bars: int) -> Iterator[Chord]:
    degrees = tune.progressions[kind]
    for i in range(n_bars):
        yield _chord(tune, degrees[i % len(degrees)], start + i * tune.slots_per_bar)


def _chord(tune: Tune, degree: int, start_slot: int) -> Chord:
    scale = SCALES[tune.mode]
    pitches = [scale[(degree + step) % 7] for step in (0, 2, 4)]
    if tune.mode == "minor" and degree == 4:
        pitches[1] = 11  # the leading note of a minor key
    return Chord(start_slot, tune.slots_per_bar, tuple(pitches))


def _transposed(chord: Chord, tonic: int) -> Chord:
    return replace(chord, pitches=tuple((pitch + tonic) % 12 for pitch in chord.pitches))


def _reharmonise(chord: Chord, tune: Tune, change: Change, rng: np.random.Generator) -> Chord:
    if rng.random() >= change.reharmonise:
        return chord
    degree = SCALES[tune.mode].index(chord.pitches[0])
    options = SUBSTITUTES[degree]
    return _chord(tune, options[int(rng.integers(len(options)))], chord.start_slot)


def _section_phrases(tune: Tune, section: Section, start: int) -> Iterator[Phrase]:
    bar, slot = tune.slots_per_bar, start
    for position, text in enumerate(section.lines):
        n = count_syllables(text)
        n_slots = bar * -(-(n + 2) // bar)
        last = position == len(section.lines) - 1
        yield _phrase(tune, section.kind, position % 4, text, (slot, slot - start, n_slots), last)
        slot += n_slots


def _phrase(
    tune: Tune,
    kind: SectionKind,
    position: int,
    text: str,
    place: tuple[int, int, int],
    last: bool,
) -> Phrase:
    start, within, n_slots = place
    cycle = tune.slots_per_bar * len(tune.progressions[kind])
    line = _Line(kind, position, count_syllables(text), within % cycle, n_slots, last)
    onsets, midi = _notes(tune, line)
    end = start + min(onsets[-1] + 4, n_slots - 1)
    return Phrase(text, onsets + start, float(end), midi)


@dataclass(frozen=True)
class _Line:
    """All that the notes of a line depend on, its tune apart."""

    kind: SectionKind
    position: int  # in its section, 0..3
    n: int  # syllables
    within: int  # slots since the chords of the section began anew
    n_slots: int
    last: bool  # of its section


@lru_cache(maxsize=1024)  # versions of a work and returning choruses ask for the same lines
def _notes(tune: Tune, line: _Line) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Onsets in slots from the line's start, and pitches in semitones from the tonic."""
    kind, position, n_slots = line.kind, line.position, line.n_slots
    onsets = _rhythm(tune, kind, position, line.n, n_slots)
    contour = _contour(tune, kind, position)
    wander = seeded("wander", tune.seed, kind, position).normal(0, 1.6, n_slots)
    aims = np.interp(onsets / n_slots, np.linspace(0, 1, len(contour)), contour)
    aims += wander[onsets.astype(int)]
    degrees = tune.progressions[kind]
    midi: list[float] = []
    for i, onset in enumerate(onsets):
        degree = degrees[(line.within + int(onset)) // tune.slots_per_bar % len(degrees)]
        held = i == len(onsets) - 1
        tones = _chord(tune, 0 if held and line.last else degree, 0).pitches
        strong = held or onset % (2 * SLOTS_PER_BEAT) == 0
        midi.append(_nearest(float(aims[i]), tones if strong else SCALES[tune.mode], midi[-1:]))
    notes = np.array(midi)
    for shared in (onsets, notes):
        shared.flags.writeable = False
    return onsets, notes


def _rhythm(
    tune: Tune, kind: SectionKind, position: int, n: int, n_slots: int
) -> NDArray[np.float64]:
    """Where ``n`` syllables start: strong places first, the last two slots left to the last."""
    rng = seeded("rhythm", tune.seed, kind, position % 2, n, n_slots)
    places = np.arange(n_slots - 2)
    weight = np.where(places % tune.slots_per_bar == 0, 1.0, 0.0)
    weight += np.where(places % SLOTS_PER_BEAT == 0, 0.7, 0.0) - 0.6 * places / n_slots
    weight += rng.normal(0, 0.45, len(places))
    return np.sort(np.argsort(-weight, kind="stable")[:n]).astype(np.float64)


def _contour(tune: Tune, kind: SectionKind, position: int) -> NDArray[np.float64]:
    """Aims of a line in semitones from the tonic; lines of a section answer each other (ABAC)."""
    shape = 0 if position in (0, 2) else position
    rng = seeded("contour", tune.seed, kind, shape)
    lift = {"verse": 2.0, "chorus": 5.0, "bridge": 3.5}[kind]
    points = lift + np.clip(np.cumsum(rng.normal(0, 3.5, 5)), -5, 5)
    if position == 3:
        points[-1] = lift - 3.0
    return points


def _nearest(aim: float, tones: Sequence[int], before: Sequence[float]) -> float:
    """The pitch of ``tones``, in any octave, nearest to ``aim`` and not far from the last one."""
    last = before[0] if before else aim

    def cost(pitch: int) -> float:
        leap = abs(pitch - last)
        stays = 1.2 if before and leap == 0 else 0.0
        return abs(pitch - aim) + 0.15 * leap + (6.0 if leap > 7 else 0.0) + stays

    return float(min((12 * octave + t for octave in (-2, -1, 0, 1, 2) for t in tones), key=cost))


def _ornament(phrase: Phrase, tune: Tune, change: Change, rng: np.random.Generator) -> Phrase:
    """Some weak notes a step beside, some notes early; an early note never passes another."""
    n = len(phrase.onsets)
    draws, steps = rng.random((2, n)), rng.choice([-1, 1], n)
    onsets, midi = phrase.onsets.copy(), phrase.midi.copy()
    for i in range(1, n - 1):
        if draws[0, i] < change.ornament:
            onsets[i] = max(onsets[i] - 0.5, onsets[i - 1] + 0.5)
        if draws[1, i] < change.ornament:
            midi[i] = _step_beside(midi[i], int(steps[i]), tune.mode)
    return replace(phrase, onsets=onsets, midi=midi)


def _step_beside(pitch: float, step: int, mode: Mode) -> float:
    ladder = np.array([12 * octave + tone for octave in range(-3, 4) for tone in SCALES[mode]])
    return float(ladder[int(np.argmin(np.abs(ladder - pitch))) + step])
