r"""What is sung, segment by segment: words that are given, else what a recogniser hears.

    python -m export.teacher AUDIO... --out texts.jsonl [--whisper PATH-OR-NAME] [--lyrics FOLDER]
    python -m export.teacher --out texts.jsonl --text PATH-OR-NAME --vectors vectors.npz \
        --works LIST.csv

Folders are walked. A recording is cut where somebody sings, by the detector of a bundle, into
segments of 30 s that do not overlap, as the paper has it. Lyrics with times give each segment its
lines; lyrics without times give the recording its words, and its segments are still transcribed.
Without ``--whisper`` nothing is transcribed, and no hub is asked for anything.

A line of the file is one text, with where it is from: ``file``, ``start_s``, ``end_s``, ``text``,
``rejected`` (why there is none, else null), ``kind`` (lrc, txt, tag, transcript or none),
``source``, ``heard`` (a transcript before it was cleaned), ``vocalness``, ``whole`` (words of the
whole recording, of which nobody knows when they are sung) and ``of``, how many lines the recording
has. A run that is started again does what is missing.

The second form makes vectors of whole recordings from the texts, one text (``t_global``) or the
mean of its segments (``t_local``), under the names that the list has in its column ``path``:
``livi-index eval vectors.npz --works LIST.csv`` takes them.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from export.cleaning import clean
from export.hub import find, quiet
from export.lyrics import Lyrics, find_lyrics
from export.text_encoders import TextSpace, open_space, t_global, t_local
from export.transcriber import DecodingOptions, Transcriber
from export.whisper import PINS
from livi_index.audio import SAMPLE_RATE, load_audio
from livi_index.errors import BadInput, LiviError, UnreadableAudio
from livi_index.models import DEFAULT_MODEL, find_model
from livi_index.vocals import Segment, SegmentOptions, VocalDetector, cut, segments, vocalness

AUDIO = set(".aac .aif .aiff .flac .m4a .mp3 .ogg .opus .wav .wma".split())
Kind = Literal["lrc", "txt", "tag", "transcript", "none"]


@dataclass(frozen=True)
class Told:
    """The text of one stretch of a recording, and where it is from; see the module's text."""

    file: str
    start_s: float
    end_s: float
    text: str
    rejected: str | None
    kind: Kind
    source: str
    heard: str | None
    vocalness: float
    whole: bool = False
    of: int = 0


@dataclass(frozen=True)
class Teacher:
    """How recordings are cut and read; ``transcriber`` None: given words only."""

    detector: VocalDetector
    options: SegmentOptions
    transcriber: Transcriber | None = None
    lyrics: tuple[Path, ...] = ()

    def tell(self, path: Path) -> list[Told]:
        """All texts of one recording, rejected ones too; never none."""
        try:
            samples = load_audio(path)
        except UnreadableAudio as error:
            return _numbered([_nothing(path, 0.0, 0.0, 0.0, f"unreadable: {error.reason}")])
        duration_s = len(samples) / SAMPLE_RATE
        heard = self.detector.probabilities(samples)
        sung = vocalness(heard)
        pieces = segments(heard, duration_s, self.options)
        given = find_lyrics(path, self.lyrics)
        place = str(path), 0.0, duration_s
        whole = (
            [Told(*place, given.text, None, given.kind, given.source, None, sung, whole=True)]
            if given is not None and not given.lines
            else []
        )
        if not pieces:
            least = self.options.min_vocalness
            why = f"instrumental: vocalness {sung:.2f} below {least:g}"
            return _numbered(whole or [_nothing(path, 0.0, duration_s, sung, why)])
        if given is not None and given.lines:
            return _numbered([_given(path, piece, given) for piece in pieces])
        return _numbered(whole + self._transcribed(path, samples, pieces))

    def _transcribed(
        self, path: Path, samples: np.ndarray, pieces: Sequence[Segment]
    ) -> list[Told]:
        if self.transcriber is None:
            why = "no words with times are given, and no recogniser (--whisper)"
            return [_nothing(path, p.start_s, p.end_s, p.vocalness, why) for p in pieces]
        texts = self.transcriber.transcribe(cut(samples, pieces, self.options.length_s))
        rows = []
        for piece, heard in zip(pieces, texts, strict=True):
            kept = clean(heard)
            rows.append(
                Told(str(path), piece.start_s, piece.end_s, kept.text, kept.rejected, "transcript",
                     self.transcriber.name, heard, piece.vocalness)
            )  # fmt: skip
        return rows


def _given(path: Path, piece: Segment, lyrics: Lyrics) -> Told:
    text = lyrics.between(piece.start_s, piece.end_s)
    why = None if text else "no line is sung here"
    place = str(path), piece.start_s, piece.end_s
    return Told(*place, text, why, lyrics.kind, lyrics.source, None, piece.vocalness)


def _nothing(path: Path, start_s: float, end_s: float, sung: float, why: str) -> Told:
    return Told(str(path), start_s, end_s, "", why, "none", "", None, sung)


def _numbered(rows: list[Told]) -> list[Told]:
    return [dataclasses.replace(row, of=len(rows)) for row in rows]


