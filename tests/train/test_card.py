"""A bundle's card written anew: other words, a second space, another one in its place."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import audio_files
import pytest

torch = pytest.importorskip("torch")

from export.detector import Detector  # noqa: E402
from export.reader import DOUBT, Reader, ReaderOptions  # noqa: E402
from export.shades import Shades, save_shades  # noqa: E402
from export.train import TrainOptions, optimiser_of, save_checkpoint  # noqa: E402
from livi_index.audio import load_audio  # noqa: E402
from livi_index.models import extends, open_bundle, verify  # noqa: E402
from livi_index.profiles import read_profiles  # noqa: E402
from livi_index.vocals import VocalDetector  # noqa: E402

ROOT = Path(__file__).parents[2]
READER = ROOT / "tests" / "data" / "tiny-reader"
HARMONY = ROOT / "tests" / "data" / "tiny-harmony" / "harmony.onnx"
SMALL = ReaderOptions(
    width=32, heads=2, feed_forward=64, rotated=8, blocks=2, fine_blocks=1, moments_after=1
)
WORDS = """
name = "tiny-reader"
version = "7"
licence = "MIT"
trained_on = "nothing"

[calibration.lyrics]
slope = 1.5
offset = -7.0
recordings = 80
median = -0.3
spread = 3.0
fitted_on = "made up"
"""
FUSED = """
[calibration.harmony]
slope = 1.0
offset = -7.0
recordings = 80
median = 0.1
spread = 0.1
fitted_on = "made up"

