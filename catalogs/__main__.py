"""``python -m catalogs``: list the recordings of data sets, and make catalogues.

``covers80 ROOT`` and its siblings print a list of what lies below a folder, as CSV for
``livi-index build --list`` and ``livi-index eval --works``, and say what is missing; ``about``
tells where a data set comes from. ``render`` writes sung covers as audio files; ``manifest`` writes
what they would be, without a sound, and prints its sha256; ``backings`` renders accompaniments for
training; ``demo`` writes the small original catalogue that is part of this repository.
``instrumentals`` and ``softer`` render other recordings of the works of a rendered folder,
``lyrics`` says when its lines are sung, ``altered`` and ``halves`` make copies of recordings that
one has.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from catalogs import Split, datasets
from catalogs.copies import KINDS
from livi_index.errors import BadInput, LiviError

if TYPE_CHECKING:
    from catalogs.manifest import Row


def list_recordings(arguments: argparse.Namespace) -> None:
    """Print the list of a data set, and what is missing."""
    dataset = datasets.dataset(arguments.name)
    entries = dataset.read(arguments.root, metadata=arguments.metadata, whole=not arguments.part)
    if arguments.split:
        entries = [entry for entry in entries if entry.split == arguments.split]
    there = datasets.on_disk(entries)
    for line in datasets.report(entries, there):
        print(f"{dataset.ABOUT.title}, {line}", file=sys.stderr)
    if not there and not arguments.all:
        raise BadInput(
            f"{arguments.root} holds none of these recordings; files are looked for by the names"
            f" that `pydoc catalogs.{arguments.name}` tells"
        )
    # Names of files that are no text go out as the bytes that they are.
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    datasets.write_csv(entries if arguments.all else there, sys.stdout)


def about(arguments: argparse.Namespace) -> None:
    """Tell where a data set comes from, its licence, whom to cite, and its published size."""
    told = datasets.dataset(arguments.name).ABOUT
    for name in ("title", "home", "licence", "citation", "audio"):
        print(f"{name:<9} {getattr(told, name)}")
    for splits, sizes in told.sizes.items():
        print(f"{'size':<9} {' + '.join(splits)}: {' or '.join(map(str, sizes))}")


def render(arguments: argparse.Namespace) -> None:
    """Write the first works of a split and their entries; an interrupted run goes on."""
    from catalogs.manifest import TEST_WORKS, first_works

    works = arguments.works or TEST_WORKS
    _write(arguments, first_works(_rows(arguments), works, arguments.instrumentals))


def manifest(arguments: argparse.Namespace) -> None:
    """Write the rows of a split as JSON lines."""
    from catalogs.manifest import manifest_sha256

    rows = _rows(arguments)
    arguments.out.write_text("".join(row.to_json() + "\n" for row in rows))
    print(manifest_sha256(rows))


def backings(arguments: argparse.Namespace) -> None:
    """Write 16 kHz int16 arrays, one file a backing."""
    import numpy as np

    from catalogs.backing import training_backings

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, audio in training_backings(arguments.seed, arguments.n, arguments.seconds):
        target = arguments.out / f"{name}.npy"
        part = target.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, np.round(audio * 32767).astype(np.int16))
        part.replace(target)


def instrumentals(arguments: argparse.Namespace) -> None:
    """Write a new instrumental version of each work of a folder that was rendered."""
    from catalogs.variants import instrumental_rows, read_rows

    _write(arguments, instrumental_rows(read_rows(arguments.folder)))


def softer(arguments: argparse.Namespace) -> None:
    """Write sung versions of a folder that was rendered with the voice at another level."""
    from catalogs.variants import read_rows, softer_rows

    rows = softer_rows(read_rows(arguments.folder), arguments.voice_db, arguments.versions)
    _write(arguments, rows)


def wordless(arguments: argparse.Namespace) -> None:
    """Write wordless and whispered versions of works of a folder that was rendered."""
    from catalogs.variants import read_rows, wordless_rows

    _write(arguments, wordless_rows(read_rows(arguments.folder), arguments.works))


def _write(arguments: argparse.Namespace, rows: list[Row]) -> None:
    from catalogs.sung import write_catalogue

    entries = write_catalogue(arguments.out, rows, arguments.data, arguments.workers)
    print(f"{arguments.out}: {len(entries)} recordings, see entries.csv")


def altered(arguments: argparse.Namespace) -> None:
    """Write altered copies of recordings, and the list of them."""
    from catalogs.copies import altered as write
    from catalogs.sung import write_entries

    entries = write(arguments.sources, arguments.out, seed=arguments.seed, kinds=arguments.kinds)
    write_entries(arguments.out / "entries.csv", entries)


def halves(arguments: argparse.Namespace) -> None:
    """Write the first and the second halves of recordings, and the list of them."""
    from catalogs.copies import halves as write
    from catalogs.sung import write_entries

    write_entries(arguments.out / "entries.csv", write(arguments.sources, arguments.out))


def lyrics(arguments: argparse.Namespace) -> None:
    """Write what is sung in a folder that was rendered, line by line with times, as LRC files."""
    from catalogs.originals import demo_rows
    from catalogs.sung import lrc_of
    from catalogs.variants import read_rows

    made = (arguments.folder / "manifest.jsonl").exists()
    rows = read_rows(arguments.folder) if made else demo_rows()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row.kind == "sung":
            path = arguments.out / f"{row.recording_id}.lrc"
            path.write_text(lrc_of(row), encoding="utf-8")


def demo(arguments: argparse.Namespace) -> None:
    """Write the demo catalogue."""
    from catalogs.originals import write_demo

    write_demo(arguments.out)


def _rows(arguments: argparse.Namespace) -> list[Row]:
    from catalogs.manifest import TEST_SEED, TEST_WORKS, make_split

    if arguments.data is None:
        raise SystemExit("the words are in the development data: give --data or set LIVI_DATA")
    # Which works of the test split are taken must not change what they are.
    works = (arguments.works or TEST_WORKS) if arguments.split == "train" else TEST_WORKS
    seed = TEST_SEED if arguments.seed is None else arguments.seed
    return make_split(arguments.data, arguments.split, seed=seed, works=works)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m catalogs", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name in datasets.NAMES:
        command = commands.add_parser(name, help=f"list the recordings of {name}")
        command.add_argument("root", type=Path, help="the folder of the audio")
        command.add_argument("--metadata", type=Path, help="the folder of its lists, if another")
        command.add_argument("--split", choices=get_args(Split), help="this split alone")
        command.add_argument("--part", action="store_true", help="the lists are a part of them")
        command.add_argument("--all", action="store_true", help="list also what is missing")
        command.set_defaults(run=list_recordings, name=name)
    command = commands.add_parser("about", help=about.__doc__)
    command.add_argument("name", choices=datasets.NAMES)
    command.set_defaults(run=about)
    _add_made(commands)
    _add_others(commands)
    return parser


def _add_made(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What is made from a seed."""
    for run in (render, manifest, backings, demo):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("out", type=Path)
        command.set_defaults(run=run)
        if run in (render, manifest):
            command.add_argument("--split", choices=("train", "test"), default="test")
            command.add_argument("--works", type=int, help="default: those of the test split")
            command.add_argument("--seed", type=int, help="default: that of the test split")
            _add_data(command)
        if run is render:
            command.add_argument("--instrumentals", type=int, default=0)
            command.add_argument("--workers", type=int, default=1)
        if run is backings:
            command.add_argument("-n", type=int, default=150)
            command.add_argument("--seconds", type=float, default=60.0)
            command.add_argument("--seed", type=int, default=1)


