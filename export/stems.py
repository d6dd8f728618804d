"""Sung training clips without accompaniment: ten seconds of voice each, and the words in it.

    python -m export.stems OUT --poems poems.jsonl.gz --clips 12000 --seed 1
    python -m export.stems OUT --readings DATA --clips 2400 --seed 1
    python -m export.stems OUT --poems poems.jsonl.gz --spoken --clips 1200 --seed 1

Voice and backing stay apart, so training mixes them anew at every step. A shard is three files,
``000007.npy`` (N, 160000) int16 at 16 kHz, ``000007.phones`` (N, 250) int8, what is sounding 25
times a second (a .npy by another name), and ``000007.json`` (N texts in the recogniser's letters,
with the voice that sings them). What a shard holds depends on the seed and its number alone, but
for the last bits of what some engines say, so the command can be stopped and started again; it
makes what is missing.

Lines are spoken once and sung several times: other melody, key, tempo, vocal tract and company.
``--readings`` takes people who read aloud instead (real throats), half of them as they read, half
sung on a melody over the syllables that their loudness shows; ``--spoken`` the synthetic voices,
but speaking. Their words are not written down, so such clips teach a vocal detector and no reader:
their text says whether they are plain speech.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalogs.engines import SAMPLE_RATE, Voice, available, say
from catalogs.poems import Poem, load_poems, plain, training_poems
from catalogs.readings import readings
from catalogs.voices import (
    MORE_VOICES,
    TRAIN_VOICES,
    Spoken,
    phones_sung,
    sing,
    speak_lines,
    take_apart_recording,
)
from export.phones import UNKNOWN, phone_number
from livi_index.audio import load_audio
from livi_index.errors import BadInput, LiviError

CLIP_S = 10.0
CLIP_SAMPLES = int(CLIP_S * SAMPLE_RATE)
PHONE_RATE = 25
CLIP_PHONES = int(CLIP_S * PHONE_RATE)
CLIPS_PER_SHARD = 120
PLAIN_SPEECH = "(speech)"  # for a text: somebody speaks, nobody sings
UNWRITTEN = "(words)"  # for a text: sung words that nobody wrote down
_TAKES = 3  # times that a spoken line is sung
_SCALES = np.array([[0, 2, 4, 5, 7, 9, 11], [0, 2, 3, 5, 7, 8, 10]])


@dataclass(frozen=True)
class Clip:
    """``samples`` (160000,) float32 with a voice alone, ``text`` what is sung from start to end.

    ``phones`` (250,) int8: numbers of ``export.phones`` at 25 a second, −1 where unknown.
    """

    samples: npt.NDArray[np.float32]
    text: str
    voice: Voice
    phones: npt.NDArray[np.int8]


def training_voices(only: Sequence[str] = ("",)) -> list[Voice]:
    """Voices to train with; the few with recorded people behind them are half of all.

    ``only``: how the names of those that are wanted begin, such as "rhvoice".
    """
    wanted = [v for v in (*TRAIN_VOICES, *MORE_VOICES) if str(v).startswith(tuple(only))]
    voices = [v for v in wanted if available(v)]
    if not voices:
        raise BadInput(
            f"no voice is installed whose name begins with {' or '.join(only)};"
            " README.md names the packages that bring voices"
        )
    many = [v for v in voices if v.engine == "espeak"]
    few = [v for v in voices if v.engine != "espeak"]
    return many + few * max(1, len(many) // max(1, len(few)))


def make_shard(poems: list[Poem], voices: list[Voice], seed: int, number: int) -> list[Clip]:
    """The clips of one shard, the same for the same arguments."""
    rng = np.random.default_rng([seed, number])
    clips: list[Clip] = []
    while len(clips) < CLIPS_PER_SHARD:
        voice = voices[rng.integers(len(voices))]
        spoken = _speak_some(voice, poems[rng.integers(len(poems))], rng)
        for _ in range(_TAKES):
            clips += take(spoken, voice, rng)
    return clips[:CLIPS_PER_SHARD]


def _speak_some(voice: Voice, poem: Poem, rng: np.random.Generator) -> list[Spoken]:
    """Up to 16 pieces of 2 to 8 words from one place of the poem."""
    first = int(rng.integers(max(1, len(poem.lines) - 8)))
    words = [w for line in poem.lines[first : first + 12] for w in plain(line).split()]
    pieces: list[str] = []
    while words and len(pieces) < 16:
        n = int(rng.integers(2, 9))
        pieces.append(" ".join(words[:n]))
        words = words[n:]
    try:
        return speak_lines(voice, pieces)
    except RuntimeError:  # an engine that cannot say one of these lines: take another poem
        return []


def take(spoken: list[Spoken], voice: Voice, rng: np.random.Generator) -> list[Clip]:
    """The pieces sung in order, as many clips as they fill."""
    style = _Style.draw(rng)
    clips: list[Clip] = []
    waiting = list(spoken)
    while waiting:
        clip, used = _fill_clip(waiting, voice, style, rng)
        waiting = waiting[max(1, used) :]
        if used:
            clips.append(clip)
    return clips


@dataclass(frozen=True)
class _Style:
    """How one take is sung."""

    syllable_s: float
    unevenness: float
    tonic_hz: float
    scale: int
    formant: float
    vibrato_cents: float
    breath: float
    company: float  # share of a second voice, 0 for a solo

    @staticmethod
    def draw(rng: np.random.Generator) -> _Style:
        return _Style(
            syllable_s=float(np.exp(rng.uniform(np.log(0.17), np.log(0.6)))),
            unevenness=float(rng.uniform(0.1, 0.6)),
            tonic_hz=float(np.exp(rng.uniform(np.log(85), np.log(380)))),
            scale=int(rng.integers(2)),
            formant=float(rng.uniform(0.85, 1.2)),
            vibrato_cents=float(rng.choice([0.0, 20.0, 40.0, 80.0])),
            breath=float(np.exp(rng.uniform(np.log(0.01), np.log(0.3)))),
            company=float(rng.choice([0.0, 0.0, 0.0, 0.5, 0.9])),
        )


def _fill_clip(
    waiting: list[Spoken], voice: Voice, style: _Style, rng: np.random.Generator
) -> tuple[Clip, int]:
    """One clip from the first pieces that fit, and how many those are."""
    samples = np.zeros(CLIP_SAMPLES, dtype=np.float32)
    phones = np.zeros(CLIP_PHONES, dtype=np.int8)
    texts: list[str] = []
    start_s = float(rng.uniform(0.0, 0.6))
    for piece in waiting:
        lengths = style.syllable_s * np.exp(rng.normal(0, style.unevenness, piece.n_syllables))
        lengths[-1] *= rng.uniform(1.0, 2.5)
        lead_s = min(0.35, float(piece.vowels[0, 0]))
        end_s = lead_s + float(lengths.sum())
        if start_s + end_s > CLIP_S:
            break
        onsets = lead_s + np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
        voice_part = _sing_with_company(piece, onsets, end_s, style, rng)
        at = int(start_s * SAMPLE_RATE)
        samples[at : at + len(voice_part)] += voice_part[: CLIP_SAMPLES - at]
        _note_phones(phones, piece, onsets, start_s, end_s)
        texts.append(piece.text)
        start_s += end_s + float(rng.choice([0.02, 0.2, 0.6, 1.5], p=[0.4, 0.3, 0.2, 0.1]))
    return Clip(samples, " ".join(texts), voice, phones), len(texts)


def _note_phones(
    phones: npt.NDArray[np.int8],
    piece: Spoken,
    onsets: npt.NDArray[np.float64],
    start_s: float,
    end_s: float,
) -> None:
    """Write the phones of one piece, which starts at ``start_s``, into its clip's."""
    times = (np.arange(CLIP_PHONES) + 0.5) / PHONE_RATE - start_s
    inside = np.flatnonzero((times >= 0) & (times < end_s))
    names = phones_sung(piece, onsets, end_s, times[inside])
    phones[inside] = [phone_number(name) for name in names]


