"""What detector and reader say of voices is weighed by recordings of which it is known."""

import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import songs

pytest.importorskip("torch")

from synthesisers import data_folder

from catalogs import Entry
from catalogs.manifest import make_split
from catalogs.sung import score_of, write_entries
from export.witness import weigh

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]


def test_the_weights_are_those_that_the_answers_were_drawn_by():
    rng = np.random.default_rng(0)
    told = np.column_stack([rng.normal(0, 3, 20_000), rng.poisson(4, 20_000)]).astype(float)
    odds = told @ np.array([0.6, 1.2]) - 5.0
    sung = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
    assert weigh(told, sung) == pytest.approx((0.6, 1.2, -5.0), abs=0.25)


def test_a_reader_that_hears_more_than_the_detector_counts_more(tmp_path):
    """Songs of tones that the tiny reader takes for phones; a hum that its detector alone hears."""
    sung, played = tmp_path / "sung", tmp_path / "played"
    rows = [row for row in make_split(data_folder(), "train", seed=3, works=1) if row.voice][:2]
    rows = [replace(row, codec=replace(row.codec, suffix=".wav")) for row in rows]
    entries = []
    for number, row in enumerate(rows):
        score = score_of(row)
        tones = np.zeros(round(score.duration_s / 0.4), int)
        for phrase in score.phrases:
            first, last = (
                int(phrase.onsets[0] * score.slot_s / 0.4),
                int(phrase.end * score.slot_s / 0.4),
            )
            tones[first:last] = songs.melody(number, last - first)
        path = Path(songs.sung(sung / f"{row.recording_id}.wav", tones))
        entries.append(Entry(row.recording_id, row.work_id, path, "", "", "train", "sung"))
    write_entries(sung / "entries.csv", entries)
    (sung / "manifest.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    songs.hum(played / "hum.wav")
    bundle = shutil.copytree(songs.READER, tmp_path / "bundle")
    command = [sys.executable, "-m", "export.witness", bundle, "--sung", sung, "--played", played]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = tomllib.loads(done.stdout)["witness"]
    assert told["phones"] > 0 and "3 recordings" in told["fitted_on"]
    card = json.loads((bundle / "card.json").read_text())
    assert "witness" not in card  # it is printed, for the card's words


def test_what_is_missing_is_said_in_one_line(tmp_path):
    command = [sys.executable, "-m", "export.witness", songs.READER, "--played", tmp_path]
    done = subprocess.run(
        [*command, "--sung", tmp_path / "none"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "none/entries.csv" in done.stderr
    assert done.stderr.count("\n") == 1
