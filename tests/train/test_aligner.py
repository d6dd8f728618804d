"""Phones in time for voices that do not tell them, and real voices re-sung with their words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from synthesisers import data_folder, need_voices

from catalogs.aligner import align
from catalogs.engines import Voice, available, pronounce, say, say_and_tell
from catalogs.readings import MEASURING_READERS, read_texts
from catalogs.voices import MORE_VOICES, TEST_VOICES, speak
from export import throats
from export.phones import PHONES, french_phone, phone_number
from export.reader import Reader, ReaderOptions
from export.stems import training_voices
from export.throats import Word, place, words_of
from export.train import TrainOptions, optimiser_of, save_checkpoint
from livi_index.errors import BadInput

LINES = [
    "the lamp is burning low tonight",
    "she is skilful to select",
    "gae back the gate ye cam again",
    "i have been in the path of stones and the wood of thorns",
]


@pytest.fixture(autouse=True)
def _voices() -> None:
    need_voices()


def at_moments(phones: list, length_s: float) -> np.ndarray:
    """The number of the phone every 10 ms."""
    numbers = np.zeros(round(length_s * 100), dtype=int)
    for phone in phones:
        span = slice(round(phone.start_s * 100), round(phone.end_s * 100))
        numbers[span] = phone_number(phone.name)
    return numbers


def test_phones_are_found_where_the_engine_says_they_are() -> None:
    alike = total = 0
    for line, (samples, told) in zip(
        LINES, say_and_tell(Voice("flite", "rms"), LINES), strict=True
    ):
        length_s = len(samples) / 16_000
        found, known = at_moments(align(samples, line), length_s), at_moments(told, length_s)
        alike += int(np.sum((found == known) & (known > 0)))
        total += int(np.sum(known > 0))
    assert alike / total > 0.8


def test_words_that_no_dictionary_has_are_aligned_too() -> None:
    line = "o'er ' yon zzyzx braes"
    samples = say(Voice("flite", "rms"), [line])[0]
    phones = align(samples, line)
    ends = [phone.end_s for phone in phones]
    assert len(phones) > 8
    assert ends == sorted(ends)
    assert ends[-1] <= len(samples) / 16_000 + 0.05


def test_a_line_without_words_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no words"):
        align(np.zeros(16_000, np.float32), "'")


@pytest.mark.parametrize("voice", MORE_VOICES, ids=str)
def test_more_voices_speak_and_can_sing(voice: Voice) -> None:
    if not available(voice):
        pytest.skip(f"{voice} is not installed; nothing needs it")
    spoken = speak(voice, LINES[0])
    assert 6 <= spoken.n_syllables <= 10
    assert 1.0 < spoken.end_s < 4.0


def test_training_voices_are_those_asked_for_and_never_measure() -> None:
    assert {v.engine for v in training_voices(["flite"])} == {"flite"}
    assert not set(training_voices()) & set(TEST_VOICES)
    with pytest.raises(BadInput, match="no voice is installed whose name begins with hal9000"):
        training_voices(["hal9000"])


def planted(words: list[Word], per_phone: int, before: int, after: int) -> np.ndarray:
    """Log-probabilities in which these words are said, a silence after each."""
    said = [k for word in words for k in (*word.phones, 0)]
    rng = np.random.default_rng(0)
    other = rng.integers(20, 30, size=before), rng.integers(20, 30, size=after)
    numbers = np.concatenate([other[0], np.repeat(said, per_phone), other[1]])
    noise = rng.random((len(numbers), len(PHONES))) * 0.1
    noise[np.arange(len(numbers)), numbers] += 1.0
    return np.log(noise / noise.sum(axis=1, keepdims=True)).astype(np.float32)


def test_words_are_placed_between_what_is_not_theirs() -> None:
    words = [Word("one", (1, 2)), Word("two", (3,)), Word("three", (2, 5, 1))]
    placed = place(words, planted(words, per_phone=6, before=50, after=40))
    begins = [50, 50 + 3 * 6, 50 + 5 * 6]
    lengths = [2 * 6, 6, 3 * 6]
    for each, begin, length in zip(placed, begins, lengths, strict=True):
        assert each.bounds_s[0] == pytest.approx(begin / 41.6)
        assert each.bounds_s[-1] == pytest.approx((begin + length) / 41.6)
        assert len(each.bounds_s) == len(each.word.phones) + 1
        assert np.all(np.diff(each.bounds_s) > 0)
        assert each.fit_nats == 0.0
    with pytest.raises(ValueError, match="more phones than moments"):
        place(words * 40, planted(words, 6, 0, 0))


def test_a_word_that_was_not_read_fits_badly() -> None:
    words = [Word("one", (1, 2, 4)), Word("two", (3, 7)), Word("three", (2, 5, 1))]
    read = [words[0], Word("else", (12, 14)), words[2]]
    fits = [w.fit_nats for w in place(words, planted(read, per_phone=6, before=30, after=30))]
    assert fits[0] == fits[2] == 0.0
    assert fits[1] < -2.0


def test_nearly_all_french_phones_have_an_english_one() -> None:
    texts = read_texts(data_folder(), "train")
    lines = [line for reading in texts[:6] for line in reading.text.splitlines() if line.strip()]
    names = [p.name for phones in pronounce(Voice("espeak", "fr"), lines) for p in phones]
    known = np.mean([french_phone(name) > 0 for name in names])
    assert known > 0.99
    words = words_of("La sottise, l'erreur,\n  le péché !")
    assert [word.text for word in words] == ["la", "sottise", "l'erreur", "le", "péché"]
    assert words[0].phones == (PHONES.index("l"), PHONES.index("ae"))


def test_real_voices_become_a_shard_of_sung_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    reader, options = Reader(ReaderOptions()), TrainOptions()
    save_checkpoint(tmp_path / "r.pt", reader, optimiser_of(reader, options), 0, 0.0, options)
    arguments = ["--readings", str(data_folder()), "--reader", str(tmp_path / "r.pt")]
    monkeypatch.setattr(
        "sys.argv", ["throats", str(tmp_path / "out"), *arguments, "--clips", "120"]
    )
    throats.main()
    made = json.loads((tmp_path / "out" / "000000.json").read_text())
    sound = np.load(tmp_path / "out" / "000000.npy")
    phones = np.load(tmp_path / "out" / "000000.phones")
    assert sound.shape == (120, 160_000)
    assert phones.shape == (120, 250)
    assert all(made["texts"])
    by_path = {r.path.stem: r.reader for r in read_texts(data_folder(), "train")}
    readers = {by_path[voice.removeprefix("recording:")] for voice in made["voices"]}
    assert readers and not readers & MEASURING_READERS
    sounding = np.abs(sound.astype(np.float32)).reshape(120, 250, 640).max(axis=2) > 600
    assert np.mean(sounding[phones > 0]) > 0.8
