"""The order of imports is this literal; anything else fails. So do files and functions too long."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module imports only from lines above its own; modules of one line do not import each other.
LAYERS = (
    ("errors",),
    (
        "text",
        "containers",
        "transcripts",
        "answers",
        "guard",
        "settings",
        "calibration",
        "downloads",
    ),
    ("records", "schema"),
    ("database",),
    ("audio", "scan", "metrics", "models", "store", "vectors", "pipeline"),
    ("shards", "profiles"),
    ("decode", "vocals", "encoders", "generations", "install", "alignment", "familiarity"),
    ("publishing", "ranking", "spelling", "keeping", "opened"),
    ("words", "fusion", "hearing"),
    ("library", "planning"),
    ("reading", "scope", "moving"),
    ("analysis",),
    ("ledger",),
    ("build",),
    ("scale", "serve", "status", "evaluation"),
    ("forecast", "restoring", "tables", "groups", "schedule", "doctor"),
    ("check",),
    ("display",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
# Modules that may import less than all lines above them.
NARROW = {
    "containers": {"errors"},
    "guard": set(),
    "text": set(),
    "answers": set(),
    "transcripts": set(),
    "records": {"transcripts", "answers"},
    "schema": set(),
    "settings": {"errors"},
    "groups": {
        "errors",
        "records",
        "database",
        "scan",
        "vectors",
        "generations",
        "ranking",
        "library",
    },
    "schedule": {"errors", "status"},
    "restoring": {"records", "store", "vectors", "generations", "planning"},
    "audio": {"errors", "containers"},
    "scan": {"errors", "containers", "records"},
    "metrics": {"errors"},
    "calibration": set(),
    "models": {"errors", "calibration"},
    "store": {"errors", "transcripts", "records", "schema", "database"},
    "vectors": {"errors", "records"},
    "shards": {"errors", "vectors"},
    "pipeline": set(),
    "decode": {"errors", "audio"},
    "vocals": {"errors", "transcripts", "audio", "models"},
    "encoders": {"errors", "audio", "models"},
    "generations": {
        "errors",
        "transcripts",
        "records",
        "database",
        "store",
        "vectors",
        "shards",
    },
    "downloads": {"errors"},
    "install": {"errors", "models", "downloads"},
    "publishing": {
        "errors",
        "answers",
        "transcripts",
        "records",
        "database",
        "store",
        "vectors",
        "shards",
        "generations",
    },
    "profiles": {"errors", "calibration", "models", "transcripts"},
    "alignment": {"errors", "models", "transcripts", "profiles"},
    "familiarity": {"errors", "calibration", "models", "transcripts"},
    "ranking": {"errors", "vectors", "encoders", "generations", "transcripts", "alignment"},
    "fusion": {"alignment", "models", "generations", "ranking"},
    "hearing": {
        "errors",
        "transcripts",
        "answers",
        "audio",
        "models",
        "vocals",
        "ranking",
        "opened",
    },
    "opened": {"models", "vocals", "encoders"},
    "keeping": {"errors", "database", "vectors", "models", "generations"},
    "spelling": {"errors", "transcripts", "models", "encoders", "alignment", "profiles"},
    "words": {"errors", "transcripts", "vectors", "encoders", "generations", "alignment"},
    "planning": {"errors", "records", "guard", "audio", "scan", "store", "decode"},
    "reading": {"audio", "decode", "scan", "pipeline", "planning"},
    "analysis": {
        "records",
        "models",
        "vocals",
        "encoders",
        "opened",
        "pipeline",
        "planning",
        "reading",
    },
    "ledger": {"records", "decode", "planning", "reading", "analysis"},
    "serve": {"errors", "models", "encoders", "vocals", "generations", "ranking", "library"},
    "__main__": {"cli"},
}
# The command line imports these inside its commands: they bring packages that few users have.
LATE = {"cli": {"scale", "serve"}, "commands": {"scale", "serve"}}
# The package's root names its version, and the few public names of the toolkit.
ROOT_MAY_IMPORT = {"errors", "library", "build"}

WORKSHOP = ("catalogs", "export", "benchmarks")
WORKSHOP_MAY_IMPORT = {
    "catalogs": {"errors", "audio", "scan"},
    "export": {
        "errors",
        "transcripts",
        "audio",
        "vocals",
        "encoders",
        "hearing",
        "models",
        "metrics",
        "alignment",
        "profiles",
        "spelling",
        "calibration",
        "familiarity",
        "library",
    },
    "benchmarks": {module for layer in LAYERS for module in layer},
}
NEIGHBOURS = {"catalogs": set(), "export": {"catalogs"}, "benchmarks": {"catalogs", "export"}}
# Other systems' networks: torch at their top, and imported only inside what runs them.
TORCH_BASELINES = {"layers", "weights", "cqtnet", "resnet", "conformer", "whisper"}
# What the product's users do not install.
NEVER_IN_THE_PRODUCT = {"torch", "onnx", "onnxscript", "scipy", "pyworld", *WORKSHOP}

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80

PRODUCT = sorted((ROOT / "livi_index").rglob("*.py"))
SHOP = sorted(path for folder in WORKSHOP for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path, *, late: bool) -> set[str]:
    """Dotted names that a file imports: at its top, or anywhere where ``late`` ones count too."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in inside and not late:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def siblings(names: set[str], package: str = "livi_index") -> set[str]:
    """Modules of a package among dotted names; the package's version is nobody's module."""
    parts = {tuple(name.split(".")) for name in names}
    return {p[1] for p in parts if p[0] == package and len(p) > 1} - {"__version__"}


