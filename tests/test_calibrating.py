"""Fitting probabilities, and what false hits a query meets, on made scores and a real library."""

import numpy as np
import pytest
import songs
from test_harmony import HARMONY

from benchmarks import accepts, calibrate
from benchmarks.truth import entries_in, truth_of
from livi_index.models import open_bundle


def test_a_curve_that_made_the_data_is_found_again():
    rng = np.random.default_rng(3)
    features = rng.normal(0, 2, (40_000, 2))
    truth = 1 / (1 + np.exp(-(0.8 * features[:, 0] + 1.7 * features[:, 1] - 3)))
    right = rng.random(len(truth)) < truth
    curve = calibrate.fit(features, right)
    np.testing.assert_allclose(curve, [0.8, 1.7, -3.0], atol=0.12)
    judged = calibrate.judge(features, right, curve)
    assert judged["ece"] < 0.01 and judged["right"] == right.sum()
    assert judged["brier"] == pytest.approx(np.mean(truth * (1 - truth)), abs=0.005)
    worse = calibrate.judge(features, right, curve * [1, 1, 0])
    assert worse["ece"] > 0.1 and worse["log_loss"] > judged["log_loss"]


def test_what_chance_made_is_found_again():
    rng = np.random.default_rng(5)
    features = np.column_stack([np.ones(40_000), rng.normal(size=(40_000, 3))])
    mean, log_spread = np.array([3.0, 2.0, -1.0, 5.0]), np.array([0.5, 0.3, 0.0, -0.4])
    nats = features @ mean + np.exp(features @ log_spread) * rng.normal(size=len(features))
    found = calibrate.fit_chance(nats, features, "these")
    np.testing.assert_allclose(found.mean, mean, atol=0.1)
    np.testing.assert_allclose(found.log_spread[1:], log_spread[1:], atol=0.05)
    # What is usual has a spread of 1, whatever the unit.
    assert np.mean(features @ found.log_spread) == pytest.approx(0, abs=0.01)
    assert found.fitted_on == "these" and found.is_whole


def test_false_hits_of_an_exponential_tail_are_those_of_the_formula():
    rng = np.random.default_rng(4)
    n_queries, n_met = 400, 700
    every = rng.exponential(1.5, (n_queries, n_met))
    figures = accepts.figures_of([np.sort(row)[::-1] for row in every], [n_met] * n_queries)
    assert figures["tail_slope"] == pytest.approx(1 / 1.5, rel=0.1)
    for size in accepts.SIZES:
        nats = np.log(size)  # worth a probability of one half
        told = figures["sizes"][str(size)]["false_hits"]["0.5"]
        assert told == pytest.approx(1 - (1 - np.exp(-nats / 1.5)) ** size, rel=0.5)
        level = figures["sizes"][str(size)]["least_probability"]["0.01"]
        nats = -1.5 * np.log(1 - 0.99 ** (1 / size)) - np.log(size)
        assert np.log(level / (1 - level)) == pytest.approx(nats, abs=1.5)
    counted = np.mean([1 - (1 - 600 / 700) ** (row >= np.log(600)).sum() for row in every])
    assert figures["measured_600"]["0.5"] == pytest.approx(counted)


def test_truth_comes_from_lists_and_from_names(tmp_path):
    for n in range(3):
        songs.song(tmp_path / "plain" / f"piece-{n}.wav", n, 20.0)
        songs.song(tmp_path / "listed" / f"take-{n}.wav", n, 26.0)
    songs.sung(tmp_path / "plain" / "song.wav", songs.melody(1, 60))
    rows = [f"take-{n}.wav,piece-{n}" for n in range(3)]
    (tmp_path / "listed" / "works.csv").write_text("\n".join(["path,work", *rows]) + "\n")
    entries = entries_in([tmp_path / "plain", tmp_path / "listed"])
    with truth_of(entries, open_bundle(HARMONY)) as (library, truth):
        assert sorted(truth.of.values()) == sorted(
            ["song", *(f"piece-{n}" for n in range(3) for _ in range(2))]
        )
        for number, work in truth.of.items():
            others = np.setdiff1d(library.recording_ids(), [number])
            assert truth.right(number, others).sum() == (work != "song")
        found, met = accepts.wrong_nats(library, truth, "harmony")
        assert met == [6, 5, 5, 5, 5, 5, 5] or sorted(met) == [5, 5, 5, 5, 5, 5, 6]
        assert all((np.diff(nats) <= 0).all() for nats in found)
