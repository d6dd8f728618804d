"""Learn from a reader's mistakes what a pair of phones is worth: ``alignment.json`` of a bundle.

    python -m export.align ALIGNMENT.json --heard SPACE.heard.pt --poems POEMS

``export.fit`` keeps what the reader reads in mixes beside what is sung in them. Both are laid over
each other, and the confusions counted. Two readings of one phone are taken to go
wrong independently, so a pair (a, b) is worth the logarithm of

    sum over sung phones s of P(s) P(a | s) P(b | s)   over   P(a) P(b)

less a little, by which alignments of what has nothing in common stay short. Phones that say much
the same share a class, as the aligner knows 32. What chance gives is measured with readings of
unrelated clips put together.

All that may have been sung is told in shades (``export.shades``), which are learned here too and
kept beside the file. What they are worth to each other follows from what they stand for.

Letters are laid over phones in the same way. Which letters are written for which phones is learned
from lines of training poems and how espeak-ng says them, in rounds of aligning and counting
(Viterbi training), and what the reader makes of those phones from its confusions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from catalogs.poems import Poem, load_poems, training_poems
from export.fit import Heard, clean_phones, load_heard, window_texts
from export.phones import PHONES
from export.reader import DOUBT
from export.shades import SHADES, Shades, save_shades
from livi_index.alignment import CLASSES, SCHEMA, Aligner, Scoring
from livi_index.profiles import STEPS_PER_NAT as PROFILE_STEPS
from livi_index.profiles import Classes, Profiles, from_steps
from livi_index.spelling import FIRST_TOKEN, Spelling
from livi_index.transcripts import PHONE_DTYPE, Transcript

STEPS_PER_NAT = 6.0  # what is unlike then scores below 256, and bytes are quicker
SHIFT = 0.3  # nats that every pair is worth less
GAP = 1.2  # nats that a phone without a partner costs
LETTER_SHIFT, LETTER_GAP = 0.2, 1.2
TOKENS = (*"abcdefghijklmnopqrstuvwxyz", "th", "sh", "ch", "ng", "ee", "oo")
STARTS, ROUNDS = 50, 40  # of classes
_SMOOTHING = 2.0
_SHARED = 4  # words in a row that windows of one poem have in common

Phones = NDArray[np.uint8]


def shades_of(heard: Heard) -> Shades:
    """The shades of all that was read."""
    shades = Shades()
    shades.learn(heard.log_phones[heard.phones > 0].float())
    return shades


def readings(heard: Heard, shades: Shades) -> tuple[list[Transcript], list[Phones]]:
    """What was read of each mix of each window, and the phones that were sung."""
    rows = zip(heard.phones.flatten(0, 1), heard.log_phones.flatten(0, 1), strict=True)
    read = [_transcript(shades(felt[phones > 0].float())) for phones, felt in rows]
    sung = [row[row > 0].numpy().astype(np.uint8) for row in heard.clean]
    return read, [phones for phones in sung for _ in range(heard.phones.shape[1])]


def _transcript(guesses: Tensor) -> Transcript:
    read = np.zeros(len(guesses), PHONE_DTYPE)
    read["phone"], read["other"] = guesses.numpy() % DOUBT, guesses.numpy() // DOUBT
    return read


def confusions(heard: Sequence[Transcript], sung: Sequence[Phones]) -> NDArray[np.float64]:
    """(40, 40) how often a phone that was sung (row) was read as another; 0 is nothing."""
    counts = np.zeros((len(PHONES), len(PHONES)))
    for read, true in zip(heard, sung, strict=True):
        for pair in _alignment(true.tolist(), read["phone"].tolist()):
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
    often = np.maximum(read.sum(axis=0), 1.0)  # also what was never read has a likelihood
    smoothed = read + _SMOOTHING * often / often.sum()
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


def profiles_of(shades: Shades) -> Profiles:
    """What a bundle will tell of these shades; chance is not known yet."""
    likely = np.tile(shades.shares.numpy(), (256, SHADES + 1, 1))
    likely[: len(PHONES)] = from_steps(shades.steps())
    return Profiles(likely, shades.shares.numpy(), GAP, SHIFT, (0.0, 0.0))


def classes_of(read: Sequence[Transcript], profiles: Profiles, seed: int = 1) -> Classes:
    """The phones with their numbers in classes that lose least of what they tell: k-means by the
    Kullback–Leibler divergence from the mean of a class, by how often each was read."""
    codes = np.concatenate([profiles.codes(one) for one in read])
    known, often = np.unique(codes, return_counts=True)
    share = often / often.sum()
    likely = profiles.likely.reshape(-1, len(profiles.shares))[known].astype(np.float64)
    rng = np.random.default_rng([seed, 42])
    rounds = (_k_means(likely, share, rng) for _ in range(STARTS))
    _, of, typical = min(rounds, key=lambda found: found[0])
    table = np.zeros(256 * profiles.likely.shape[1], np.uint8)
    # What was never read is of the class that it is nearest to.
    every = profiles.likely.reshape(len(table), -1)
    table[:] = _nearest(every, typical)[0]
    table[known] = of
    return Classes(table.reshape(256, -1), typical.astype(np.float32))


def _k_means(
    likely: NDArray[np.float64], share: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, NDArray[np.intp], NDArray[np.float64]]:
    """What is lost (nats), the class of each row, the profiles of the classes."""
    chosen = [int(rng.choice(len(likely), p=share))]
    roots = np.sqrt(likely)
    far = np.full(len(likely), np.inf)
    for _ in range(min(CLASSES, len(likely)) - 1):
        far = np.minimum(far, ((roots - roots[chosen[-1]]) ** 2).sum(axis=1))
        odds = far * share
        chosen.append(int(rng.choice(len(likely), p=odds / odds.sum())))
    typical = likely[chosen]
    for _ in range(ROUNDS):
        of, _ = _nearest(likely, typical)
        for number in np.unique(of):
            mine = of == number
            typical[number] = share[mine] @ likely[mine] / share[mine].sum()
    of, costs = _nearest(likely, typical)
    return float(share @ costs), of, typical


def _nearest(
    likely: NDArray[Any], typical: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(N,) the class whose profile loses least of each row, and what that costs, less what no
    class would."""
    costs = -likely @ np.log(np.maximum(typical, 1e-9)).T
    return costs.argmin(axis=1), costs.min(axis=1)