[fusion]
weights = { lyrics = 1.0, harmony = 0.5 }
offset = -8.0
recordings = 80
fitted_on = "made up"
"""


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(READER, tmp_path / "bundle"))


def rewrite(bundle, words, *more):
    card = bundle.parent / "card.toml"
    card.write_text(words)
    command = [sys.executable, "-m", "export.card", bundle, "--card", card, *more]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    found = open_bundle(bundle)
    verify(found)
    return found.card


def test_other_words_leave_the_files_alone(bundle):
    before = open_bundle(bundle).card
    card = rewrite(bundle, WORDS)
    assert (card.version, card.calibration["lyrics"].spread) == ("7", 3.0)
    assert (card.files, card.model_id) == (before.files, before.model_id)
    assert card.spaces == before.spaces


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_another_detector_makes_another_model(bundle, tmp_path):
    before = open_bundle(bundle).card
    torch.manual_seed(0)
    detector = Detector().eval()
    torch.save(detector.state_dict(), tmp_path / "detector.pt")
    song = audio_files.write(tmp_path / "song.wav", audio_files.tones(33.0))
    card = rewrite(bundle, WORDS, "--detector", tmp_path / "detector.pt", "--songs", song)
    assert card.vocals.tells_speech and not before.vocals.tells_speech
    assert card.model_id != before.model_id and card.spaces == before.spaces
    assert card.measured["parity"]["vocals.onnx"]["torch"] < 1e-3
    again = rewrite(bundle, WORDS, "--detector", tmp_path / "detector.pt", "--songs", song)
    assert again.model_id == card.model_id
    samples = load_audio(song)
    voices = VocalDetector(open_bundle(bundle), threads=1).voices(samples)
    with torch.no_grad():
        told = torch.sigmoid(detector(torch.from_numpy(samples[:48_000][None])))[0]
    assert (voices.singing[0], voices.speech[0]) == pytest.approx(told.tolist(), abs=2e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_another_reader_makes_another_model_and_tells_what_may_have_been_sung(bundle, tmp_path):
    before = open_bundle(bundle).card
    torch.manual_seed(1)
    reader, shades = Reader(SMALL).eval(), Shades()
    for weight in reader.parameters():  # as after training: equal tensors would share a name
        weight.data += 0.02 * torch.randn(weight.shape)
    song = audio_files.write(tmp_path / "song.wav", audio_files.tones(33.0))
    clips = torch.from_numpy(load_audio(song)[: 3 * 160_000]).reshape(3, -1)
    with torch.no_grad():
        shades.learn(reader(clips).flatten(0, 1))
    options = TrainOptions()
    checkpoint = tmp_path / "reader.pt"
    save_checkpoint(checkpoint, reader, optimiser_of(reader, options), 0, 0.0, options)
    save_shades(tmp_path / "shades.pt", shades)
    prices = {"shares": shades.shares.tolist(), "gap": 1.5, "shift": 0.25, "chance": [0.0, 1.0]}
    alignment = json.loads((READER / "alignment.json").read_text()) | {"profiles": prices}
    (tmp_path / "alignment.json").write_text(json.dumps(alignment))
    more = ["--reader", checkpoint, "--alignment", tmp_path / "alignment.json"]
    more += ["--shades", tmp_path / "shades.pt", "--songs", song]
    card = rewrite(bundle, WORDS, *more)
    assert card.model_id != before.model_id and card.measured["parity"]["reader.onnx"]
    assert rewrite(bundle, WORDS, *more).model_id == card.model_id
    opened = open_bundle(bundle)
    told = read_profiles(opened, opened.card.space("lyrics").clips)
    assert (told.gap, told.shift, told.chance) == (1.5, 0.25, (0.0, 1.0))
    found = opened.open("reader.onnx", threads=1, device="cpu").run(clips.numpy(), 1)
    with torch.no_grad():
        expected = shades(reader(clips)).numpy()
    assert (found % DOUBT == expected % DOUBT).mean() > 0.9
    # Other rules of what is alike are the same model: what libraries hold of it stays as it is.
    other = alignment | {"profiles": prices | {"gap": 2.0}}
    (tmp_path / "alignment.json").write_text(json.dumps(other))
    again = rewrite(bundle, WORDS, "--alignment", tmp_path / "alignment.json")
    opened = open_bundle(bundle)
    verify(opened)
    assert again.model_id == card.model_id
    assert read_profiles(opened, opened.card.space("lyrics").clips).gap == 2.0
    words = bundle.parent / "card.toml"
    command = [sys.executable, "-m", "export.card", bundle, "--card", words]
    refused = subprocess.run(
        [*command, "--reader", checkpoint, "--songs", song],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2 and "--shades" in refused.stderr


def test_what_is_not_there_is_named(bundle, tmp_path):
    (words := tmp_path / "card.toml").write_text(WORDS)
    nowhere = tmp_path / "nowhere"
    for more in (
        [nowhere, "--card", words],
        [bundle, "--card", nowhere],
        [bundle, "--card", words, "--harmony", nowhere],
        [bundle, "--card", words, "--detector", nowhere, "--songs", words],
        [bundle, "--card", words, "--detector", words, "--songs", words, nowhere],
    ):
        command = [sys.executable, "-m", "export.card", *more]
        refused = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert f"{nowhere}" in refused.stderr and "is not there" in refused.stderr


def test_a_second_space_is_an_edition_and_another_one_a_model(bundle):
    before = open_bundle(bundle).card
    card = rewrite(bundle, WORDS + FUSED, "--harmony", HARMONY)
    assert card.space_names == ("lyrics", "harmony") and card.model_id == before.model_id
    assert card.space("harmony").dim == 32 and card.fusion.weights["harmony"] == 0.5
    again = rewrite(bundle, WORDS + FUSED, "--harmony", bundle / "harmony.onnx")
    assert again == card
    other = bundle.parent / "other.onnx"
    other.write_bytes((READER / "vocals.onnx").read_bytes())
    with pytest.raises((subprocess.CalledProcessError, IndexError)):
        rewrite(bundle, WORDS + FUSED, "--harmony", other)  # no vectors come out of it
    changed = json.loads((bundle / "card.json").read_text())
    changed["files"]["harmony.onnx"]["sha256"] = "0" * 64  # as if another one had been there
    (bundle / "card.json").write_text(json.dumps(changed))
    card = rewrite(bundle, WORDS + FUSED, "--harmony", HARMONY)
    assert card.model_id != before.model_id and not extends(card, before)
