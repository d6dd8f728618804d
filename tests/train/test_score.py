"""The song form: choruses return, notes fit syllables, versions stay singable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalogs.score import (
    SCALES,
    Change,
    Section,
    compose,
    count_syllables,
    fit,
    lay_out,
    median_syllable_s,
    tempo_limits,
)

pytestmark = pytest.mark.train

VERSE = Section("verse", ("The evening ferry turns for home", "With salt along the rail"))
CHORUS = Section("chorus", ("Harbour lights, shine over me", "Bring my sailor in from sea"))
FORM = (
    VERSE,
    CHORUS,
    Section("verse", ("My mother set a lamp", "Beside the kitchen door")),
    CHORUS,
)
SEEDS = range(12)


@pytest.mark.parametrize(
    ("text", "n"),
    [("lamp", 1), ("evening", 3), ("turned", 1), ("wanted", 2), ("little", 2), ("o'er the sea", 3)],
)
def test_syllables_are_counted_from_the_spelling(text: str, n: int) -> None:
    assert count_syllables(text) == n


@pytest.mark.parametrize("seed", SEEDS)
def test_a_score_follows_from_its_seed(seed: int) -> None:
    one, two = (lay_out(compose(seed), FORM, Change(ornament=0.2, seed=4)) for _ in range(2))
    assert one.chords == two.chords
    for a, b in zip(one.phrases, two.phrases, strict=True):
        assert np.array_equal(a.midi, b.midi) and np.array_equal(a.onsets, b.onsets)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chorus_returns(seed: int) -> None:
    phrases = lay_out(compose(seed), FORM).phrases
    for early, late in zip(phrases[2:4], phrases[6:8], strict=True):
        assert early.text == late.text
        assert np.array_equal(early.midi, late.midi)
        assert np.allclose(early.lengths(), late.lengths())


@pytest.mark.parametrize("seed", SEEDS)
def test_melodies_keep_to_the_scale_and_a_singable_range(seed: int) -> None:
    tune = compose(seed)
    notes = np.concatenate([p.midi for p in lay_out(tune, FORM).phrases]) - tune.tonic
    leading = {11} if tune.mode == "minor" else set()
    assert {int(n) % 12 for n in notes} <= {*SCALES[tune.mode], *leading}
    assert np.ptp(notes) <= 24
    assert len(set(notes)) >= 4


@pytest.mark.parametrize("seed", SEEDS)
def test_one_note_a_syllable_in_order(seed: int) -> None:
    score = lay_out(compose(seed), FORM, Change(ornament=0.5, seed=seed))
    for phrase in score.phrases:
        assert len(phrase.onsets) == len(phrase.midi) == count_syllables(phrase.text)
        assert (phrase.lengths() > 0).all()
        assert phrase.end <= score.n_slots
    for before, after in zip(score.phrases, score.phrases[1:], strict=False):
        assert before.end <= after.onsets[0]


@pytest.mark.parametrize("n", [1, 3, 6, 9, 14])
def test_fit_splits_and_joins(n: int) -> None:
    phrase = lay_out(compose(1), FORM).phrases[0]
    fitted = fit(phrase, n)
    assert len(fitted.onsets) == len(fitted.midi) == n
    assert fitted.onsets[0] == phrase.onsets[0] and fitted.end == phrase.end
    assert (fitted.lengths() > 0).all()


def test_a_change_transposes_and_hastens() -> None:
    tune = compose(5)
    plain, changed = lay_out(tune, FORM), lay_out(tune, FORM, Change(3, 1.25))
    assert plain.duration_s == pytest.approx(1.25 * changed.duration_s)
    for a, b in zip(plain.phrases, changed.phrases, strict=True):
        assert np.array_equal(a.midi + 3, b.midi)
    moved = [tuple((p + 3) % 12 for p in chord.pitches) for chord in plain.chords]
    assert moved == [chord.pitches for chord in changed.chords]


@pytest.mark.parametrize("seed", SEEDS)
def test_within_its_limits_a_version_is_singable(seed: int) -> None:
    tune = compose(seed)
    slowest, fastest = tempo_limits(tune, FORM, shortest_s=20, longest_s=60)
    quick = lay_out(tune, FORM, replace(Change(), tempo_factor=fastest))
    slow = lay_out(tune, FORM, replace(Change(), tempo_factor=slowest))
    assert median_syllable_s(quick) >= 0.3
    assert slow.duration_s == pytest.approx(60)
