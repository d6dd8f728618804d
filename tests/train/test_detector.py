"""What the vocal detector is taught with, and that it learns from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import synthesisers

torch = pytest.importorskip("torch")

from catalogs.poems import load_poems, training_poems  # noqa: E402
from catalogs.readings import MEASURING_READERS, readings  # noqa: E402
from export import detector, sounds  # noqa: E402
from export.detector import Detector, Draw, collate, loss_of  # noqa: E402
from export.mixes import Backings, Stems  # noqa: E402
from export.stems import (  # noqa: E402
    CLIP_PHONES,
    CLIP_SAMPLES,
    PLAIN_SPEECH,
    SAMPLE_RATE,
    UNWRITTEN,
    Clip,
    make_reading_shard,
    make_spoken_shard,
    training_voices,
    write_shard,
)

pytestmark = pytest.mark.train
N = 5 * SAMPLE_RATE


def tone(hertz: float, n: int = CLIP_SAMPLES) -> np.ndarray:
    """Harmonics of a voice that holds its note, with gaps between syllables."""
    t = np.arange(n) / SAMPLE_RATE
    sound = sum(np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, 9))
    return (0.1 * sound * (np.sin(2 * np.pi * 2 * t) > -0.7)).astype(np.float32)


def centroid_hz(sound: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((power * np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)).sum() / power.sum())


def harmonicity(sound: np.ndarray, hertz: float) -> float:
    """Share of the power within 3 Hz of the harmonics below 1 kHz."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    low = (frequency < 1000) & (frequency > 30)
    near = np.abs(frequency / hertz - np.round(frequency / hertz)) * hertz < 3
    return float(power[low & near].sum() / power[low].sum())


def test_sounds_are_what_they_are_called() -> None:
    for make in sounds.NOT_SUNG:
        twice = [make(np.random.default_rng(3), N) for _ in range(2)]
        assert np.array_equal(*twice) and len(twice[0]) == N and twice[0].dtype == np.float32
        assert 0.01 < twice[0].std() < 0.2 and np.isfinite(twice[0]).all()
    heights = [centroid_hz(sounds.noise(np.random.default_rng(seed), N)) for seed in range(12)]
    assert min(heights) < 800 and max(heights) > 2500  # colours differ
    voice = tone(200.0)
    rng = np.random.default_rng(0)
    breath = sounds.whispered(rng, voice)
    assert harmonicity(voice, 200.0) > 0.8 > 0.3 > harmonicity(breath, 200.0)
    # It is breathed when it was sung: the gaps stay.
    gaps = np.abs(voice) < 1e-6
    assert np.abs(breath[gaps]).mean() < 0.5 * np.abs(breath[~gaps]).mean()
    assert centroid_hz(sounds.shouted(rng, voice)) > 1.1 * centroid_hz(voice)
    together = sounds.layered([voice, tone(310.0)])
    assert harmonicity(together, 200.0) < 0.8 * harmonicity(voice, 200.0)
    many = sounds.crowd(rng, [tone(f) for f in (150, 190, 230, 260, 320)])
    assert harmonicity(many, 200.0) < 0.5 and len(many) == CLIP_SAMPLES


@pytest.fixture
def folders(tmp_path: Path) -> tuple[list[Path], Path]:
    """Singing, and plain speech; a backing."""
    nothing = np.zeros(CLIP_PHONES, np.int8)
    stems = []
    for text, hertz in ((UNWRITTEN, 200.0), (PLAIN_SPEECH, 120.0)):
        folder = tmp_path / f"stems-{hertz:g}"
        folder.mkdir()
        clips = [Clip(tone(hertz + i), text, training_voices()[0], nothing) for i in range(4)]
        write_shard(folder, 0, clips)
        stems.append(folder)
    band = tmp_path / "backings"
    band.mkdir()
    rng = np.random.default_rng(0)
    np.save(band / "band.npy", (3000 * rng.standard_normal(12 * SAMPLE_RATE)).astype(np.int16))
    return stems, band