def apart(texts: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) on which of two sides each window is, so that no line is sung on both: windows that
    have ``_SHARED`` words in a row in common are on one. ValueError where all hang together."""
    first: dict[tuple[str, ...], int] = {}
    pairs = [
        (first.setdefault(tuple(words[i : i + _SHARED]), number), number)
        for number, words in enumerate(text.split() for text in texts)
        for i in range(len(words) - _SHARED + 1)
    ]
    one, other = np.array(pairs).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(texts), len(texts)))
    n, parts = connected_components(graph, directed=False)
    if n < 2:
        raise ValueError("all windows share lines with each other; learn from more stems")
    sides = [0, 0]
    on_other = np.zeros(n, np.bool_)
    for part in np.argsort(-np.bincount(parts), kind="stable"):
        on_other[part] = sides[1] < sides[0]
        sides[int(on_other[part])] += np.count_nonzero(parts == part)
    return np.asarray(on_other[parts])


def chance(
    aligner: Aligner, these: Sequence[Transcript], those: Sequence[Transcript], seed: int = 1
) -> tuple[float, float]:
    """Alignments of what has nothing in common: nats at length 1, and per ln(n * m).

    ``these`` and ``those`` were read of different lines."""
    rng = np.random.default_rng([seed, 40])
    lengths = (40, 80, 160, 320, 640) * 30
    sides = ([_run(list(side), n, rng) for n in lengths] for side in (these, those))
    return _fitted(aligner, *sides)


def _run(clips: list[Transcript], n: int, rng: np.random.Generator) -> Transcript:
    """``n`` phones of random clips."""
    parts: list[Transcript] = []
    while sum(map(len, parts)) < n:
        parts.append(clips[int(rng.integers(len(clips)))])
    return np.concatenate(parts)[:n]


def letter_counts(
    spelt: Sequence[list[int]], said: Sequence[list[int]], rounds: int = 6
) -> NDArray[np.float64]:
    """(32, 40) how often a token is written for a phone; lines as numbers from 0, and from 1."""
    counts = np.full((CLASSES, len(PHONES)), 0.05)
    for tokens, phones in zip(spelt, said, strict=True):
        for i, token in enumerate(tokens):  # at first, by where in the line they are
            at = (i + 0.5) / len(tokens) * len(phones)
            for j in range(max(0, int(at) - 2), min(len(phones), int(at) + 3)):
                counts[token, phones[j]] += 1 / (1 + abs(j - at))
    for _ in range(rounds):
        worth = _log_odds(counts[:, 1:])
        counts = np.full_like(counts, 0.2)
        for tokens, phones in zip(spelt, said, strict=True):
            for token, phone in _laid_over(tokens, phones, worth):
                counts[token, phone] += 1
    return counts


def _log_odds(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    share = counts / counts.sum()
    odds: NDArray[np.float64] = np.log(share / np.outer(share.sum(axis=1), share.sum(axis=0)))
    return odds


def _laid_over(
    tokens: list[int], phones: list[int], worth: NDArray[np.float64], gap: float = 0.7
) -> list[tuple[int, int]]:
    """Pairs (token, phone) of the best alignment from end to end."""
    of = worth[np.ix_(tokens, [phone - 1 for phone in phones])].tolist()
    rows = [[-gap * j for j in range(len(phones) + 1)]]
    for i, pairs in enumerate(of, 1):
        above, row = rows[-1], [-gap * i]
        for j, pair in enumerate(pairs, 1):
            row.append(max(above[j - 1] + pair, above[j] - gap, row[j - 1] - gap))
        rows.append(row)
    found: list[tuple[int, int]] = []
    i, j = len(tokens), len(phones)
    while i and j:
        if rows[i][j] == rows[i - 1][j - 1] + of[i - 1][j - 1]:
            i, j = i - 1, j - 1
            found.append((tokens[i], phones[j]))
        elif rows[i][j] == rows[i - 1][j] - gap:
            i -= 1
        else:
            j -= 1
    return found


def spelling_of(
    counts: NDArray[np.float64], letters: NDArray[np.float64], phones: Scoring
) -> Spelling:
    """What tokens are worth beside what a reader of these confusions reads."""
    read = counts[1:, 1:]
    smoothed = read + _SMOOTHING * read.sum(axis=0) / read.sum()
    together = letters[:, 1:] @ (smoothed / smoothed.sum(axis=1, keepdims=True))
    fold = phones.classes[1 : len(PHONES), None] == np.arange(CLASSES)
    worth = _log_odds(together @ fold) - LETTER_SHIFT
    steps = np.round(worth * STEPS_PER_NAT).clip(-127, 127).astype(np.int8)
    classes = phones.classes.copy()
    classes[FIRST_TOKEN : FIRST_TOKEN + len(TOKENS)] = np.arange(len(TOKENS))
    gap = round(LETTER_GAP * STEPS_PER_NAT)
    return Spelling(TOKENS, Scoring(classes, steps, gap, STEPS_PER_NAT, (0.0, 0.0)))


def written_for(letters: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(32, 39) how likely each token stands for each phone, as a bundle holds it."""
    return np.array(steps(letters[:, 1:] / letters[:, 1:].sum(axis=1, keepdims=True)), np.uint8)


