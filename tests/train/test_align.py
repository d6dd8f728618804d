"""What pairs of phones are worth is learned from mistakes that are known."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from export.align import (  # noqa: E402
    STEPS_PER_NAT,
    TOKENS,
    apart,
    chance,
    classes_of,
    confusions,
    in_bundle,
    joint,
    letter_counts,
    merge_classes,
    profiles_of,
    readings,
    scoring_of,
    shades_of,
    spelling_of,
    to_json,
    written_for,
)
from export.fit import Heard  # noqa: E402
from export.phones import PHONES  # noqa: E402
from export.reader import DOUBT  # noqa: E402
from export.shades import SHADES, Shades, load_shades, save_shades  # noqa: E402
from export.train import edit_distance  # noqa: E402
from livi_index.alignment import CLASSES, Aligner, read_scoring  # noqa: E402
from livi_index.models import open_bundle  # noqa: E402
from livi_index.profiles import from_steps  # noqa: E402
from livi_index.transcripts import PHONE_DTYPE, Transcript  # noqa: E402

pytestmark = pytest.mark.train
N = len(PHONES)
ROOT = Path(__file__).parents[2]
READER = ROOT / "tests" / "data" / "tiny-reader"


def phones(*numbers: int) -> NDArray[np.uint8]:
    return np.array(numbers, np.uint8)


def clips(rng: np.random.Generator, n: int, length: int = 30) -> list[NDArray[np.uint8]]:
    """Clips of phones of which the first are the most common."""
    common = 1 / (5 + np.arange(1, N))
    share = common / common.sum()
    return [rng.choice(np.arange(1, N), length, p=share).astype(np.uint8) for _ in range(n)]


def misread(rng: np.random.Generator, sung: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A reader that loses every tenth phone, takes every fifth for its neighbour, and every
    twentieth for any."""
    read = sung[rng.random(len(sung)) > 0.1].copy()
    near = rng.random(len(read)) < 0.2
    read[near] = (read[near] - 1 ^ 1) + 1
    read[read == N] = N - 1
    any_ = rng.random(len(read)) < 0.05
    read[any_] = rng.integers(1, N, any_.sum())
    return read


@pytest.fixture(scope="module")
def learned() -> tuple[NDArray[np.float64], list[Transcript]]:
    """Confusions of that reader, and what it read of 300 clips."""
    rng = np.random.default_rng(0)
    sung = clips(rng, 300)
    read = [misread(rng, clip) for clip in sung]
    heard = [transcript(clip) for clip in read]
    return confusions(heard, sung), heard


def transcript(read: NDArray[np.uint8]) -> Transcript:
    found = np.zeros(len(read), PHONE_DTYPE)
    found["phone"] = read
    return found


def test_edits_are_counted() -> None:
    sung = [phones(1, 2, 3, 4, 5), phones(1, 2, 3), phones(1, 2), phones(), phones(6)]
    read = [phones(1, 2, 9, 4, 5), phones(1, 3), phones(1, 7, 2), phones(8), phones()]
    counts = confusions([transcript(one) for one in read], sung)
    expected = np.zeros((N, N))
    for pair in ((3, 9), (2, 0), (0, 7), (0, 8), (6, 0), (4, 4), (5, 5), (3, 3)):
        expected[pair] = 1
    expected[1, 1], expected[2, 2] = 3, 2
    np.testing.assert_array_equal(counts, expected)


def test_there_are_as_few_edits_as_can_be() -> None:
    rng = np.random.default_rng(1)
    for n, m in ((0, 4), (1, 1), (9, 12), (25, 20), (40, 40)):
        sung, read = (rng.integers(1, 6, length).astype(np.uint8) for length in (n, m))
        counts = confusions([transcript(read)], [sung])
        edits = counts.sum() - counts.diagonal().sum()
        assert edits == edit_distance(read.tolist(), sung.tolist())
        assert counts[1:].sum() == n and counts[:, 1:].sum() == m


def test_two_readings_of_one_phone_go_wrong_by_themselves(learned) -> None:
    pairs = joint(learned[0])
    assert pairs.sum() == pytest.approx(1) and not pairs[0].any() and not pairs[:, 0].any()
    np.testing.assert_allclose(pairs, pairs.T, atol=1e-15)
    counts = np.zeros((N, N))
    counts[1, 1], counts[1, 2], counts[2, 2] = 6e6, 2e6, 4e6
    pairs = joint(counts)  # phone 1, two thirds of all, is read as 2 in a quarter
    third = 1 / 3
    np.testing.assert_allclose(
        pairs[1:3, 1:3],
        [[2 * third * 9 / 16, 2 * third * 3 / 16], [2 * third * 3 / 16, 2 * third / 16 + third]],
        atol=1e-5,
    )


