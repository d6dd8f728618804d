"""Scores by all that may have been sung: those of a plain Smith-Waterman over profiles."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import songs

from livi_index.alignment import (
    CLASSES,
    REFINED_CELLS,
    Aligner,
    Scoring,
    read_scoring,
)
from livi_index.calibration import Chance
from livi_index.errors import BadModel
from livi_index.models import Bundle, open_bundle
from livi_index.profiles import STEPS_PER_NAT, Classes, Profiles, from_steps, read_profiles
from livi_index.spelling import FIRST_TOKEN, read_spelling
from livi_index.transcripts import PHONE_DTYPE, Transcript

PHONES, SHADES = 12, 4


def classes(by: Profiles) -> Classes:
    """A class for what is sure of each phone, and one for all doubt."""
    of = np.full((256, SHADES), PHONES, np.uint8)
    of[1 : PHONES + 1, :2] = np.arange(PHONES)[:, None]
    typical = [by.likely[phone, :2].mean(axis=0) for phone in range(1, PHONES + 1)]
    return Classes(of, np.array([*typical, by.likely[1:13, 2:].mean(axis=(0, 1))], np.float32))


def profiles(seed: int, **changes: Any) -> Profiles:
    """Twelve phones in four shades, of which the first are sure of the phone."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(PHONES, 20.0)).astype(np.float32)
    likely = np.tile(shares, (256, SHADES, 1))
    for phone in range(PHONES):
        for shade in range(SHADES):
            sure = 0.95 - 0.25 * shade
            other = rng.dirichlet(np.full(PHONES, 0.5))
            likely[phone + 1, shade] = (1 - sure) * other
            likely[phone + 1, shade, phone] += sure
    return replace(Profiles(likely, shares, 1.2, 0.3, (0.0, 0.0)), **changes)


def transcript(phones: np.ndarray, shades: np.ndarray | int = 0) -> Transcript:
    found = np.zeros(len(phones), PHONE_DTYPE)
    found["phone"], found["other"] = phones, shades
    return found


def random(rng: np.random.Generator, n: int) -> Transcript:
    return transcript(rng.integers(1, PHONES + 1, n), rng.integers(0, SHADES, n))


def misheard(rng: np.random.Generator, sung: Transcript) -> Transcript:
    """With losses, and errors where the shade tells doubt."""
    kept = sung[rng.random(len(sung)) > 0.1].copy()
    wrong = rng.random(len(kept)) < 0.3
    kept["phone"][wrong] = rng.integers(1, PHONES + 1, wrong.sum())
    kept["other"] = np.where(wrong, SHADES - 1, rng.integers(0, 2, len(kept)))
    return kept


def smith_waterman(these: Transcript, those: Transcript, by: Profiles) -> float:
    """The best local alignment in nats, cell by cell, by the book."""
    above, best = [0.0] * (len(those) + 1), 0.0
    for one in these:
        row = [0.0]
        for j, other in enumerate(those):
            p, q = (by.likely[read["phone"], read["other"]] for read in (one, other))
            worth = math.log((p * q / by.shares).sum()) - by.shift
            row.append(max(0.0, above[j] + worth, above[j + 1] - by.gap, row[j] - by.gap))
        best, above = max(best, *row), row
    return best


def test_scores_are_those_of_the_plain_algorithm() -> None:
    rng = np.random.default_rng(0)
    by = profiles(1)
    asked = random(rng, 70)
    those = [random(rng, n) for n in (1, 2, 9, 40, 0)]
    those += [misheard(rng, asked), np.concatenate([random(rng, 11), misheard(rng, asked[20:])])]
    found = by.scores(asked, those)
    expected = [smith_waterman(asked, other, by) for other in those]
    assert found.dtype == np.float32
    # Each of up to 70 pairs and their gaps is rounded to 1/1024 nat.
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert min(expected[-2:]) > 2 * max(expected[:-2]) and expected[4] == 0
    for other, score in zip(those, found, strict=True):
        assert by.scores(other, [asked])[0] == pytest.approx(score, abs=0.05)
        assert by.scores(asked, [other])[0] == pytest.approx(score, abs=1e-4)


