"""How fast a library is built, and how much memory it takes: ``python -m benchmarks.speed``

Runs ``python -m livi_index build`` as a user does, on ``sung/`` alone and on ``sung/`` with
``instrumental/``, each into a new library, then once more over the same folders. Speed is seconds
of audio per second of wall time of the whole process, start and publishing included; stages are
the seconds that the build's threads were at work in each, and overlap. Files are read once before
that, so that no figure depends on what the system happened to hold in memory. And the seconds that
the model takes for a window that lies nowhere over another one, on one processor.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import Measured, run_measured
from benchmarks.results import (
    ROOT,
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from catalogs.copies import recordings
from livi_index.audio import load_audio
from livi_index.encoders import AudioEncoder
from livi_index.models import Bundle

N_SONGS = 5  # that the time of a window is of


def measure(roots: Sequence[Path], model: Path, library: Path) -> dict[str, Any]:
    """The first and the second build of a library."""
    for root in roots:
        for path in root.iterdir():
            path.read_bytes()
    command = [sys.executable, "-m", "livi_index", "build", *map(str, roots), "--json"]
    command += ["--library", str(library), "--model", str(model)]
    first, second = (_build(command) for _ in range(2))
    report, again = json.loads(first.stdout), json.loads(second.stdout)
    return {
        "folders": [root.name for root in roots],
        "files": report["seen"],
        "indexed": report["indexed"],
        "instrumental": report["instrumental"],
        "failed": report["failed"],
        "audio_s": report["audio_seconds"],
        "wall_s": first.seconds,
        "audio_s_per_s": report["audio_seconds"] / first.seconds,
        "stages_s": report["stages"],
        "peak_pss_bytes": max(first.peak_pss_bytes, second.peak_pss_bytes),
        "memory_samples": first.n_samples,
        "second_run_s": second.seconds,
        "second_run_decodes": again["indexed"] + again["instrumental"] + again["failed"],
        "second_run_decode_stage_s": again["stages"].get("decode", 0.0),
    }


def _build(command: Sequence[str]) -> Measured:
    ended = run_measured(command, cwd=ROOT)
    # 3: done, but a file could not be read, which the report counts.
    if ended.returncode not in (0, 3):
        raise SystemExit(f"the build failed with {ended.returncode}:\n{ended.stderr}")
    return ended


def seconds_of_a_window(bundle: Bundle, songs: Sequence[Path]) -> float:
    """The median over windows of some songs, side by side, one after the other on one thread."""
    encoder = AudioEncoder(bundle, threads=1, device="cpu")
    taken = []
    for song in songs:
        samples = load_audio(song)
        n = len(samples) // encoder.window
        windows = samples[: n * encoder.window].reshape(n, -1)
        for window in windows:
            start = time.perf_counter()
            encoder.encode(window[None])
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    options = arguments(__doc__).parse_args()
    data = data_folder(options, "sung", "instrumental")
    bundle = bundle_of(options)
    sets = {"sung": ["sung"], "sung_and_instrumental": ["sung", "instrumental"]}
    figures: dict[str, Any] = {"model": model_facts(bundle)}
    for name, folders in sets.items():
        with tempfile.TemporaryDirectory() as place:
            roots = [data / folder for folder in folders]
            figures[name] = measure(roots, bundle.path, Path(place) / "library")
    figures["window_s"] = seconds_of_a_window(bundle, recordings([data / "sung"])[:N_SONGS])
    write_result("speed", figures, options.out)
    stages = sorted({stage for name in sets for stage in figures[name]["stages_s"]})
    columns = [figures[name] for name in sets]
    print_table(
        [
            ("", *sets),
            ("seconds of audio", *(c["audio_s"] for c in columns)),
            ("seconds of wall time", *(c["wall_s"] for c in columns)),
            ("audio per wall time", *(c["audio_s_per_s"] for c in columns)),
            *((f"  {stage}, s", *(c["stages_s"].get(stage) for c in columns)) for stage in stages),
            ("peak memory, MB of PSS", *(c["peak_pss_bytes"] / 1e6 for c in columns)),
            ("second run, s", *(c["second_run_s"] for c in columns)),
            ("second run, decodes", *(c["second_run_decodes"] for c in columns)),
        ]
    )
    print(f"a window on one processor: {figures['window_s'] * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