def test_phones_that_say_the_same_share_a_class(learned) -> None:
    classes = merge_classes(joint(learned[0]), CLASSES)
    assert sorted(set(classes[1:].tolist())) == list(range(CLASSES))
    assert len(set(merge_classes(joint(learned[0]), 39)[1:].tolist())) == 39
    assert len(set(classes[1:11].tolist())) == 10  # those that are common stay apart
    counts = learned[0].copy()
    mean = (counts[3] + counts[12]) / 2
    counts[3] = counts[12] = mean
    mean = (counts[:, 3] + counts[:, 12]) / 2
    counts[:, 3] = counts[:, 12] = mean
    classes = merge_classes(joint(counts), 38)
    assert classes[3] == classes[12]


def test_a_phone_is_worth_most_beside_itself(learned) -> None:
    scoring = scoring_of(learned[0])
    steps = scoring.pairs.astype(int)
    assert steps.shape == (CLASSES, CLASSES) and (steps == steps.T).all()
    assert (steps.diagonal() > 0).all()
    assert scoring.classes.shape == (256,) and scoring.classes.max() == CLASSES - 1
    for phone in range(1, 17):
        row = steps[scoring.classes[phone]]
        assert row.argmax() == scoring.classes[phone]
        partner = scoring.classes[(phone - 1 ^ 1) + 1]
        others = np.delete(row, [scoring.classes[phone], partner])
        # What it is often taken for is worth more than all else.
        assert row[partner] > others.max()
    # What is common says less.
    assert (
        steps[scoring.classes[1], scoring.classes[1]]
        < steps[scoring.classes[16], scoring.classes[16]]
    )
    dearer = scoring_of(learned[0], shift=0.8, gap=2.0)
    assert dearer.gap == round(2.0 * STEPS_PER_NAT)
    assert (dearer.pairs.astype(int) - steps).mean() == pytest.approx(-0.5 * STEPS_PER_NAT, abs=0.5)


def test_a_phone_that_was_never_read_or_sung_does_no_harm(learned) -> None:
    counts = learned[0].copy()
    counts[:, 39] = counts[38] = 0
    scoring = scoring_of(counts)
    assert len(set(scoring.classes[1:11].tolist())) == 10
    assert (scoring.pairs.diagonal() > 0).all()
    steps = scoring_of(learned[0]).pairs[:10, :10].astype(int)
    assert abs(scoring.pairs[:10, :10] - steps).max() <= 2


def test_chance_grows_with_length_and_leaves_nothing(learned) -> None:
    counts, read = learned
    scoring = scoring_of(counts)
    halves = read[:150], read[150:]
    offset, slope = chance(Aligner(scoring), *halves)
    assert 0 < slope < 5
    assert chance(Aligner(scoring), *halves) == (offset, slope)
    rng = np.random.default_rng(5)
    others = [misread(rng, clip) for clip in clips(rng, 40, 200)]
    aligner = Aligner(replace(scoring, chance=(offset, slope)))
    unrelated = aligner.scores(
        *(list(map(transcript, part)) for part in (others[:20], others[20:]))
    )
    assert abs(unrelated.mean()) < 1.0 and unrelated.max() < 20
    # Two readings of the same are far above it.
    song = clips(rng, 1, 200)[0]
    one, other = (transcript(misread(rng, song)) for _ in range(2))
    assert aligner.scores([one], [other])[0, 0] > 60


