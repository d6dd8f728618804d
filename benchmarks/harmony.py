"""What harmony adds to words: ``python -m benchmarks.harmony versions|copies|halves|alarms|cost``

``versions FOLDER`` asks a library of a rendered test split, as lyrics, as harmony and as both do:
its sung versions, its works played anew without a voice (``--instrumentals``, from ``python -m
catalogs instrumentals``) and its sung versions with a softer voice (``--softer``). Only sung
versions of a work count as found; its instrumental one is left out of the work's own rankings, and
a softer version does not meet its original. Bands and anthems accompany different works: that is
what a harmony may take for a version.

``copies`` asks the development's songs and anthems by altered copies of those that only measure
(``python -m catalogs altered``), ``halves`` asks the second halves of songs by the first ones, and
``alarms`` looks for the likeliest wrong pair among recordings none of which are versions of each
other, but for those of ``SAME_TUNE``. ``cost`` builds a library with and without harmony.

All recordings are heard by the product's own build, and asked by what it keeps of them. What a
space does not hold is found last; nothing is fitted here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detector import FIRST_MEASURING
from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from benchmarks.speed import measure
from benchmarks.sung import LAST, NOT_LAST, entries_of, library_of
from catalogs import Entry
from catalogs.copies import KINDS, altered, halves, recordings
from catalogs.sung import write_entries
from livi_index.build import BuildOptions, build
from livi_index.keeping import KEPT
from livi_index.library import Library, open_library
from livi_index.metrics import rank_scores
from livi_index.models import CARD, Bundle, open_bundle
from livi_index.ranking import Heard

HARMONY = "harmony"
SPACES = ("lyrics", HARMONY, "both")
LEFT_OUT = 2 * LAST  # the score of what is neither right nor wrong
# Anthems of one melody, which is nobody's mistake.
SAME_TUNE = ({"anthem-tza", "anthem-zmb", "anthem-zaf"},)
SHOWN = 5  # of the likeliest wrong pairs
ROUNDS = 2  # of builds, of which the quicker counts

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Question:
    """A recording that asks, by what was heard of it; nothing was heard where ``heard`` is empty.

    ``kind`` is what it is counted by, beside all together.
    """

    name: str
    work: str
    kind: str
    heard: Mapping[str, Heard]


class Items:
    """The recordings of a library that answer."""

    def __init__(self, library: Library, entries: Sequence[Entry]) -> None:
        self.names = [entry.recording_id for entry in entries]
        self.works = [e.work_id if e.kind == "sung" else f"none-{e.recording_id}" for e in entries]
        self._owners = np.array([entry.work_id for entry in entries])
        self._sung = np.array([entry.kind == "sung" for entry in entries])
        self._numbers = np.array([number_of(library, entry.path) for entry in entries])
        self._order = np.argsort(self._numbers, kind="stable")

    def row(self, library: Library, space: str, question: Question) -> FloatArray:
        """Scores (N,) of all for a question, those last that the space does not give."""
        of_work = self._owners == question.work
        row = np.where(of_work & self._sung, LAST, NOT_LAST).astype(np.float32)
        if question.heard:
            itself = [self._numbers[i] for i, n in enumerate(self.names) if n == question.name]
            found = library.score(question.heard, space=space, without=itself)
            place = np.searchsorted(self._numbers[self._order], found.recording_ids)
            row[self._order[place]] = found.scores
        row[of_work & ~self._sung] = LEFT_OUT
        return row


def number_of(library: Library, path: Path) -> int:
    """The recording at a path, 0 if nothing of it can be found in any space."""
    generation = library.generation
    number = generation.recording_at(path.absolute()) or 0
    known = (generation.recording_ids(space) for space in generation.spaces)
    return number if any(number in ids for ids in known) else 0


def questions(
    library: Library, entries: Sequence[Entry], kinds: Mapping[str, str]
) -> list[Question]:
    """What a library holds of these recordings, as questions for another one, or for itself."""
    numbers = [number_of(library, entry.path) for entry in entries]
    return [
        Question(
            entry.recording_id,
            entry.work_id,
            kinds.get(entry.recording_id, ""),
            library.stored(number) if number else {},
        )
        for entry, number in zip(entries, numbers, strict=True)
    ]


def ask(library: Library, items: Items, asked: Sequence[Question]) -> dict[str, Any]:
    """HR@1 and MAP@10 of questions in every space, of all and of each kind.

    ``first`` counts the questions that find a version first, ``works_first`` the works of which all
    questions do.
    """
    kinds = np.array([question.kind for question in asked])
    works, names = [q.work for q in asked], [q.name for q in asked]
    figures: dict[str, Any] = {
        "queries": len(asked),
        "works": len(set(works)),
        "recordings": len(items.names),
    }
    for space in SPACES:

        def rows(numbers: IntArray, space: str = space) -> FloatArray:
            return np.stack([items.row(library, space, asked[n]) for n in numbers])

        found = rank_scores(rows, works, names, items.works, items.names)
        first, precision = found.hit(1), found.ap_at_cut
        figures[space] = {
            "hr1": float(first.mean()),
            "map10": float(precision.mean()),
            "first": int(first.sum()),
            "works_first": len(set(works) - {works[n] for n in np.flatnonzero(~first)}),
            "by_kind": {
                kind: {
                    "queries": int((kinds == kind).sum()),
                    "hr1": float(first[kinds == kind].mean()),
                    "map10": float(precision[kinds == kind].mean()),
                }
                for kind in sorted(set(kinds.tolist()) - {""})
            },
        }
    return figures


def backings_of(folder: Path) -> dict[str, str]:
    """Who accompanies each recording of a rendered folder."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["recording_id"]: row["backing"] for row in map(json.loads, lines)}