def _add_others(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What is made from recordings that there are, or from their manifest."""
    for run in (instrumentals, softer, wordless):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("folder", type=Path, help="with a manifest.jsonl")
        command.add_argument("out", type=Path)
        command.add_argument("--workers", type=int, default=1)
        _add_data(command)
        command.set_defaults(run=run)
        if run is wordless:
            command.add_argument("--works", type=int, default=24)
        if run is softer:
            command.add_argument("--voice-db", type=float, required=True, help="over the backing")
            command.add_argument("--versions", type=int, default=1, help="of each work")
    command = commands.add_parser("lyrics", help=lyrics.__doc__)
    command.add_argument("folder", type=Path, help="rendered, or catalogs/demo")
    command.add_argument("out", type=Path)
    command.set_defaults(run=lyrics)
    for run in (altered, halves):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("sources", type=Path, nargs="+", help="files and folders")
        command.add_argument("out", type=Path)
        command.set_defaults(run=run)
        if run is altered:
            command.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
            command.add_argument("--seed", type=int, default=1)


def _add_data(command: argparse.ArgumentParser) -> None:
    place = os.environ.get("LIVI_DATA")
    command.add_argument("--data", type=Path, default=Path(place) if place else None)


def main() -> None:
    arguments = _parser().parse_args()
    # A reader of the list who has seen enough, such as `head`, is no error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        arguments.run(arguments)
    except LiviError as error:
        sys.exit(f"catalogs: {error}")


if __name__ == "__main__":
    main()
