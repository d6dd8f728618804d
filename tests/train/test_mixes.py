"""What happens to a voice before it is mixed, and where voices come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalogs.engines import Voice
from export.mixes import Backings, Mixer, MixOptions, Stem, Stems
from export.stems import CLIP_PHONES, CLIP_SAMPLES, SAMPLE_RATE, Clip, write_shard

PLAIN = MixOptions(
    instrumental=0.0, bare=1.0, room=0.0, equaliser=0.0, compressor=0.0, echo=0.0, telephone=0.0,
    noise=0.0,
)  # fmt: skip
NO_PHONES = np.zeros(CLIP_PHONES, np.int8)


def tone(hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(CLIP_SAMPLES) / SAMPLE_RATE).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        clips = [Clip(tone(200.0), folder.name, Voice("flite", "slt"), NO_PHONES)] * 3
        for number in range(2):
            write_shard(folder, number, clips)
    return folders


def mixer(folders: list[Path], options: MixOptions) -> Mixer:
    backings = folders[0].parent / "backings"
    backings.mkdir(exist_ok=True)
    np.save(backings / "band.npy", np.full(CLIP_SAMPLES, 1000, np.int16))
    return Mixer(Stems(*folders), Backings(backings), options)


def test_shards_of_all_folders_are_heard_and_the_first_can_be_held(folders: list[Path]) -> None:
    rng = np.random.default_rng(0)
    assert len(Stems(*folders)) == 12
    assert {Stems(*folders).pick(rng).text for _ in range(40)} == {"one", "two"}
    assert {Stems(*folders, shards=slice(1)).pick(rng).text for _ in range(10)} == {"one"}


def test_a_compressor_raises_what_is_soft(folders: list[Path]) -> None:
    voice = tone(200.0) * np.repeat([0.5, 0.05], CLIP_SAMPLES // 2).astype(np.float32)
    stem = Stem(voice, "words", NO_PHONES)
    span_db = []
    for options in (PLAIN, replace(PLAIN, compressor=1.0)):
        mixed = mixer(folders, options).mix(stem, np.random.default_rng(1)).voice
        loud, soft = mixed[1000 : CLIP_SAMPLES // 2 - 1000], mixed[CLIP_SAMPLES // 2 + 1000 : -1000]
        span_db.append(20 * np.log10(loud.std() / soft.std()))
    assert span_db[0] == pytest.approx(20.0, abs=0.1)
    assert 7.0 < span_db[1] < 17.0


def test_an_echo_comes_later_and_softer(folders: list[Path]) -> None:
    click = np.zeros(CLIP_SAMPLES, np.float32)
    click[SAMPLE_RATE : SAMPLE_RATE + 80] = 0.5
    heard = mixer(folders, replace(PLAIN, echo=1.0)).mix(
        Stem(click, "words", NO_PHONES), np.random.default_rng(2)
    )
    power = np.square(heard.voice).reshape(-1, 80).sum(axis=1)
    strong = np.flatnonzero(power > 0.005 * power.max())
    assert strong[0] == SAMPLE_RATE // 80
    assert strong[-1] - strong[0] >= 0.07 * SAMPLE_RATE / 80
    assert power[strong[-1]] < 0.25 * power[strong[0]]
    assert not np.any(heard.voice[: SAMPLE_RATE - 80] > 1e-3)


def test_the_same_generator_draws_the_same_mixes(folders: list[Path]) -> None:
    both = [
        [mixer(folders, MixOptions()).draw(rng).samples for _ in range(6)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
    assert all(np.isfinite(samples).all() and abs(samples).max() <= 1.0 for samples in both[0])