def test_many_are_compared_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    by = profiles(3, chance=(-1.5, 0.7))
    asked, those = random(rng, 40), [random(rng, int(n)) for n in rng.integers(1, 60, 30)]
    found = by.scores(asked, those)
    monkeypatch.setattr("livi_index.profiles.MOMENTS", 130)
    monkeypatch.setattr("livi_index.profiles.CELLS", 100)
    monkeypatch.setattr("livi_index.profiles.BAND", 7)
    np.testing.assert_allclose(by.scores(asked, those), found, atol=1e-4)


def test_chance_is_taken_off_and_grows_with_both_lengths() -> None:
    rng = np.random.default_rng(4)
    asked, those = random(rng, 30), [random(rng, n) for n in (5, 80)]
    by = profiles(5, chance=(-2.0, 1.5))
    raw, found = profiles(5).scores(asked, those), by.scores(asked, those)
    for i, n in enumerate((5, 80)):
        assert found[i] == pytest.approx(raw[i] + 2.0 - 1.5 * math.log(30 * n), abs=1e-4)
    empty = asked[:0]
    assert by.scores(empty, [empty, asked])[0] == pytest.approx(2.0)
    assert len(profiles(5).scores(asked, [])) == 0


def test_what_chance_gives_goes_by_length_by_what_is_told_and_by_how_alike_the_phones_are() -> None:
    rng = np.random.default_rng(12)
    asked, those = random(rng, 30), [random(rng, n) for n in (5, 80)]
    those.append(transcript(np.full(20, 3)))
    plain = profiles(5)
    groups = classes(plain)
    told, alike = [], []
    for other in those:
        of = [groups.of[read["phone"], read["other"]] for read in (asked, other)]
        sides = [groups.typical[numbers] for numbers in of]
        nats = [np.mean([(p * np.log(p / plain.shares)).sum() for p in side]) for side in sides]
        mine, theirs = (np.mean(side, axis=0) for side in sides)
        told.append(math.log(nats[0] * nats[1]))
        alike.append(math.log((mine * theirs / plain.shares).sum()))
    lengths = [math.log(30 * len(other)) for other in those]
    chance = Chance((-2.0, 1.5, 3.0, 20.0), (0.5, 0.1, 0.2, -1.0))
    by = profiles(5, chance=(1.0, 2.0), between=chance, classes=groups)
    found = by.scores(asked, those, whole=True)
    raw = plain.scores(asked, those)
    features = np.column_stack([np.ones(3), lengths, told, alike])
    spread = np.exp(features @ chance.log_spread)
    np.testing.assert_allclose(found, (raw - features @ chance.mean) / spread, atol=1e-3)
    assert np.ptp(told) > 0.3 and np.ptp(alike) > 0.1, "all of it counts here"
    assert np.isfinite(by.scores(asked[:0], [asked[:0]], whole=True)).all()
    # Stretches are held against their lengths alone.
    np.testing.assert_allclose(by.scores(asked, those), raw - 1 - 2 * np.array(lengths), atol=1e-3)


def test_agreement_counts_by_how_sure_both_are() -> None:
    by = profiles(6, gap=9.0)  # nothing is left out
    song = np.tile(np.arange(1, PHONES + 1), 3)
    sure, doubtful = transcript(song), transcript(song, SHADES - 1)
    scores = by.scores(sure, [sure, doubtful])
    assert scores[0] > scores[1] > by.scores(doubtful, [doubtful])[0] > 0
    mistaken = np.arange(len(song)) % 3 == 0
    wrong = np.where(mistaken, (song + 4) % PHONES + 1, song)
    shades = np.where(mistaken, SHADES - 1, 0)
    in_doubt, certain = by.scores(sure, [transcript(wrong, shades), transcript(wrong)])
    assert in_doubt > certain


def scoring() -> Scoring:
    pairs = np.full((CLASSES, CLASSES), -6, np.int8)
    np.fill_diagonal(pairs, 12)
    return Scoring(np.arange(256, dtype=np.uint8) % CLASSES, pairs, 7, 6.0, (0.0, 0.0))