def allowed(module: str) -> set[str]:
    line = next(i for i, layer in enumerate(LAYERS) if module in layer)
    above = {name for layer in LAYERS[:line] for name in layer}
    return above & NARROW.get(module, above)


def test_the_lists_name_modules_once_and_fit_each_other() -> None:
    modules = [module for layer in LAYERS for module in layer]
    assert len(modules) == len(set(modules))
    assert {*NARROW, *LATE} <= set(modules)
    for module, names in NARROW.items():
        assert names <= allowed(module), module


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_modules_import_only_from_above(path: Path) -> None:
    used = imported(path, late=True)
    assert not {name.split(".")[0] for name in used} & NEVER_IN_THE_PRODUCT
    if path == ROOT / "livi_index" / "__init__.py":
        assert siblings(used) <= ROOT_MAY_IMPORT
        return
    module = path.relative_to(ROOT / "livi_index").parts[0].removesuffix(".py")
    assert any(module in layer for layer in LAYERS), f"{module} has no place in LAYERS"
    own = {"commands"} & {module}  # commands share their options
    assert siblings(used) - own <= allowed(module)
    assert not siblings(imported(path, late=False)) & LATE.get(module, set())


def test_the_package_is_flat_but_for_its_commands() -> None:
    folders = {path.parent.relative_to(ROOT) for path in PRODUCT}
    assert folders == {Path("livi_index"), Path("livi_index/commands")}


@pytest.mark.parametrize("path", SHOP, ids=name_of)
def test_the_workshop_imports_only_what_it_may(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    used = imported(path, late=True)
    assert siblings(used) <= WORKSHOP_MAY_IMPORT[folder]
    neighbours = {name.split(".")[0] for name in used} & set(WORKSHOP) - {folder}
    assert neighbours <= NEIGHBOURS[folder]
    if folder == "benchmarks":
        early = imported(path, late=False)
        networks = path.parent.name == "baselines" and path.stem in TORCH_BASELINES
        dotted = {f"benchmarks.baselines.{name}" for name in TORCH_BASELINES}
        heavy = {name for name in early if name.startswith(("export", "torch", *dotted))}
        assert networks or not heavy, "inside the functions that need it"


@pytest.mark.parametrize("path", PRODUCT + SHOP + TESTS, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name