def read_told(path: Path) -> dict[str, list[Told]]:
    """The texts of all recordings that are whole in the file, by file and in order of time.

    What an interrupted run left of a recording is passed over. Raises BadInput for another file.
    """
    rows: dict[str, list[Told]] = defaultdict(list)
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[:-1]:  # after the last line end is nothing, or half a line
        try:
            row = Told(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BadInput(f"{path} was not written by export.teacher: {error}") from error
        rows[row.file].append(row)
    return {file: told for file, told in rows.items() if len(told) == told[0].of}


def write_told(out: Path, teacher: Teacher, files: Sequence[Path]) -> Iterator[list[Told]]:
    """Read what is not in ``out`` yet, and add it, recording by recording."""
    done = read_told(out) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text("".join(map(_lines, done.values())), encoding="utf-8")
    part.replace(out)  # without what an interrupted run left unfinished
    with out.open("a", encoding="utf-8") as file:
        for path in files:
            if str(path) not in done:
                told = teacher.tell(path)
                file.write(_lines(told))
                file.flush()
                yield told


def _lines(told: Sequence[Told]) -> str:
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in told)


def texts_of(told: Sequence[Told]) -> tuple[list[str], list[str]]:
    """Of one recording: its texts for ``t_global``, and those for ``t_local``."""
    whole = [row.text for row in told if row.whole]
    parts = [row.text for row in told if row.text and not row.whole]
    return whole or parts, parts or whole


def vectors_of(
    told: dict[str, list[Told]], space: TextSpace, kind: Literal["global", "local"]
) -> tuple[list[str], np.ndarray]:
    """Names and vectors (N, dim) of the recordings that have words."""
    chosen = {file: texts_of(rows) for file, rows in told.items()}
    chosen = {file: texts for file, texts in chosen.items() if texts[0]}
    rows = [
        t_global(space, whole) if kind == "global" else t_local(space, parts)
        for whole, parts in chosen.values()
    ]
    return [*chosen], np.stack(rows) if rows else np.zeros((0, space.dim), np.float32)


def names_in(listed: Path) -> dict[str, str]:
    """A list's own names of its files, by where they lie."""
    with listed.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or "path" not in rows[0]:
        raise BadInput(f"{listed} is no list of recordings: it needs a column path")
    return {str((listed.parent / row["path"]).resolve()): row["path"] for row in rows}


def audio_files(places: Sequence[Path]) -> list[Path]:
    """Files as they are named, and what in folders is called as audio is, in order."""
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            files += sorted(p for p in place.rglob("*") if p.suffix.lower() in AUDIO)
        elif place.is_file():
            files.append(place)
        else:
            raise BadInput(f"there is no file or folder {place}")
    return files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path, nargs="*", help="files and folders")
    parser.add_argument("--out", type=Path, required=True, help="one JSON object a line")
    parser.add_argument("--whisper", help="a folder, or OWNER/NAME on the hub, of any size")
    parser.add_argument("--language", help="that is sung; else the recogniser tells")
    parser.add_argument("--lyrics", type=Path, nargs="*", default=[], help="folders of .lrc, .txt")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundle whose detector cuts")
    parser.add_argument("--paper", action="store_true", help="cut by the paper's rule and limits")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--text", help="with --vectors: text encoder, a folder, name or space.pt")
    parser.add_argument("--vectors", type=Path, help="write vectors of recordings")
    parser.add_argument("--works", type=Path, help="with --vectors: a list whose names they get")
    parser.add_argument("--kind", choices=("global", "local"), default="global", help="of vectors")
    return parser


def _teacher(options: argparse.Namespace) -> Teacher:
    bundle = find_model(options.model)
    rule = SegmentOptions.paper() if options.paper else SegmentOptions.from_bundle(bundle)
    rule = dataclasses.replace(rule, hop_s=rule.length_s)
    transcriber = None
    if options.whisper:
        decoding = DecodingOptions(language=options.language)
        pin = PINS.get(options.whisper)
        revision = f"@{pin.revision}" if pin else ""
        found = find(options.whisper + revision, "--whisper")
        transcriber = Transcriber(found, decoding, device=options.device)
    return Teacher(VocalDetector(bundle, threads=1), rule, transcriber, (*options.lyrics,))


def _run(options: argparse.Namespace) -> None:
    if options.vectors:
        if not options.text:
            raise BadInput("--vectors needs --text, what makes vectors of texts")
        space = open_space(options.text, device=options.device)
        names, vectors = vectors_of(read_told(options.out), space, options.kind)
        if options.works:
            listed = names_in(options.works)
            names = [listed.get(str(Path(name).resolve()), name) for name in names]
        np.savez(options.vectors, ids=np.array(names), vectors=vectors)
        print(f"{options.vectors}: {len(names)} recordings by {space.name}")
        return
    files = audio_files(options.audio)
    for told in write_told(options.out, _teacher(options), files):
        kept = sum(row.rejected is None for row in told)
        print(f"{told[0].file}: {kept} of {len(told)} texts kept", flush=True)


def main() -> None:
    parser = _parser()
    quiet()
    try:
        _run(parser.parse_args())
    except LiviError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
