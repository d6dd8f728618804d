"""What is read of a voice is a second witness of it: in a build, and of what asks."""

import json
import shutil

import numpy as np
import pytest
import songs
from test_cli import livi

from livi_index.audio import decode
from livi_index.errors import BadModel
from livi_index.hearing import Ear
from livi_index.library import open_library
from livi_index.models import Witness, open_bundle
from livi_index.transcripts import PHONE_DTYPE
from livi_index.vocals import SegmentOptions, Voices, confirmed, evidence, segments

WEIGHTS = {"detector": 0.5, "phones": 2.0, "offset": -3.0, "fitted_on": "nothing"}


def model_with(folder, **changes):
    """The tiny reader, which is believed."""
    shutil.copytree(songs.READER, folder)
    card = json.loads((folder / "card.json").read_text())
    card["witness"] = WEIGHTS | changes
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def read_at(*times_s):
    found = np.zeros(len(times_s), PHONE_DTYPE)
    found["time_s"], found["phone"] = times_s, 1
    return found


def test_phones_count_in_their_window_and_in_part_beside_it():
    voices = Voices(np.array([0.5, 0.9, 0.0, 1.0], np.float32), np.full(4, 0.25, np.float32))
    transcript = read_at(3.0, 4.0, 5.9, 9.5)
    heard, read = evidence(voices, transcript, 3.0)
    np.testing.assert_allclose(read, [0.9, 3.0, 0.9 + 0.3, 1.0], atol=1e-6)
    np.testing.assert_allclose(heard[:2], [0.0, np.log(9)], rtol=1e-5)
    assert heard[2] == pytest.approx(-heard[3]) and heard[3] < 8
    found = confirmed(voices, transcript, Witness(0.5, 2.0, -3.0), 3.0)
    expected = 1 / (1 + np.exp(-(0.5 * heard + 2.0 * read - 3.0)))
    np.testing.assert_allclose(found.singing, expected, rtol=1e-5)
    assert found.singing.dtype == np.float32 and found.speech is voices.speech


def test_without_a_witness_or_a_reading_nothing_changes():
    voices = Voices(np.array([0.5, 0.9], np.float32))
    assert confirmed(voices, read_at(1.0), None, 3.0) is voices
    assert confirmed(voices, None, Witness(1.0, 1.0, 0.0), 3.0) is voices
    nothing = Voices(np.zeros(0, np.float32))
    assert len(confirmed(nothing, read_at(), Witness(1.0, 1.0, 0.0), 3.0).singing) == 0


def test_a_library_keeps_what_both_say(tmp_path):
    model = model_with(tmp_path / "model")
    songs.sung(tmp_path / "music" / "half.wav", np.append(songs.melody(1, 120), np.zeros(30, int)))
    songs.hum(tmp_path / "music" / "hum.wav")
    livi("build", tmp_path / "music", "--model", model, library=tmp_path / "library")
    bundle = open_bundle(model)
    with open_library(tmp_path / "library", threads=1) as library:
        asked = library.query(tmp_path / "music" / "half.wav", include_self=True).query
        table = library.generation.segments("lyrics")
    audio = decode(tmp_path / "music" / "half.wav")
    voices, transcript = Ear(bundle).listen(audio)
    assert transcript is not None
    both = confirmed(voices, transcript, bundle.card.witness, 3.0)
    assert both.vocalness != pytest.approx(voices.vocalness, abs=1e-3)
    assert asked.vocalness == pytest.approx(both.vocalness, abs=1e-6)
    options = SegmentOptions.from_bundle(bundle)
    # The same segments as the detector alone makes, with other numbers.
    assert set(table["start_s"]) <= {
        p.start_s for p in segments(voices.singing, audio.duration_s, options)
    }
    first = table[np.argmin(table["start_s"])]
    inside = both.singing[int(first["start_s"] // 3) : int(np.ceil(first["end_s"] / 3))]
    assert first["vocalness"] == pytest.approx(inside.mean(), abs=0.05)


def test_a_witness_against_voices_is_refused(tmp_path):
    with pytest.raises(BadModel, match="witness"):
        open_bundle(model_with(tmp_path / "model", phones=-1.0))
    with pytest.raises(BadModel, match="witness has fields"):
        open_bundle(model_with(tmp_path / "other", doubt=1.0))
