"""Targets and features, written once: what a student's head is trained from.

    python -m export.shards SHARDS --texts texts.jsonl --works LIST.csv --text PATH-OR-NAME \
        (--whisper PATH-OR-NAME | --reader READER.pt) [--samples]
    python -m export.shards SHARDS --stems STEMS --backings BACKINGS --windows 1000 \
        --text SPACE.pt --reader READER.pt
    python -m export.shards SHARDS --check

A row is a segment: what a frozen encoder makes of it, the vector of what is sung in it, its
recording and its work. ``--texts`` takes them from what ``export.teacher`` wrote, in whole segments
only, as the paper does; ``--stems`` mixes sung training clips, whose words are known. Both make the
same rows in the same order whenever they run, so a run that was stopped goes on at its last shard.

A folder of shards is plain arrays and JSON:

    manifest.json         what made it, and of every shard its rows, sizes and sha256
    000000.features.npy   (n, T, C) float16 frames; with --samples (n, 480000) int16, an encoder's
                          input: a quarter of the size at the paper's, but it runs in every epoch
    000000.targets.npy    (n, dim) float32 unit vectors of texts
    000000.rows.json      recording, work, start_s and text of each row
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from export.mixes import Backings, Mixer, MixOptions, Stems
from export.pooled import ReaderEars
from export.teacher import Told, read_told
from export.text_encoders import TextSpace, open_space
from export.train import load_reader
from export.whisper import WINDOW, Ears, load_encoder
from livi_index.audio import SAMPLE_RATE, load_audio
from livi_index.errors import BadInput, LiviError

ROWS = 256  # of a shard: 1 GB of the paper's frames
BATCH = 4  # windows that are encoded at once
WHOLE_S = 30.0  # segments that are shorter teach silence
_CLIPS = 3  # ten seconds each: a window
_MIXES = 2  # of each window of stems
_SUNG = MixOptions(instrumental=0.0, bare=0.05)

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One segment: whose it is, and what is sung in it."""

    recording: str
    work: str
    start_s: float
    text: str


@dataclass(frozen=True)
class Shard:
    """One shard of a manifest; ``files`` are sizes and digests by name."""

    stem: str
    rows: int
    files: dict[str, tuple[int, str]]


class Source:
    """Rows in an order that never changes, and the samples (480000,) of any of them."""

    rows: Sequence[Row]

    def samples(self, number: int) -> FloatArray:
        raise NotImplementedError


class Texts(Source):
    """Whole segments of recordings, with the texts that a teacher told."""

    def __init__(self, told: Mapping[str, Sequence[Told]], works: Mapping[str, str]) -> None:
        self.rows = [
            Row(file, works.get(file, file), part.start_s, part.text)
            for file, parts in told.items()
            for part in parts
            if part.text and not part.whole and part.end_s - part.start_s > WHOLE_S - 0.01
        ]
        self._loaded: tuple[str, FloatArray] = "", np.zeros(0, np.float32)

    def samples(self, number: int) -> FloatArray:
        row = self.rows[number]
        if self._loaded[0] != row.recording:  # rows of a recording follow each other
            self._loaded = row.recording, load_audio(row.recording)
        first = round(row.start_s * SAMPLE_RATE)
        window = np.zeros(WINDOW, np.float32)
        sound = self._loaded[1][first : first + WINDOW]
        window[: len(sound)] = sound
        return window


class Windows(Source):
    """Windows of sung training clips, each mixed twice; a shard of clips counts as a work, since
    one voice sings one poem in neighbouring clips."""

    def __init__(self, stems: Stems, backings: Backings, n: int, seed: int = 1) -> None:
        self._mixer, self._seed = Mixer(stems, backings, _SUNG), seed
        self.rows = []
        for number in range(n):
            rng = np.random.default_rng([seed, number])
            shard, clips = stems.place(rng, _CLIPS)
            text = " ".join(clip.text for clip in clips)
            self.rows += [Row(f"window-{number}-{mix}", shard, 0.0, text) for mix in range(_MIXES)]

    def samples(self, number: int) -> FloatArray:
        window, mix = divmod(number, _MIXES)
        rng = np.random.default_rng([self._seed, window])
        _, clips = self._mixer.stems.place(rng, _CLIPS)
        rng = np.random.default_rng([self._seed, window, mix])
        return np.concatenate([self._mixer.mix(clip, rng).samples for clip in clips])


