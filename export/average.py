"""The mean of the weights of readers that went different ways from the same beginning.

    python -m export.average MEAN.pt ONE.pt OTHER.pt [--shares 0.4 0.6]

It reads better than each of them, above all what is unlike the training ("model soups", Wortsman
et al. 2022). Options and optimiser are those of the last, and so training can go on from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from livi_index.errors import BadInput, LiviError


def average(checkpoints: Sequence[Path], shares: Sequence[float], out: Path) -> None:
    """Write the mean of checkpoints of ``export.train``, weighted by ``shares``, to ``out``."""
    if len(shares) != len(checkpoints) or not sum(shares) > 0 or min(shares) < 0:
        raise BadInput(f"{len(checkpoints)} checkpoints need as many shares, not {list(shares)}")
    states = [torch.load(path, weights_only=True) for path in checkpoints]
    if any(state["reader_options"] != states[0]["reader_options"] for state in states):
        raise BadInput(
            f"readers of different sizes have no mean: {', '.join(map(str, checkpoints))}"
        )
    mean = {
        name: sum(
            share / sum(shares) * state["reader"][name]
            for share, state in zip(shares, states, strict=True)
        )
        for name in states[-1]["reader"]
    }
    torch.save({**states[-1], "reader": mean}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Average the weights of readers.")
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--shares", type=float, nargs="+", help="of each; equal unless told")
    arguments = parser.parse_args()
    shares = arguments.shares or [1.0] * len(arguments.checkpoints)
    try:
        average(arguments.checkpoints, shares, arguments.out)
    except (LiviError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
