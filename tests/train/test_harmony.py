"""The harmony space: notes in tune, chords, tables that forget the key, and its ONNX file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catalogs.score import Change, Section, compose, lay_out  # noqa: E402
from export.chords import Chords, Semitones  # noqa: E402
from export.constant_q import LOWEST_MIDI, PER_SEMITONE, SAMPLE_RATE, ConstantQ  # noqa: E402
from export.harmony import MOMENTS, Described, Harmony, Successions, export, windows_of  # noqa: E402
from export.harmony_fit import discriminants, tables_of  # noqa: E402
from export.melody import Melody, accuracy, train  # noqa: E402
from export.sketches import NOBODY, melody_of, sketch, versions_of  # noqa: E402

pytestmark = pytest.mark.train


def tones(*midi: float, seconds: int = 4) -> torch.Tensor:
    t = torch.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    return sum(torch.sin(2 * torch.pi * 440 * 2 ** ((m - 69) / 12) * t) for m in midi)[None] / 4


def test_noises_have_nothing_in_common() -> None:
    torch.manual_seed(1)
    melody = Melody().eval()
    torch.nn.init.constant_(melody.nobody.bias, 9.0)  # hears nothing: it has learned nothing
    harmony = Harmony(melody, torch.rand(1152) / 34, torch.randn(1152, 256) / 34).eval()
    with torch.no_grad():
        vectors = harmony(torch.randn(2, 30 * SAMPLE_RATE) / 10)
    assert abs(float(vectors[0] @ vectors[1])) < 0.5


@pytest.mark.parametrize("midi", [36, 60, 69, 93])
def test_a_tone_is_loudest_in_its_band(midi: int) -> None:
    bands = ConstantQ()(tones(midi))[0].mean(dim=1)
    assert int(bands.argmax()) == (midi - LOWEST_MIDI) * PER_SEMITONE + 1
    far = torch.arange(len(bands)).sub(int(bands.argmax())).abs() > 2 * PER_SEMITONE
    assert bands[far].max() < 0.05 * bands.max()


def test_what_is_out_of_tune_is_put_in_tune() -> None:
    listen = torch.nn.Sequential(ConstantQ(), Semitones())
    high = listen(tones(60.35, 67.35))[0].mean(dim=1)
    assert set(high.topk(2).indices.tolist()) == {60 - LOWEST_MIDI, 67 - LOWEST_MIDI}


@pytest.mark.parametrize(("midi", "chord"), [((60, 64, 67), 5), ((57, 60, 64), 12 + 2)])
def test_chords_have_their_names(midi: tuple[int, ...], chord: int) -> None:
    semitones = torch.nn.Sequential(ConstantQ(), Semitones())(tones(*midi))
    assert int(Chords()(semitones)[0].mean(dim=1).argmax()) == chord


def test_tables_forget_the_key_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(1)
    melody = torch.rand(1, 12, MOMENTS, generator=generator).pow(8)
    chords = torch.rand(1, 2, 12, MOMENTS, generator=generator).pow(8)
    tables = Successions()
    here = tables(melody, chords.flatten(1, 2))
    there = tables(melody.roll(3, 1), chords.roll(3, 2).flatten(1, 2))
    assert torch.allclose(here, there, atol=1e-5)
    backwards = tables(melody.flip(2), chords.flip(3).flatten(1, 2))
    assert not torch.allclose(here, backwards, atol=1e-2)


def test_a_melody_is_where_its_score_says() -> None:
    form = (Section("verse", ("la la la la la", "la la la la la la")),)
    score = lay_out(compose(3), form, Change(intro_bars=2))
    melody = melody_of(score, round(score.duration_s * 5))
    phrase = score.phrases[0]
    first = int(np.flatnonzero(melody != NOBODY)[0])
    assert abs(first - phrase.onsets[0] * score.slot_s * 5) <= 1
    assert melody[first] == (int(phrase.midi[0]) - LOWEST_MIDI) % 12


def test_sketches_sound_the_melody() -> None:
    version, rng = next(versions_of(1, 1))
    found = sketch(replace(version, sung=True), rng)
    chroma = found.semitones.astype(np.float32).reshape(6, 12, -1).sum(axis=0)
    chroma = chroma.reshape(12, -1, 2).sum(axis=2)
    at = np.flatnonzero(found.melody != NOBODY)
    assert chroma[found.melody[at], at].mean() > 1.2 * chroma[:, at].mean()


def test_a_melody_is_learned_in_a_few_steps() -> None:
    some = [sketch(v, rng) for seed in range(6) for v, rng in versions_of(seed, 2)]
    assert accuracy(train([some], 25), some) > 0.3  # by chance 1 / 12


def test_versions_fall_together_and_works_apart() -> None:
    torch.manual_seed(1)
    rows, labels = tables_of(Described(Melody()).eval(), 3)
    mean, projection = discriminants(rows, labels, dim=2)
    placed = (rows - mean) @ projection
    centres = np.stack([placed[labels == work].mean(axis=0) for work in range(3)])
    nearest = np.linalg.norm(placed[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.7  # its network is not trained; by chance a third


# The exporter's own deprecations are not ours to mend.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_file_answers_as_the_network_does(tmp_path: Path) -> None:
    torch.manual_seed(1)
    harmony = Harmony(Melody(), torch.rand(1152) / 34, torch.randn(1152, 32)).eval()
    export(harmony, tmp_path / "harmony.onnx")  # raises where it does not
    vectors = harmony(torch.cat([tones(60, seconds=30), torch.zeros(1, 30 * SAMPLE_RATE)]))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-5)
    assert vectors[1, 0] == 1  # silence


def test_windows_cover_all_of_a_track() -> None:
    track = np.arange(1, 76, dtype=np.float32)
    windows = windows_of(track, 1)
    assert windows.shape == (4, 30)
    assert set(windows.ravel()) == {*track}
    assert windows_of(track[:10], 1).shape == (1, 30)
