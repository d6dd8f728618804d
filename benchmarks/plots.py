"""Pictures of result files: ``python -m benchmarks.plots --pictures FOLDER``

Each is drawn of what lies in ``benchmarks/results`` (or ``--out``), and not drawn where that was
not measured yet:

- ``accuracy-CATALOGUE.png``: HR@1 against seconds a recording, of ``benchmarks.run``;
- ``indexes-COUNT.png``: recall@10 against answers a second, of ``benchmarks.scale``;
- ``lambda.png``: what is kept, what is set aside and what is found, by the vocalness that is asked
  for, of ``benchmarks.experiments``;
- ``scores-QUESTION.png``: log odds of versions and of others, the curve from them to probabilities,
  and how often what it tells is true, of ``benchmarks.calibrate``.

The extra ``bench`` is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.layout import runs
from benchmarks.results import arguments, read_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_IN = (7.0, 4.5)
DOTS_PER_INCH = 120
QUIET, LOUD = "#9aa5b1", "#b3261e"

Figures = Mapping[str, Any]


def drawn(results: Path) -> Iterator[tuple[str, Figure]]:
    """Name and picture of whatever was measured."""
    for catalog, systems in runs(results).items():
        if any("scores" in figures for figures in systems.values()):
            yield f"accuracy-{catalog}", accuracy(catalog, systems)
    for path in sorted(results.glob("scale-*.json")):
        scale = read_result(path.stem, results)
        assert scale is not None
        yield path.stem.replace("scale", "indexes"), indexes(scale["figures"])
    if (sweep := read_result("experiments-lambda", results)) is not None:
        yield "lambda", lambdas(sweep["figures"])
    if (calibration := read_result("calibration", results)) is not None:
        for question, told in calibration["figures"].items():
            if isinstance(told, dict) and "distribution" in told:
                yield f"scores-{question}", distributions(question, told)


def accuracy(catalog: str, systems: Mapping[str, Figures]) -> Figure:
    """A point for each system and comparison, with its interval; our own are diamonds."""
    figure, axes = _picture(f"{catalog}: accuracy against cost", "seconds a recording", "HR@1")
    for name, figures in systems.items():
        seconds = sum(figures.get("seconds", {}).values()) / figures["recordings"]
        for kind, scores in figures.get("scores", {}).items():
            mean = scores["answerable"]["hr1"]
            edges = [[mean - scores["low"]["hr1"]], [scores["high"]["hr1"] - mean]]
            mark = "D" if name.startswith("livi") else "o"
            axes.errorbar(seconds, mean, edges, fmt=mark, capsize=3, label=f"{name}, {kind}")
    axes.set(xscale="log", ylim=(-0.03, 1.06))
    axes.legend(fontsize=7)
    return figure


def indexes(figures: Figures) -> Figure:
    """A line for each index, a point for each effort, at the largest count that was measured."""
    count = figures["count"]
    title = f"{count:,} vectors of {figures['dim']}, one thread"
    figure, axes = _picture(title, "recall@10", "answers a second of processor time")
    for name, system in figures["looks"][str(count)]["systems"].items():
        points = [(e["recall10"], 1000 / e["cpu_ms"]) for e in system["efforts"].values()]
        loud = name == "usearch-f16"
        axes.plot(*zip(*points, strict=True), "o-", label=name, linewidth=2.5 if loud else 1)
    axes.axvline(0.98, color=QUIET, linestyle=":")
    axes.set(yscale="log")
    axes.legend(fontsize=7)
    return figure


def lambdas(figures: Figures) -> Figure:
    """Coverage and accuracy for each threshold of mean vocalness."""
    title = f"{figures['recordings']} recordings, some of them without singing"
    figure, axes = _picture(title, "λ: mean vocalness that is asked for", "share")
    found = sorted((float(least), told) for least, told in figures["rows"].items())
    for name, label in (
        ("sung_kept", "sung recordings kept"),
        ("others_set_aside", "others set aside"),
        ("hr1", "HR@1 of what is kept"),
        ("hr1_of_all", "HR@1 of all that is sung"),
    ):
        points = [(least, told[name]) for least, told in found]
        axes.plot(*zip(*points, strict=True), "o-", label=label)
    axes.set(ylim=(-0.03, 1.03))
    axes.legend(fontsize=7)
    return figure


def distributions(question: str, told: Figures) -> Figure:
    """Shares of versions and of others by log odds, the curve, and what held-out works say."""
    title = f"{question}: scores of versions and of others"
    figure, axes = _picture(title, "log odds", "share of them")
    edges = np.array(told["distribution"]["edges"])
    for name, colour in (("others", QUIET), ("versions", LOUD)):
        counts = np.array(told["distribution"][name], float)
        axes.stairs(counts / max(1.0, counts.sum()), edges, fill=True, alpha=0.5, color=colour,
                    label=f"{name} ({counts.sum():.0f})")  # fmt: skip
    beside = axes.twinx()
    odds = np.linspace(edges[0], edges[-1], 200)
    beside.plot(odds, 1 / (1 + np.exp(-odds)), color="black", label="probability")
    held = told["held_out"]["reliability"]
    likely = np.clip([part["told"] for part in held], 1e-6, 1 - 1e-6)
    beside.plot(np.log(likely / (1 - likely)), [part["true"] for part in held], "k^",
                label="true, on held-out works")  # fmt: skip
    beside.set(ylim=(-0.03, 1.03), ylabel="probability")
    axes.legend(loc="center left", fontsize=7)
    beside.legend(loc="center right", fontsize=7)
    return figure


def _picture(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure as Made

    figure = Made(figsize=SIZE_IN, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("pictures"), help="where they go")
    options = parser.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn(options.out):
        path = options.pictures / f"{name}.png"
        figure.savefig(path)
        print(path)


if __name__ == "__main__":
    main()