def write_shards(
    folder: Path,
    source: Source,
    space: TextSpace,
    ears: nn.Module | None,
    made_by: Mapping[str, str],
    *,
    rows: int = ROWS,
    device: str = "cpu",
) -> Iterator[Shard]:
    """Write what of ``source`` is not in the folder yet; ``ears`` None keeps samples.

    Raises BadInput where the folder was made by something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {**made_by, "text": space.name, "features": "frames" if ears else "samples"}
    shards = [*_manifest(folder, made)]
    done = sum(shard.rows for shard in shards)
    for first in range(done, len(source.rows), rows):
        part = source.rows[first : first + rows]
        windows = (source.samples(first + i) for i in range(len(part)))
        features = np.concatenate([*_features(windows, ears, device)])
        targets = space.encode([row.text for row in part])
        shards.append(_write_shard(folder, len(shards), part, features, targets))
        _write_manifest(folder, made, shards)
        yield shards[-1]


def _features(
    windows: Iterator[FloatArray], ears: nn.Module | None, device: str
) -> Iterator[Array]:
    while batch := [w for _, w in zip(range(BATCH), windows, strict=False)]:
        stacked = np.stack(batch)
        if ears is None:
            yield (stacked.clip(-1, 1) * 32767).astype(np.int16)
        else:
            kind = torch.float16 if device.startswith("cuda") else torch.bfloat16
            with torch.no_grad(), torch.autocast(device.partition(":")[0], kind):
                yield ears(torch.from_numpy(stacked).to(device)).half().cpu().numpy()


def _write_shard(
    folder: Path, number: int, rows: Sequence[Row], features: Array, targets: FloatArray
) -> Shard:
    stem = f"{number:06d}"
    np.save(folder / f"{stem}.features.npy", features)
    np.save(folder / f"{stem}.targets.npy", targets)
    told = json.dumps([dataclasses.asdict(row) for row in rows], ensure_ascii=False)
    (folder / f"{stem}.rows.json").write_text(told, encoding="utf-8")
    names = [f"{stem}.{kind}" for kind in ("features.npy", "targets.npy", "rows.json")]
    return Shard(stem, len(rows), {name: _facts(folder / name) for name in names})


def _facts(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, made: Mapping[str, str], shards: Sequence[Shard]) -> None:
    told = {"made_by": made, "shards": [dataclasses.asdict(shard) for shard in shards]}
    part = folder / "manifest.part"
    part.write_text(json.dumps(told, indent=1))
    part.replace(folder / "manifest.json")


def _read_manifest(folder: Path) -> tuple[dict[str, str], list[Shard]]:
    path = folder / "manifest.json"
    try:
        told = json.loads(path.read_bytes())
        shards = [
            Shard(s["stem"], s["rows"], {k: (v[0], v[1]) for k, v in s["files"].items()})
            for s in told["shards"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is no manifest of shards ({error}): export.shards makes them"
        ) from error
    return told["made_by"], shards


def _manifest(folder: Path, made: Mapping[str, str]) -> list[Shard]:
    if not (folder / "manifest.json").exists():
        return []
    before, shards = _read_manifest(folder)
    if before != made:
        raise BadInput(f"{folder} holds shards made by {before}; give {made} a folder of its own")
    return shards


class Shards(Dataset[tuple[Tensor, Tensor]]):
    """A folder of shards, mapped: N rows, ``works`` and ``recordings`` (N,) of them.

    Raises BadInput where it is none, or a file is not as long as its manifest says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made_by, shards = _read_manifest(folder)
        self._shards = shards
        for shard in shards:
            for name, (size, _) in shard.files.items():
                path = folder / name
                if not path.is_file() or path.stat().st_size != size:
                    raise BadInput(
                        f"{path} is not what was written: delete {folder} and write anew"
                    )
        self._features = [self._mapped(shard, "features") for shard in shards]
        self._targets = [self._mapped(shard, "targets") for shard in shards]
        self.rows = [row for shard in shards for row in self._rows(shard)]
        self._firsts = np.cumsum([0, *(shard.rows for shard in shards)])
        self.works = np.array([row.work for row in self.rows])
        self.recordings = np.array([row.recording for row in self.rows])

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        return Shards, (self.folder,)  # what is mapped is not sent to other processes

    def _mapped(self, shard: Shard, kind: str) -> Array:
        array: Array = np.load(self.folder / f"{shard.stem}.{kind}.npy", mmap_mode="r")
        return array

    def _rows(self, shard: Shard) -> list[Row]:
        told = json.loads((self.folder / f"{shard.stem}.rows.json").read_bytes())
        return [Row(**row) for row in told]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        features, targets = self.__getitems__([number])
        return features[0], targets[0]

    def __getitems__(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features (B, …) as they are stored, and targets (B, dim) float32."""
        shard = np.searchsorted(self._firsts, numbers, side="right") - 1
        places = [*zip(shard, numbers - self._firsts[shard], strict=True)]
        features = np.stack([self._features[s][i] for s, i in places])
        targets = np.stack([self._targets[s][i] for s, i in places])
        return torch.from_numpy(features), torch.from_numpy(targets)

    def check(self) -> None:
        """Read everything. Raises BadInput for a file that is not what was written."""
        for shard in self._shards:
            for name, facts in shard.files.items():
                if _facts(self.folder / name) != facts:
                    raise BadInput(f"{self.folder / name} is not what was written")


def read_works(path: Path | None) -> dict[str, str]:
    """A list with columns ``path`` and ``work``, relative to its folder → work by file."""
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not ({"work", "work_id"} & set(rows[0])) or "path" not in rows[0]:
        raise BadInput(f"{path} is no list of works: it needs columns path and work")
    return {str(path.parent / row["path"]): row.get("work") or row["work_id"] for row in rows}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path)
    parser.add_argument("--texts", type=Path, help="what export.teacher wrote")
    parser.add_argument("--works", type=Path, help="list of path and work")
    for name in ("stems", "backings", "reader"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--windows", type=int, default=1000, help="of stems")
    parser.add_argument("--text", help="text encoder: a folder, a name, or space.pt")
    parser.add_argument("--whisper", help="encoder: a folder, or a name on the hub")
    parser.add_argument("--samples", action="store_true", help="keep samples, not frames")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--check", action="store_true", help="compare all files with their digests")
    return parser


def _ears(options: argparse.Namespace) -> tuple[nn.Module | None, str]:
    if options.samples:
        return None, ""
    if options.whisper:
        return Ears(load_encoder(options.whisper)), Path(options.whisper).name
    if options.reader:
        digest = hashlib.sha256(options.reader.read_bytes()).hexdigest()
        return ReaderEars(load_reader(options.reader)), digest[:12]
    raise BadInput("give --whisper or --reader, what hears, or --samples")


def _source(options: argparse.Namespace) -> tuple[Source, str]:
    if options.texts:
        return Texts(read_told(options.texts), read_works(options.works)), options.texts.name
    if options.stems and options.backings:
        stems, backings = Stems(options.stems), Backings(options.backings)
        return Windows(stems, backings, options.windows), options.stems.name
    raise BadInput("give --texts, or --stems and --backings")


def _run(options: argparse.Namespace) -> None:
    if options.check:
        Shards(options.shards).check()
        print(f"{options.shards}: as it was written")
        return
    if not options.text:
        raise BadInput("give --text, what makes vectors of texts")
    source, origin = _source(options)
    ears, name = _ears(options)
    space = open_space(options.text, device=options.device)
    made_by = {"source": origin, "ears": name}
    ears = ears.to(options.device) if ears else None
    for shard in write_shards(options.shards, source, space, ears, made_by, device=options.device):
        print(f"shard {shard.stem}: {shard.rows} rows", flush=True)


def main() -> None:
    parser = _parser()
    try:
        _run(parser.parse_args())
    except LiviError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