def test_every_sound_occurs_with_a_voice_and_without(folders: tuple[list[Path], Path]) -> None:
    stems, band = folders
    draw = Draw([Stems(folder) for folder in stems], Backings(band))
    windows, targets = collate([draw.row(np.random.default_rng(seed)) for seed in range(240)])
    assert windows.shape == (1440, 48_000) and targets.shape == (1440, 2)
    assert torch.isfinite(windows).all() and windows.abs().max() <= 1
    assert (targets[1::2, 0] == 0).all() and targets[1::2, 1].isnan().all()
    sung = targets[::2]
    assert 0.7 < (sung[:, 0] > 0.5).float().mean() < 0.95
    # Both kinds of voices, and those of whom nobody can say which.
    share = [(sung[:, 1] == kind).float().mean() for kind in (0, 1)]
    assert share[0] > 0.3 and share[1] > 0.1 and sung[:, 1].isnan().float().mean() > 0.1
    # Windows that end in silence, as files do, with less of the voice than whole ones.
    ends = (windows[:, -200:] == 0).all(dim=1) & (windows != 0).any(dim=1)
    assert 0.02 < ends.float().mean() < 0.2
    again, _ = collate([draw.row(np.random.default_rng(seed)) for seed in range(240)])
    assert torch.equal(windows, again)


def test_speech_is_learned_only_where_it_is_known() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    loss_of(logits, torch.tensor([[1.0, torch.nan], [0.0, 1.0]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0 and logits.grad[1, 1] < 0 and logits.grad[:, 0].abs().min() > 0
    nobody = torch.tensor([[1.0, torch.nan], [0.0, torch.nan]])
    assert torch.isfinite(loss_of(logits, nobody))


def test_a_detector_learns_and_tells_both(folders: tuple[list[Path], Path], tmp_path: Path) -> None:
    stems, band = folders
    for folder in stems:  # the first shard is held out
        for file in folder.glob("000000.*"):
            (folder / f"000001{file.suffix}").write_bytes(file.read_bytes())
    detector.train(tmp_path / "out", stems, band, 100, rows=4)
    first = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
    assert first["step"] == 100 and first["loss"] < 0.9  # chance is about 1
    heard = detector.load_detector(tmp_path / "out" / "detector.pt")
    with torch.no_grad():
        voices = torch.from_numpy(np.stack([tone(205.0)[:48_000], tone(124.0)[:48_000]]))
        quiet = heard(torch.zeros(1, 48_000))
        sung, spoken = heard(voices)
    assert sung[0] > 0 and spoken[0] > 0 > quiet[0, 0] and spoken[1] > sung[1]


def test_people_and_voices_speak_and_sing() -> None:
    synthesisers.need_voices()
    data = synthesisers.data_folder()
    train, test = readings(data, "train"), readings(data, "test")
    assert len(train) == 89 and len(test) == 18 and not {*train} & {*test}
    assert all(path.is_file() for path in (*train, *test))
    rows = json.loads((data / "readings" / "readings.json").read_text(encoding="utf-8"))
    assert {r["reader"] for r in rows if r["file"] in {p.name for p in test}} == MEASURING_READERS
    kinds = {clip.text for clip in make_reading_shard(train[:3], 1, 0)}
    assert kinds == {PLAIN_SPEECH, UNWRITTEN}
    poems = training_poems(load_poems(data / "poems.jsonl.gz"))[:200]
    some = [voice for voice in training_voices() if voice.engine == "espeak"]
    clips = make_spoken_shard(poems, some, 1, 0)
    again = make_spoken_shard(poems, some, 1, 0)
    assert {clip.text for clip in clips} == {PLAIN_SPEECH} and len(clips) == 120
    assert [clip.voice for clip in clips] == [clip.voice for clip in again]
    assert all(clip.samples.shape == (CLIP_SAMPLES,) and clip.samples.any() for clip in clips)
    assert Detector()(torch.from_numpy(clips[0].samples[None, :48_000])).shape == (1, 2)
