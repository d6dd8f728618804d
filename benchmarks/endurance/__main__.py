"""What a library survives: ``python -m benchmarks.endurance NAME``

One name for each promise; ``all`` is every one of them. Each writes its own result file and ends
with 1 if anything that was promised did not hold. After ``--minutes`` no further trial begins, and
the result says how many there were. Some need root or the program ``strace``, and say so.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.endurance import (
    audio,
    damage,
    decoders,
    disk_full,
    io_errors,
    kills,
    network,
    oddities,
    readers,
)
from benchmarks.results import RESULTS, write_result

# Name: what measures, and how many trials.
TRIALS: dict[str, tuple[Callable[[Path, int, float], dict[str, Any]], int]] = {
    "kills": (kills.measure, 200),
    "audio": (audio.measure, 2000),
    "decoders": (decoders.measure, 20),
    "disk-full": (disk_full.measure, 200),
    "damage": (damage.measure, 10),
    "readers": (readers.measure, 20),
    "io-errors": (io_errors.measure, 0),
    "filesystems": (oddities.filesystems, 1),
    "network": (network.measure, 1),
    "models": (oddities.models, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*TRIALS, "all"])
    parser.add_argument("--count", type=int, help="trials, where another number is wanted")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for each name")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    options = parser.parse_args()
    broken = False
    for name in TRIALS if options.name == "all" else [options.name]:
        measure, count = TRIALS[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="endurance-") as place:
            n = count if options.count is None else options.count
            figures = measure(Path(place).resolve(), n, began + 60 * options.minutes)
        figures["seconds"] = round(time.monotonic() - began)
        write_result(f"endurance-{name}", figures, options.out, program="endurance")
        print(json.dumps(figures, indent=1))
        broken |= bool(figures["violations"])
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
