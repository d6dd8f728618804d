"""Guesses of clips become one transcript: every phone once, at its time, in whatever windows."""

from __future__ import annotations

import numpy as np
import pytest

from livi_index.transcripts import (
    DOUBT,
    PHONE_DTYPE,
    Transcript,
    between,
    count,
    second_reading,
    transcribe,
)


def transcript(*phones: tuple[float, int]) -> Transcript:
    found = np.zeros(len(phones), PHONE_DTYPE)
    found["time_s"], found["phone"] = np.array(phones).reshape(-1, 2).T
    return found


def told(found: Transcript) -> list[tuple[float, int]]:
    columns = found["time_s"].tolist(), found["phone"].tolist()
    return [(round(time_s, 3), phone) for time_s, phone in zip(*columns, strict=True)]


def of_one(
    *clips: list[int], start_s: float = 0.0, end_s: float = 1e9, clip_s: float = 1.0
) -> list:
    """What is read of one window of some clips."""
    spans = np.array([start_s]), np.array([end_s])
    return told(transcribe(np.array([clips]), *spans, clip_s))


def heard(
    sounding: np.ndarray, starts_s: list[float], ends_s: list[float], n_clips: int, clip_s: float
) -> Transcript:
    """The transcript of windows of a recording whose guesses are known for every 0.1 s."""
    n = round(clip_s * 10)
    windows = np.zeros((len(starts_s), n_clips, n), np.int64)
    for window, start_s, end_s in zip(windows, starts_s, ends_s, strict=True):
        part = sounding[round(start_s * 10) : round(end_s * 10)][: window.size]
        window.reshape(-1)[: len(part)] = part
    return transcribe(windows, np.array(starts_s), np.array(ends_s), clip_s)


def test_a_phone_is_kept_once_however_long_it_is_held() -> None:
    assert of_one([1, 1, 1, 2, 2]) == [(0, 1), (0.6, 2)]
    assert of_one([0, 3, 0, 3, 3]) == [(0.2, 3), (0.6, 3)]
    assert of_one([0, 0, 0, 0, 0]) == []


def test_what_else_it_may_have_been_is_kept_beside() -> None:
    guesses = np.array([[[0, 3 + DOUBT * 5, 3, 4, 4 + DOUBT * 9, 3]]])
    found = transcribe(guesses, np.array([0.0]), np.array([1.0]), 1.0)
    assert found["phone"].tolist() == [3, 4, 3]
    assert found["other"].tolist() == [5, 0, 0], "as at the first guess"
    assert second_reading(found).tolist() == [5, 4, 3]


def test_times_are_those_of_the_recording() -> None:
    assert of_one([0, 5], [7, 0], [0, 0], start_s=20.0, clip_s=10.0) == [(25, 5), (30, 7)]
    uneven = of_one([1, 2, 3], start_s=4.0)
    assert uneven == [(4, 1), (4.333, 2), (4.667, 3)]


def test_a_phone_across_a_seam_is_one() -> None:
    assert of_one([1, 2], [2, 3], [3, 0]) == [(0, 1), (0.5, 2), (1.5, 3)]
    assert of_one([1, 2], [0, 2]) == [(0, 1), (0.5, 2), (1.5, 2)]


def test_what_a_phone_may_have_been_is_kept_beside_it() -> None:
    sure, doubted = 5, 5 + DOUBT * 63
    clips = [[0, doubted, sure, 0, 9, 9 + DOUBT], [9 + 2 * DOUBT, 9, 63 + DOUBT, 63, 1, 0]]
    found = transcribe(np.array([clips], np.uint16), np.zeros(1), np.array([2.0]), 1.0)
    # How it was doubted when it began is what counts, and doubt begins no phone anew.
    assert found["phone"].tolist() == [5, 9, 63, 1]
    assert found["other"].tolist() == [63, 0, 1, 0]
    assert second_reading(found).tolist() == [63, 9, 1, 1]
    assert second_reading(found).dtype == np.uint8


