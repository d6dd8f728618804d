"""Scores → what a front end would hear of them, without making a sound: cheap training versions.

A work is a seed; its versions differ in key, tempo, harmony, ornaments, form and players, and an
invented voice or an instrument has the melody. Each note adds its partials to a table of semitones
and tenths of a second, with an invented timbre and decay; drums, a room and noise are added.
Thirty milliseconds a version, where a synthesiser and a front end take a second; what is learned
on sketches is checked on sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogs.backing import Band, Strike, pick_band, strikes
from catalogs.score import (
    Change,
    Score,
    Section,
    choose,
    compose,
    lay_out,
    seeded,
)
from export.constant_q import FRAMES_PER_S, LOWEST_MIDI, N_BANDS, PER_SEMITONE

N_SEMITONES = N_BANDS // PER_SEMITONE
MELODY_PER_S = FRAMES_PER_S // 2
NOBODY = 12  # where no melody sounds
_PARTIALS = np.arange(1, 15)
_PARTIAL_SEMITONES = 12 * np.log2(_PARTIALS)
_SPREAD = 0.66  # semitones that a partial is wide in the front end
_DRUMS, _COMP, _PAD = 9, 1, 2  # channels
_KICK, _LOW_DRUMS = 36, (37, 38, 45)
_BASSES = ("roots", "eighths", "fifths", "walking", "octaves", "pumping")
_COMPS = ("block", "strum", "arpeggio", "offbeat", "halves", "broken")

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Sketch:
    """``semitones`` (72, T) float16 magnitudes, ten a second; ``melody`` (T / 2,) int8 pitch
    classes from G, ``NOBODY`` where there is none."""

    semitones: NDArray[np.float16]
    melody: NDArray[np.int8]


@dataclass(frozen=True)
class Version:
    """A score and who plays it; ``sung`` if a voice has the melody, and the lead is silent."""

    score: Score
    band: Band
    sung: bool


def versions_of(seed: int, n: int) -> Iterator[tuple[Version, np.random.Generator]]:
    """``n`` versions of the work ``seed``, each in another key, with what else is to be drawn."""
    rng = seeded("sketched work", seed)
    tune = compose(int(rng.integers(1 << 31)))
    form = _form(rng)
    for semitones in rng.permutation(np.arange(-5, 7))[:n]:
        sung = bool(rng.random() < 0.6)
        score = lay_out(tune, _rearranged(form, rng), _change(int(semitones), rng))
        yield Version(score, _band(rng, lead=not sung), sung), rng


def sketch(version: Version, rng: np.random.Generator) -> Sketch:
    """What would be heard of ``version``."""
    score = version.score
    frames = round(score.duration_s * FRAMES_PER_S) // 2 * 2
    power = np.zeros((N_SEMITONES, frames))
    notes = list(strikes(score, version.band))
    for channel in range(4):
        part = [note for note in notes if note.channel == channel]
        if part:
            _add_part(power, part, score.slot_s * FRAMES_PER_S, rng)
    noise = _drums([note for note in notes if note.channel == _DRUMS], score, frames, rng)
    if version.sung:
        _add_voice(power, noise, score, rng)
    power += noise * rng.exponential(1, power.shape)
    heard = _in_a_room(_smeared(power), rng) * rng.gamma(6, 1 / 6, power.shape)
    floor = heard.mean() * 10 ** (-rng.uniform(1.5, 4))
    heard += floor * rng.exponential(1, heard.shape)
    return Sketch(np.sqrt(heard).astype(np.float16), melody_of(score, frames // 2))


def melody_of(score: Score, n: int) -> NDArray[np.int8]:
    """(n,) pitch classes from G, five a second; the one that fills most of each fifth."""
    filled = np.zeros((NOBODY + 1, n))
    filled[NOBODY] = 0.5
    for phrase in score.phrases:
        starts = phrase.onsets * score.slot_s * MELODY_PER_S
        ends = starts + 0.95 * phrase.lengths() * score.slot_s * MELODY_PER_S
        for start, end, midi in zip(starts, ends, phrase.midi, strict=True):
            for t in range(int(start), min(n, int(np.ceil(end)))):
                filled[int(round(midi) - LOWEST_MIDI) % 12, t] += min(t + 1, end) - max(t, start)
    return filled.argmax(axis=0).astype(np.int8)


def _form(rng: np.random.Generator) -> tuple[Section, ...]:
    """Two or three verses with a chorus between them, or three or four without."""
    chorus = Section("chorus", _lines(rng))
    verses = [Section("verse", _lines(rng)) for _ in range(int(rng.integers(2, 5)))]
    if rng.random() < 0.25:
        return tuple(verses)
    if len(verses) > 2 and rng.random() < 0.3:
        verses[2] = Section("bridge", verses[2].lines)
    return tuple(section for verse in verses[:3] for section in (verse, chorus))


def _lines(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple("la " * int(n) for n in rng.integers(5, 13, 4))


def _rearranged(form: Sequence[Section], rng: np.random.Generator) -> list[Section]:
    """With a section less, a section twice, half a section, or as it is."""
    sections = list(form)
    place, kind = int(rng.integers(len(sections))), rng.random()
    if kind < 0.35 and len(sections) > 2:
        del sections[place]
    elif kind < 0.5:
        sections.append(sections[place])
    elif kind < 0.65:
        sections[place] = replace(sections[place], lines=sections[place].lines[:2])
    return sections


def _change(semitones: int, rng: np.random.Generator) -> Change:
    return Change(
        semitones=semitones,
        tempo_factor=float(np.exp(rng.uniform(np.log(0.78), np.log(1.28)))),
        reharmonise=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.5 else 0.0,
        ornament=float(rng.uniform(0.03, 0.2)),
        intro_bars=int(rng.integers(0, 5)),
        gap_bars=int(rng.integers(0, 3)),
        seed=int(rng.integers(1 << 31)),
    )


def _band(rng: np.random.Generator, *, lead: bool) -> Band:
    band = pick_band(int(rng.integers(1 << 30)), "train", lead=lead)
    return replace(band, bass_pattern=choose(rng, _BASSES), comp_pattern=choose(rng, _COMPS))


def _add_part(
    power: Table, notes: Sequence[Strike], frames_per_slot: float, rng: np.random.Generator
) -> None:
    """The notes of one instrument; it sustains them or lets them decay."""
    starts = np.array([note.start for note in notes]) * frames_per_slot
    starts = np.maximum(starts + rng.normal(0, 0.08, len(notes)), 0)
    lengths = np.array([note.length for note in notes]) * frames_per_slot
    midi = np.array([note.key for note in notes], float)
    force = np.array([note.force for note in notes]) / 80 * 10 ** (rng.uniform(-8, 4) / 20)
    channel = notes[0].channel
    if channel == _COMP:
        midi += 12 * rng.integers(-1, 2)
    sustains = rng.random() < (0.8 if channel >= _PAD else 0.35)
    lengths *= rng.uniform(0.8, 1.1) if sustains else rng.uniform(1, 2)
    decay_s = rng.uniform(1, 6) if sustains else rng.uniform(0.12, 0.9)
    attack_s = rng.uniform(0.01, 0.12) if sustains else 0.01
    wobble = rng.uniform(0, 0.15) if sustains else 0.0
    _add(
        power,
        midi,
        (starts, lengths, force),
        _timbre(rng, len(notes)),
        (attack_s, decay_s, wobble),
        rng,
    )


def _add_voice(power: Table, noise: Table, score: Score, rng: np.random.Generator) -> None:
    """A voice at -5 to 6 dB: vowels from note to note, an uneven pitch, noise where notes begin."""
    frames_per_slot = score.slot_s * FRAMES_PER_S
    starts = np.concatenate([phrase.onsets for phrase in score.phrases]) * frames_per_slot
    lengths = np.concatenate([phrase.lengths() for phrase in score.phrases]) * frames_per_slot
    lengths *= rng.uniform(0.75, 1)
    midi = np.concatenate([phrase.midi for phrase in score.phrases])
    midi = midi + 12 * round((choose(rng, (53.0, 62.0)) - float(midi.mean())) / 12)
    voice = np.zeros_like(power)
    places = (starts, lengths, np.ones(len(midi)))
    shape = rng.uniform(0.03, 0.12), 5.0, rng.uniform(0.1, 0.5)
    midi = midi + rng.normal(0, 0.15, len(midi))
    _add(voice, midi, places, _timbre(rng, len(midi), 0.7), shape, rng)
    power += voice * 10 ** (rng.uniform(-5, 6) / 10) * power.mean() / max(voice.mean(), 1e-9)
    begun = starts.astype(int)
    begun = begun[(begun < power.shape[1]) & (rng.random(len(begun)) < 0.6)]
    loudness = voice.mean() * rng.uniform(0.2, 2)
    noise[:, begun] += loudness * _bell(60, 12)[:, None]


def _timbre(rng: np.random.Generator, n: int, varies: float = 0.0) -> Table:
    """(n, 14) amplitudes of partials; one note is as loud as another."""
    partials = _PARTIALS ** -rng.uniform(0.4, 2.2) * np.exp(rng.normal(0, 0.6, len(_PARTIALS)))
    if rng.random() < 0.2:
        partials[1::2] *= rng.uniform(0.05, 0.4)
    rows = partials * np.exp(rng.normal(0, varies, (n, len(_PARTIALS))))
    return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))


def _add(
    power: Table,
    midi: Table,
    places: tuple[Table, Table, Table],
    timbre: Table,
    shape: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Add n notes: ``places`` are starts and lengths in frames and amplitudes, ``shape`` attack
    and decay in seconds and the unevenness of the pitch in semitones."""
    (starts, lengths, amplitude), (attack_s, decay_s, wobble) = places, shape
    stops, frames = starts + lengths, power.shape[1]
    first = np.floor(starts).astype(int)
    counts = np.maximum(np.ceil(stops).astype(int) - first, 1)
    note = np.repeat(np.arange(len(midi)), counts)
    frame = first[note] + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.minimum(frame + 1, stops[note]) - np.maximum(frame, starts[note])
    age_s = np.maximum(frame + 0.5 - starts[note], 0) / FRAMES_PER_S
    level = amplitude[note] * np.sqrt(np.clip(share, 0, 1)) * np.exp(-age_s / decay_s)
    level *= 1 - np.exp(-(age_s + 0.03) / attack_s)
    row = midi[note] - LOWEST_MIDI + rng.normal(0, wobble, len(note))
    rows = row[:, None] + _PARTIAL_SEMITONES
    energy = (level[:, None] * timbre[note]) ** 2
    for step in (-1, 0, 1, 2):
        near = np.floor(rows).astype(int) + step
        weights = energy * np.exp(-(((near - rows) / _SPREAD) ** 2))
        inside = (near >= 0) & (near < N_SEMITONES) & (frame < frames)[:, None]
        cells = (near * frames + frame[:, None])[inside]
        power += np.bincount(cells, weights[inside], power.size).reshape(power.shape)


