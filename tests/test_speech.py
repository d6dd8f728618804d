"""Plain speech is told from singing: what a build, a query and an export say of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import audio_files
import duckdb
import numpy as np
import pytest

from catalogs.readings import readings
from livi_index.answers import SPOKEN
from livi_index.audio import SAMPLE_RATE, decode
from livi_index.generations import current
from livi_index.models import open_bundle
from livi_index.publishing import PublishedModel, Space, publish
from livi_index.records import Analysis, Batch, FileRow, Recording
from livi_index.status import read_status
from livi_index.store import Store
from livi_index.tables import export_tables
from livi_index.vectors import saved_file

TINY = open_bundle(Path(__file__).parent / "data" / "tiny-bundle")
DEMO = Path(__file__).parent.parent / "catalogs" / "demo"


def livi(*words: str | Path, library: Path, ok: bool | None = True) -> str:
    """What a command prints; ``ok`` None: it may find nothing, or something to repair."""
    command = [sys.executable, "-m", "livi_index", *map(str, words), "--library", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and (not ok or done.returncode == 0), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def read_aloud() -> list[Path]:
    """Some recordings of readers whom nobody trained on."""
    data = os.environ.get("LIVI_DATA")
    if not data or not (Path(data) / "readings").is_dir():
        assert os.environ.get("CI") != "true", "LIVI_DATA with readings/ is needed"
        pytest.skip("needs LIVI_DATA with readings/")
    return readings(Path(data), "test")[::6]


def test_readings_are_told_from_songs(read_aloud: list[Path], tmp_path: Path) -> None:
    songs = sorted(DEMO.glob("*-1.*"))[:4]
    library = tmp_path / "library"
    report = json.loads(livi("build", *read_aloud, *songs, "--json", library=library))
    assert report["indexed"] == len(read_aloud) + len(songs)
    assert report["spoken"] == len(read_aloud)
    status = livi("status", library=library)
    assert f"spoken      {len(read_aloud)} of these" in status
    assert read_status(library).spoken == len(read_aloud)
    export_tables(tmp_path / "tables", library, format="csv", vectors=False)
    with (tmp_path / "tables" / "recordings.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["space"] == "lyrics"]
    told = {Path(row["path"]).name for row in rows if float(row["speech"]) >= SPOKEN}
    assert told == {path.name for path in read_aloud}
    # A file that the library knows, and one that it must hear.
    cut = tmp_path / "cut.wav"
    audio_files.write(cut, decode(read_aloud[0]).samples[: 40 * SAMPLE_RATE, None], SAMPLE_RATE)
    for path in (read_aloud[0], cut):
        assert ", plain speech)" in livi("query", path, library=library, ok=None)
        answer = json.loads(livi("query", path, "--json", library=library, ok=None))
        assert answer["query"]["speech"] >= SPOKEN
    assert "plain speech" not in livi("query", songs[0], library=library, ok=None)


def sung(number: int, speech: float | None) -> Analysis:
    vectors = np.eye(TINY.card.space("lyrics").dim, dtype=np.float32)[[number]]
    one = np.ones(1, np.float32)
    return Analysis(
        number, TINY.card.model_id, "lyrics", 0.9, True, False, "made",
        vectors[0], 0 * one, 30 * one, one, one, vectors, speech=speech,
    )  # fmt: skip


def made(folder: Path, shares: list[float | None]) -> None:
    """A library of recordings with this much plain speech in them."""
    numbers = range(1, len(shares) + 1)
    batch = Batch(
        files=[FileRow(folder / f"{n}.mp3", folder, 1, 1, n, 1, n) for n in numbers],
        recordings=[Recording(n, n.to_bytes(32, "big"), 30.0) for n in numbers],
        analyses=[sung(n, share) for n, share in zip(numbers, shares, strict=True)],
    )
    with Store(folder) as store:
        store.commit(batch)
        lyrics = Space("lyrics", TINY.card.space("lyrics").dim)
        publish(store, folder, PublishedModel(TINY.card.model_id, "tiny", "1", (lyrics,)))


def shares_of(folder: Path) -> list[float | None]:
    with current(folder) as generation:
        query = f"SELECT {generation.speech_column} FROM analyses ORDER BY recording_id"
        return [row[0] for row in generation.ask(query)]


def test_speech_survives_repair(tmp_path: Path) -> None:
    made(tmp_path, [0.75, 0.25, None])
    (tmp_path / "library.duckdb").write_bytes(b"")
    livi("check", "--repair", library=tmp_path, ok=None)
    with Store(tmp_path) as store:
        rows = store.ask("SELECT speech FROM analyses ORDER BY recording_id")
    assert [row[0] for row in rows] == shares_of(tmp_path) == [0.75, 0.25, None]
    assert read_status(tmp_path).spoken == 1


def test_a_generation_from_before_speech_was_told_still_serves(tmp_path: Path) -> None:
    made(tmp_path, [0.75, 0.25])
    folder = next((tmp_path / "published").iterdir())
    with duckdb.connect(str(folder / "catalog.duckdb")) as connection:
        connection.execute("ALTER TABLE analyses DROP COLUMN speech")
    manifest = json.loads((folder / "manifest.json").read_text())
    others = [file for file in manifest["files"] if file["name"] != "catalog.duckdb"]
    manifest["files"] = [*others, asdict(saved_file(folder / "catalog.duckdb"))]
    del manifest["counts"]["spoken"]
    before = saved_file(folder / "manifest.json").sha256
    (folder / "manifest.json").write_text(json.dumps(manifest))
    told = (tmp_path / "CURRENT").read_text()
    after = saved_file(folder / "manifest.json").sha256
    (tmp_path / "CURRENT").write_text(told.replace(before, after))
    assert shares_of(tmp_path) == [None, None] and read_status(tmp_path).spoken == 0
    tables = export_tables(tmp_path / "tables", tmp_path, format="parquet")
    assert tables.files[0].rows == 2
    (tmp_path / "library.duckdb").write_bytes(b"")
    livi("check", "--repair", library=tmp_path, ok=None)
    with Store(tmp_path) as store:
        assert store.ask("SELECT count(*), count(speech) FROM analyses") == [(2, 0)]
