"""``eval``: how well versions are found, in a library or by vectors of any system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from livi_index import display
from livi_index.commands.options import JsonOption

if TYPE_CHECKING:
    from livi_index.evaluation import Evaluation

_NAMES = {
    "mr1_mean": "MR1 mean",
    "mr1_median": "MR1 median",
    "hr1": "HR@1",
    "hr10": "HR@10",
    "hr100": "HR@100",
    "map10": "MAP@10",
    "map": "MAP",
    "mrr": "MRR",
    "nar": "NAR",
}
_REASONS = {
    "unknown": "not here",
    "unreadable": "could not be read",
    "no_singing": "without singing",
    "two_works": "listed under two works",
}
_RANKED = {"tracks": "by cosine of whole tracks", "query": "as `livi-index query` ranks"}

SourceArgument = Annotated[
    Path | None,
    typer.Argument(help="A library, or a file of vectors (.npz); none: the default library."),
]
WorksOption = Annotated[
    Path, typer.Option(help="CSV file with the columns work and path, or work and id.")
]
RankingOption = Annotated[
    Literal["tracks", "query"],
    typer.Option(help="By cosine of whole tracks, or as `query` ranks (about 30 ms a recording)."),
]


def evaluate(
    works: WorksOption,
    source: SourceArgument = None,
    ranking: RankingOption = "tracks",
    space: Annotated[
        str, typer.Option(help="What is compared: lyrics, harmony, or both (of a query).")
    ] = "both",
    as_json: JsonOption = False,
) -> None:
    """Measure how well the versions that a list names are found."""
    from livi_index.evaluation import evaluate_at

    found = evaluate_at(source, works, ranking, space)
    if as_json:
        display.print_json(found.to_json())
    else:
        display.print_lines(_lines(found))


def _lines(found: Evaluation) -> Iterator[str]:
    scores = found.scores
    where = "" if found.model is None else f", {found.model}, generation {found.generation}"
    yield f"{found.source}{where}; ranked {_RANKED[found.ranking]}"
    yield f"{found.list}: {found.listed:,} recordings"
    share = f"(coverage {scores.coverage:.3f})"
    yield f"{scores.n_items:>9,}  took part, of {found.works:,} works {share}"
    for reason, n in found.missing.items():
        if n:
            yield f"{n:>9,}  {_REASONS[reason]}"
    if found.unlisted:
        yield f"{found.unlisted:>9,}  more here that the list does not name, left out"
    yield f"{scores.n_answerable:>9,}  can be answered: another version took part"
    yield ""
    yield f"{'':11} {'answerable':>10}   {'95 % interval':>17}   {'as published':>12}"
    for name in (field.name for field in fields(scores.answerable)):
        mean, low, high, published = (
            _number(getattr(part, name))
            for part in (scores.answerable, scores.low, scores.high, scores.published)
        )
        yield f"{_NAMES[name]:11} {mean:>10}   {f'{low} – {high}':>17}   {published:>12}"
    yield ""
    yield "MR1: rank of the first version, 1 is best; NAR: 0 is best, 50 chance; others: 1 is best."
    yield (
        f"As published: HR, MAP and MRR over all {scores.n_queries:,}, those without an answer"
        " count 0; NAR with the query itself in the last place."
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.2f}"
