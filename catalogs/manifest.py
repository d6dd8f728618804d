"""What is sung, played and by whom: the rows of a split, chosen from a seed without a sound.

A ``Row`` holds every choice of one recording. The rows of the test split were fixed before
anything was trained; ``sung_test.sha256`` beside this module holds their digest. Works of the
test take their words from authors, their voices from engines and their backings from bands and
anthems that training never meets.

A work takes 12 to 24 lines of one poem, or of short poems by one author; no two works share a
line. It has three sung versions, one by each engine where the split has several: another key,
tempo, harmony, band or anthem, room and codec; one of the three lacks a quarter of the words or
more. An instrumental version lets an instrument play the melody; a distractor is music of no
work. Every work is chosen by a generator of its own: the first ones do not depend on how many
follow.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from catalogs import Kind, Split
from catalogs.backing import anthems
from catalogs.mixing import Codec, Room
from catalogs.poems import Poem, load_poems, plain, test_poems, training_poems
from catalogs.score import (
    Change,
    Section,
    Tune,
    choose,
    compose,
    lay_out,
    seeded,
    tempo_limits,
)
from catalogs.voices import TEST_VOICES, TRAIN_VOICES, Voice

DIGEST_FILE = Path(__file__).with_name("sung_test.sha256")
TEST_SEED = 2601
TEST_WORKS = 500
VERSIONS = 3  # sung ones of a work
N_BANDS: dict[Split, int] = {"train": 512, "test": 64}  # works share them
MIN_LINES, MAX_LINES = 12, 24
LACKING = 0.25  # share of the words that one version of each work goes without
# At the tempo as composed; versions are 0.8 to 1.25 times as fast and last 60 to 180 s.
_SHORTEST_PLAIN_S, _LONGEST_PLAIN_S = 100.0, 150.0

_PUNCTUATION = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u201c": None, "\u201d": None, '"': None, "_": None}
    | {"\u2014": "--", "\u2013": "-", "(": None, ")": None}
)
_CODECS = (
    Codec(".mp3", 64, 22_050),
    Codec(".mp3", 64, 44_100),
    Codec(".ogg", 48, 44_100),
    Codec(".ogg", 40, 16_000),
    Codec(".opus", 24, 48_000),
    Codec(".opus", 24, 24_000),
    Codec(".m4a", 48, 44_100),
    Codec(".m4a", 48, 32_000),
)
_ADJECTIVES = re.findall(
    r"\w+",
    "Amber Blue Copper Distant Early Flying Gentle Hollow Ivory Jolly Kind Lunar Marble Northern"
    " Open Paper Quiet Rolling Silver Tidal Upper Velvet Wandering Young Zigzag",
)
_NOUNS = re.findall(
    r"\w+",
    "Anchor Bell Cedar Drum Ember Ferry Garden Harbor Island Jackdaw Kettle Lantern Meadow Needle"
    " Orchard Pier Quarry River Sparrow Tower Umbrella Valley Willow Yard Zephyr",
)

BackingKind = Literal["band", "lead", "solo", "anthem"]


@dataclass(frozen=True)
class Row:
    """One recording of the manifest. ``lacks`` is the share of its work's words that is left out.

    ``backing`` is "band", "lead" (a band with a melody instrument), "solo" (hardly more than that
    instrument) or "anthem" (an excerpt of the file ``anthem``). Recordings without singing have
    neither voice nor level.
    """

    recording_id: str
    work_id: str
    kind: Kind
    split: Split
    title: str
    artist: str
    author: str
    poem: str
    form: tuple[Section, ...]
    lacks: float
    tune_seed: int
    change: Change
    voice: Voice | None
    formant: float
    vibrato_cents: float
    breath: float
    backing: BackingKind
    band_seed: int
    anthem: str | None
    voice_to_backing_db: float | None
    room: Room
    codec: Codec

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Row:
        """Read what ``to_json`` wrote; an unknown field is a TypeError."""
        fields: dict[str, Any] = json.loads(text)
        fields["form"] = tuple(Section(s["kind"], tuple(s["lines"])) for s in fields["form"])
        fields["voice"] = Voice(**fields["voice"]) if fields["voice"] else None
        for name, kind in (("change", Change), ("room", Room), ("codec", Codec)):
            fields[name] = kind(**fields[name])
        return cls(**fields)


def manifest_sha256(rows: Iterable[Row]) -> str:
    """Digest of ``rows`` in their order, one JSON object a line."""
    digest = sha256()
    for row in rows:
        digest.update(row.to_json().encode() + b"\n")
    return digest.hexdigest()


def first_works(rows: Sequence[Row], works: int, instrumentals: int = 0) -> list[Row]:
    """The sung versions of the first ``works`` works, and recordings without singing.

    Of the latter every second is an instrumental version of these works, the others distractors.
    """
    names = list(dict.fromkeys(row.work_id for row in rows if row.kind == "sung"))[:works]
    kept = set(names)
    sung = [row for row in rows if row.kind == "sung" and row.work_id in kept]
    played = [row for row in rows if row.kind == "instrumental" and row.work_id in kept]
    other = [row for row in rows if row.kind == "distractor"]
    played = played[: (instrumentals + 1) // 2]
    return sung + played + other[: instrumentals - len(played)]


def make_split(
    data: Path,
    split: Split = "test",
    *,
    seed: int = TEST_SEED,
    works: int = TEST_WORKS,
    distractors: int = TEST_WORKS,
) -> list[Row]:
    """The rows of a split: works with all their versions, then distractors.

    ``data`` is the folder of the development data: its poems and the names of its anthems.
    Raises ValueError if the poems do not suffice.
    """
    poems = load_poems(data / "poems.jsonl.gz")
    chosen = test_poems(poems) if split == "test" else training_poems(poems)
    names = [path.stem for path in anthems(data, split)]
    rows: list[Row] = []
    texts = _texts(chosen, seeded("texts", split, seed))
    for number in range(works):
        rows += _work(f"{split}-{seed}", number, split, texts, names)
    return rows + [_distractor(f"{split}-{seed}", i, split, names) for i in range(distractors)]


@dataclass(frozen=True)
class _Text:
    author: str
    title: str
    lines: tuple[str, ...]


def _texts(poems: Sequence[Poem], rng: np.random.Generator) -> Iterator[_Text]:
    """Texts of 12 lines or more that share no line, in random order."""
    used: set[str] = set()
    waiting: defaultdict[str, list[str]] = defaultdict(list)
    for i in rng.permutation(len(poems)):
        poem = poems[int(i)]
        lines = list(dict.fromkeys(filter(None, map(_singable, poem.lines))))
        if any(plain(line) in used for line in lines):
            continue
        used.update(map(plain, lines))
        if len(lines) < MIN_LINES:
            waiting[poem.author] += lines
            lines = waiting[poem.author]
        if len(lines) >= MIN_LINES:
            yield _Text(poem.author, poem.title, tuple(lines))
            waiting[poem.author] = []


def _singable(line: str) -> str | None:
    """``line`` without what engines stumble over, or None if it cannot be sung."""
    line = line.translate(_PUNCTUATION)
    line = re.sub(r"\s*-{2,}\s*", ", ", line)
    line = re.sub(r"\s+", " ", line).strip(" -,;:'")
    if not re.fullmatch(r"[A-Za-z' ,;:.!?-]+", line):
        return None
    return line if 4 <= len(plain(line).split()) <= 9 else None


def _form(tune: Tune, text: _Text, rng: np.random.Generator) -> tuple[Section, ...] | None:
    """Sections of a comfortable length from the first lines of ``text``, or None."""
    n_wanted = int(rng.integers(MIN_LINES, MAX_LINES + 1))
    with_chorus, last_is_bridge = rng.random() < 0.75, rng.random() < 0.3
    for n in range(min(n_wanted, len(text.lines)) // 4 * 4, MIN_LINES - 1, -4):
        quatrains = [text.lines[i : i + 4] for i in range(0, n, 4)]
        form = _arranged(quatrains, with_chorus, last_is_bridge)
        if _SHORTEST_PLAIN_S <= lay_out(tune, form).duration_s <= _LONGEST_PLAIN_S:
            return form
    return None


def _arranged(
    quatrains: Sequence[tuple[str, ...]], with_chorus: bool, last_is_bridge: bool
) -> tuple[Section, ...]:
    """Verses with a returning chorus (the second quatrain), or each quatrain once."""
    if not with_chorus:
        return tuple(Section("verse", lines) for lines in quatrains)
    chorus = Section("chorus", quatrains[1])
    verses = [Section("verse", lines) for lines in (quatrains[0], *quatrains[2:])]
    if last_is_bridge and len(verses) > 2:
        verses[-1] = Section("bridge", verses[-1].lines)
    return tuple(section for verse in verses for section in (verse, chorus))


def _shortened(
    form: tuple[Section, ...], rng: np.random.Generator
) -> tuple[tuple[Section, ...], float]:
    """``form`` without neighbouring lines that hold at least ``LACKING`` of its words; the share.

    Words are counted in the text, where a chorus stands once.
    """
    lines = list(dict.fromkeys(line for section in form for line in section.lines))
    words = {line: len(plain(line).split()) for line in lines}
    start, dropped = int(rng.integers(len(lines))), set[str]()
    for i in range(len(lines)):
        if sum(words[line] for line in dropped) >= LACKING * sum(words.values()):
            break
        dropped.add(lines[(start + i) % len(lines)])
    kept = (replace(s, lines=tuple(x for x in s.lines if x not in dropped)) for s in form)
    share = sum(words[line] for line in dropped) / sum(words.values())
    return tuple(section for section in kept if section.lines), round(share, 4)


def _work(
    name: str, number: int, split: Split, texts: Iterator[_Text], names: Sequence[str]
) -> Iterator[Row]:
    """Three sung versions and an instrumental one."""
    rng = seeded("work", name, number)
    while True:
        text = next(texts, None)
        if text is None:
            raise ValueError(f"the poems of the {split} split do not suffice for work {number}")
        tune_seed = int(rng.integers(1 << 31))
        tune = compose(tune_seed)
        form = _form(tune, text, rng)
        if form is not None:
            break
    lacking = int(rng.integers(VERSIONS))
    voices = _voices(split, rng)
    bands = rng.permutation(N_BANDS[split])
    sources = rng.permutation(len(names))
    semitones = rng.permutation(np.arange(-5, 6))
    for version in range(VERSIONS + 1):
        sung = version < VERSIONS
        words, share = _shortened(form, rng) if version == lacking else (form, 0.0)
        anthem = names[int(sources[version])] if sung and rng.random() < 0.3 else None
        yield Row(
            recording_id=f"{split}-w{number:04d}-{'abci'[version]}",
            work_id=f"{split}-w{number:04d}",
            kind="sung" if sung else "instrumental",
            split=split,
            title=_title(text.title, version, rng),
            artist=draw_artist(rng),
            author=text.author,
            poem=text.title,
            form=words,
            lacks=share,
            tune_seed=tune_seed,
            change=draw_change(tune, words, int(semitones[version]), rng),
            voice=voices[version] if sung else None,
            **draw_delivery(rng),
            backing="anthem" if anthem else ("band" if sung else "lead"),
            band_seed=int(bands[version]),
            anthem=anthem,
            voice_to_backing_db=round(float(rng.uniform(-5, 6)), 2) if sung else None,
            room=draw_room(rng),
            codec=draw_codec(rng),
        )


def _distractor(name: str, number: int, split: Split, names: Sequence[str]) -> Row:
    rng = seeded("distractor", name, number)
    tune = compose(int(rng.integers(1 << 31)))
    lines = tuple("la " * int(n) for n in rng.integers(5, 13, 4 * int(rng.integers(3, 6))))
    form = tuple(Section("verse", lines[i : i + 4]) for i in range(0, len(lines), 4))
    backing: BackingKind = choose(rng, ("band", "lead", "lead", "solo", "anthem"))
    return Row(
        recording_id=f"{split}-d{number:04d}",
        work_id=f"{split}-d{number:04d}",
        kind="distractor",
        split=split,
        title=f"{choose(rng, _NOUNS)} in {'CDEFGAB'[int(rng.integers(7))]}",
        artist=draw_artist(rng),
        author="",
        poem="",
        form=form,
        lacks=0.0,
        tune_seed=tune.seed,
        change=draw_change(tune, form, int(rng.integers(-5, 6)), rng),
        voice=None,
        **draw_delivery(rng),
        backing=backing,
        band_seed=int(rng.integers(N_BANDS[split])),
        anthem=choose(rng, names) if backing == "anthem" else None,
        voice_to_backing_db=None,
        room=draw_room(rng),
        codec=draw_codec(rng),
    )


def _voices(split: Split, rng: np.random.Generator) -> list[Voice]:
    """Voices for the versions of a work: in the test one of each engine, in random order.

    In training most voices are espeak's; there every second work has a version by another.
    """
    of_split = TEST_VOICES if split == "test" else TRAIN_VOICES
    engines = ["espeak", "flite", "festival"]
    if split == "train":
        engines = ["espeak", "espeak", choose(rng, engines)]
    order = rng.permutation(len(engines))
    voices: list[Voice] = []
    for i in order:
        options = [v for v in of_split if v.engine == engines[i] and v not in voices]
        voices.append(choose(rng, options))
    return voices


def draw_change(
    tune: Tune, form: Sequence[Section], semitones: int, rng: np.random.Generator
) -> Change:
    change = Change(
        semitones=semitones,
        reharmonise=round(float(rng.uniform(0.1, 0.4)), 2) if rng.random() < 0.5 else 0.0,
        ornament=round(float(rng.uniform(0.03, 0.2)), 2),
        intro_bars=int(rng.integers(0, 5)),
        gap_bars=int(rng.integers(0, 3)),
        seed=int(rng.integers(1 << 31)),
    )
    slowest, fastest = tempo_limits(tune, form, change, shortest_s=60.5, longest_s=179.5)
    factor = float(np.clip(np.exp(rng.uniform(np.log(0.8), np.log(1.25))), slowest, fastest))
    return replace(change, tempo_factor=round(float(np.clip(factor, 0.8, 1.25)), 4))


def draw_delivery(rng: np.random.Generator) -> dict[str, Any]:
    """How a voice sings; drawn for every row so that rows with and without voice stay alike."""
    return {
        "formant": round(float(rng.uniform(0.92, 1.1)), 3),
        "vibrato_cents": round(float(rng.uniform(0, 45)), 1),
        "breath": round(float(rng.uniform(0.01, 0.08)), 3),
    }


def draw_room(rng: np.random.Generator) -> Room:
    return Room(
        decay_s=round(float(rng.uniform(0.15, 1.2)), 2),
        wet_db=round(float(rng.uniform(-24, -9)), 1),
        seed=int(rng.integers(1 << 31)),
    )


def draw_codec(rng: np.random.Generator) -> Codec:
    codec = choose(rng, _CODECS)
    return replace(codec, kbps=int(rng.integers(codec.kbps, 2 * codec.kbps) // 8 * 8))


def _title(poem: str, version: int, rng: np.random.Generator) -> str:
    title = re.sub(r"\s+", " ", poem).strip()
    if version == VERSIONS:
        return f"{title} (instrumental)"
    return title + choose(rng, ("", "", "", " (live)", " (acoustic)", " [remix]", " - cover"))


def draw_artist(rng: np.random.Generator) -> str:
    adjective, noun = choose(rng, _ADJECTIVES), choose(rng, _NOUNS)
    return choose(rng, ("The {0} {1}s", "{0} {1}", "{1} & the {0}s")).format(adjective, noun)
