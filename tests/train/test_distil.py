"""Shards and training: rows in their order, works apart, resuming to the last bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import audio_files
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planted import FRAMES, WIDTH, WORKS, Planted, PlantedEars, PlantedTexts, written  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from export.agreement import agreement, cosines  # noqa: E402
from export.distil import (  # noqa: E402
    PRESETS,
    Order,
    Preset,
    Run,
    Training,
    load_checkpoint,
    load_taught,
    paper_loss,
    split,
    train,
)
from export.pooled import ReaderEars, hidden_states  # noqa: E402
from export.reader import Reader, ReaderOptions  # noqa: E402
from export.shards import Row, Shards, Texts, Windows, write_shards  # noqa: E402
from export.student import load_head  # noqa: E402
from export.teacher import Told  # noqa: E402
from livi_index.errors import BadInput, BadModel  # noqa: E402

pytestmark = pytest.mark.train
TINY = Preset(
    Training(
        epochs=20, batch=16, learning_rate=3e-3, warm_up=5, decay="cosine", held=0.2,
        validate_every=50, save_every=100,
    ),
    (24,),
)  # fmt: skip


def test_shards_hold_what_went_in(tmp_path: Path) -> None:
    shards = Shards(written(tmp_path / "a", rows=50))
    assert len(shards) == 3 * WORKS and shards.works[5] == "w1" and shards.rows[5].text == "1"
    features, targets = shards.__getitems__([119, 3, 49, 50])
    assert features.shape == (4, FRAMES, WIDTH) and features.dtype == torch.float16
    expected = PlantedEars()(torch.from_numpy(np.stack([Planted().samples(n) for n in (119, 3)])))
    assert torch.allclose(features[:2].float(), expected, atol=4e-3)
    assert np.allclose(targets, PlantedTexts().encode(["39", "1", "16", "16"]))
    shards.check()


def test_an_interrupted_writer_goes_on(tmp_path: Path) -> None:
    first = write_shards(
        tmp_path / "a", Planted(), PlantedTexts(), PlantedEars(), {"by": "test"}, rows=50
    )
    next(first)
    first.close()
    (tmp_path / "a" / "000001.features.npy").write_bytes(b"half of a file")
    written(tmp_path / "a", rows=50)
    written(tmp_path / "b", rows=50)
    whole = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert json.loads((tmp_path / "a" / "manifest.json").read_text()) == whole
    with pytest.raises(BadInput, match="holds shards made by"):
        next(write_shards(tmp_path / "a", Planted(), PlantedTexts(), None, {"by": "test"}))


def test_damage_is_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "a")
    path = folder / "000000.targets.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match="not what was written"):
        Shards(folder).check()
    path.write_bytes(data[:-1])
    with pytest.raises(BadInput, match="not what was written"):
        Shards(folder)
    with pytest.raises(BadInput, match="no manifest"):
        Shards(tmp_path)


def test_whole_segments_of_what_was_told(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((70 * 16_000, 1)).astype(np.float32)
    song = str(audio_files.write(tmp_path / "song.wav", noise, 16_000))
    rows = [(0, 70, "whole", "txt"), (5, 35, "one", "transcript"), (35, 65, "", "transcript"),
            (65, 70, "tail", "transcript")]  # fmt: skip
    told = [Told(song, float(a), float(b), text, None if text else "no words", kind, "", None, 1.0,
                 whole=kind == "txt") for a, b, text, kind in rows]  # fmt: skip
    source = Texts({song: told}, {song: "work"})
    assert source.rows == [Row(song, "work", 5.0, "one")]
    assert np.allclose(source.samples(0), noise[80_000:560_000, 0], atol=1e-4)


def test_windows_of_stems_are_the_same_in_any_order(tmp_path: Path) -> None:
    from export.mixes import Backings, Stems

    noise = np.random.default_rng(1).integers(-3000, 3000, (6, 160_000)).astype(np.int16)
    np.save(tmp_path / "000000.npy", noise)
    texts = {"texts": [f"clip {i}" for i in range(6)]}
    (tmp_path / "000000.json").write_text(json.dumps(texts))
    with (tmp_path / "000000.phones").open("wb") as file:
        np.save(file, np.ones((6, 250), np.int8))
    (tmp_path / "backings").mkdir()
    np.save(tmp_path / "backings" / "hiss.npy", noise[0])
    source = Windows(Stems(tmp_path), Backings(tmp_path / "backings"), 2)
    again = Windows(Stems(tmp_path), Backings(tmp_path / "backings"), 2)
    third = again.samples(3)
    assert np.array_equal(source.samples(0), again.samples(0))
    assert np.array_equal(source.samples(3), third)
    assert source.rows[0].text == source.rows[1].text and source.rows[0].work == "000000"


def test_the_loss_of_cases_worked_by_hand() -> None:
    axes = torch.eye(2)
    assert paper_loss(axes, axes, 0.5) == 0
    # pairs are orthogonal, and within each batch the cosines agree
    assert paper_loss(axes, axes.flip(0), 0.5) == pytest.approx(0.5)
    # both sounds the same: one pair of two is right; two of four cosines are 1 and not 0
    assert paper_loss(axes[[0, 0]], axes, 0.25) == pytest.approx(0.25 * 0.5 + 0.75 * 0.5)


def test_the_papers_numbers() -> None:
    training = PRESETS["livi"].training
    assert training.steps(1_339_790) == 31_401  # the paper says 31.4 thousand
    assert training.rate(0, 31_401) == 1e-8 and training.rate(9_999, 31_401) == 1e-4
    assert training.rate(31_400, 31_401) == 1e-4
    assert PRESETS["livi"].hidden == (3072, 2048, 2048, 1536)


def test_every_epoch_has_all_rows_in_an_order_that_can_be_taken_up() -> None:
    rows = np.arange(100, 150)
    training = Training(batch=16, epochs=4)
    steps = training.steps(50)
    whole = [*Order(rows, training, 0, steps)]
    assert steps == len(whole) == 12 and {len(batch) for batch in whole} == {16}
    epoch = [row for batch in whole[:3] for row in batch]
    assert len(set(epoch)) == 48 and set(epoch) <= set(rows.tolist())
    assert whole[0] != whole[3]
    assert [*Order(rows, training, 7, steps)] == whole[7:]


def test_works_do_not_meet(tmp_path: Path) -> None:
    shards = Shards(written(tmp_path / "a"))
    rows, held = split(shards, 0.2)
    assert not set(shards.works[rows]) & set(shards.works[held])
    assert len(rows) + len(held) == len(shards) and 0.05 < len(held) / len(shards) < 0.4
    with pytest.raises(BadInput, match="too few"):
        split(shards, 1e-9)


def test_it_learns_and_resumes_to_the_last_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    shards = written(tmp_path / "shards")
    head = train(Run(tmp_path / "whole", shards), TINY)
    log = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    rows = [*map(json.loads, log)]
    assert rows[-1]["step"] == rows[-1]["of"] and rows[-1]["loss"] < 0.5
    train(Run(tmp_path / "parts", shards, stop_after=7), TINY)
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 7
    again = train(Run(tmp_path / "parts", shards), TINY)
    for one, other in zip(head.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    states = [
        load_checkpoint(tmp_path / f / "checkpoint.pt")["optimiser"] for f in ("whole", "parts")
    ]
    for key, values in states[0]["state"].items():
        assert all(torch.equal(values[n], states[1]["state"][key][n]) for n in values)
    # what comes out is a head by the authors' names
    told = load_head(tmp_path / "whole" / "head.pth")
    frames = torch.randn(2, FRAMES, WIDTH)
    assert torch.allclose(told(frames), load_taught(tmp_path / "whole" / "checkpoint.pt")(frames))


def test_what_does_not_belong_to_a_checkpoint_is_refused(tmp_path: Path) -> None:
    shards = written(tmp_path / "shards")
    run = Run(tmp_path / "out", shards, stop_after=2)
    train(run, TINY)
    other = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, alpha=0.1))
    with pytest.raises(BadInput, match="in another way"):
        train(run, other)
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(BadModel, match="no checkpoint"):
        train(run, TINY)


def test_samples_are_heard_while_it_learns(tmp_path: Path) -> None:
    """The same training from frames and from samples, but for their rounding."""
    kept = tmp_path / "samples"
    for _ in write_shards(kept, Planted(8), PlantedTexts(), None, {"by": "test"}):
        pass
    with pytest.raises(BadInput, match="give --whisper"):
        train(Run(tmp_path / "a", kept), TINY)
    short = dataclasses.replace(
        TINY, training=dataclasses.replace(TINY.training, epochs=1, pooling="mean", held=0.4)
    )
    ears = PlantedEars()
    train(Run(tmp_path / "b", kept, ears), short)
    log = (tmp_path / "b" / "log.jsonl").read_text()
    assert json.loads(log)["segments"]["n"] > 0


def test_agreement_of_a_case_worked_by_hand() -> None:
    axes = np.eye(4, dtype=np.float32)
    sound = axes[[0, 1, 2, 2]]
    found = agreement(sound, axes[[0, 1, 2, 3]], ["a", "a", "b", "c"], ["x", "x", "x", "y"])
    assert found.segments.n == 4 and found.segments.mean == 0.75
    assert found.words_hr1 == 0.75
    # of six pairs of different works one is the same direction
    assert found.segments.other_mean == pytest.approx(1 / 6)
    assert found.tracks.n == 3 and found.tracks.mean == pytest.approx(2 / 3)
    assert found.versions_hr1 == 0.5  # a is as near to b as to c, b is nearest to c
    spread = ((0.75 * 0.25 + 5 / 36) / 2) ** 0.5
    assert found.segments.d_prime == pytest.approx((0.75 - 1 / 6) / spread)
    assert np.isnan(cosines(axes, axes, np.array(["x"] * 4)).d_prime)


@torch.no_grad()
def test_a_reader_as_ears() -> None:
    torch.manual_seed(3)
    options = ReaderOptions(
        width=32, heads=2, feed_forward=64, rotated=8, blocks=2, fine_blocks=1, moments_after=1
    )
    reader, samples = Reader(options).eval(), 0.1 * torch.randn(2, 480_000)
    ears = ReaderEars(reader)
    frames = ears(samples)
    assert frames.shape == (2, ears.n_frames, ears.width) and ears.n_frames == 312
    with hidden_states(reader) as states:
        reader(samples)
        reader(samples[:1])
    reader(samples)
    assert [tuple(part.shape) for part in states] == [(6, 104, 32), (3, 104, 32)]
    assert torch.allclose(states[0][:3].float(), states[1].float(), atol=2e-3)
    assert torch.allclose(
        F.normalize(ears(samples[:1]), dim=2), F.normalize(frames[:1], dim=2), atol=2e-3
    )
