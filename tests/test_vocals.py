"""From probabilities to segments: the paper's rule by hand, then its options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from livi_index.errors import BadModel
from livi_index.models import open_bundle
from livi_index.transcripts import PHONE_DTYPE, Transcript
from livi_index.vocals import (
    Segment,
    SegmentOptions,
    VocalDetector,
    Voices,
    counted,
    cut,
    cut_batches,
    segments,
    transcribed,
    vocalness,
)

TINY = Path(__file__).parent / "data" / "tiny-bundle"
READER = TINY.with_name("tiny-reader")
PAPER = SegmentOptions.paper()
ANY = SegmentOptions(min_vocalness=0.0)


def windows(*runs: tuple[int, float]) -> np.ndarray:
    """Probabilities from runs of (number of windows, probability)."""
    return np.concatenate([np.full(n, p, np.float32) for n, p in runs])


def times(pieces: list[Segment]) -> list[tuple[float, float]]:
    return [(piece.start_s, piece.end_s) for piece in pieces]


def test_the_defaults_are_the_paper() -> None:
    assert SegmentOptions() == PAPER
    assert (PAPER.min_vocalness, PAPER.window_threshold) == (0.5, 0.5)
    assert (PAPER.padding_s, PAPER.length_s, PAPER.hop_s, PAPER.window_s) == (10, 30, 30, 3)


def test_a_region_is_padded_and_sliced() -> None:
    # Sung 30-60 s of 90 s, padded to 20-70 s: a whole slice and one of 20 s.
    pieces = segments(windows((10, 0.1), (10, 0.9), (10, 0.1)), 90.0, ANY)
    assert times(pieces) == [(20, 50), (50, 70)]
    assert pieces[0].sung_s == pytest.approx(20) and pieces[1].sung_s == pytest.approx(10)
    # 20-50 s: 10 s at 0.1 and 20 s at 0.9.
    assert pieces[0].vocalness == pytest.approx((10 * 0.1 + 20 * 0.9) / 30)


def test_padding_is_ten_seconds_also_around_long_regions() -> None:
    assert times(segments(windows((4, 0), (20, 1), (4, 0)), 84.0, ANY)) == [
        (2, 32),
        (32, 62),
        (62, 82),
    ]


def test_padding_stops_at_the_ends_of_the_file() -> None:
    assert times(segments(windows((1, 0), (3, 1), (1, 0)), 14.5, PAPER)) == [(0, 14.5)]
    # The last window holds half a second of sound.
    assert times(segments(windows((2, 1)), 3.5, PAPER)) == [(0, 3.5)]
    assert segments(windows((2, 1)), 3.5, PAPER)[0].sung_s == pytest.approx(3.5)


def test_regions_that_touch_merge_and_others_do_not() -> None:
    # Sung 0-3 s and 24-27 s: padded to 0-13 and 14-37 s, which do not touch.
    apart = segments(windows((1, 1), (7, 0), (1, 1), (4, 0)), 39.0, ANY)
    assert times(apart) == [(0, 13), (14, 37)]
    options = SegmentOptions(min_vocalness=0.0, padding_s=10.5)
    touching = segments(windows((1, 1), (7, 0), (1, 1), (4, 0)), 39.0, options)
    assert times(touching) == [(0, 30), (30, 37.5)]


def test_lambda_and_the_window_threshold_include_their_value() -> None:
    assert times(segments(windows((10, 0.5)), 30.0, PAPER)) == [(0, 30)]
    assert segments(windows((10, 0.49)), 30.0, PAPER) == []
    # Half of the windows at 1: the mean is exactly λ.
    assert len(segments(windows((5, 1), (5, 0)), 30.0, PAPER)) == 1
    assert segments(windows((5, 1), (6, 0)), 33.0, PAPER) == []


def test_nothing_comes_of_nothing() -> None:
    assert segments(windows((0, 0)), 0.0, PAPER) == []
    assert vocalness(windows((0, 0))) == 0.0
    assert segments(windows((9, 0)), 27.0, ANY) == []
    assert times(segments(windows((1, 1)), 0.4, PAPER)) == [(0, 0.4)]


def test_a_hop_makes_slices_overlap_until_one_reaches_the_end() -> None:
    options = SegmentOptions(hop_s=15.0)
    assert times(segments(windows((10, 1)), 30.0, options)) == [(0, 30)]
    assert times(segments(windows((11, 1)), 33.0, options)) == [(0, 30), (15, 33)]
    assert times(segments(windows((20, 1)), 60.0, options)) == [(0, 30), (15, 45), (30, 60)]


def test_a_tail_with_little_singing_is_dropped_unless_nothing_else_is_left() -> None:
    options = SegmentOptions(min_vocalness=0.0, min_tail_sung_s=5.0)
    # Sung 0-33 s, padded to 43 s: the tail 30-43 s holds 3 s of singing.
    assert times(segments(windows((11, 1), (9, 0)), 60.0, options)) == [(0, 30)]
    assert len(segments(windows((12, 1), (9, 0)), 63.0, options)) == 2
    lonely = windows((9, 0), (1, 0.9), (20, 0), (1, 0.6), (9, 0))
    assert times(segments(lonely, 120.0, options)) == [(17, 40)]
    assert len(segments(lonely, 120.0, ANY)) == 2


def test_every_sung_window_lies_in_a_segment_and_segments_stay_in_the_file() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        probabilities = rng.random(rng.integers(1, 60)).astype(np.float32)
        duration_s = len(probabilities) * 3 - rng.uniform(0, 2.9)
        hop_s = float(rng.choice([7.5, 15, 30]))
        pieces = segments(probabilities, duration_s, SegmentOptions(min_vocalness=0, hop_s=hop_s))
        for i in np.flatnonzero(probabilities >= 0.5):
            middle_s = (3 * i + min(3 * i + 3, duration_s)) / 2
            assert any(piece.start_s <= middle_s <= piece.end_s for piece in pieces)
        assert all(0 <= p.start_s < p.end_s <= duration_s for p in pieces)
        assert all(p.end_s - p.start_s <= 30 + 1e-9 for p in pieces)
        assert all(0 <= p.sung_s <= p.end_s - p.start_s + 1e-6 for p in pieces)
        assert all(0 <= p.vocalness <= 1 for p in pieces)


def phones(*times_s: float) -> Transcript:
    found = np.zeros(len(times_s), PHONE_DTYPE)
    found["time_s"], found["phone"] = times_s, 1
    return found


def told(found: Transcript | None) -> list[tuple[float, int]]:
    assert found is not None
    return list(zip(found["time_s"].tolist(), found["phone"].tolist(), strict=True))


def test_segments_count_equally_or_by_sung_seconds() -> None:
    pieces = segments(windows((10, 0.1), (10, 0.9), (10, 0.1)), 90.0, ANY)
    rows, worth = counted(pieces, None, ANY)
    assert rows.tolist() == [0, 1] and worth.tolist() == [1, 1] and worth.dtype == np.float32
    sung = SegmentOptions(weighting="sung")
    np.testing.assert_allclose(counted(pieces, None, sung)[1], [20, 10])
    assert (counted([Segment(0, 30, 0.2, 0.0)], None, sung)[1] > 0).all()


def test_segments_count_by_what_is_read_in_them() -> None:
    pieces = [Segment(0, 30, 1, 30), Segment(20, 50, 1, 7), Segment(60, 70, 1, 10)]
    read = phones(*np.arange(0, 25, 0.5), 40, 61, 62)
    by_phones = SegmentOptions(weighting="read")
    rows, worth = counted(pieces, read, by_phones)
    assert rows.tolist() == [0, 1, 2] and worth.tolist() == [50, 11, 2]
    assert worth.dtype == np.float32
    # None where nothing is read, which still carries some of the song.
    assert counted(pieces, phones(), by_phones)[1].tolist() == [1, 1, 1]
    assert counted(pieces, read, SegmentOptions(weighting="sung"))[1].tolist() == [30, 7, 10]
    # A model that does not read has no say, whatever its card asks for.
    assert counted(pieces, None, by_phones)[1].tolist() == [1, 1, 1]


def test_segments_in_which_little_is_read_are_dropped() -> None:
    pieces = [Segment(0, 30, 1, 30), Segment(30, 60, 1, 30), Segment(60, 64, 1, 4)]
    read = phones(*np.arange(0, 30, 2), *np.arange(30, 59, 2.5), 61, 63)
    for least, kept in ((0.0, [0, 1, 2]), (0.4, [0, 1, 2]), (0.5, [0, 2]), (0.51, []), (9, [])):
        options = SegmentOptions(min_phones_per_s=least, weighting="read")
        rows, worth = counted(pieces, read, options)
        assert rows.tolist() == kept
        assert worth.tolist() == [[15, 12, 2][row] for row in kept]
        assert counted(pieces, None, options)[0].tolist() == [0, 1, 2]
    rows, worth = counted([], phones(), SegmentOptions(min_phones_per_s=1.0))
    assert len(rows) == len(worth) == 0


def test_a_recording_that_is_nowhere_dense_has_no_words() -> None:
    pieces = [Segment(0, 30, 1, 30), Segment(30, 60, 1, 30), Segment(60, 70, 1, 10)]
    read = phones(*np.arange(0, 30, 3), *np.arange(31, 61, 2), 61, 62)
    for densest, kept in ((0.0, [0, 1]), (0.5, [0, 1]), (0.51, []), (9.0, [])):
        options = SegmentOptions(min_phones_per_s=0.3, min_densest_phones_per_s=densest)
        rows, worth = counted(pieces, read, options)
        assert rows.tolist() == kept and len(worth) == len(kept)
        assert counted(pieces, None, options)[0].tolist() == [0, 1, 2], "nothing was read"
    rows, worth = counted([], phones(), SegmentOptions(min_densest_phones_per_s=1.0))
    assert len(rows) == len(worth) == 0


def test_what_was_read_in_batches_is_one_transcript() -> None:
    pieces = [Segment(0, 30, 1, 30), Segment(10, 40, 1, 30), Segment(55, 75, 1, 20)]
    at = {0: [1, 2], 10: [2, 3], 20: [3, 4], 30: [5, 0], 55: [6, 7], 65: [0, 8], 75: [9, 9]}
    clips = [[at[round(p.start_s) + s] for s in (0, 10, 20)] for p in pieces]
    guesses = np.array(clips, np.uint8)
    whole = transcribed([guesses], pieces, 10.0)
    expected = [(0, 1), (5, 2), (15, 3), (25, 4), (30, 5), (55, 6), (60, 7), (70, 8)]
    assert told(whole) == expected
    batches = transcribed([guesses[:2], guesses[2:]], pieces, 10.0)
    assert told(batches) == expected
    wider = transcribed([guesses.astype(np.int64)], pieces, 10.0)
    assert told(wider) == expected
    assert transcribed([None, None], pieces, None) is None
    assert transcribed([], [], 10.0) is None


def test_options_that_make_no_sense_are_refused() -> None:
    for options in ({"hop_s": 0.0}, {"hop_s": 31.0}, {"window_s": 0.0}, {"padding_s": -1.0}):
        with pytest.raises(ValueError, match="segments"):
            SegmentOptions(**options)
    with pytest.raises(ValueError, match="equal, sung or read, not 'loud'"):
        SegmentOptions(weighting="loud")  # type: ignore[arg-type]


def test_options_come_from_the_card_and_unknown_ones_are_errors(tmp_path: Path) -> None:
    options = SegmentOptions.from_bundle(open_bundle(TINY))
    assert (options.hop_s, options.min_tail_sung_s, options.weighting) == (15.0, 5.0, "sung")
    options = SegmentOptions.from_bundle(open_bundle(READER))
    assert (options.hop_s, options.min_phones_per_s, options.weighting) == (10.0, 0.3, "read")
    folder = shutil.copytree(TINY, tmp_path / "bundle")
    card = json.loads((folder / "card.json").read_text())
    for wrong in ({"hopp_s": 3.0}, {"hop_s": "long"}, {"hop_s": 99.0}):
        (folder / "card.json").write_text(json.dumps({**card, "segments": wrong}))
        with pytest.raises(BadModel, match="segment options"):
            SegmentOptions.from_bundle(open_bundle(folder))


def test_windows_are_cut_where_the_segments_say() -> None:
    samples = np.arange(16_000 * 70, dtype=np.float32)
    pieces = [Segment(0, 30, 1, 30), Segment(45.5, 70, 1, 20)]
    cuts = cut(samples, pieces, 30.0)
    assert cuts.shape == (2, 480_000) and cuts.dtype == np.float32
    np.testing.assert_array_equal(cuts[0], samples[:480_000])
    np.testing.assert_array_equal(cuts[1, : int(24.5 * 16_000)], samples[int(45.5 * 16_000) :])
    assert not cuts[1, int(24.5 * 16_000) :].any()
    assert cut(samples, [], 30.0).shape == (0, 480_000)
    np.testing.assert_array_equal(np.concatenate(list(cut_batches(samples, pieces, 30.0, 1))), cuts)


def test_how_much_of_the_voice_is_speech() -> None:
    sung = np.array([1.0, 0.5, 0.0], np.float32)
    voices = Voices(sung, np.array([1.0, 0.0, 1.0], np.float32))
    assert voices.vocalness == pytest.approx(0.5) and voices.spoken == pytest.approx(1 / 1.5)
    assert Voices(sung).spoken is None
    assert Voices(np.zeros(2, np.float32), np.ones(2, np.float32)).spoken is None
    assert Voices(sung[:0], sung[:0]).spoken is None


def test_a_model_that_tells_no_speech_says_so(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, 16_000 * 4).astype(np.float32)
    voices = VocalDetector(open_bundle(TINY), threads=1).voices(loud)
    assert voices.speech is None and len(voices.singing) == 2
    folder = shutil.copytree(TINY, tmp_path / "bundle")
    card = json.loads((folder / "card.json").read_text())
    card["vocals"]["tells_speech"] = True
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="answers 1 numbers a window"):
        VocalDetector(open_bundle(folder), threads=1).voices(loud)
    card["vocals"]["tells_speech"] = "yes"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="tells_speech"):
        open_bundle(folder)


def test_the_detector_hears_windows_one_by_one() -> None:
    rng = np.random.default_rng(0)
    loud = rng.normal(0, 0.1, 16_000 * 6).astype(np.float32)
    samples = np.concatenate([loud, np.zeros(16_000 * 6, np.float32), loud[: 16_000 * 2]])
    detector = VocalDetector(open_bundle(TINY), threads=1)
    probabilities = detector.probabilities(samples)
    assert probabilities.dtype == np.float32 and detector.window_s == 3.0
    np.testing.assert_allclose(probabilities, [1, 1, 0, 0, 1], atol=0.01)
    alone = [detector.probabilities(samples[i : i + 48_000])[0] for i in range(0, 208_000, 48_000)]
    np.testing.assert_allclose(probabilities, alone, atol=1e-4)
    assert detector.probabilities(samples[:0]).shape == (0,)
