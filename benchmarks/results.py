"""What every benchmark needs: its arguments, its data, its model, and a file for its figures.

A result says which commit was measured, on what machine under what load, by what command and when.
Folders are noted by their last name only. Benchmarks that need the development data skip, with the
reason, where it is absent, and fail where ``CI=true``: nothing passes by absence.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from livi_index.models import DEFAULT_MODEL, Bundle, find_model, usable_cpus

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "usearch",
    "duckdb",
    "soundfile",
    "av",
    "soxr",
    "torch",
    "transformers",
    "faiss-cpu",
    "hnswlib",
)

Row = Sequence[str | float | int | None]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what all benchmarks share: --data, --model, --out."""
    parser = argparse.ArgumentParser(description=description)
    place = os.environ.get("LIVI_DATA")
    parser.add_argument("--data", type=Path, default=Path(place) if place else None)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of a bundle")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    return parser


def data_folder(options: argparse.Namespace, *parts: str) -> Path:
    """The development data, in which ``parts`` exist; leaves the program where they do not."""
    data: Path | None = options.data
    if data is not None and all((data / part).is_dir() for part in parts):
        return data
    print(f"skipped: needs {', '.join(parts)} of the development data; give --data or LIVI_DATA")
    raise SystemExit(1 if os.environ.get("CI") == "true" else 0)


def bundle_of(options: argparse.Namespace) -> Bundle:
    return find_model(options.model)


def write_result(
    name: str,
    figures: Mapping[str, Any],
    out: Path = RESULTS,
    argv: Sequence[str] | None = None,
    program: str = "",
) -> Path:
    """Write the figures of one benchmark, with where they come from.

    ``program`` is the module that measured, where the result is not named after it.
    """
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "name": name,
        "command": _command(program or name, sys.argv[1:] if argv is None else argv),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "figures": figures,
    }
    path = out / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def read_result(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What ``write_result`` wrote, None where it was not measured yet."""
    path = folder / f"{name}.json"
    return json.loads(path.read_bytes()) if path.is_file() else None


def model_facts(bundle: Bundle) -> dict[str, str]:
    """What a result says of the model that it measured."""
    card = bundle.card
    return {"name": card.name, "version": card.version, "model_id": card.model_id}


def machine() -> dict[str, Any]:
    """Processor, load and versions; the load says how far figures of time can be trusted."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cpus(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in LIBRARIES if (v := _version(name))},
    }


def commit() -> str:
    """The commit of this checkout, "+" where the product or a benchmark differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    changed = [*git, "status", "--porcelain", "--", "livi_index", "benchmarks/*.py"]
    differs = subprocess.run(changed, capture_output=True, text=True).stdout.strip()
    return head.stdout.strip() + ("+" if differs else "")


def print_table(rows: Iterable[Row]) -> None:
    """Rows of cells, aligned; numbers with four significant digits."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _command(name: str, argv: Sequence[str]) -> str:
    shown = [Path(word).name if os.path.isabs(word) else word for word in argv]
    return " ".join(["python", "-m", f"benchmarks.{name}", *shown])


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