def letter_chance(
    spelling: Spelling, lines: Sequence[str], heard: Sequence[Transcript], seed: int = 1
) -> tuple[float, float]:
    """As ``chance``, of lines of ``lines`` put together, and readings of other words."""
    rng = np.random.default_rng([seed, 41])
    some = rng.permutation(len(lines))[:100]
    these = [spelling.spell(" ".join(lines[i : i + n])) for i in some for n in (1, 2, 4)]
    those = [_run(list(heard), n, rng) for n in (40, 80, 160, 320, 640) * 30]
    return _fitted(Aligner(spelling.scoring, spelling.profiles), these, those)


def _fitted(
    aligner: Aligner, these: Sequence[Transcript], those: Sequence[Transcript]
) -> tuple[float, float]:
    scores = aligner.scores(these, those, once=aligner.profiles is None)
    sizes = np.log(np.outer([len(t) for t in these], [len(t) for t in those]))
    slope, offset = np.polyfit(sizes.ravel(), scores.ravel(), 1)
    return float(offset), float(slope)


def learn_letters(
    counts: NDArray[np.float64],
    scoring: Scoring,
    profiles: Profiles,
    heard: Sequence[Transcript],
    poems: list[Poem],
) -> dict[str, Any]:
    """The part of ``alignment.json`` that says how words are spelt."""
    lines = [line for text in window_texts(poems, 400, seed=2) for line in text if line]
    said = [row[row > 0].tolist() for row in clean_phones([[line] for line in lines])]
    nothing = Spelling(TOKENS, scoring)
    spelt = [(nothing.spell(line)["phone"] - FIRST_TOKEN).tolist() for line in lines]
    letters = letter_counts(spelt, said)
    spelling = spelling_of(counts, letters, scoring)
    likely = written_for(letters)
    table = profiles.likely.copy()
    table[FIRST_TOKEN : FIRST_TOKEN + len(TOKENS)] = from_steps(likely)[:, None]
    finer = replace(
        spelling, profiles=replace(profiles, likely=table, gap=LETTER_GAP, shift=LETTER_SHIFT)
    )
    return {
        "tokens": list(TOKENS),
        "pairs": spelling.scoring.pairs.tolist(),
        "gap": spelling.scoring.gap,
        "chance": _rounded(letter_chance(spelling, lines, heard)),
        "likely": likely.tolist(),
        "prices": prices(finer.profiles, letter_chance(finer, lines, heard)),
    }


