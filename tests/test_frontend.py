"""Spectra against those of the original front ends; segments; the two rows without weights."""

from __future__ import annotations

import golden
import numpy as np
import pytest

from benchmarks.baselines.chroma import ChromaFourier, ChromaMeans, beat_frames, mfcc
from benchmarks.baselines.frontend import (
    FloatArray,
    Segments,
    decibel_cqt,
    exact_cqt,
    exact_kernels,
    mean_frames,
    recursive_cqt,
)

RATE = 16_000
SCALE = (0, 2, 4, 5, 7, 9, 11)


def tune(seed: int, semitones: float = 0, tempo: float = 1.0, seconds: float = 30) -> FloatArray:
    """A plucked melody over a bass, eight notes a bar; the same ones for a seed."""
    rng = np.random.default_rng(seed)
    step = round(RATE * 0.25 / tempo)
    n_notes = int(seconds * RATE) // step
    bars = rng.integers(0, 7, (4, 8))
    melody = np.resize(bars[np.resize([0, 1, 0, 2, 3, 2, 0, 1], n_notes // 8 + 1)], n_notes)
    t = np.arange(step) / RATE
    fade = np.exp(-6 * t)
    notes = []
    for i, degree in enumerate(melody):
        pitch = 60 + SCALE[degree] + semitones
        bass = 36 + SCALE[melody[i // 8 * 8]] + semitones
        hz = 440 * 2 ** ((np.array([pitch, bass]) - 69) / 12)
        notes.append(fade * (0.4 * np.sin(2 * np.pi * hz[:, None] * t)).sum(axis=0))
    return np.concatenate(notes).astype(np.float32)


def test_the_formulas_are_those_of_the_outputs() -> None:
    known = golden.outputs("rule_check")
    assert np.array_equal(golden.hashed("abc", np.arange(8)), known["h32_abc_0to7"])
    assert np.array_equal(golden.uniform("abc", np.arange(8)), known["u_abc_0to7"])
    assert np.allclose(golden.signal(0, 16), known["signal0_16k_first16"], atol=1e-6)
    for name, track, rate in (("0_16k", 0, 16_000), ("1_16k", 1, 16_000), ("0_22k", 0, 22_050)):
        there = golden.signal(track, 10_016, rate)[10_000:]
        assert np.allclose(there, known[f"signal{name}_at_10000"], atol=1e-6)
    assert np.allclose(golden.feature(0, 84, 200)[:, 0], known["feature0_84x200_col0"], atol=1e-6)
    assert np.allclose(golden.feature(1, 96, 375)[50], known["feature1_96x375_row50"], atol=1e-6)


@pytest.mark.parametrize("hop", [320, 368])
def test_exact_spectra_are_those_of_the_original(hop: int) -> None:
    known = golden.outputs("cqt_16k")
    spectrum = exact_cqt(golden.signal(0, 320_000), hop)
    value = known[f"hop{hop}_value"]
    assert spectrum.shape == tuple(known[f"hop{hop}_shape"])
    there = spectrum[known[f"hop{hop}_bin"], known[f"hop{hop}_frame"]]
    assert np.abs(there - value).max() < 2e-6 * value.max()


def test_products_by_octave_are_those_with_whole_kernels() -> None:
    samples = golden.signal(2, 20_000)
    kernels, lengths = exact_kernels()
    padded = np.pad(samples.astype(np.float64), kernels.shape[1] // 2, mode="reflect")
    for hop in (320, 501):
        frames = np.stack([padded[s : s + kernels.shape[1]] for s in range(0, 20_001, hop)])
        plain = np.abs(kernels @ frames.T) * np.sqrt(lengths)[:, None]
        assert np.abs(exact_cqt(samples, hop) - plain).max() < 1e-6 * plain.max()


def test_recursive_spectra_are_those_of_librosa() -> None:
    known = golden.outputs("cqt_librosa_22k")
    spectrum = recursive_cqt(golden.signal(0, 441_000, 22_050))
    assert spectrum.shape == tuple(known["shape"])
    there = spectrum[known["bin"], known["frame"]]
    assert np.abs(there - known["value"]).max() < 1e-5 * known["value"].max()
    pooled = mean_frames(spectrum, 20, 20)
    assert pooled.shape == tuple(known["pooled_shape"])
    there = pooled[known["pooled_bin"], known["pooled_frame"]]
    assert np.abs(there - known["pooled_value"]).max() < 1e-5 * known["pooled_value"].max()


def test_decibels_are_those_of_the_original() -> None:
    known = golden.outputs("coverhunter")
    decibels = decibel_cqt(golden.signal(0, 30 * RATE))
    assert decibels.shape == (96, known["cqt_db_frames"])
    there = decibels[known["cqt_db_bin"], known["cqt_db_frame"]]
    assert np.abs(there - known["cqt_db_value"]).max() < 5e-4


def test_a4_peaks_where_it_should() -> None:
    t = np.arange(2 * RATE) / RATE
    a4 = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    # Where the mirrored ends of a sine reach in, it is none.
    assert set(exact_cqt(a4, 320)[:, 10:-10].argmax(axis=0)) == {45}
    t = np.arange(2 * 22_050) / 22_050
    a4 = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    assert set(recursive_cqt(a4)[:, 10:-10].argmax(axis=0)) == {45}


SEGMENTS = {
    "clews_dvi": Segments(320, (5, 5), 20.0, "repeat"),
    "bytecover2x": Segments(368, (5, 5), 150.0, "zeros"),
    "cqtnet_clewsrepo": Segments(320, (17, 15), 150.0, "zeros"),
}


@pytest.mark.parametrize("network", SEGMENTS)
def test_segments_are_those_of_the_original(network: str) -> None:
    known, segments = golden.outputs(network), SEGMENTS[network]
    for track, name in enumerate(("audio_long", "audio_short")):
        samples = golden.signal(track, int(known[f"{name}_seconds"]) * RATE)
        exact = segments.cut(samples, exact=True)
        assert exact.shape == tuple(known[f"{name}_cqt_shape"])
        there, value = exact.ravel()[known[f"{name}_cqt_flat_index"]], known[f"{name}_cqt_value"]
        assert np.abs(there - value).max() < 2e-6 * value.max()


@pytest.mark.parametrize("segments", SEGMENTS.values(), ids=SEGMENTS)
def test_a_shared_transform_gives_the_same_segments(segments: Segments) -> None:
    """But at their edges, which a segment of its own mirrors."""
    length, hop = round(segments.length_s * RATE), segments.cqt_hop
    samples = golden.signal(5, length + 4 * RATE)
    shared = segments.cut(samples)
    more = np.zeros(RATE, np.float32) if segments.padding == "zeros" else samples[:RATE]
    padded = np.concatenate([samples, more])
    assert len(shared) == 2
    for found, start_s in zip(shared, (0, 5), strict=True):
        # ByteCover2's hop does not divide 5 s: its segments begin at the nearest multiple.
        start = min(round(start_s * RATE / hop) * hop, len(padded) - length)
        exact = mean_frames(exact_cqt(padded[start : start + length], hop), *segments.pool)
        assert found.shape == exact.shape
        inside = np.s_[:, 6:-6]
        assert np.abs(found[inside] - exact[inside]).max() < 1e-5 * exact.max()


def tempo_and_key_differ(system: ChromaFourier) -> tuple[float, float]:
    """Cosines of a tune with itself, higher and faster, and with another tune."""
    one, changed, other = (system.embed(tune(*how)) for how in ((1,), (1, 5, 1.2), (2,)))
    return float(one @ changed), float(one @ other)


def test_fourier_magnitudes_forget_key_and_tempo() -> None:
    same, different = tempo_and_key_differ(ChromaFourier())
    assert same > different + 0.02


def test_beats_fall_on_notes() -> None:
    for tempo in (0.8, 1.0, 1.3):
        beats = beat_frames(exact_cqt(tune(3, tempo=tempo), 320))
        notes = np.median(np.diff(beats)) / (12.5 / tempo)
        assert notes == pytest.approx(round(notes), abs=0.1)
        assert np.diff(beats).std() < 1.5


def test_means_tell_key_and_sound() -> None:
    system = ChromaMeans()
    one, again, higher = (system.embed(tune(1, *how)) for how in ((0,), (0, 1.2), (6,)))
    assert one @ again > one @ higher
    assert mfcc(np.zeros(100, np.float32)).shape == (20, 1)


@pytest.mark.parametrize("system", [ChromaFourier(), ChromaMeans()])
def test_rows_without_weights_give_one_unit_vector(system: ChromaFourier | ChromaMeans) -> None:
    vector = system.embed(tune(4, seconds=20))
    assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert system.embed(0.3 * tune(4, seconds=20)) @ vector > 0.999
    assert np.isfinite(system.embed(np.zeros(RATE, np.float32))).all()
    assert np.isfinite(system.embed(tune(4, seconds=0.6))).all()