def test_what_is_guessed_in_the_silence_after_the_end_is_not_sung() -> None:
    clips = [1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]
    assert of_one(*clips, end_s=1.5)[-1] == (1.25, 6)
    assert of_one(*clips, end_s=1.0)[-1] == (0.75, 4)
    # A phone that begins at the end, to a thousandth, is outside.
    assert of_one([1, 2], end_s=0.5) == [(0, 1)]
    assert of_one([1, 2], end_s=0.501) == [(0, 1), (0.5, 2)]


@pytest.mark.parametrize("hop_s", [1.0, 2.0, 3.0])
def test_windows_on_one_grid_share_their_clips(hop_s: float) -> None:
    rng = np.random.default_rng(round(hop_s))
    sounding = rng.integers(0, 5, 95)
    starts_s = np.arange(0, 7, hop_s).tolist()
    ends_s = [min(start_s + 3, 9.5) for start_s in starts_s]
    found = heard(sounding, starts_s, ends_s, 3, 1.0)
    alone = heard(sounding, [0.0], [max(ends_s)], 10, 1.0)
    assert told(found) == told(alone)
    assert (np.diff(found["time_s"]) > 0).all()


def test_nothing_is_lost_or_read_twice_where_windows_are_off_the_grid() -> None:
    sounding = 7 * np.arange(100) % 61 + 1  # never the same one twice in a row
    found = heard(sounding, [0.0, 1.5, 3.5, 7.0], [3.0, 4.5, 6.5, 10.0], 3, 1.0)
    expected = np.r_[0:65, 70:100]
    assert found["phone"].tolist() == sounding[expected].tolist()
    np.testing.assert_allclose(found["time_s"], expected / 10, atol=1e-5)


def test_regions_that_follow_closely_are_kept_apart() -> None:
    sounding = np.full(100, 4)
    found = heard(sounding, [0.0, 3.7], [3.4, 6.7], 4, 1.0)
    assert told(found) == [(0, 4), (3.7, 4)]  # between them nobody listened
    # The order in which windows come does not matter.
    assert told(heard(sounding, [3.7, 0.0], [6.7, 3.4], 4, 1.0)) == told(found)


def test_no_clip_is_lost_to_the_last_bit_of_a_time() -> None:
    for start_s in np.arange(0, 60, 0.1).round(1):
        phones = np.arange(1, 41).reshape(1, 4, 10)
        spans = np.array([start_s]), np.array([start_s + 40.0])
        found = transcribe(phones, *spans, 10.0)
        assert found["phone"].tolist() == list(range(1, 41)), start_s
        # As stored, in single precision, the span holds all of it.
        assert count(found, *(np.float32(t) for t in spans)).tolist() == [40]


def test_of_no_windows_and_no_sound_nothing_is_read() -> None:
    nothing = np.zeros(0)
    found = transcribe(np.zeros((0, 3, 100), np.int64), nothing, nothing, 10.0)
    assert found.dtype == PHONE_DTYPE and len(found) == 0
    assert of_one([1, 2], start_s=5.0, end_s=5.0) == []


def test_between_and_count_agree_and_take_what_begins_in_a_stretch() -> None:
    found = transcript((0.1, 1), (0.3, 2), (2.0, 3), (20.3, 4))
    assert told(between(found, 0.1, 2.0)) == [(0.1, 1), (0.3, 2)]
    assert told(between(found, 0.2, 99)) == [(0.3, 2), (2, 3), (20.3, 4)]
    assert told(between(found, 5, 6)) == told(between(found[:0], 0, 99)) == []
    starts_s, ends_s = np.array([0.1, 0.3, 2.0, 20.3, 30.0]), np.array([2.0, 20.3, 2.0, 21.0, 40.0])
    assert count(found, starts_s, ends_s).tolist() == [2, 2, 0, 1, 0]
    assert count(found[:0], starts_s, ends_s).tolist() == [0] * 5
    for start_s, end_s, n in zip(starts_s, ends_s, [2, 2, 0, 1, 0], strict=True):
        assert len(between(found, start_s, end_s)) == n