def _sing_with_company(
    piece: Spoken,
    onsets: npt.NDArray[np.float64],
    end_s: float,
    style: _Style,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    pitches = _melody(piece.n_syllables, style, rng)
    options = {"vibrato_cents": style.vibrato_cents, "breath": style.breath}
    solo = sing(piece, onsets, end_s, pitches, rng=rng, formant=style.formant, **options)
    if not style.company:
        return solo
    interval = float(rng.choice([1.0, 1.004, 2.0, 0.5, 1.26, 1.5]))
    late = np.maximum.accumulate(onsets + rng.normal(0, 0.02, len(onsets)))
    other_formant = style.formant * float(rng.uniform(0.93, 1.08))
    second = sing(
        piece,
        np.clip(late, 0.01, end_s - 0.02),
        end_s,
        pitches * interval,
        rng=rng,
        formant=other_formant,
        **options,
    )
    return solo + np.float32(style.company) * second


def _melody(n: int, style: _Style, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(n,) Hz: steps on a scale, mostly small, within an octave and a half, some notes repeated."""
    steps = rng.choice([-3, -2, -1, 0, 0, 1, 2, 3], size=n)
    degrees = np.clip(np.cumsum(steps) + rng.integers(0, 5), -2, 9)
    semitones = _SCALES[style.scale][degrees % 7] + 12 * (degrees // 7)
    return np.asarray(style.tonic_hz * 2.0 ** (semitones / 12))


def make_reading_shard(recordings: list[Path], seed: int, number: int) -> list[Clip]:
    """One shard of real voices, read or sung."""
    rng = np.random.default_rng([seed, number])
    clips: list[Clip] = []
    while len(clips) < CLIPS_PER_SHARD:
        path = recordings[rng.integers(len(recordings))]
        speech = load_audio(path)
        for _ in range(6):
            at = int(rng.integers(max(1, len(speech) - CLIP_SAMPLES)))
            read = speech[at : at + CLIP_SAMPLES]
            voice = Voice("recording", path.stem)
            if rng.random() < 0.5:
                clips.append(_unwritten(read, PLAIN_SPEECH, voice))
            else:
                pieces = [
                    take_apart_recording(read[i : i + 2 * SAMPLE_RATE], voice)
                    for i in range(0, len(read) - SAMPLE_RATE, 2 * SAMPLE_RATE)
                ]
                clips += [
                    _unwritten(clip.samples, UNWRITTEN, voice)
                    for clip in take([p for p in pieces if p], voice, rng)
                ]
    return clips[:CLIPS_PER_SHARD]


def make_spoken_shard(poems: list[Poem], voices: list[Voice], seed: int, number: int) -> list[Clip]:
    """One shard of synthetic voices that speak, a little faster or slower than they do."""
    rng = np.random.default_rng([seed, number])
    clips: list[Clip] = []
    while len(clips) < CLIPS_PER_SHARD:
        voice = voices[rng.integers(len(voices))]
        lines = poems[rng.integers(len(poems))].lines
        first = int(rng.integers(max(1, len(lines) - 8)))
        try:
            said = say(voice, [plain(line) for line in lines[first : first + 16] if plain(line)])
        except RuntimeError:  # an engine that cannot say one of these lines: take another poem
            continue
        pauses = [np.zeros(int(rng.uniform(0.1, 0.7) * SAMPLE_RATE), np.float32) for _ in said]
        parts = [part for pair in zip(said, pauses, strict=True) for part in pair]
        speech = _stretched(np.concatenate([*parts, pauses[0]]), float(rng.uniform(0.87, 1.15)))
        for at in range(0, len(speech) - CLIP_SAMPLES // 2, CLIP_SAMPLES):
            clips.append(_unwritten(speech[at : at + CLIP_SAMPLES], PLAIN_SPEECH, voice))
    return clips[:CLIPS_PER_SHARD]


def _stretched(samples: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    """Longer by ``factor``, and lower, as a tape that runs slower."""
    at = np.arange(int(len(samples) * factor)) / factor
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def _unwritten(samples: npt.NDArray[np.float32], text: str, voice: Voice) -> Clip:
    padded = np.pad(samples, (0, CLIP_SAMPLES - len(samples)))
    return Clip(padded, text, voice, np.full(CLIP_PHONES, UNKNOWN, dtype=np.int8))


def write_shard(folder: Path, number: int, clips: list[Clip]) -> None:
    """Both files of a shard, the sound first, so that a .json means a whole shard."""
    sound = np.stack([np.clip(c.samples * 2.0, -1, 1) for c in clips])
    np.save(folder / f"{number:06d}.npy", (sound * 32767).astype(np.int16))
    with (folder / f"{number:06d}.phones").open("wb") as file:
        np.save(file, np.stack([c.phones for c in clips]))
    words = {"texts": [c.text for c in clips], "voices": [str(c.voice) for c in clips]}
    part = folder / f"{number:06d}.part"
    part.write_text(json.dumps(words))
    part.rename(folder / f"{number:06d}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make sung training clips without accompaniment.")
    parser.add_argument("out", type=Path)
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--poems", type=Path)
    words.add_argument("--readings", type=Path, help="the data folder that has readings/")
    parser.add_argument("--spoken", action="store_true", help="poems are spoken, not sung")
    parser.add_argument("--voices", nargs="+", default=[""], help="such as rhvoice flite:slt")
    parser.add_argument("--clips", type=int, default=12_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first shard")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (LiviError, OSError) as error:
        parser.exit(1, f"{error}\n")


def _run(arguments: argparse.Namespace) -> None:
    """All shards that are not there yet, of poems or of readings."""
    if arguments.poems:
        poems = [p for p in training_poems(load_poems(arguments.poems)) if len(p.lines) >= 4]
        shard = make_spoken_shard if arguments.spoken else make_shard
        make = functools.partial(shard, poems, training_voices(arguments.voices))
    else:
        make = functools.partial(make_reading_shard, readings(arguments.readings, "train"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    shards = -(-arguments.clips // CLIPS_PER_SHARD)
    for number in range(arguments.first, arguments.first + shards):
        if not (arguments.out / f"{number:06d}.json").exists():
            clips = make(arguments.seed, number)
            write_shard(arguments.out, number, clips)
            print(f"shard {number}: {len(clips)} clips", flush=True)


if __name__ == "__main__":
    main()