def _drums(notes: Sequence[Strike], score: Score, frames: int, rng: np.random.Generator) -> Table:
    noise = np.zeros((N_SEMITONES, frames + 1))
    gain = 10 ** (rng.uniform(-14, 2) / 20)
    for key in sorted({note.key for note in notes}):
        low, high = (0, 12) if key == _KICK else (25, 50) if key in _LOW_DRUMS else (60, 80)
        band = (_bell(rng.uniform(low, high), rng.uniform(5, 14)) * gain) ** 2
        for note in notes:
            at = int(note.start * score.slot_s * FRAMES_PER_S)
            if note.key == key and at < frames:
                struck = (note.force / 80) ** 2 * band
                noise[:, at] += struck
                noise[:, at + 1] += struck * np.exp(-3)
    return noise[:, :frames]


def _bell(centre: float, width: float) -> Table:
    return np.exp(-0.5 * ((np.arange(N_SEMITONES) - centre) / width) ** 2)


def _smeared(power: Table) -> Table:
    """The kernels of the lowest two octaves are longer than a frame."""
    for octave, frames in ((0, 5), (1, 3)):
        window = np.hanning(frames + 2)[1:-1]
        for row in range(12 * octave, 12 * octave + 12):
            power[row] = np.convolve(power[row], window / window.sum(), "same")
    return power


def _in_a_room(power: Table, rng: np.random.Generator) -> Table:
    wet = 10 ** (-rng.uniform(0.3, 1.6))
    decay = np.exp(-2 * np.arange(1, 13) / FRAMES_PER_S / rng.uniform(0.1, 0.6))
    response = np.concatenate([[1.0], wet * decay / decay.sum()])
    return np.stack([np.convolve(row, response)[: power.shape[1]] for row in power])
