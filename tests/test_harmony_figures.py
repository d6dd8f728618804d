"""What harmony's benchmark counts, on small real libraries: who may answer, who is a version."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import songs

from benchmarks import harmony
from catalogs import Entry
from catalogs.copies import KINDS
from catalogs.sung import write_entries
from livi_index.models import open_bundle

BUNDLE = songs.READER.with_name("tiny-harmony")


def options(tmp_path: Path, **more: Any) -> argparse.Namespace:
    return argparse.Namespace(model=str(BUNDLE), data=tmp_path, kept=None, **more)


def rendered(folder: Path, rows: list[tuple[str, str, float]], level: float | None) -> Path:
    """A folder as it is rendered: ids with the work before the dash, kinds and speeds."""
    entries = []
    for name, kind, tone_s in rows:
        work = name.partition("-")[0]
        melody = np.roll(songs.melody(int(work[1:]), 120), int(100 * tone_s))
        path = songs.sung(folder / f"{name}.wav", melody, tone_s)
        entries.append(Entry(name, work, path, "", "", "test", kind))  # type: ignore[arg-type]
    write_entries(folder / "entries.csv", entries)
    facts = {"backing": "band", "voice_to_backing_db": level}
    lines = [json.dumps({"recording_id": name} | facts) for name, _, _ in rows]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_versions_of_a_folder(tmp_path: Path) -> None:
    speeds = (("a", 0.4), ("b", 0.43))
    rows = [(f"w{n}-{name}", "sung", s) for n in range(3) for name, s in speeds]
    main = rendered(tmp_path / "main", [*rows, ("w0-i", "instrumental", 0.37)], 3.0)
    # Nearest to the one that is left out, and after it to its own work's sung versions.
    played = rendered(tmp_path / "played", [("w0-n", "instrumental", 0.37)], None)
    softer = rendered(tmp_path / "softer", [("w1-a", "sung", 0.41)], -10.0)
    asked = options(tmp_path, folder=main, instrumentals=played, softer=[softer])
    figures = harmony.versions(asked)
    assert figures["works"] == 3
    found = figures["asked"]
    assert list(found) == ["sung", "instrumental", "voice at -10 dB"]
    assert (found["sung"]["queries"], found["sung"]["recordings"]) == (6, 7)
    for name in found:
        assert [found[name][space]["hr1"] for space in harmony.SPACES] == [1, 1, 1], name
    assert found["sung"]["lyrics"]["by_kind"]["band"]["queries"] == 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two songs with a refrain, three anthems that measure, two of them of one melody."""
    for n in range(2):
        refrain = songs.melody(n, 30)
        whole = np.concatenate([refrain, np.roll(refrain, 7)])
        songs.sung(tmp_path / "sung" / f"song-{n}.wav", whole)
    for name, seed in (("afg", 0), ("tza", 1), ("vut", 2), ("zmb", 1)):
        path = tmp_path / "instrumental" / f"anthem-{name}.wav"
        songs.song(path, seed, 12.0 if name == "tza" else 14.0)
    return tmp_path


def test_copies_of_what_measures(data: Path) -> None:
    found = harmony.copies(options(data))["asked"]
    assert (found["songs"]["queries"], found["anthems"]["queries"]) == (12, 18)
    assert found["songs"]["recordings"] == 6
    assert found["songs"]["lyrics"]["by_kind"]["codec"]["hr1"] == 1
    assert found["anthems"]["lyrics"]["first"] == 0
    for name, works in (("songs", 2), ("anthems", 3)):
        by_kind = found[name]["harmony"]["by_kind"]
        assert set(by_kind) == set(KINDS) and by_kind["codec"]["queries"] == works
        # Those of one melody may stand for each other.
        assert by_kind["codec"]["hr1"] >= 2 / 3
        assert found[name]["both"]["works_first"] <= works == found[name]["works"]


def test_halves_ask_for_halves_and_one_melody_is_no_wrong_pair(data: Path) -> None:
    found = harmony.halved(options(data))["asked"]
    assert (found["queries"], found["recordings"]) == (2, 4)
    assert found["lyrics"]["hr1"] == found["harmony"]["hr1"] == 1
    figures = harmony.alarms(options(data))
    assert (figures["recordings"], figures["with_vectors"]) == (5, 5)
    for pairs in figures["likeliest"].values():
        assert pairs == sorted(pairs, key=lambda pair: -pair["probability"])
        assert all({pair["query"], pair["hit"]} != {"anthem-tza", "anthem-zmb"} for pair in pairs)
    assert figures["highest_probability"]["harmony"] < 0.9


def test_a_library_of_other_networks_is_not_measured(tmp_path: Path) -> None:
    main = rendered(tmp_path / "main", [("w0-a", "sung", 0.4), ("w0-b", "sung", 0.43)], 3.0)
    asked = options(tmp_path, folder=main, instrumentals=None, softer=[])
    asked.kept = tmp_path / "kept"
    before = harmony.versions(asked)["asked"]["sung"]
    assert before == harmony.versions(asked)["asked"]["sung"]
    shutil.copytree(BUNDLE, tmp_path / "other")
    card = json.loads((tmp_path / "other" / "card.json").read_bytes())
    first = (tmp_path / "other" / "harmony.onnx").read_bytes() + b"\x0a\x00"
    (tmp_path / "other" / "harmony.onnx").write_bytes(first)
    digest = hashlib.sha256(first).hexdigest()
    card["files"]["harmony.onnx"] = {"sha256": digest, "size": len(first)}
    (tmp_path / "other" / "card.json").write_text(json.dumps(card))
    asked.model = str(tmp_path / "other")
    with pytest.raises(SystemExit, match="other networks"):
        harmony.versions(asked)


def test_a_bundle_without_harmony_is_the_same_but_for_it(tmp_path: Path) -> None:
    plain = open_bundle(harmony.without_harmony(open_bundle(BUNDLE), tmp_path / "plain"))
    assert plain.card.space_names == ("lyrics",) and plain.card.fusion is None
