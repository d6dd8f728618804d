"""``groups`` and ``news``: versions of one song in a whole library, and new ones."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from livi_index import display
from livi_index.commands.options import JsonOption, LibraryOption
from livi_index.text import cell, safe

if TYPE_CHECKING:
    from livi_index.groups import Group, Member, News, Pair

app = typer.Typer()

ProbabilityOption = Annotated[
    float, typer.Option(help="That two recordings are versions of one song, at least.")
]
ScoreOption = Annotated[
    float | None, typer.Option(help="Score of a pair, at least; goes before the probability.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.command()
def groups(
    library: LibraryOption = None,
    min_probability: ProbabilityOption = 0.9,
    min_score: ScoreOption = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one row a recording.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Version groups of the whole library; with --json one object a line. In doubt it splits."""
    from livi_index.groups import PairOptions, find_groups
    from livi_index.library import open_library

    with open_library(library) as opened:
        options = PairOptions(min_probability=min_probability, min_score=min_score)
        found = find_groups(opened, options, display.counting("recordings", quiet))
    if as_json:
        for group in found:
            display.print_json(group.to_json())
    elif as_csv:
        _print_csv(found)
    else:
        display.print_lines(_group_lines(found))


@app.command()
def news(
    library: LibraryOption = None,
    min_probability: ProbabilityOption = 0.9,
    min_score: ScoreOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Tell the same again next time.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """New version pairs since the last news; with --json one object a line."""
    from livi_index.groups import PairOptions, find_news
    from livi_index.library import open_library

    with open_library(library) as opened:
        options = PairOptions(min_probability=min_probability, min_score=min_score)
        found = find_news(opened, options, display.counting("recordings", quiet))
    if as_json:
        for pair in found.pairs:
            display.print_json(pair.to_json())
    else:
        display.print_lines(_news_lines(found))
    if not keep:
        found.remember(opened.path)


def _print_csv(found: Sequence[Group]) -> None:
    from livi_index.groups import rows

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("group", "score", "probability", "recording_id", "path", "title", "artist"))
    writer.writerows(map(cell, row) for row in rows(found))


def _group_lines(found: Sequence[Group]) -> Iterator[str]:
    for group in found:
        yield f"{group.number}.  {len(group.members)} recordings, {_sure(group)}"
        yield from (f"    {_member(member)}" for member in group.members)
    yield f"{len(found):,} groups, {sum(len(group.members) for group in found):,} recordings"


def _news_lines(found: News) -> Iterator[str]:
    for pair in found.pairs:
        yield f"{_sure(pair)}  {_member(pair.first)}"
        yield f"{'':>12}= {_member(pair.second)}"
    yield f"{len(found.pairs):,} new pairs, of {found.new_recordings:,} new recordings"


def _sure(found: Group | Pair) -> str:
    if found.probability is None:
        return f"score {found.score:.3f}"
    return f"prob. {found.probability:.2f}"


def _member(member: Member) -> str:
    words = " – ".join(
        safe(word, display.LONGEST_TAG) for word in (member.title, member.artist) if word
    )
    return f"{words}  {member.path}" if words else member.path
