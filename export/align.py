"""Learn from a reader's mistakes what a pair of phones is worth: ``alignment.json`` of a bundle.

    python -m export.align alignment.json --heard SPACE.heard.pt

``export.fit`` keeps what the reader reads in mixes beside what is sung in them. Both are laid over
each other, and the confusions counted. Two readings of one phone are taken to go
wrong independently, so a pair (a, b) is worth the logarithm of

    sum over sung phones s of P(s) P(a | s) P(b | s)   over   P(a) P(b)

less a little, by which alignments of what has nothing in common stay short. Phones that say much
the same share a class, as the aligner knows 32. What chance gives is measured with readings of
unrelated clips put together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.fit import Heard, load_heard
from export.phones import PHONES
from livi_index.alignment import CLASSES, SCHEMA, Aligner, Scoring
from livi_index.transcripts import PHONE_DTYPE, Transcript

STEPS_PER_NAT = 12.0
SHIFT = 0.3  # nats that every pair is worth less
GAP = 1.2  # nats that a phone without a partner costs
_SMOOTHING = 2.0

Phones = NDArray[np.uint8]


def readings(heard: Heard) -> tuple[list[Phones], list[Phones]]:
    """Phones as read, of each mix of each window, and as sung."""
    read = [_phones(row) for window in heard.phones for row in window]
    sung = [_phones(row) for row in heard.clean for _ in range(heard.phones.shape[1])]
    return read, sung


def _phones(row: Tensor) -> Phones:
    phones: Phones = row[row > 0].numpy().astype(np.uint8)
    return phones


def confusions(heard: Sequence[Phones], sung: Sequence[Phones]) -> NDArray[np.float64]:
    """(40, 40) how often a phone that was sung (row) was read as another; 0 is nothing."""
    counts = np.zeros((len(PHONES), len(PHONES)))
    for read, true in zip(heard, sung, strict=True):
        for pair in _alignment(true.tolist(), read.tolist()):
            counts[pair] += 1
    return counts


def _alignment(true: list[int], read: list[int]) -> list[tuple[int, int]]:
    """Pairs (true, read) of a least number of edits; 0 stands for a phone that is not there."""
    rows = [list(range(len(read) + 1))]
    for i, phone in enumerate(true, 1):
        above, row = rows[-1], [i]
        for j, other in enumerate(read, 1):
            row.append(min(above[j - 1] + (phone != other), above[j] + 1, row[j - 1] + 1))
        rows.append(row)
    pairs: list[tuple[int, int]] = []
    i, j = len(true), len(read)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (true[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((true[i], read[j]))
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            pairs.append((true[i], 0))
        else:
            j -= 1
            pairs.append((0, read[j]))
    return pairs


def joint(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(40, 40) how likely two readings of one sung phone are a and b; row and column 0 are zero."""
    pairs = np.zeros_like(counts)
    read = counts[1:, 1:]
    share = read.sum(axis=0) / read.sum()
    smoothed = read + _SMOOTHING * share
    given = smoothed / smoothed.sum(axis=1, keepdims=True)
    sung = counts[1:].sum(axis=1) / counts[1:].sum()
    pairs[1:, 1:] = (given.T * sung) @ given
    return pairs


def merge_classes(pairs: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """(40,) the class below ``n`` of each phone: those are joined that cost least information."""
    members = [[phone] for phone in range(1, len(pairs))]
    while len(members) > n:
        costs = {
            (i, j): _information(_folded(pairs, _joined_lists(members, i, j)))
            for i in range(len(members))
            for j in range(i + 1, len(members))
        }
        i, j = max(costs, key=lambda key: costs[key])
        members = _joined_lists(members, i, j)
    classes = np.zeros(len(pairs), np.int64)
    for number, phones in enumerate(members):
        classes[phones] = number
    return classes


def _joined_lists(members: list[list[int]], i: int, j: int) -> list[list[int]]:
    return [m + members[j] if k == i else m for k, m in enumerate(members) if k != j]


def _folded(pairs: NDArray[np.float64], members: list[list[int]]) -> NDArray[np.float64]:
    fold = np.zeros((len(pairs), len(members)))
    for number, phones in enumerate(members):
        fold[phones, number] = 1.0
    return fold.T @ pairs @ fold


def _information(pairs: NDArray[np.float64]) -> float:
    share = pairs.sum(axis=0)
    return float(np.sum(pairs * np.log(np.maximum(pairs, 1e-12) / np.outer(share, share))))


def scoring_of(counts: NDArray[np.float64], *, shift: float = SHIFT, gap: float = GAP) -> Scoring:
    """What pairs of phones are worth to a reader of these confusions; chance is not known yet."""
    pairs = joint(counts)
    classes = merge_classes(pairs, CLASSES)
    members = [np.flatnonzero(classes == number).tolist() for number in range(CLASSES)]
    members = [[phone for phone in phones if phone > 0] for phones in members]
    folded = _folded(pairs, members)
    share = folded.sum(axis=0)
    worth = np.log(folded / np.outer(share, share)) - shift
    steps = np.round(worth * STEPS_PER_NAT).clip(-127, 127).astype(np.int8)
    all_classes = np.zeros(256, np.uint8)
    all_classes[: len(classes)] = classes
    return Scoring(all_classes, steps, round(gap * STEPS_PER_NAT), STEPS_PER_NAT, (0.0, 0.0))


def chance(scoring: Scoring, heard: Sequence[Phones], seed: int = 1) -> tuple[float, float]:
    """Alignments of what has nothing in common: nats at length 1, and per ln(n * m)."""
    rng = np.random.default_rng([seed, 40])
    order = rng.permutation(len(heard))
    halves = [[heard[i] for i in part] for part in np.array_split(order, 2)]
    these, those = ([_run(half, n, rng) for n in (40, 80, 160, 320, 640) * 30] for half in halves)
    scores = Aligner(scoring).scores(these, those)
    sizes = np.log(np.outer([len(t) for t in these], [len(t) for t in those]))
    slope, offset = np.polyfit(sizes.ravel(), scores.ravel(), 1)
    return float(offset), float(slope)


def _run(clips: list[Phones], n: int, rng: np.random.Generator) -> Transcript:
    """About ``n`` phones of random clips."""
    phones = np.zeros(0, np.uint8)
    while len(phones) < n:
        phones = np.concatenate([phones, clips[int(rng.integers(len(clips)))]])
    found = np.zeros(n, PHONE_DTYPE)
    found["phone"] = phones[:n]
    return found


def to_json(scoring: Scoring, offset: float, slope: float) -> dict[str, Any]:
    """The content of ``alignment.json``."""
    return {
        "schema": SCHEMA,
        "classes": scoring.classes[: len(PHONES)].tolist(),
        "pairs": scoring.pairs.tolist(),
        "gap": scoring.gap,
        "steps_per_nat": scoring.steps_per_nat,
        "chance": [round(offset, 4), round(slope, 4)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn what pairs of phones are worth.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--heard", type=Path, required=True)
    arguments = parser.parse_args()
    heard, sung = readings(load_heard(arguments.heard))
    counts = confusions(heard, sung)
    scoring = scoring_of(counts)
    values = to_json(scoring, *chance(scoring, heard))
    arguments.out.write_text(json.dumps(values) + "\n")
    right = counts[1:, 1:].diagonal().sum() / counts[1:].sum()
    print(f"{len(heard)} readings, {right:.3f} of the phones read right, chance {values['chance']}")


if __name__ == "__main__":
    main()