def test_a_bundle_reads_what_is_written(learned, tmp_path: Path) -> None:
    scoring = scoring_of(learned[0])
    folder = shutil.copytree(READER, tmp_path / "bundle")
    content = json.dumps(to_json(scoring, -1.25, 0.5)).encode()
    (folder / "alignment.json").write_bytes(content)
    card = json.loads((folder / "card.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    card["files"]["alignment.json"] = {"sha256": digest, "size": len(content)}
    (folder / "card.json").write_text(json.dumps(card))
    found = read_scoring(open_bundle(folder), "alignment.json")
    np.testing.assert_array_equal(found.classes, scoring.classes)
    np.testing.assert_array_equal(found.pairs, scoring.pairs)
    assert (found.gap, found.steps_per_nat, found.chance) == (
        scoring.gap,
        STEPS_PER_NAT,
        (-1.25, 0.5),
    )


def log_phones(rng: np.random.Generator, phones: NDArray[np.uint8], sure: float) -> torch.Tensor:
    """(L, 40) what a reader gives that is so sure of these phones, and else holds each for one of
    the two that follow it."""
    rows, n = np.arange(len(phones)), N - 1
    likely = np.full((len(phones), N), 0.01 / N)
    likely[rows, phones] += sure
    likely[rows, (phones - 1 + rng.integers(1, 3, len(phones))) % n + 1] += 0.99 - sure
    return torch.from_numpy(np.log(likely)).float()


def test_each_mix_of_a_window_is_a_reading_of_what_is_sung() -> None:
    rng = np.random.default_rng(3)
    mixes = [[[1, 2], [1]], [[3], []]]
    phones, felt = torch.zeros(2, 2, 5, dtype=torch.int8), torch.zeros(2, 2, 5, N)
    for window, rows in enumerate(mixes):
        for mix, row in enumerate(rows):
            phones[window, mix, : len(row)] = torch.tensor(row)
            felt[window, mix, : len(row)] = log_phones(rng, np.array(row, np.uint8), 0.9)
    clean = torch.tensor([[1, 2, 4], [3, 3, 0]])
    heard = Heard(phones, felt.half(), clean, ["a b d", "c c"])
    shades = shades_of(heard)
    read, sung = readings(heard, shades)
    assert [row["phone"].tolist() for row in read] == [[1, 2], [1], [3], []]
    assert {int(row["other"].max(initial=1)) for row in read} == {1}  # too few for more shades
    assert [row.tolist() for row in sung] == [[1, 2, 4], [1, 2, 4], [3, 3], [3, 3]]
    assert {row.dtype for row in sung} == {np.dtype(np.uint8)}
    part = heard.part(slice(1, 2))
    assert part.phones.tolist() == [[[3, 0, 0, 0, 0], [0] * 5]] and part.texts == ["c c"]


@pytest.fixture(scope="module")
def shades() -> Shades:
    """Of a reader that is sure of half its phones, and in doubt of the others."""
    rng = np.random.default_rng(8)
    read = rng.integers(1, N, 8000).astype(np.uint8)
    felt = [
        log_phones(rng, part, sure) for part, sure in ((read[:4000], 0.97), (read[4000:], 0.55))
    ]
    found = Shades()
    found.learn(torch.cat(felt))
    return found


def test_shades_tell_doubt(shades: Shades) -> None:
    rng = np.random.default_rng(9)
    phones = rng.integers(1, N, 500).astype(np.uint8)
    kept = []
    for sure in (0.97, 0.55):
        felt = log_phones(rng, phones, sure)
        read = shades(felt)
        right = read % DOUBT == torch.from_numpy(phones)
        assert right.all() and ((read // DOUBT >= 1) | (read == 0)).all()
        assert int(read.max()) // DOUBT <= SHADES
        told = shades.likely[read % DOUBT, read // DOUBT]
        exact = shades.soft(felt)
        # A shade stands for what it was made of: far nearer than the mean of its phone.
        apart = (told.sqrt() - exact.sqrt()).square().sum(dim=1)[right].mean()
        mean = shades.likely[read % DOUBT, 0]
        assert apart < 0.7 * (mean.sqrt() - exact.sqrt()).square().sum(dim=1)[right].mean()
        kept.append(told[right].amax(dim=1).mean())
    assert kept[0] > kept[1] + 0.15
    quiet = torch.full((1, N), -20.0)
    quiet[0, 0] = 0.0
    assert shades(quiet).tolist() == [0]


def test_shades_survive_their_file_and_a_bundles(shades: Shades, tmp_path: Path) -> None:
    save_shades(tmp_path / "shades.pt", shades)
    again = load_shades(tmp_path / "shades.pt")
    felt = log_phones(np.random.default_rng(10), phones(*range(1, N)), 0.5)
    assert torch.equal(again(felt), shades(felt)) and torch.equal(again.likely, shades.likely)
    held = from_steps(shades.steps())
    assert held.shape == (N, SHADES + 1, N - 1)
    np.testing.assert_allclose(held, shades.likely.numpy(), atol=0.03)
    by = profiles_of(shades)
    np.testing.assert_allclose(by.likely[:N], held)
    assert by.gap > 0


def test_chance_is_learned_for_profiles_too(learned, shades: Shades) -> None:
    counts, read = learned
    rng = np.random.default_rng(11)
    for row in read:
        row["other"] = rng.integers(1, 5, len(row))
    by = profiles_of(shades)
    offset, slope = chance(Aligner(scoring_of(counts), by), read[:50], read[50:100])
    assert 0 < slope < 6
    some, others = read[100:120], read[120:140]
    scores = [replace(by, chance=(offset, slope)).scores(one, others) for one in some]
    assert abs(np.mean(scores)) < 2.5


def test_classes_keep_most_of_what_was_read(learned, shades: Shades) -> None:
    _, read = learned
    rng = np.random.default_rng(14)
    for row in read:
        row["other"] = rng.integers(1, 5, len(row))
    by = profiles_of(shades)
    found = classes_of(read, by)
    assert found.of.shape == by.likely.shape[:2] and found.of.max() < len(found.typical) <= CLASSES
    np.testing.assert_allclose(found.typical.sum(axis=1), 1, atol=1e-5)
    again = classes_of(read, by)
    np.testing.assert_array_equal(found.of, again.of)

    def told(likely: np.ndarray) -> float:
        codes = np.concatenate([by.codes(one) for one in read])
        sung, odds = (table.reshape(-1, N - 1)[codes] for table in (by.likely, likely / by.shares))
        return float((sung * np.log(odds)).sum(axis=1).mean())

    whole, kept = told(by.likely), told(found.typical[found.of])
    assert 0.8 * whole < kept <= whole
    held = in_bundle(found)
    assert np.array(held["classes"]).shape == (N, SHADES + 1)
    typical = from_steps(np.array(held["typical"], np.uint8))
    np.testing.assert_allclose(typical, found.typical, atol=0.03)


def test_what_is_laid_apart_shares_no_line() -> None:
    texts = [
        "the river runs beneath the bridge and carries all",
        "we counted every summer star",
        "beneath the bridge and under it the lantern burns for sailors",
        "the lantern burns for sailors coming home",
        "until the morning took them",
        "every summer star until the morning took them all",
    ]
    sides = apart(texts)
    assert sides[[0, 2, 3]].tolist() in ([True] * 3, [False] * 3)
    assert sides[[1, 5, 4]].tolist() == [not sides[0]] * 3
    with pytest.raises(ValueError, match="more stems"):
        apart(texts[2:4])


def test_too_few_stems_are_said_in_one_line(tmp_path: Path) -> None:
    phones, felt = torch.ones(2, 2, 3, dtype=torch.int8), torch.zeros(2, 2, 3, N)
    same = ["the same four words", "and the same four words again"]
    heard = Heard(phones, felt.half(), torch.ones(2, 3, dtype=torch.int8), same)
    torch.save(dict(vars(heard)), tmp_path / "heard.pt")
    command = [sys.executable, "-m", "export.align", tmp_path / "out.json"]
    command += ["--heard", tmp_path / "heard.pt", "--poems", tmp_path / "poems"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "more stems" in done.stderr
    assert done.stderr.count("\n") == 1


def test_letters_are_learned_from_lines(learned) -> None:
    rng = np.random.default_rng(7)
    said_as = rng.permutation(np.arange(1, N))[: len(TOKENS)]
    spelt, said = [], []
    for _ in range(300):
        line = rng.integers(0, len(TOKENS), 25)
        spelt.append(line[rng.random(25) > 0.1].tolist())
        said.append(said_as[line].tolist())
    counts = letter_counts(spelt, said)
    assert counts.argmax(axis=1).tolist() == said_as.tolist()
    scoring = scoring_of(learned[0])
    spelling = spelling_of(learned[0], counts, scoring)
    assert spelling.tokens == TOKENS and spelling.scoring.gap > 0
    word = spelling.spell("thing")
    assert [TOKENS[n - 128] for n in word["phone"]] == ["th", "i", "ng"]
    right = [said_as[n - 128] for n in word["phone"]]
    aligner = Aligner(spelling.scoring)
    worth = aligner.scores([word], [transcript(phones(*right)), transcript(phones(*right[::-1]))])
    assert worth[0, 0] > worth[0, 1] + 2
    likely = from_steps(written_for(counts))
    assert likely.shape == (CLASSES, N - 1)
    assert (likely.argmax(axis=1) + 1).tolist() == said_as.tolist()
