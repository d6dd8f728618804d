"""Tables of systems: what was measured here, and the paper's with its numbers beside ours.

The paper (LIVI, arXiv 2601.11262) measured parts of three data sets for which it had the audio, all
queries counted, segments averaged and compared by cosine; so "here" is that comparison with those
denominators. It counted parameters of training heads, and of LIVI without the frozen encoder; what
a recording goes through is beside that. Its HR@1 of LIVI on Discogs-VI is below its MAP@10, which
no other row is: a slip of the pen, perhaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.baselines.systems import ROWS
from benchmarks.results import RESULTS

MEAN = "mean cosine"
SETS = {"covers80": "Covers80", "shs100k": "SHS100K-TEST", "discogs_vi": "Discogs-VI"}
# MR1, HR@1, MAP@10 of 116, 890 and 72,316 recordings.
PUBLISHED = {
    "livi-paper": ((1.51, 0.949, 0.966), (3.25, 0.935, 0.875), (232.21, 0.853, 0.923)),
    "t_global": ((1.10, 0.975, 0.979), (6.05, 0.954, 0.910), (275.77, 0.856, 0.832)),
    "t_local": ((1.92, 0.937, 0.945), (5.52, 0.925, 0.870), (360.21, 0.843, 0.817)),
    "whisper": ((7.67, 0.632, 0.691), (6.56, 0.777, 0.558), (1051.36, 0.524, 0.406)),
    "bytecover2": ((1.57, 0.865, 0.877), (4.66, 0.953, 0.884), (312.32, 0.843, 0.812)),
    "clews": ((2.24, 0.835, 0.880), (3.97, 0.931, 0.847), (410.39, 0.816, 0.790)),
    "cqtnet": ((3.43, 0.848, 0.856), (5.59, 0.900, 0.789), (810.89, 0.641, 0.568)),
    "dvinet": ((3.05, 0.861, 0.886), (7.63, 0.931, 0.859), (507.04, 0.751, 0.719)),
}
OURS = ("livi", "livi-index")
# Millions: as the paper's figure has them, and those that are used.
PARAMETERS = {
    "livi-paper": (31.89, 668.9),
    "bytecover2": (202.28, 48.68),
    "clews": (196.79, 196.79),
    "cqtnet": (35.18, 5.08),
    "dvinet": (11.47, 11.47),
}

Figures = Mapping[str, Any]


def runs(folder: Path = RESULTS) -> dict[str, dict[str, Figures]]:
    """What ``benchmarks.run`` measured, by catalogue and system."""
    found: dict[str, dict[str, Figures]] = {}
    for path in sorted(folder.glob("run-*.json")):
        figures = json.loads(path.read_bytes())["figures"]
        found.setdefault(figures["catalog"], {})[figures["system"]] = figures
    return found


def paper(folder: Path = RESULTS) -> str:
    """The paper's table as Markdown: MR1 / HR@1 / MAP@10, and what was measured here beside it."""
    measured = runs(folder)
    names = [name for title in SETS.values() for name in (f"{title}, paper", "here")]
    heads = ["system", "parameters, M: paper / used", *names]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in ROWS:
        if row.name not in (*PUBLISHED, *OURS):
            continue
        millions = PARAMETERS.get(row.name)
        cells = [row.title, f"{millions[0]:g} / {millions[1]:g}" if millions else ""]
        published = PUBLISHED.get(row.name, (None, None, None))
        for catalog, numbers in zip(SETS, published, strict=True):
            cells += [
                _three(numbers) if numbers else "",
                _here(measured.get(catalog, {}).get(row.name)),
            ]
        lines.append(_line(cells))
    return "\n".join(lines)


def systems(folder: Path = RESULTS) -> str:
    """The systems that were measured here, as Markdown, one table a catalogue."""
    return "\n\n".join(_catalogue(name, found) for name, found in runs(folder).items())


def _catalogue(name: str, found: Mapping[str, Figures]) -> str:
    heads = ["system", "comparison", "MR1", "HR@1 (95 %)", "MAP@10", "coverage",
             "s a recording", "parameters, M"]  # fmt: skip
    some = next(iter(found.values()))
    title = f"`{name}`, {some['recordings']} recordings of {some['works']} works:"
    lines = [title, "", _line(heads), _line(["---"] * len(heads))]
    measured = [row for row in ROWS if "scores" in found.get(row.name, {})]
    for row in measured:
        lines += [_line(cells) for cells in _rows(row.title, found[row.name])]
    if without := [row.title for row in ROWS if row.name in found and row not in measured]:
        lines += ["", f"Weights not available: {', '.join(without)}."]
    return "\n".join(lines)


def _rows(title: str, figures: Figures) -> Iterator[list[str]]:
    model = figures.get("model") or figures.get("text_encoder")
    of = f" ({model['name']} {model['version']})" if model else ""
    told = f"{title}{of}" + (", true words" if figures.get("words") == "given" else "")
    n_parameters = figures["n_parameters"]
    millions = "" if n_parameters is None else f"{n_parameters / 1e6:.1f}"
    seconds = f"{sum(figures['seconds'].values()) / figures['recordings']:.2f}"
    for kind, scores in figures["scores"].items():
        mean, low, high = scores["answerable"], scores["low"], scores["high"]
        hit = f"{mean['hr1']:.3f} ({low['hr1']:.3f}–{high['hr1']:.3f})"
        yield [told, kind, f"{mean['mr1_mean']:.2f}", hit, f"{mean['map10']:.3f}",
               f"{scores['coverage']:.1%}", seconds, millions]  # fmt: skip


def _here(figures: Figures | None) -> str:
    if figures is None:
        return "not measured"
    scores = figures.get("scores", {})
    if not scores:
        return str(figures["status"])
    told = scores.get(MEAN) or next(iter(scores.values()))  # the product has its own ranking alone
    mean = told["published"]
    return f"{_three((mean['mr1_mean'], mean['hr1'], mean['map10']))} ({told['coverage']:.0%})"


def _three(numbers: tuple[float, float, float]) -> str:
    return f"{numbers[0]:.2f} / {numbers[1]:.3f} / {numbers[2]:.3f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
