"""Pictures of what was measured, and of nothing else; drawn of real result files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibrate, results

pytest.importorskip("matplotlib")

from benchmarks.plots import drawn


def calibration() -> dict[str, object]:
    """A curve of made scores, as ``benchmarks.calibrate`` tells it."""
    rng = np.random.default_rng(0)
    judged = calibrate.Judged()
    for number in range(40):
        right = np.arange(20) < 2
        scores = rng.normal(6.0 * right, 1.5)[:, None]
        judged.add(scores, right, f"work-{number}")
    return calibrate.fitted(judged)


def index(recall: float) -> dict[str, object]:
    effort = {"recall10": recall, "cpu_ms": 0.9}
    return {"efforts": {"64": effort, "128": effort | {"recall10": 1.0}}}


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    assert not list(drawn(tmp_path))
    for path in results.RESULTS.glob("*.json"):
        if path.name.startswith("run-demo") or path.name == "experiments-lambda.json":
            shutil.copy(path, tmp_path)
    looks = {"1000": {"systems": {"usearch-f16": index(0.9), "exact": index(1.0)}}}
    scale = {"count": 1000, "dim": 8, "looks": looks}
    told = calibration()
    counts = told["distribution"]
    assert isinstance(counts, dict)
    assert sum(counts["versions"]) == 80 and sum(counts["others"]) == 720
    for name, figures in (("scale-1000", scale), ("calibration", {"lyrics": told})):
        results.write_result(name, figures, tmp_path, ["x"])
    pictures = dict(drawn(tmp_path))
    assert list(pictures) == ["accuracy-demo", "indexes-1000", "lambda", "scores-lyrics"]
    for name, figure in pictures.items():
        path = tmp_path / f"{name}.png"
        figure.savefig(path)
        assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 10_000
