"""The demonstration catalogue: a dozen original songs, each in three versions.

Words, tunes and names were made for this project and may travel with it. Two verses of three
lines stand around a chorus of two that returns. The second version sings two lines in other
words, the third leaves one line out; voices, keys, tempos, bands and file formats differ as they
do between covers. ``write_demo`` writes the audio files and ``works.csv`` (path, work).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalogs.engines import Voice
from catalogs.manifest import Row
from catalogs.mixing import Codec, Room
from catalogs.score import Change, Section, compose, seeded, tempo_limits
from catalogs.sung import write_rows


@dataclass(frozen=True)
class Original:
    """One song. ``names`` are title and artist of its three versions, ``other`` replaces lines."""

    work: str
    names: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]
    first: tuple[str, str, str]
    chorus: tuple[str, str]
    second: tuple[str, str, str]
    other: tuple[tuple[str, str], tuple[str, str]]


ORIGINALS = (
    Original(
        "harbour-lights",
        (
            ("Harbour Lights", "The Paper Boats"),
            ("Harbor Lights (live)", "Nell Orchard"),
            ("Lights in the Harbour", "Copper & Pine"),
        ),
        (
            "The evening ferry turns for home",
            "With salt along the rail",
            "And all the gulls are white as foam",
        ),
        ("Harbour lights, shine over me", "Bring my sailor in from sea"),
        (
            "My mother set a lamp for me",
            "Beside the kitchen door",
            "It threw a ribbon on the quay",
        ),
        (
            ("With salt along the rail", "With rain upon the sail"),
            ("Beside the kitchen door", "As hers had done before"),
        ),
    ),
    Original(
        "seven-bicycles",
        (
            ("Seven Bicycles", "The Tuesday Club"),
            ("Seven Bicycles", "Marlow Finch"),
            ("7 Bicycles - acoustic", "Low Bridge Road"),
        ),
        (
            "Seven bicycles down the hill",
            "Seven bells that ring",
            "Past the bakery and the mill",
        ),
        ("Pedal faster, catch the sun", "Summer holidays have begun"),
        (
            "Peter carries the lemonade",
            "Ruby knows the way",
            "To the orchard in the shade",
        ),
        (
            ("Seven bells that ring", "Seven friends that sing"),
            ("Ruby knows the way", "We have got all day"),
        ),
    ),
    Original(
        "letter-from-the-mountain",
        (
            ("Letter from the Mountain", "Ada Quill"),
            ("Mountain Letter", "The Snowline"),
            ("Letter from the Mountain (demo)", "Hugo Lantern"),
        ),
        (
            "I write you from a wooden hut",
            "Above the line of trees",
            "The path below is snowed and shut",
        ),
        ("Wait for me until the thaw", "I am nearer than before"),
        (
            "At night the valley holds its breath",
            "And stars come down to talk",
            "I count the miles that I have left",
        ),
        (
            ("Above the line of trees", "And listen to the breeze"),
            ("And stars come down to talk", "And dreams come by to walk"),
        ),
    ),
    Original(
        "grandmothers-radio",
        (
            ("Grandmother's Radio", "Velvet Kettle"),
            ("Grandma's Radio", "The Dial Tones"),
            ("Grandmother's Radio", "June & Jasper"),
        ),
        (
            "Grandmother's radio hums on the shelf",
            "Dusty and golden and small",
            "Singing the old songs all to itself",
        ),
        ("Turn it up, turn it up, dance on the floor", "Play me that melody just once more"),
        (
            "She taught me to waltz in my stocking feet",
            "Flour on her hands and her face",
            "Laughing together in time with the beat",
        ),
        (
            ("Dusty and golden and small", "Brown as the clock in the hall"),
            ("Flour on her hands and her face", "Spinning around in that place"),
        ),
    ),
    Original(
        "rain-on-the-greenhouse",
        (
            ("Rain on the Greenhouse", "Fern Society"),
            ("Rain on the Greenhouse", "Oskar Bell"),
            ("Greenhouse Rain", "The Quiet Gardeners"),
        ),
        (
            "Rain is drumming on the glass",
            "Tomatoes drink it slow",
            "We are waiting till the showers pass",
        ),
        ("Let it pour, let it grow", "Everything is green below"),
        (
            "You are reading seeds by name",
            "From packets in a tin",
            "Not a single bloom is quite the same",
        ),
        (
            ("Tomatoes drink it slow", "The roses seem to know"),
            ("From packets in a tin", "The summer may begin"),
        ),
    ),
    Original(
        "night-train-north",
        (
            ("Night Train North", "Silver Junction"),
            ("Night Train North (remix)", "Platform Nine Choir"),
            ("North by Night Train", "Cora Winter"),
        ),
        (
            "Midnight on the northern line",
            "Windows full of moon",
            "Every station changes sign",
        ),
        ("Carry me, carry me, night train, go", "Over the rivers and under the snow"),
        (
            "Strangers share a piece of bread",
            "Someone hums a tune",
            "Pillows made of coats instead",
        ),
        (
            ("Windows full of moon", "Morning comes too soon"),
            ("Someone hums a tune", "We will be there soon"),
        ),
    ),
    Original(
        "the-clockmaker",
        (
            ("The Clockmaker", "Brass Sparrow"),
            ("The Clockmaker", "Tilda Moss"),
            ("Clockmaker's Song", "The Pendulums"),
        ),
        (
            "The clockmaker works in a narrow street",
            "With springs and silver wheels",
            "He listens all day to a tiny beat",
        ),
        ("Tick and tock, my heart keeps time", "Yours will answer every chime"),
        (
            "He mended the watch that my father wore",
            "And never named a price",
            "He said it had only been tired before",
        ),
        (
            ("With springs and silver wheels", "He knows how morning feels"),
            ("And never named a price", "And gave me good advice"),
        ),
    ),
    Original(
        "painted-kite",
        (
            ("Painted Kite", "Milo and the Meadow"),
            ("Painted Kite (unplugged)", "Sunday Ladder"),
            ("My Painted Kite", "Eva Thistle"),
        ),
        (
            "I made a kite of paper red",
            "And painted it a face",
            "It winked at me above my head",
        ),
        ("Higher, higher, hold the string", "Let the windy morning sing"),
        (
            "It saw the roofs, it saw the lake",
            "It nodded to the crows",
            "It showed me every turn to take",
        ),
        (
            ("And painted it a face", "It flew all round the place"),
            ("It nodded to the crows", "It danced upon its toes"),
        ),
    ),
    Original(
        "kitchen-table",
        (
            ("Kitchen Table", "The Long Lunch"),
            ("Kitchen Table", "Rosa Field"),
            ("Around the Kitchen Table", "Uncle Barley"),
        ),
        (
            "There is coffee on the stove",
            "There are crumbs upon the chair",
            "Pull your stool up close, my love",
        ),
        ("Round the kitchen table, stay", "Tell me all about your day"),
        (
            "Here we argued, here we laughed",
            "Here we learned to play at cards",
            "Cut the last warm cake in half",
        ),
        (
            ("There are crumbs upon the chair", "There is butter left to share"),
            ("Here we learned to play at cards", "Here we wrote our birthday cards"),
        ),
    ),
    Original(
        "lighthouse-keeper",
        (
            ("Lighthouse Keeper", "Granite Coast"),
            ("The Lighthouse Keeper", "Isla Marsh"),
            ("Lighthouse Keeper (single)", "Foghorn Parade"),
        ),
        (
            "The keeper climbs a hundred stairs",
            "A thermos in his hand",
            "He says goodnight to polar bears",
        ),
        ("Turn, turn, lantern bright", "Walk across the sea tonight"),
        (
            "He waves to every passing mast",
            "He learns the names by heart",
            "The big ones slow, the small ones fast",
        ),
        (
            ("A thermos in his hand", "He looks away from land"),
            ("He learns the names by heart", "He has a wooden chart"),
        ),
    ),
    Original(
        "first-of-april",
        (
            ("First of April", "Crocus Hour"),
            ("First of April", "The Umbrella Stand"),
            ("April the First (live at the barn)", "Ben Harrow"),
        ),
        (
            "On the first of April the swallows came",
            "Low across the yard",
            "And the empty stable was not the same",
        ),
        ("Open the windows and let in the spring", "Give me a reason to whistle and sing"),
        (
            "We have hung the blankets along the line",
            "Swept the winter out",
            "And the whole wide hillside began to shine",
        ),
        (
            ("Low across the yard", "Winter was so hard"),
            ("Swept the winter out", "Heard the children shout"),
        ),
    ),
    Original(
        "satellite-waltz",
        (
            ("Satellite Waltz", "Orbit Lane"),
            ("Satellite Waltz", "Dora Keen"),
            ("Waltz of the Satellites", "The Small Antennas"),
        ),
        (
            "A satellite crosses the sky at ten",
            "Steady and silver and slow",
            "I wave from the garden and wave again",
        ),
        ("Round we go, round we go, you and I", "Dancing the dark of the wide open sky"),
        (
            "You called me last week from the other side",
            "Crackling and happy and clear",
            "I told you the river was deep and wide",
        ),
        (
            ("Steady and silver and slow", "Somewhere up there you know"),
            ("Crackling and happy and clear", "Sounding as if you were near"),
        ),
    ),
)
VOICES = (
    (Voice("festival", "slt"), Voice("flite", "rms"), Voice("espeak", "en-us+f2")),
    (Voice("flite", "awb"), Voice("festival", "slt"), Voice("espeak", "en-gb-x-rp+f4")),
    (Voice("flite", "rms"), Voice("flite", "slt"), Voice("espeak", "en-us+Annie")),
)
CODECS = (
    Codec(".ogg", 40, 16_000),
    Codec(".mp3", 40, 22_050),
    Codec(".opus", 32, 24_000),
    Codec(".m4a", 40, 16_000),
)


def demo_rows() -> Iterator[Row]:
    """The versions of all songs; audible without any data but the installed voices."""
    for number, original in enumerate(ORIGINALS):
        voices = VOICES[number % len(VOICES)]
        rng = seeded("demo", original.work)
        shifts = rng.permutation(np.arange(-4, 5))
        for version, (title, artist) in enumerate(original.names):
            form = _form(original, version)
            yield Row(
                recording_id=f"{original.work}-{version + 1}",
                work_id=original.work,
                kind="sung",
                split="train",
                title=title,
                artist=artist,
                author="",
                poem="",
                form=form,
                lacks=0.0,
                tune_seed=9000 + number,
                change=_change(9000 + number, form, int(shifts[version]), rng),
                voice=voices[version],
                formant=1.0,
                vibrato_cents=float(rng.integers(10, 35)),
                breath=0.02,
                backing="band",
                band_seed=3 * number + version,
                anthem=None,
                voice_to_backing_db=float(rng.integers(3, 9)),
                room=Room(0.6, -18.0, number),
                codec=CODECS[(number + version) % len(CODECS)],
            )


def write_demo(out: Path) -> None:
    """Write all versions and ``works.csv`` into ``out``; files that exist are left alone."""
    rows = list(demo_rows())
    paths = write_rows(out, rows)
    with (out / "works.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("path", "work"))
        table.writerows((path.name, row.work_id) for path, row in zip(paths, rows, strict=True))


def _form(original: Original, version: int) -> tuple[Section, ...]:
    """As written; with the other lines; without the second line of the second verse."""
    first: tuple[str, ...] = original.first
    second: tuple[str, ...] = original.second
    if version == 1:
        other = dict(original.other)
        first, second = (tuple(other.get(x, x) for x in verse) for verse in (first, second))
    verses = (first, second if version < 2 else (second[0], second[2]))
    chorus = Section("chorus", original.chorus)
    return tuple(section for verse in verses for section in (Section("verse", verse), chorus))


def _change(
    tune_seed: int, form: tuple[Section, ...], semitones: int, rng: np.random.Generator
) -> Change:
    change = Change(
        semitones=semitones,
        ornament=0.05,
        intro_bars=int(rng.integers(1, 3)),
        gap_bars=0,
        seed=int(rng.integers(1 << 31)),
    )
    limits = tempo_limits(compose(tune_seed), form, change, shortest_s=41, longest_s=59)
    factor = float(np.clip(rng.uniform(0.85, 1.2), *limits))
    return Change(**(vars(change) | {"tempo_factor": round(factor, 4)}))
