"""The README tells the truth: its tree, its commands, its Python, its table of figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.table import BEGIN, END, table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\w*\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted({line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=ROOT)


def tree() -> list[Path]:
    """Paths of the tree, from its indentation."""
    block = next(b for b in BLOCKS if b.startswith("livi_index/ "))
    paths: list[Path] = []
    for line in block.splitlines():
        name = Path(line.split()[0])
        paths.append(paths_parent(paths) / name if line.startswith(" ") else name)
    return paths


def paths_parent(paths: list[Path]) -> Path:
    return next(p for p in reversed(paths) if len(p.parts) == 1)


def test_everything_in_the_tree_is_there() -> None:
    assert [str(p) for p in tree() if not (ROOT / p).exists()] == []


@pytest.mark.parametrize("folder", ["livi_index", "catalogs", "export"])
def test_every_module_is_in_the_tree(folder: str) -> None:
    modules = {p.name for p in (ROOT / folder).glob("*.py") if not p.name.startswith("__")}
    listed = {p.name for p in tree() if p.parts[0] == folder and p.suffix == ".py"}
    assert modules == listed


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("livi-index ")])
def test_commands_and_their_options_exist(line: str) -> None:
    words = line.split()[1:]
    verbs = [w for w in words if re.fullmatch(r"[a-z]+", w)][: 2 if words[0] == "models" else 1]
    shown = run(sys.executable, "-m", "livi_index", *verbs, "--help")
    assert shown.returncode == 0
    for option in (w for w in words if w.startswith("--")):
        assert option in shown.stdout


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(line: str) -> None:
    assert run(*line.split(), "--dry-run").returncode == 0


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("python -m ")])
def test_python_modules_exist(line: str) -> None:
    name = line.split()[2].replace(".", "/")
    assert (ROOT / f"{name}.py").exists() or (ROOT / name / "__main__.py").exists()


def test_the_figures_are_those_of_the_result_files() -> None:
    between = README.split(BEGIN)[1].split(END)[0]
    assert between.strip() == table().strip()
