"""A build that says how far it is, to be killed: ``python -m benchmarks.endurance.victim``

It commits every few songs and publishes after each commit, so that there is always something to
interrupt. A line ``done N`` means that N files are through, ``kept N`` that they are on the disk.
"""

from __future__ import annotations

import sys
from pathlib import Path

from livi_index.build import BuildOptions, Progress, build

BATCH = 3


def tell(now: Progress) -> None:
    if now.stage in ("tracks", "publish"):
        print("done" if now.stage == "tracks" else "kept", now.done, flush=True)


def main() -> None:
    music, library, model = map(Path, sys.argv[1:])
    options = BuildOptions(
        model=str(model), jobs=1, threads=1, commit_tracks=BATCH, commit_s=1e9, publish_s=0.0
    )
    build([music], library, options, progress=tell)


if __name__ == "__main__":
    main()