def in_bundle(classes: Classes) -> dict[str, Any]:
    """Classes as a bundle holds them."""
    return {"classes": classes.of[: len(PHONES)].tolist(), "typical": steps(classes.typical)}


def steps(likely: NDArray[Any]) -> list[list[int]]:
    nats = -np.log(np.maximum(likely, 1e-9))
    found: list[list[int]] = np.round(nats * PROFILE_STEPS).clip(0, 255).astype(int).tolist()
    return found


def prices(profiles: Profiles, by_chance: tuple[float, float]) -> dict[str, Any]:
    """What alignments by profiles cost, as a bundle holds it."""
    return {"gap": profiles.gap, "shift": profiles.shift, "chance": _rounded(by_chance)}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def to_json(scoring: Scoring, offset: float, slope: float) -> dict[str, Any]:
    """The content of ``alignment.json``."""
    return {
        "schema": SCHEMA,
        "classes": scoring.classes[: len(PHONES)].tolist(),
        "pairs": scoring.pairs.tolist(),
        "gap": scoring.gap,
        "steps_per_nat": scoring.steps_per_nat,
        "chance": _rounded((offset, slope)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn what pairs of phones are worth.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--heard", type=Path, required=True)
    parser.add_argument("--poems", type=Path, required=True)
    arguments = parser.parse_args()
    kept = load_heard(arguments.heard)
    try:
        apart_by = apart(kept.texts)
    except ValueError as error:
        parser.exit(1, f"{arguments.heard}: {error}\n")
    shades = shades_of(kept)
    save_shades(arguments.out.with_suffix(".shades.pt"), shades)
    heard, sung = readings(kept, shades)
    counts, profiles = confusions(heard, sung), profiles_of(shades)
    scoring = scoring_of(counts)
    poems = training_poems(load_poems(arguments.poems))
    letters = learn_letters(counts, scoring, profiles, heard, poems)
    sides = np.repeat(apart_by, kept.phones.shape[1])
    unlike = [
        [read for read, on in zip(heard, sides, strict=True) if on == side] for side in (0, 1)
    ]
    finer = prices(profiles, chance(Aligner(scoring, profiles), *unlike))
    classes = classes_of(heard, profiles)
    values = to_json(scoring, *chance(Aligner(scoring), *unlike)) | {
        "profiles": {"shares": shades.shares.tolist()} | in_bundle(classes) | finer,
        "letters": letters,
    }
    arguments.out.write_text(json.dumps(values) + "\n")
    right = counts[1:, 1:].diagonal().sum() / counts[1:].sum()
    print(f"{len(heard)} readings, {right:.3f} of the phones read right")
    print(f"by chance: transcripts {values['chance']}, letters {letters['chance']}")
    print(f"by profiles: {finer['chance']}, letters {letters['prices']['chance']}")


if __name__ == "__main__":
    main()
