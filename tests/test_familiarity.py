"""What is far from what a model was trained on is said to be so, and words alone make no hit of it
likely."""

import hashlib
import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import songs
from test_cli import livi

from livi_index.errors import BadModel
from livi_index.familiarity import LEAST_PHONES, Language
from livi_index.library import open_library
from livi_index.models import open_bundle
from livi_index.transcripts import PHONE_DTYPE

PHONES = 25
STEPS = (1, 5, 7)  # up the circle of 24 phones: one of these follows in the language of this model


def words(seed, n=150):
    """Phones as they follow each other in the language."""
    steps = np.random.default_rng(seed).choice(STEPS, n)
    return np.cumsum(steps) % 24 + 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny reader, with a card that knows that language."""
    folder = tmp_path_factory.mktemp("model") / "reader"
    shutil.copytree(songs.READER, folder)
    nats = np.full((PHONES, PHONES, PHONES), 6.0)
    nats[0, 0, 1:] = np.log(24)
    for step in STEPS:
        for phone in range(24):
            nats[:, phone + 1, (phone + step) % 24 + 1] = np.log(3.2)
    np.save(folder / "familiar.npy", np.round(16 * nats).astype(np.uint8))
    content = (folder / "familiar.npy").read_bytes()
    card = json.loads((folder / "card.json").read_text())
    card["files"]["familiar.npy"] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }
    card["familiar"] = {
        "file": "familiar.npy",
        "order": 3.0,
        "order_spread": 0.5,
        "shares": 0.02,
        "shares_spread": 0.02,
        "far": 1.0,
        "farthest": 2.0,
        "fitted_on": "nothing",
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    """Songs in the language, and one whose phones follow each other backwards; copies ask."""
    folder = tmp_path_factory.mktemp("familiar")
    sung = {"near-1": words(1), "near-2": words(2), "foreign": words(3)[::-1]}
    for name, phones in sung.items():
        songs.sung(folder / "music" / f"{name}.wav", phones)
        songs.sung(folder / "asked" / f"{name}.wav", phones, 0.42)
    songs.sung(folder / "asked" / "wordless.wav", np.tile([3, 4], 75))
    livi("build", folder / "music", "--model", model, library=folder / "library")
    return folder


def asked(place, name, *flags, ok=True):
    done = livi(
        "query", place / "asked" / f"{name}.wav", "--json", *flags, library=place / "library", ok=ok
    )
    return json.loads(done.stdout)


def test_what_is_far_is_told_and_words_make_nothing_likely(place):
    near, foreign = asked(place, "near-1"), asked(place, "foreign")
    assert near["query"]["far"] is False and near["query"]["distance"] < 2
    assert foreign["query"]["far"] is True and foreign["query"]["distance"] > 2
    assert (near["query"]["doubted"], foreign["query"]["doubted"]) == (False, True)
    assert near["hits"][0]["path"].endswith("near-1.wav") and near["hits"][0]["probability"] > 0.9
    assert foreign["hits"][0]["path"].endswith("foreign.wav")
    assert foreign["hits"][0]["probability"] == 0.5
    for one, next_one in pairwise(foreign["hits"]):
        assert one["score"] >= next_one["score"] and one["probability"] >= next_one["probability"]


def test_two_phones_again_and_again_are_far(place):
    assert asked(place, "wordless")["query"]["far"] is True


def test_it_is_said_in_words(place):
    query = ("query", place / "asked" / "foreign.wav")
    told = livi(*query, library=place / "library").stdout
    assert "far from what tiny-reader was trained on" in told
    assert "by these alone no hit is likely" in told
    none = livi(*query, "--min-probability", "0.6", library=place / "library", ok=False)
    assert none.returncode == 7 and "no version found" in none.stdout


def test_a_recording_of_the_library_is_as_far_as_when_it_is_heard(place):
    with open_library(place / "library", threads=1) as library:
        stored = library.query(place / "music" / "foreign.wav", include_self=True)
        heard = library.query(place / "asked" / "foreign.wav")
    assert stored.query.far and stored.query.distance == pytest.approx(
        heard.query.distance, abs=0.5
    )


def test_a_little_says_nothing(model):
    language = Language.open(open_bundle(model), "familiar.npy")
    read = np.zeros(LEAST_PHONES, PHONE_DTYPE)
    read["phone"], read["time_s"] = words(4, LEAST_PHONES), 0.4 * np.arange(LEAST_PHONES)
    assert language.figures(read) is not None
    assert language.figures(read[1:]) is None


def test_a_file_that_is_no_language_is_refused(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    np.save(folder / "familiar.npy", np.zeros(3))
    content = (folder / "familiar.npy").read_bytes()
    card = json.loads((folder / "card.json").read_text())
    card["files"]["familiar.npy"] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="how phones follow"):
        Language.open(open_bundle(folder), "familiar.npy")