def voice_db_of(folder: Path) -> float:
    """The one level of all voices of a folder."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    (level,) = {row["voice_to_backing_db"] for row in map(json.loads, lines)}
    return float(level)


def versions(options: argparse.Namespace) -> dict[str, Any]:
    """Sung, instrumental and softer versions ask a rendered folder."""
    bundle, entries = bundle_of(options), entries_of(options.folder)
    folders = {"instrumental": options.instrumentals} if options.instrumentals else {}
    folders |= {f"voice at {voice_db_of(folder):g} dB": folder for folder in options.softer}
    with kept(options, options.folder, bundle) as library:
        items = Items(library, entries)
        sung = [entry for entry in entries if entry.kind == "sung"]
        own = questions(library, sung, backings_of(options.folder))
        figures = {"sung": ask(library, items, own)}
        for name, folder in folders.items():
            with kept(options, folder, bundle) as other:
                asked = questions(other, entries_of(folder), backings_of(folder))
            figures[name] = ask(library, items, asked)
    return {"works": len({entry.work_id for entry in sung}), "asked": figures}


def copies(options: argparse.Namespace) -> dict[str, Any]:
    """Altered copies of songs and of measuring anthems ask all songs and anthems."""
    data, bundle = data_folder(options, "sung", "instrumental"), bundle_of(options)
    originals = recordings([data / "sung", data / "instrumental"])
    entries = [Entry(path.stem, path.stem, path, "", "", "test") for path in originals]
    sources = {"songs": [data / "sung"], "anthems": measuring_anthems(data)}
    figures: dict[str, Any] = {}
    with built(options, "originals", originals, bundle) as library:
        items = Items(library, entries)
        for name, paths in sources.items():
            with folder_of(options, f"altered-{name}") as folder:
                made = altered(paths, folder)
                write_entries(folder / "entries.csv", made)
                kinds = {e.recording_id: e.recording_id.rpartition("-")[2] for e in made}
                with kept(options, folder, bundle) as other:
                    asked = questions(other, made, kinds)
            figures[name] = ask(library, items, asked)
    return {"kinds": list(KINDS), "asked": figures}


def halved(options: argparse.Namespace) -> dict[str, Any]:
    """First halves of songs ask for second halves among all halves."""
    data, bundle = data_folder(options, "sung"), bundle_of(options)
    with folder_of(options, "halves") as folder:
        made = halves([data / "sung"], folder)
        write_entries(folder / "entries.csv", made)
        with kept(options, folder, bundle) as library:
            first = [entry for entry in made if entry.recording_id.endswith("-first")]
            return {"asked": ask(library, Items(library, made), questions(library, first, {}))}


def alarms(options: argparse.Namespace) -> dict[str, Any]:
    """The likeliest of the pairs that are no versions of each other."""
    data, bundle = data_folder(options, "sung", "instrumental"), bundle_of(options)
    paths = [*recordings([data / "sung"]), *measuring_anthems(data)]
    with built(options, "alarms", paths, bundle) as library:
        numbers = {number_of(library, path): path.stem for path in paths}
        numbers.pop(0, None)
        likeliest = {space: _wrong_pairs(library, numbers, space) for space in SPACES}
    highest = {space: pairs[0]["probability"] for space, pairs in likeliest.items() if pairs}
    counts = {"recordings": len(paths), "with_vectors": len(numbers)}
    return {**counts, "highest_probability": highest, "likeliest": likeliest}


def _wrong_pairs(library: Library, numbers: dict[int, str], space: str) -> list[dict[str, Any]]:
    """The likeliest of the pairs of a query and its best wrong hit."""
    pairs = []
    for number, name in numbers.items():
        found = library.score(library.stored(number), space=space, without=(number,))
        names = [numbers[other] for other in found.recording_ids.tolist()]
        wrong = [not any({name, other} <= tune for tune in SAME_TUNE) for other in names]
        if any(wrong) and found.probabilities is not None:
            row = wrong.index(True)
            likely = float(found.probabilities[row])
            pairs.append({"query": name, "hit": names[row], "probability": likely})
    return sorted(pairs, key=lambda pair: -pair["probability"])[:SHOWN]


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """A build of songs and anthems with harmony and without it, by turns."""
    data, bundle = data_folder(options, "sung", "instrumental"), bundle_of(options)
    roots = [data / "sung", data / "instrumental"]
    wall_s: dict[str, list[float]] = {"with": [], "without": []}
    stages: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        plain = without_harmony(bundle, Path(place) / "plain")
        for number in range(ROUNDS):
            for name, model in (("without", plain), ("with", bundle.path)):
                done = measure(roots, model, Path(place) / f"{name}-{number}")
                wall_s[name].append(done["wall_s"])
                stages[name] = done["stages_s"]
    least = {name: min(times) for name, times in wall_s.items()}
    return {
        "added": least["with"] / least["without"] - 1,
        "audio_s": done["audio_s"],
        "wall_s": wall_s,
        "stages_s": stages,
    }


def without_harmony(bundle: Bundle, place: Path) -> Path:
    """A copy of a bundle that knows nothing of harmony."""
    shutil.copytree(bundle.path, place)
    card = json.loads((place / CARD).read_bytes())
    card["spaces"] = [space for space in card["spaces"] if space["name"] != HARMONY]
    card.pop("fusion", None)
    (place / CARD).write_text(json.dumps(card))
    return place


def measuring_anthems(data: Path) -> list[Path]:
    return [p for p in recordings([data / "instrumental"]) if p.stem >= FIRST_MEASURING]


@contextmanager
def folder_of(options: argparse.Namespace, name: str) -> Iterator[Path]:
    """A folder for recordings, kept where it was asked for."""
    if options.kept:
        yield options.kept / name
    else:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place) / name


@contextmanager
def kept(options: argparse.Namespace, folder: Path, bundle: Bundle) -> Iterator[Library]:
    """The library of a folder with a list, beside others where it was asked for."""
    place = options.kept and options.kept / f"library-{folder.name}"
    with library_of(folder, bundle, place) as library:
        yield made_with(library, bundle)


@contextmanager
def built(
    options: argparse.Namespace, name: str, paths: Sequence[Path], bundle: Bundle
) -> Iterator[Library]:
    """The library of these files."""
    with folder_of(options, f"library-{name}") as place:
        build(paths, place, BuildOptions(model=str(bundle.path)))
        with open_library(place, model=bundle) as library:
            yield made_with(library, bundle)


def made_with(library: Library, bundle: Bundle) -> Library:
    """The same library; leaves the program where it was kept with other networks than these.

    A library stays with those that it was built with, and one whose harmony was made anew has the
    id of the model as before: its figures would be of neither.
    """
    kept = open_bundle(library.path / KEPT / bundle.card.model_id)
    files = kept.card.files.items()
    if any(bundle.card.files.get(name) != file for name, file in files if name.endswith(".onnx")):
        raise SystemExit(f"{library.path} was built with other networks than {bundle.path}'s")
    return library


def _table(figures: dict[str, Any]) -> None:
    """Figures of questions as ``ask`` gives them, by name or alone."""
    asked = figures["asked"]
    rows: list[tuple[str | float, ...]] = [("", "queries", *SPACES)]
    for name, found in asked.items() if "queries" not in asked else [("halves", asked)]:
        rows.append((f"{name}: HR@1", found["queries"], *(found[s]["hr1"] for s in SPACES)))
        rows.append((f"{name}: MAP@10", "", *(found[s]["map10"] for s in SPACES)))
        for kind in found[HARMONY]["by_kind"]:
            parts = [found[space]["by_kind"][kind] for space in SPACES]
            rows.append((f"  {kind}: HR@1", parts[0]["queries"], *(p["hr1"] for p in parts)))
    print_table(rows)


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__)
    parser.add_argument("--kept", type=Path, help="keep libraries and copies here")
    commands = parser.add_subparsers(required=True)
    for name, run in (
        ("versions", versions),
        ("copies", copies),
        ("halves", halved),
        ("alarms", alarms),
        ("cost", cost),
    ):
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run, name=name)
        if run is versions:
            command.add_argument("folder", type=Path, help="a rendered test split")
            command.add_argument("--instrumentals", type=Path)
            command.add_argument("--softer", type=Path, nargs="+", default=[])
    return parser


def main() -> None:
    options = _parser().parse_args()
    figures = {"model": model_facts(bundle_of(options)), **options.run(options)}
    write_result(f"harmony-{options.name}", figures, options.out, program="harmony")
    if "asked" in figures:
        _table(figures)
    else:
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
