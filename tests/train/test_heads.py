"""The comparison of heads from end to end, with a small reader that has learned nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import heads, results  # noqa: E402
from benchmarks.heads import Song, Way, figures_of, first_versions  # noqa: E402
from catalogs.originals import demo_rows  # noqa: E402
from export.fit import save_space  # noqa: E402
from export.lexical import LexicalOptions, LexicalSpace, letters_of  # noqa: E402
from export.mixes import SILENCE, Backings, Stems  # noqa: E402
from export.pooled import ReaderEars  # noqa: E402
from export.reader import Reader, ReaderOptions  # noqa: E402
from export.shards import Windows, write_shards  # noqa: E402
from export.text_encoders import LexicalTexts  # noqa: E402
from export.train import TrainOptions, optimiser_of, save_checkpoint  # noqa: E402

pytestmark = pytest.mark.train
ROOT = Path(__file__).parent.parent.parent
BUNDLE = ROOT / "tests" / "data" / "tiny-bundle"
SMALL = ReaderOptions(
    width=32, heads=2, feed_forward=64, rotated=8, blocks=2, fine_blocks=1, moments_after=1
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two works of the demonstration, as a rendered folder."""
    rows = list(demo_rows())[:6]
    lines = ["recording_id,work_id,path,title,artist,split,kind"]
    for row in rows:
        song = next((ROOT / "catalogs" / "demo").glob(f"{row.recording_id}.*"))
        lines.append(f"{row.recording_id},{row.work_id},{song},t,a,test,sung")
    (tmp_path / "entries.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "manifest.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def workshop(tmp_path: Path) -> list[str]:
    """Reader, space and shards as the commands of the workshop leave them."""
    torch.manual_seed(0)
    reader, options = Reader(SMALL), TrainOptions()
    save_checkpoint(tmp_path / "reader.pt", reader, optimiser_of(reader, options), 0, 0.0, options)
    space = LexicalSpace(LexicalOptions(phone_features=64, letter_features=64, dim=16))
    space.text.learn(letters_of(["the river runs beneath the bridge", "a lantern in the window"]))
    space.sound.learn(torch.randint(1, 39, (4, 60)))
    for bag in (space.sound, space.text):
        torch.nn.init.normal_(bag.projection.data[1:])
    save_space(tmp_path / "space.pt", space)
    noise = np.random.default_rng(1).integers(-3000, 3000, (6, 160_000)).astype(np.int16)
    for name in ("stems", "backings"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "stems" / "000000.npy", noise)
    texts = {"texts": [f"clip {'abcdef'[i]} has words of its own" for i in range(6)]}
    (tmp_path / "stems" / "000000.json").write_text(json.dumps(texts))
    with (tmp_path / "stems" / "000000.phones").open("wb") as file:
        np.save(file, np.tile(np.maximum(SILENCE.phones, 3), (6, 1)))
    np.save(tmp_path / "backings" / "hiss.npy", noise[0])
    source = Windows(Stems(tmp_path / "stems"), Backings(tmp_path / "backings"), 3)
    text = LexicalTexts(tmp_path / "space.pt")
    for _ in write_shards(tmp_path / "shards", source, text, ReaderEars(reader.eval()), {}):
        pass
    files = {"reader": "reader.pt", "space": "space.pt", "shards": "shards"}
    return [f"--{name}={tmp_path / file}" for name, file in files.items()]


def test_words_are_those_of_the_fullest_version(folder: Path) -> None:
    entries, words = first_versions(folder, 1)
    assert len(entries) == 3 and list(words) == [entries[0].work_id]
    assert all(section == section.lower() and section for section in words[entries[0].work_id])


def test_rows_count_versions_and_words() -> None:
    axes = np.eye(3, dtype=np.float32)
    songs = [Song(axes[[i]].astype(np.float16), np.zeros((1, 4), np.int8), np.ones(1, np.float32))
             for i in (0, 0, 1, 2)]  # fmt: skip
    way = Way(
        lambda song: song.frames.astype(np.float32),
        lambda texts: np.stack([axes["abc".index(text)] for text in texts]),
    )
    found = figures_of(way, songs, ["x", "x", "y", "y"], {"x": ["a", "a"], "y": ["a"]})
    assert found["hr1"] == 0.5
    assert found["words_hr1"] == 0.5


def test_the_command_writes_its_rows(folder: Path, workshop: list[str]) -> None:
    more = ["--works=1", "--epochs=2", f"--model={BUNDLE}"]
    places = [f"--out={folder / 'results'}", f"--cache={folder / 'cache'}"]
    command = [sys.executable, "-m", "benchmarks.heads", str(folder), *workshop, *more, *places]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    result = results.read_result("heads", folder / "results")
    assert result is not None
    rows = result["figures"]["rows"]
    assert {heads.BEST_PATH, heads.LEXICAL_HEAD} <= set(rows)
    assert result["figures"]["recordings"] == 3
    assert all(0 <= row["map10"] <= 1 for row in rows.values())
    assert heads.LEXICAL_HEAD in printed
