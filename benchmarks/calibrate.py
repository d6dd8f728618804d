"""From scores to probabilities: ``python -m benchmarks.calibrate FOLDER [FOLDER…]``

The folders hold *training* material: rendered catalogues (``entries.csv``), copies and halves
(``works.csv``), or plain audio, each file a work of its own. A library is built of all of it, every
recording asks for its versions in each space, and logistic curves are fitted to which candidates
are versions, by their scores as the product holds them against a cohort. Where a model has a second
space, one more curve is fitted to the scores of both. Typed lines of the songs that the first
folder has words of give a curve for words.

Before that, where transcripts are compared by profiles, it is learned what alignments of recordings
score that are no versions of each other: the scores of which the curves are of are held against it.

Curves are fitted on half of the works (drawn by their names) and judged on the others (Brier score
and expected calibration error), then fitted on all. Here nearly every recording has versions, and
in a catalogue few have: the odds that are printed, as a part of the card, are lowered to those
where a query finds ``VERSIONS`` on average.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from benchmarks.truth import Truth, entries_in, truth_of
from benchmarks.words import questions
from livi_index.calibration import ONE_SIGMA, Calibration, Chance
from livi_index.library import BOTH, SPACE, Library
from livi_index.profiles import Profiles, read_profiles
from livi_index.ranking import Scored

K = 10  # hits of a typed line
ROUNDS = 50
RIDGE = 1e-3  # where scores part right from wrong, the best curve would be a step
BINS = 10
LEAST_READ = 0.8  # phones a second: 96 % of the sung training songs have more, no band has
VERSIONS = 0.2  # that a query has in a library, on average: one in five has one
LEAST_OFF = 0.05  # nats; nearer to the mean than that is all the same
SHOWN = 60  # bins of a distribution

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Asked = Mapping[int, Scored]


@dataclass
class Judged:
    """Candidates of many queries: features (one a space), which are right, and of which half of the
    works the query is."""

    features: list[FloatArray] = field(default_factory=list)  # (C, F) of each query
    right: list[BoolArray] = field(default_factory=list)
    held_out: list[bool] = field(default_factory=list)

    def add(self, features: FloatArray, right: BoolArray, work: str) -> None:
        self.features.append(features)
        self.right.append(right)
        self.held_out.append(zlib.crc32(work.encode()) % 2 == 1)

    def rows(self) -> tuple[FloatArray, BoolArray, BoolArray]:
        """All candidates (n, F), right (n,), held out (n,)."""
        counts = [len(part) for part in self.right]
        held = np.repeat(self.held_out, counts)
        return np.concatenate(self.features), np.concatenate(self.right), held


def fit(features: FloatArray, right: BoolArray) -> FloatArray:
    """Slopes and offset (F + 1,) of the logistic curve of greatest likelihood, by Newton's method;
    slopes that would fall below zero are zero."""
    scale = features.std(axis=0)
    scale[scale == 0] = 1.0
    rows = np.column_stack([features / scale, np.ones(len(features))])
    curve = np.zeros(rows.shape[1])
    for _ in range(ROUNDS):
        expected = 1 / (1 + np.exp(-np.clip(rows @ curve, -30, 30)))
        pull = rows.T @ (right - expected) - RIDGE * curve
        bend = (rows * (expected * (1 - expected))[:, None]).T @ rows
        curve = curve + np.linalg.solve(bend + RIDGE * np.eye(len(curve)), pull)
    curve[:-1] /= scale
    return curve


def judge(features: FloatArray, right: BoolArray, curve: FloatArray) -> dict[str, Any]:
    """Brier score, expected calibration error and reliability of a curve."""
    told = 1 / (1 + np.exp(-np.clip(features @ curve[:-1] + curve[-1], -700, 700)))
    place = np.minimum((told * BINS).astype(int), BINS - 1)
    bins = [
        {"told": float(told[place == n].mean()), "true": float(right[place == n].mean()),
         "n": int((place == n).sum())}
        for n in np.unique(place)
    ]  # fmt: skip
    error = sum(abs(b["told"] - b["true"]) * b["n"] / len(right) for b in bins)
    likely = np.clip(told, 1e-12, 1 - 1e-12)
    loss = -np.where(right, np.log(likely), np.log1p(-likely)).mean()
    return {
        "brier": float(np.mean((told - right) ** 2)),
        "ece": float(error),
        "log_loss": float(loss),
        "pairs": len(right),
        "right": int(right.sum()),
        "reliability": bins,
    }


def fitted(judged: Judged, usual_versions: float = VERSIONS) -> dict[str, Any]:
    """A curve for queries that have so many versions, and how good it is, before it is lowered to
    that, on works that it was not fitted on."""
    features, right, held = judged.rows()
    half = fit(features[~held], right[~held])
    curve = fit(features, right)
    versions = float(right.sum()) / len(judged.right)
    return {
        "slopes": [round(float(slope), 4) for slope in curve[:-1]],
        "offset": round(float(curve[-1]) - float(np.log(versions / usual_versions)), 4),
        "versions_per_query": versions,
        "held_out": judge(features[held], right[held], half),
        "distribution": distribution(features @ curve[:-1] + curve[-1], right),
    }


def distribution(log_odds: FloatArray, right: BoolArray) -> dict[str, list[float]]:
    """How many versions and non-versions have which log odds by the curve: (n + 1,) edges."""
    edges = np.histogram_bin_edges(log_odds, SHOWN)
    counts = {
        name: np.histogram(log_odds[part], edges)[0].tolist()
        for name, part in (("versions", right), ("others", ~right))
    }
    return {"edges": edges.tolist(), **counts}


def chance_of(library: Library, truth: Truth, profiles: Profiles) -> Chance:
    """What alignments of songs score that are no versions of each other."""
    ids = library.recording_ids(SPACE)
    read = library.generation.transcripts_of(ids, SPACE)
    every = [profiles.alignments(mine, read[:row]) for row, mine in enumerate(read)]
    unlike = [~truth.right(number, ids[:row]) for row, number in enumerate(ids.tolist())]
    told = profiles.features(read, read)
    nats = np.concatenate([part[kept] for part, kept in zip(every, unlike, strict=True)])
    features = np.concatenate([told[row, :row][kept] for row, kept in enumerate(unlike)])
    what = f"{len(nats)} pairs of {len(read)} recordings of the training split"
    return fit_chance(nats, features, what)


def fit_chance(nats: FloatArray, features: FloatArray, fitted_on: str = "") -> Chance:
    """From alignments (n,) and what chance goes by (n, 4), by least squares: first the scores, then
    the logarithms of how far they are off."""
    mean, *_ = np.linalg.lstsq(features, nats)
    off = np.log(np.maximum(np.abs(nats - features @ mean), LEAST_OFF))
    log_spread, *_ = np.linalg.lstsq(features, off)
    log_spread[0] -= off.mean()  # so that a usual pair has spread 1
    return Chance(_rounded(mean), _rounded(log_spread), fitted_on)


def _rounded(values: FloatArray) -> list[float]:
    return [round(float(value), 4) for value in values]


def asked(library: Library, truth: Truth, space: str) -> Asked:
    """What each recording that has something in a space finds there, by its number."""
    return {
        number: library.score(library.stored(number), space=space, without=truth.same(number))
        for number in library.recording_ids(space).tolist()
    }


def usual(found: Asked, space: str) -> tuple[float, float]:
    """Median and spread of the scores with a cohort, of a usual query."""
    cohorts = [one.scores[one.cohorts[space]] for one in found.values()]
    levels = [np.percentile(scores, (50, ONE_SIGMA)) for scores in cohorts if len(scores)]
    median, spread = np.median([(middle, above - middle) for middle, above in levels], axis=0)
    return round(float(median), 4), round(float(spread), 4)


def of_space(found: Asked, truth: Truth, space: str, relative: Calibration) -> Judged:
    """All candidates of every recording that has something in a space."""
    judged = Judged()
    for number, one in found.items():
        scores = relative.relative(one.scores, one.cohorts[space])
        judged.add(scores[:, None], truth.right(number, one.recording_ids), truth.of[number])
    return judged


def of_both(found: Mapping[str, Asked], truth: Truth, curves: Mapping[str, Calibration]) -> Judged:
    """The candidates that have scores in all spaces, of the recordings that do."""
    judged = Judged()
    for number in sorted(set.intersection(*map(set, found.values()))):
        parts = {name: found[name][number] for name in curves}
        ids = np.unique(np.concatenate([part.recording_ids for part in parts.values()]))
        features = np.full((len(ids), len(curves)), np.nan)
        for column, (name, part) in zip(features.T, parts.items(), strict=True):
            place = np.searchsorted(ids, part.recording_ids)
            column[place] = curves[name].relative(part.scores, part.cohorts[name])
        known = np.isfinite(features).all(axis=1)
        judged.add(features[known], truth.right(number, ids[known]), truth.of[number])
    return judged


def of_lines(library: Library, folder: Path, truth: Truth) -> Judged:
    """The best hits of typed lines; their scores are taken as they are."""
    judged = Judged()
    for question in questions(folder):
        hits = library.query_lyrics(question.text, k=K).hits
        works = [truth.of[int(hit.recording_id, 16)] for hit in hits]
        scores = np.array([[hit.score] for hit in hits])
        judged.add(scores, np.array([work == question.work for work in works]), question.work)
    return judged


def curves_of(library: Library, truth: Truth, words: Path) -> dict[str, Any]:
    """All curves that the card can hold, by question."""
    told: dict[str, Any] = {}
    curves, every = {}, {}
    n_recordings = len(library.recording_ids(SPACE))
    for space in library.generation.spaces:
        ids = library.recording_ids(space)
        every[space] = asked(library, truth, space)
        median, spread = usual(every[space], space)
        plain = Calibration(1.0, 0.0, "", len(ids), median, spread)
        found = fitted(of_space(every[space], truth, space, plain))
        curves[space] = plain
        told[space] = {**found, "median": median, "spread": spread, "recordings": len(ids)}
    if len(curves) > 1:
        told[BOTH] = {**fitted(of_both(every, truth, curves)), "recordings": n_recordings}
    lines = of_lines(library, words, truth)
    # Who types words means a song that is there: the odds stay as they were found.
    known = float(np.mean([part.sum() for part in lines.right]))
    told["words"] = {**fitted(lines, known), "recordings": n_recordings}
    return told


def card_part(told: Mapping[str, Any], spaces: Sequence[str], from_what: str) -> dict[str, Any]:
    """``calibration`` and ``fusion`` of a card."""
    calibration = {
        name: {
            "slope": curve["slopes"][0],
            "offset": curve["offset"],
            "recordings": curve["recordings"],
            "fitted_on": from_what.partition(", as if")[0] if name == "words" else from_what,
            **{key: curve[key] for key in ("median", "spread") if key in curve},
        }
        for name, curve in told.items()
        if name != BOTH
    }
    part: dict[str, Any] = {"calibration": calibration}
    if BOTH in told:
        part["fusion"] = {
            "weights": dict(zip(spaces, told[BOTH]["slopes"], strict=True)),
            "offset": told[BOTH]["offset"],
            "recordings": told[BOTH]["recordings"],
            "least_read": LEAST_READ,
            "fitted_on": from_what,
        }
    return part


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "folders", type=Path, nargs="+", help="training material; words in the first"
    )
    parser.add_argument("--library", type=Path, help="keep the library of the folders here")
    options = parser.parse_args()
    bundle = bundle_of(options)
    with truth_of(entries_in(options.folders), bundle, options.library) as (library, truth):
        clips = bundle.card.space(SPACE).clips
        profiles = read_profiles(bundle, clips) if clips else None
        chance = None
        if profiles and profiles.classes:
            chance = chance_of(library, truth, profiles)
            bundle = replace(bundle, card=replace(bundle.card, chance=chance))
            library = Library(library.path, library.generation, bundle)
        told = curves_of(library, truth, options.folders[0])
        spaces, n_recordings = library.generation.spaces, library.info.recordings
    what = (
        f"estimated on synthetic singing and altered anthems: {n_recordings} recordings of the"
        f" training split, as if a query had {VERSIONS} versions in a library"
    )
    figures = {"model": model_facts(bundle), "recordings": n_recordings, **told}
    if chance:
        figures["chance"] = asdict(chance)
        print_chance(chance)
    write_result("calibration", figures, options.out, program="calibrate")
    print_part(card_part(told, spaces, what))
    rows = [(name, c["held_out"]["brier"], c["held_out"]["ece"]) for name, c in told.items()]
    print_table([("held out", "Brier", "ECE"), *rows])


def print_chance(chance: Chance) -> None:
    print("[chance]")
    print("\n".join(f"{key} = {_toml(value)}" for key, value in asdict(chance).items()), "\n")


def print_part(part: Mapping[str, Any]) -> None:
    """Lines of TOML, as ``export/card.toml`` holds them."""
    for name, curve in part["calibration"].items():
        print(f"[calibration.{name}]")
        print("\n".join(f"{key} = {_toml(value)}" for key, value in curve.items()), "\n")
    if "fusion" in part:
        fusion = dict(part["fusion"])
        weights = ", ".join(f"{k} = {v}" for k, v in fusion.pop("weights").items())
        print(f"[fusion]\nweights = {{ {weights} }}")
        print("\n".join(f"{key} = {_toml(value)}" for key, value in fusion.items()), "\n")


def _toml(value: str | float) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    main()