@pytest.mark.parametrize("is_there", [True, False])
def test_the_best_by_their_phones_are_compared_by_all_and_none_is_better(is_there: bool) -> None:
    rng = np.random.default_rng(7)
    song = random(rng, 400)
    those = [random(rng, 400) for _ in range(6 * REFINED_CELLS // 400**2)]
    those += [misheard(rng, song)] if is_there else []
    aligner, by = Aligner(scoring(), profiles(8)), profiles(8)
    once = Aligner(scoring()).scores([song], those, once=True)[0]
    found = aligner.ranked(song, those)
    several = aligner.refined(400**2)
    assert 0 < several < len(those)
    top = np.argsort(-once, kind="stable")[:several]
    rest = np.setdiff1d(np.arange(len(those)), top)
    np.testing.assert_allclose(found[top], by.scores(song, [those[i] for i in top]), atol=1e-4)
    assert found[rest].max() <= found[top].min()
    assert not is_there or found.argmax() == len(those) - 1
    np.testing.assert_allclose(found[rest], np.minimum(once[rest], found[top].min()), atol=1e-5)
    np.testing.assert_array_equal(aligner.scores([song], those, once=True)[0], once)
    assert aligner.scores([], those).shape == (0, len(those)) and len(aligner.ranked(song, [])) == 0


def test_what_scores_are_held_against_is_compared_by_all_wherever_it_stands() -> None:
    rng = np.random.default_rng(11)
    song = random(rng, 400)
    those = [random(rng, 400) for _ in range(4 * REFINED_CELLS // 400**2)] + [misheard(rng, song)]
    aligner, by = Aligner(scoring(), profiles(8)), profiles(8)
    drawn = np.arange(0, len(those), 3)
    capped, found = aligner.ranked(song, those), aligner.ranked(song, those, drawn)
    expected = by.scores(song, [those[row] for row in drawn])
    np.testing.assert_allclose(found[drawn], expected, atol=1e-4)
    others = np.setdiff1d(np.arange(len(those)), drawn)
    np.testing.assert_array_equal(found[others], capped[others])
    assert not np.allclose(capped[drawn], expected, atol=0.1), "some are not among the best"


def test_classes_choose_what_is_compared_by_all() -> None:
    rng = np.random.default_rng(13)
    song = random(rng, 120)
    those = [*(random(rng, 100) for _ in range(20)), misheard(rng, song), song[:0]]
    chance = Chance((1.0, 0.2, 0.5, 2.0), (0.1, 0.0, 0.2, 0.1))
    by = replace(profiles(14, chance=(0.5, 0.3)), between=chance)
    by = replace(by, classes=classes(by))
    assert by.classes is not None
    aligner = Aligner(scoring(), by)
    once = aligner.scores([song], those, once=True)[0]
    # A class is as good as its profile where that is all that a phone may be.
    table = by.classes.typical[by.classes.of]
    coarse = replace(by, likely=table.astype(np.float32))
    np.testing.assert_allclose(once, coarse.scores(song, those), atol=4.0)
    assert np.corrcoef(once[:-1], coarse.scores(song, those)[:-1])[0, 1] > 0.99
    assert once.argmax() == 20
    several = aligner.scores([song, those[3]], those, once=True)
    np.testing.assert_allclose(several[0], once, atol=1e-4)
    alone = aligner.scores([those[3]], [those[3]], once=True)
    np.testing.assert_allclose(several[1][3], alone[0, 0], atol=1e-4)
    whole = by.scores(song, those, whole=True)
    np.testing.assert_allclose(aligner.ranked(song, those), whole, atol=1e-4)
    assert not np.allclose(whole, by.scores(song, those), atol=0.1)


def test_the_shorter_the_more_are_compared_by_all() -> None:
    aligner = Aligner(scoring(), profiles(8))
    assert aligner.refined(400**2) < aligner.refined(20 * 400) == REFINED_CELLS // (20 * 400)
    assert aligner.refined(1e9) == Aligner(scoring()).refined(1.0) > 0


def steps_of(likely: np.ndarray) -> np.ndarray:
    return np.round(-np.log(likely) * STEPS_PER_NAT).clip(0, 255).astype(np.uint8)


def bundle_with(
    folder: Path, steps: np.ndarray, letters: Any = None, by_chance: Any = None, **values: Any
) -> Bundle:
    """The tiny reader, which says what may have been sung."""
    shutil.copytree(songs.READER, folder)
    told = json.loads((folder / "alignment.json").read_text())
    prices = {"shares": [0.25, 0.5, 0.25], "gap": 1.0, "shift": 0.25, "chance": [-2.0, 1.0]}
    told |= {"profiles": prices | values} | ({"letters": letters} if letters else {})
    (folder / "alignment.json").write_text(json.dumps(told))
    np.save(folder / "profiles.npy", steps)
    card = json.loads((folder / "card.json").read_text())
    card["spaces"][0]["clips"]["profiles"] = "profiles.npy"
    card |= {"chance": by_chance} if by_chance else {}
    for file in ("alignment.json", "profiles.npy"):
        content = (folder / file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        card["files"][file] = {"sha256": digest, "size": len(content)}
    (folder / "card.json").write_text(json.dumps(card))
    return open_bundle(folder)


def profiles_in(bundle: Bundle) -> Profiles | None:
    clips = bundle.card.space("lyrics").clips
    assert clips is not None
    return read_profiles(bundle, clips)


LIKELY = np.array([[[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], [[0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]])


def test_profiles_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = profiles_in(bundle_with(tmp_path / "b", steps_of(LIKELY)))
    assert found is not None and found.likely.shape == (256, 2, 3)
    np.testing.assert_allclose(found.likely[:2], LIKELY, atol=0.03)
    np.testing.assert_allclose(found.likely.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(found.likely[99], [found.shares] * 2)
    assert (found.gap, found.shift, found.chance) == (1.0, 0.25, (-2.0, 1.0))
    assert profiles_in(songs.reader_bundle()) is None
    # A number that no profile is of is taken for the last.
    odd = transcript(np.array([1, 1]), np.array([1, 200]))
    assert found.scores(odd[:1], [odd[1:]])[0] == found.scores(odd[:1], [odd[:1]])[0]


IN_CLASSES: dict[str, Any] = {
    "classes": [[0, 1], [1, 0]],
    "typical": steps_of(np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])).tolist(),
}


def test_classes_are_read_as_they_were_written_and_the_card_says_what_chance_makes_of_them(
    tmp_path: Path,
) -> None:
    by_chance = {"mean": [1.0, 2.0, 3.0, 4.0], "log_spread": [0.5, 0.0, 0.0, 1], "fitted_on": "it"}
    found = profiles_in(
        bundle_with(tmp_path / "b", steps_of(LIKELY), None, by_chance, **IN_CLASSES)
    )
    assert found is not None and found.classes is not None
    assert found.classes.of[:3].tolist() == [[0, 1], [1, 0], [0, 0]]
    np.testing.assert_allclose(found.classes.typical, [[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]], atol=0.03)
    assert found.between == Chance([1.0, 2.0, 3.0, 4.0], [0.5, 0.0, 0.0, 1], "it")
    assert found.chance == (-2.0, 1.0)
    lengths_only = profiles_in(bundle_with(tmp_path / "c", steps_of(LIKELY), **IN_CLASSES))
    assert lengths_only is not None and lengths_only.between is None
    # Chance that goes by classes is of no use without them.
    with pytest.raises(BadModel, match="no classes"):
        profiles_in(bundle_with(tmp_path / "d", steps_of(LIKELY), None, by_chance))


@pytest.mark.parametrize(
    "by_chance",
    [
        {"mean": [1.0, 2.0, 3.0], "log_spread": [0.0] * 4},
        {"mean": [1.0, 2.0, 3.0, "4"], "log_spread": [0.0] * 4},
        {"mean": 1.0, "log_spread": [0.0] * 4},
        {"mean": [math.nan, 0.0, 0.0, 0.0], "log_spread": [0.0] * 4},
        {"mean": [0.0] * 4, "log_spread": [0.0] * 4, "mode": 1},
    ],
)
def test_chance_of_another_kind_is_refused(tmp_path: Path, by_chance: dict[str, Any]) -> None:
    with pytest.raises(BadModel, match="chance"):
        bundle_with(tmp_path / "b", steps_of(LIKELY), None, by_chance, **IN_CLASSES)


@pytest.mark.parametrize(
    ("steps", "values"),
    [
        (steps_of(LIKELY), IN_CLASSES | {"classes": [[0, 1]]}),
        (steps_of(LIKELY), IN_CLASSES | {"classes": [[0, 1], [2, 0]]}),
        (steps_of(LIKELY), IN_CLASSES | {"classes": None}),
        (steps_of(LIKELY), IN_CLASSES | {"classes": [[0, 300], [1, 0]]}),
        (steps_of(LIKELY), IN_CLASSES | {"typical": [[1, 2], [3, 4]]}),
        (steps_of(LIKELY), {"classes": [[0, 1], [1, 0]]}),
        (steps_of(LIKELY)[0], {}),
        (steps_of(LIKELY).astype(np.int16), {}),
        (steps_of(LIKELY), {"shares": [0.5, 0.5]}),
        (steps_of(LIKELY), {"shares": [0.5, 0.5, 0.0]}),
        (steps_of(LIKELY), {"shares": None}),
        (steps_of(LIKELY), {"gap": 0.0}),
        (steps_of(LIKELY), {"gap": None}),
        (steps_of(LIKELY), {"chance": [1.0]}),
        (steps_of(LIKELY), {"shift": math.nan}),
        (np.zeros((65, 2, 3), np.uint8), {}),
        (np.zeros((2, 0, 3), np.uint8), {}),
    ],
)
def test_what_says_nothing_is_refused(
    tmp_path: Path, steps: np.ndarray, values: dict[str, Any]
) -> None:
    bundle = bundle_with(tmp_path / "b", steps, **values)
    with pytest.raises(BadModel, match=str(tmp_path / "b")):
        profiles_in(bundle)


def test_a_file_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b", steps_of(LIKELY))
    (bundle.path / "profiles.npy").write_bytes(b"no array")
    with pytest.raises(BadModel, match=r"profiles\.npy"):
        profiles_in(bundle)


def test_letters_are_compared_by_what_they_are_written_for(tmp_path: Path) -> None:
    letters = {
        "tokens": ["a", "b"],
        "pairs": np.zeros((CLASSES, CLASSES), int).tolist(),
        "gap": 5,
        "chance": [0.0, 0.0],
        "likely": steps_of(np.array([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])).tolist(),
        "prices": {"gap": 0.5, "shift": 0.125, "chance": [0.0, 0.0]},
    }
    bundle = bundle_with(tmp_path / "b", steps_of(LIKELY), letters)
    spelling = read_spelling(
        bundle, "alignment.json", read_scoring(bundle, "alignment.json"), profiles_in(bundle)
    )
    assert spelling is not None and spelling.profiles is not None
    assert (spelling.profiles.gap, spelling.profiles.shift) == (0.5, 0.125)
    word = spelling.spell("ab")
    assert word["phone"].tolist() == [FIRST_TOKEN, FIRST_TOKEN + 1]
    right, wrong = transcript(np.array([0, 1]), np.array([1, 0])), transcript(np.array([1, 0]))
    aligner = Aligner(spelling.scoring, spelling.profiles)
    scores = aligner.scores([word], [right, wrong])[0]
    p, q = from_steps(steps_of(LIKELY)), spelling.profiles.likely[FIRST_TOKEN:, 0]
    shares = spelling.profiles.shares
    expected = sum(
        math.log((p[phone, shade] * q[token] / shares).sum()) - 0.125
        for phone, shade, token in ((0, 1, 0), (1, 0, 1))
    )
    # Phone 0 stands for nothing that was read, without a number.
    assert scores[0] == pytest.approx(expected, abs=0.01) and scores[1] < scores[0]
    letters["likely"] = [[1, 2, 3]]
    broken = bundle_with(tmp_path / "c", steps_of(LIKELY), letters)
    with pytest.raises(BadModel, match="how words are spelt"):
        read_spelling(
            broken, "alignment.json", read_scoring(broken, "alignment.json"), profiles_in(broken)
        )
