"""Vectors: unit, the same alone and in a batch, and pooled by the book."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import songs

from livi_index.audio import load_audio
from livi_index.encoders import AudioEncoder, TextEncoder, normalise_text, pool
from livi_index.errors import BadInput, BadModel
from livi_index.models import find_model, open_bundle

TINY = Path(__file__).parent / "data" / "tiny-bundle"
READER = TINY.with_name("tiny-reader")
DEMO = Path(__file__).parent.parent / "catalogs" / "demo"


@pytest.fixture(scope="module")
def audio() -> AudioEncoder:
    return AudioEncoder(open_bundle(TINY), threads=1)


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return TextEncoder(open_bundle(TINY), threads=1)


def test_a_clip_has_the_same_vector_alone_and_in_a_batch(audio: AudioEncoder) -> None:
    rng = np.random.default_rng(0)
    loudness = np.geomspace(1e-4, 1, 7)[:, None]
    clips = (loudness * rng.normal(size=(7, audio.window))).astype(np.float32)
    together = audio.encode(clips)
    assert together.shape == (7, audio.dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([audio.encode(clip[None]) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together[::-1], audio.encode(clips[::-1]), atol=1e-4)


def test_windows_that_overlap_have_the_vectors_that_they_have_alone() -> None:
    bundle = find_model()  # it reads windows in clips of 10 s, and keeps what it read
    song = load_audio(min(DEMO.glob("*.opus")))
    starts = [0, 160_000, 80_000, 160_000]
    windows = np.stack([song[start : start + 480_000] for start in starts])
    together = AudioEncoder(bundle, threads=1).encode(windows)
    alone = [AudioEncoder(bundle, threads=1).encode(window[None])[0] for window in windows]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_array_equal(together[1], together[3])
    assert together[0] @ together[2] < 0.99


def test_what_is_read_comes_with_the_vectors(audio: AudioEncoder) -> None:
    phones = songs.melody(1, 100)  # one in 0.5 s
    song = songs.tones(phones, 0.5)[:, 0]
    windows = np.stack([song[first : first + 480_000] for first in (0, 160_000, 320_000)])
    reader = AudioEncoder(open_bundle(READER), threads=1)
    assert (reader.clip_s, audio.clip_s) == (10.0, None)
    read = reader.read(windows)
    assert read.guesses is not None and read.guesses.shape == (3, 3, 100)
    heard = read.guesses.reshape(3, 300)
    for row, first in zip(heard, (0, 20, 40), strict=True):
        assert row.tolist() == np.repeat(phones[first : first + 60], 5).tolist()
    np.testing.assert_array_equal(read.vectors, reader.encode(windows))
    for window, vector, guesses in zip(windows, read.vectors, read.guesses, strict=True):
        alone = AudioEncoder(open_bundle(READER), threads=1).read(window[None])
        np.testing.assert_allclose(alone.vectors[0], vector, atol=1e-4)
        np.testing.assert_array_equal(alone.guesses, guesses[None])
    # Of silence nothing is read, and it has a vector too.
    still = reader.read(np.zeros((1, 480_000), np.float32))
    assert still.guesses is not None and not still.guesses.any()
    assert audio.read(windows).guesses is None
    assert reader.read(windows[:0]).guesses is None


def test_a_window_is_a_whole_number_of_clips(tmp_path: Path) -> None:
    folder = shutil.copytree(find_model().path, tmp_path / "bundle")
    card = json.loads((folder / "card.json").read_text())
    card["spaces"][0]["clips"]["clip_s"] = 7.0
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="whole number of clips"):
        open_bundle(folder)


def test_no_clips_have_no_vectors(audio: AudioEncoder, text: TextEncoder) -> None:
    assert audio.encode(np.zeros((0, audio.window), np.float32)).shape == (0, audio.dim)
    assert text.encode([]).shape == (0, text.dim)


def test_samples_of_another_shape_or_kind_are_our_mistake(audio: AudioEncoder) -> None:
    for wrong in (np.zeros((1, 100), np.float32), np.zeros((1, audio.window), np.float64)):
        with pytest.raises(AssertionError):
            audio.encode(wrong)  # type: ignore[arg-type]


def test_sound_that_is_not_finite_is_an_error(audio: AudioEncoder) -> None:
    with pytest.raises(BadModel, match="finite"):
        audio.encode(np.full((1, audio.window), np.inf, np.float32))


def test_a_graph_that_is_not_what_its_card_says_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "bundle")
    card = json.loads((folder / "card.json").read_text())
    card["spaces"][0]["dim"] = 31
    (folder / "card.json").write_text(json.dumps(card))
    encoder = AudioEncoder(open_bundle(folder), threads=1)
    with pytest.raises(BadModel, match="its card says 31"):
        encoder.encode(np.ones((1, encoder.window), np.float32))
    with pytest.raises(BadModel, match="no space"):
        AudioEncoder(open_bundle(folder), "harmony")
    del card["spaces"][0]["text"]
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="words"):
        TextEncoder(open_bundle(folder))


def test_texts_have_unit_vectors_alone_and_in_a_batch(text: TextEncoder) -> None:
    texts = ["hello", "the quick brown fox " * 9, "l'été à la plage", "x"] * 5
    vectors = text.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([text.encode([words]) for words in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-4)
    np.testing.assert_allclose(text.encode(["HELLO!!"]), text.encode(["hello"]), atol=1e-6)


def test_long_texts_are_read_to_the_length_the_card_states(text: TextEncoder) -> None:
    long = "abc" * 700
    np.testing.assert_allclose(text.encode([long]), text.encode([long[:2000]]), atol=1e-6)


def test_words_without_letters_are_the_users_mistake(text: TextEncoder) -> None:
    for words in ("", "  ", "42 !?", "日本語"):
        with pytest.raises(BadInput, match="no letter"):
            text.encode(["fine", words])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Don’t STOP", "don't stop"),
        ("  Ça, c'était   l’été!\n", "ca c'etait l'ete"),
        ("İstanbul – 1999", "istanbul"),
        ("ﬁre & ice", "fire ice"),
        ("...", ""),
    ],
)
def test_text_is_normalised(text: str, clean: str) -> None:
    assert normalise_text(text) == clean
    assert normalise_text(clean) == clean


def test_pool_is_the_weighted_mean_made_unit() -> None:
    vectors = np.array([[1, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(pool(vectors), [2**-0.5, 2**-0.5], rtol=1e-6)
    weighted = pool(vectors, np.array([3, 4], np.float32))
    np.testing.assert_allclose(weighted, [0.6, 0.8], rtol=1e-6)
    assert weighted.dtype == np.float32
    np.testing.assert_allclose(pool(vectors[:1]), vectors[0])
    for wrong in (vectors[:0], np.array([[1, 0], [-1, 0]], np.float32)):
        with pytest.raises(AssertionError):
            pool(wrong)
