"""Scores of transcripts: those of a plain Smith-Waterman, less chance."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import songs

from livi_index.alignment import CLASSES, Aligner, Scoring, read_scoring
from livi_index.errors import BadModel
from livi_index.models import Bundle, open_bundle
from livi_index.transcripts import PHONE_DTYPE, Transcript, second_reading

FILE = "alignment.json"


def transcript(phones: list[int] | np.ndarray) -> Transcript:
    found = np.zeros(len(phones), PHONE_DTYPE)
    found["phone"] = phones
    found["time_s"] = np.arange(len(phones))
    return found


def scoring(seed: int, chance: tuple[float, float] = (0.0, 0.0), gap: int = 9) -> Scoring:
    """Random numbers of a sensible kind."""
    rng = np.random.default_rng(seed)
    half = rng.integers(-30, 5, (CLASSES, CLASSES))
    pairs = np.minimum(half, half.T) + np.diag(rng.integers(25, 60, CLASSES))
    classes = rng.integers(0, CLASSES, 256).astype(np.uint8)
    return Scoring(classes, pairs.astype(np.int8), gap, 12.0, chance)


def smith_waterman(these: Transcript, those: Transcript, by: Scoring) -> int:
    """The best local alignment in steps, cell by cell, by the book: gaps cost by length."""
    worth = by.pairs.astype(int)[by.classes[these["phone"]]][:, by.classes[those["phone"]]]
    above = [0] * (len(those) + 1)
    best = 0
    for i in range(len(these)):
        row = [0]
        for j in range(len(those)):
            row.append(max(0, above[j] + worth[i, j], above[j + 1] - by.gap, row[j] - by.gap))
        best, above = max(best, *row), row
    return best


def random(rng: np.random.Generator, n: int) -> Transcript:
    return transcript(rng.integers(0, 256, n))


def test_scores_are_those_of_the_plain_algorithm() -> None:
    rng = np.random.default_rng(0)
    by = scoring(1)
    these = [random(rng, n) for n in (1, 2, 17, 64, 65, 130)]
    # Half of them hold a part of another one, with losses and errors.
    those = [random(rng, n) for n in (1, 5, 40)]
    for text in these[2:]:
        kept = text[rng.random(len(text)) > 0.2]
        wrong = rng.random(len(kept)) < 0.1
        kept["phone"][wrong] = rng.integers(0, 256, wrong.sum())
        those.append(np.concatenate([random(rng, 11), kept]))
    found = Aligner(by).scores(these, those)
    expected = [[smith_waterman(a, b, by) / 12.0 for b in those] for a in these]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert max(map(max, expected)) > 100


def test_gaps_cost_by_their_length() -> None:
    pairs = np.full((CLASSES, CLASSES), -100, np.int8)
    np.fill_diagonal(pairs, 20)
    by = Scoring(np.arange(256, dtype=np.uint8) % CLASSES, pairs, 7, 1.0, (0.0, 0.0))
    one = transcript([1, 2, 3, 4, 5, 6])
    others = [transcript([1, 2, 3, *[9] * n, 4, 5, 6]) for n in (0, 1, 2, 5, 30)]
    found = Aligner(by).scores([one], others)[0]
    assert found.tolist() == [120, 113, 106, 85, 60]


def test_either_may_be_asked_for_the_other() -> None:
    rng = np.random.default_rng(2)
    aligner = Aligner(scoring(3, (1.5, 0.4)))
    these, those = [random(rng, n) for n in (3, 50, 200)], [random(rng, n) for n in (0, 40)]
    np.testing.assert_allclose(aligner.scores(these, those), aligner.scores(those, these).T)


def test_only_the_best_stretch_counts_and_times_do_not() -> None:
    rng = np.random.default_rng(4)
    aligner = Aligner(scoring(5))
    song = random(rng, 80)
    later = song.copy()
    later["time_s"] += 500
    alone, again = aligner.scores([song], [song, later])[0]
    assert alone == again
    parts = [np.concatenate([random(rng, 100), song[:40], random(rng, 100)]), song[:40]]
    inside, plain = aligner.scores([song], parts)[0]
    assert inside == pytest.approx(plain, rel=0.1) and plain == pytest.approx(alone / 2, rel=0.2)


def test_chance_is_taken_off_and_grows_with_both_lengths() -> None:
    rng = np.random.default_rng(6)
    lengths = [1, 10, 300]
    these, those = [random(rng, n) for n in lengths], [random(rng, n) for n in (5, 77)]
    raw = Aligner(scoring(7)).scores(these, those)
    found = Aligner(scoring(7, (-0.5, 1.25))).scores(these, those)
    for i, n in enumerate(lengths):
        for j, m in enumerate((5, 77)):
            by_chance = -0.5 + 1.25 * math.log(n * m)
            assert found[i, j] == pytest.approx(raw[i, j] - by_chance, abs=1e-4)


def doubtful(phones: list[int], others: list[int]) -> Transcript:
    found = transcript(phones)
    found["other"] = others
    return found


def test_where_the_reader_was_in_doubt_the_mean_of_both_readings_counts() -> None:
    rng = np.random.default_rng(9)
    aligner = Aligner(scoring(10, (0.5, 0.2)))
    song = rng.integers(1, 64, 60)
    wrong = np.where(rng.random(60) < 0.4, rng.integers(1, 64, 60), song)
    other = np.where(rng.random(60) < 0.5, song, 0)
    asked = doubtful(wrong, other)
    second = np.where(other > 0, other, wrong)
    heard = [transcript(song), transcript(song[20:]), doubtful(song, [7] * 60)]
    first_scores = aligner.scores([transcript(wrong)], [transcript(t["phone"]) for t in heard])
    again = [song, song[20:], [7] * 60]
    second_scores = aligner.scores([transcript(second)], [transcript(t) for t in again])
    found = aligner.scores([asked], heard)
    np.testing.assert_allclose(found, (first_scores + second_scores) / 2, rtol=1e-5)
    np.testing.assert_allclose(aligner.scores(heard, [asked]).T, found, rtol=1e-5)
    # Whoever else is compared in the same call makes no difference.
    sure = aligner.scores([transcript(wrong)], heard[:2])
    mixed = aligner.scores([asked, transcript(wrong)], heard[:2])
    np.testing.assert_allclose(mixed[1], sure[0], rtol=1e-6)


def test_doubt_is_a_second_reading_and_both_count_half() -> None:
    rng = np.random.default_rng(7)
    by = scoring(7)
    these, those = ([random(rng, n) for n in (5, 40)] for _ in range(2))
    for side in (these, those):
        for read in side:
            doubtful = rng.random(len(read)) < 0.5
            read["other"][doubtful] = rng.integers(1, CLASSES, int(doubtful.sum()))
    found = Aligner(by).scores(these, those)
    for row, one in zip(found, these, strict=True):
        for score, other in zip(row, those, strict=True):
            seconds = (transcript(second_reading(read)) for read in (one, other))
            both = smith_waterman(one, other, by) + smith_waterman(*seconds, by)
            assert score == pytest.approx(both / 2 / by.steps_per_nat, abs=1e-4)


def test_what_is_empty_is_like_nothing() -> None:
    aligner = Aligner(scoring(8, (0.5, 1.0)))
    empty, song = transcript([]), transcript([1, 2, 3])
    assert aligner.scores([], [song]).shape == (0, 1)
    assert aligner.scores([song], []).shape == (1, 0)
    found = aligner.scores([empty, song], [empty, song])
    expected = [[-0.5, -0.5 - math.log(3)], [-0.5 - math.log(3), found[1, 1]]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[1, 1] > found[0, 1]
    assert aligner.scores([empty], [empty, empty]).tolist() == [[-0.5, -0.5]]


def test_unrelated_tones_score_about_nothing_by_the_bundle() -> None:
    aligner = Aligner(read_scoring(songs.reader_bundle(), FILE))
    these, those = (
        [transcript(songs.melody(seed + part, 40 * (1 + seed % 5))) for seed in range(20)]
        for part in (0, 100)
    )
    scores = aligner.scores(these, those)
    assert abs(scores.mean()) < 1 and scores.max() < 15
    assert aligner.scores(these[:1], these[:1])[0, 0] > 80


def bundle_with(folder: Path, content: bytes) -> Bundle:
    """The tiny reader with another alignment.json, as its card says."""
    shutil.copytree(songs.READER, folder)
    (folder / FILE).write_bytes(content)
    card = json.loads((folder / "card.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    card["files"][FILE] = {"sha256": digest, "size": len(content)}
    (folder / "card.json").write_text(json.dumps(card))
    return open_bundle(folder)


def changed(**values: Any) -> bytes:
    return json.dumps(json.loads((songs.READER / FILE).read_text()) | values).encode()


def test_a_scoring_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = read_scoring(bundle_with(tmp_path / "b", changed(gap=127, chance=[1, -2.5])), FILE)
    assert found.classes.shape == (256,) and found.classes[:25].tolist() == list(range(25))
    assert found.pairs.shape == (CLASSES, CLASSES) and found.pairs.dtype == np.int8
    assert (found.pairs[3, 3], found.pairs[3, 4], found.pairs[3, 9]) == (30, -6, -24)
    assert (found.gap, found.steps_per_nat, found.chance) == (127, 12.0, (1.0, -2.5))


SQUARE = [[0] * CLASSES] * CLASSES
WRONG = {
    "another schema": (changed(schema=2), "schema 2; a newer version may read it"),
    "no JSON": (b"\x00\xff{", "does not say how to align"),
    "a list": (b"[1, 2]", "does not say how to align"),
    "nothing": (b"{}", "does not say how to align"),
    "no pairs": (changed(pairs=None), "does not say how to align"),
    "few pairs": (changed(pairs=[[1, 2], [2, 1]]), "pairs or classes out of range"),
    "uneven pairs": (changed(pairs=[[1, 2], [2]]), "does not say how to align"),
    "large pairs": (changed(pairs=[[200] * CLASSES] * CLASSES), "does not say how to align"),
    "one-sided pairs": (
        changed(pairs=[[1, *SQUARE[0][1:]], [5, *SQUARE[0][1:]], *SQUARE[2:]]),
        "pairs or classes out of range",
    ),
    "a class too many": (changed(classes=[0, 32]), "pairs or classes out of range"),
    "a negative class": (changed(classes=[-1]), "does not say how to align"),
    "too many phones": (changed(classes=[0] * 257), "does not say how to align"),
    "no gap": (changed(gap=0), "numbers out of range"),
    "a gap that no byte holds": (changed(gap=128), "numbers out of range"),
    "an endless gap": (changed(gap=math.inf), "does not say how to align"),
    "no steps": (changed(steps_per_nat=0), "numbers out of range"),
    "steps that are no number": (changed(steps_per_nat=math.nan), "numbers out of range"),
    "half a chance": (changed(chance=[1.0]), "does not say how to align"),
    "a chance that is no number": (changed(chance=[math.nan, 1.0]), "numbers out of range"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_say_how_to_align_is_refused(tmp_path: Path, what: str) -> None:
    content, sentence = WRONG[what]
    with pytest.raises(BadModel, match=sentence) as told:
        read_scoring(bundle_with(tmp_path / "b", content), FILE)
    assert str(tmp_path / "b" / FILE) in str(told.value)


def test_a_file_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", changed())
    (bundle.path / FILE).write_bytes(changed(gap=15))
    with pytest.raises(BadModel, match=FILE):
        read_scoring(bundle, FILE)
    (bundle.path / FILE).unlink()
    with pytest.raises(BadModel, match=FILE):
        read_scoring(bundle, FILE)
    card = json.loads((bundle.path / "card.json").read_text())
    del card["files"][FILE]
    (bundle.path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match=f"does not list: {FILE}|not list: {FILE}"):
        open_bundle(bundle.path)
